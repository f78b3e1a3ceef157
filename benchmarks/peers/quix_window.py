"""Quix Streams: one-minute tumbling windows by event time, count, sum, minimum and maximum."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from datetime import datetime, timedelta

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Min, Sum


def main(topic: str, count: int) -> None:
    """Aggregate the topic up to its end; ``count`` is what it holds."""
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            consumer_group=f"quix_{uuid.uuid4()}",  # nothing committed by an earlier run
            auto_offset_reset="earliest",
            commit_every=20_000,
            commit_interval=1.0,
            state_dir=state,
            loglevel="WARNING",
        )
        source = app.topic(
            topic,
            value_deserializer="json",
            timestamp_extractor=lambda value, headers, time_ms, kind: int(
                datetime.fromisoformat(value["timestamp"]).timestamp() * 1000
            ),
        )
        frame = app.dataframe(source)
        window = frame.tumbling_window(timedelta(minutes=1), grace_ms=300_000)
        window.agg(count=Count(), total=Sum("value"), low=Min("value"), high=Max("value")).final()
        app.run(timeout=3.0)  # ends after 3 s without a message; the short run has them too


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
