"""Bytewax: one-minute tumbling windows by event time, count, sum, minimum and maximum."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main


def main(topic: str, count: int) -> None:
    """Aggregate the topic up to its end; ``count`` is what it holds."""
    source = KafkaSource(
        [os.environ["KAFKA_BOOTSTRAP_SERVERS"]], [topic], tail=False, batch_size=10_000
    )
    flow = Dataflow("peer")
    read = op.input("kafka", flow, source)
    readings = op.map("parse", read, lambda message: orjson.loads(message.value))
    keyed = op.key_on("key", readings, lambda r: f"{r['location']}/{r['sensor_type']}")
    clock = win.EventClock(lambda r: datetime.fromisoformat(r["timestamp"]), timedelta(minutes=5))
    windower = win.TumblingWindower(timedelta(minutes=1), datetime(2024, 1, 1, tzinfo=UTC))

    def add(sums: list[float], reading: dict[str, float]) -> list[float]:
        value = reading["value"]
        return [sums[0] + 1, sums[1] + value, min(sums[2], value), max(sums[3], value)]

    def merge(a: list[float], b: list[float]) -> list[float]:
        return [a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])]

    begin = lambda: [0, 0.0, float("inf"), float("-inf")]  # noqa: E731
    windows = win.fold_window("window", keyed, clock, windower, begin, add, merge)
    op.output("out", windows.down, TestingSink([]))
    run_main(flow)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
