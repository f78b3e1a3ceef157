"""``python -m local_stack smoke``: everything for a while, headless, then figures and a verdict."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import Consumer, TopicPartition

from config import Settings
from db.connection import Database
from db.versions import apply_schema
from local_stack.demo import dashboard_answers, services
from local_stack.infrastructure import LOCAL_DIRECTORY, Infrastructure, Ports
from local_stack.interrupts import Interrupts
from local_stack.processes import free_port, open_log, tail
from local_stack.supervisor import Supervisor

# Everything is up, and the first reading stored, well within this on two busy cores.
START_DEADLINE_SECONDS = 120.0
# At the demo's rate the last reading is predicted 2 s after it was sent.
DRAIN_DEADLINE_SECONDS = 60.0
PROGRESS_SECONDS = 10.0
REQUEST_TIMEOUT_SECONDS = 10.0

COUNTS = """
SELECT (SELECT count(*) FROM sensor_readings),
       (SELECT count(*) FROM sensor_aggregates),
       (SELECT count(*) FROM ml_anomaly_predictions),
       (SELECT coalesce(sum(kept + counted_only), 0)::bigint FROM dead_letter_counts),
       (SELECT coalesce(sum(count_readings), 0)::bigint FROM sensor_aggregates),
       (SELECT count(*) FROM late_readings),
       (SELECT coalesce(sum((details ->> 'sent')::bigint), 0)::bigint
        FROM service_status WHERE service = 'producer')
"""
# What is measured, by table: milliseconds of each row.
LATENCIES = {
    "sensor_readings": (
        "sent -> stored",
        "SELECT created_at - timestamp AS latency FROM sensor_readings",
    ),
    "sensor_aggregates": (
        "first reading sent -> window's row",
        "SELECT a.created_at - min(r.timestamp) AS latency"
        " FROM sensor_aggregates a JOIN sensor_readings r USING (location, sensor_type)"
        " WHERE r.timestamp >= a.window_start AND r.timestamp < a.window_end GROUP BY a.id",
    ),
    "ml_anomaly_predictions": (
        "stored -> predicted",
        "SELECT p.created_at - r.created_at AS latency"
        " FROM ml_anomaly_predictions p JOIN sensor_readings r USING (source_id, log_offset)",
    ),
}
WRITERS = {
    "sensor_readings": "consumer",
    "sensor_aggregates": "stream_processor",
    "ml_anomaly_predictions": "ml_detector",
}


@dataclass(frozen=True)
class Counts:
    """Rows at one moment; the fields in the order of ``COUNTS``."""

    readings: int
    aggregates: int
    predictions: int
    rejected: int
    in_windows: int
    late: int
    sent: int


@dataclass(frozen=True)
class TableFigures:
    """One line of the table: rows, rows per second, percentiles of a latency in milliseconds."""

    service: str
    table: str
    rows: int
    rows_per_s: float
    latency: str
    p50_ms: int | None
    p99_ms: int | None


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    passed: bool
    text: str


def run_smoke(settings: Settings, duration_s: float, as_json: bool, stop: Interrupts) -> int:
    """Run the whole system in a temporary directory on free ports; return the exit status.

    Raises
    ------
    UserError
        When the wanted broker cannot be had.
    StartFailed
        When Kafka or PostgreSQL does not come up.
    """
    log_path = open_log(LOCAL_DIRECTORY / "logs" / "smoke.log")
    with (
        tempfile.TemporaryDirectory(prefix="iot-smoke-") as temporary,
        log_path.open("w", encoding="utf-8") as log,
    ):
        Path(temporary).chmod(0o755)  # PostgreSQL's own user has to go in, when we are root
        run = SmokeRun(settings, Path(temporary), duration_s, log, stop)
        lines, checks = run.run()
    if as_json:
        print(
            json.dumps({"lines": [asdict(e) for e in lines], "checks": [asdict(c) for c in checks]})
        )
    else:
        print("\n".join([*table(lines), *verdict(checks)]))
    passed = bool(checks) and all(check.passed for check in checks)
    if not passed and not stop.requested:
        _say(f"the services' log is {log_path}; its end:{tail(log_path)}")
    return 0 if passed else 1


class SmokeRun:
    """One run of the whole system."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        duration_s: float,
        log: TextIO,
        stop: Interrupts,
    ) -> None:
        self.settings = settings
        self.duration_s = duration_s
        self.stop = stop
        self.dashboard_port = free_port()
        # Nothing the user has set: what is counted must be this run's alone.
        self.infrastructure = Infrastructure(settings, {}, directory, Ports(0, 0), _say)
        self.supervisor = Supervisor(services(self.dashboard_port), log)

    def run(self) -> tuple[list[TableFigures], list[Check]]:
        """Run it all; return figures and checks, no checks if it was cut short."""
        with self.infrastructure.started(self.stop), self.supervisor:
            with Database(self.infrastructure.database_url, "smoke") as self.database:
                apply_schema(self.database)
                environment = {**os.environ, **self.infrastructure.service_environment}
                self.supervisor.start({**environment, "METRICS_PORT": "0"})
                return self._measure()

    def _measure(self) -> tuple[list[TableFigures], list[Check]]:
        _say("waiting for the first reading and the dashboard")
        answered = self._wait(
            lambda: self._counts().readings > 0 and dashboard_answers(self.dashboard_port),
            START_DEADLINE_SECONDS,
        )
        self._let_it_run()
        page = dashboard_page(self.dashboard_port)
        _say("stopping the producer, waiting for the others to catch up")
        self.supervisor.stop("producer")
        self._wait(self._has_caught_up, DRAIN_DEADLINE_SECONDS)
        counts, end_offset = self._counts(), self._end_offset()
        lines = self._lines(counts)
        deaths = self.supervisor.deaths
        self.supervisor.stop()
        if self.stop.requested:
            return [], []
        return lines, [
            *checks_of(counts, end_offset),
            Check(answered, "the dashboard's server says it is well"),
            Check("<title>" in page, "the dashboard's page is served"),
            Check(deaths == 0, f"no service ended by itself ({deaths} did)"),
            Check(self.supervisor.exit_status == 0, "all services stopped in order"),
        ]

    def _wait(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Keep the services going until the condition holds; return whether it came to that."""
        end_s = time.monotonic() + deadline_s
        while not (holds := condition()) and self._may_go_on() and time.monotonic() < end_s:
            self.supervisor.pump(0.3)
        return holds

    def _may_go_on(self) -> bool:
        return not (self.stop.requested or self.supervisor.has_given_up)

    def _let_it_run(self) -> None:
        started_s = time.monotonic()
        while self._may_go_on() and (left_s := started_s + self.duration_s - time.monotonic()) > 0:
            self.supervisor.pump(min(left_s, PROGRESS_SECONDS))
            counts = self._counts()
            _say(
                f"{time.monotonic() - started_s:4.0f} s: {counts.readings} readings,"
                f" {counts.aggregates} aggregates, {counts.predictions} predictions"
            )

    def _has_caught_up(self) -> bool:
        counts = self._counts()
        return (
            counts.readings + counts.rejected == self._end_offset()
            and counts.predictions == counts.readings
            and counts.in_windows + counts.late == counts.readings
        )

    def _counts(self) -> Counts:
        return Counts(*self._query(COUNTS))

    def _query(self, statement: str) -> tuple[Any, ...]:
        with self.database.transaction() as tx:
            tx.execute(statement)
            row: tuple[Any, ...] = tx.fetchone()
            return row

    def _end_offset(self) -> int:
        """Return how many messages the topic has: the sum over its partitions."""
        servers = self.infrastructure.kafka_bootstrap_servers
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "smoke", "log_level": 0})
        try:
            topic = self.settings.kafka.topic
            metadata = consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS)
            ends = [
                consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_SECONDS
                )[1]
                for partition in metadata.topics[topic].partitions
            ]
        finally:
            consumer.close()
        return sum(ends)

    def _lines(self, counts: Counts) -> list[TableFigures]:
        rows = (counts.readings, counts.aggregates, counts.predictions)
        lines = []
        for (table_name, (what, latencies)), count in zip(LATENCIES.items(), rows, strict=True):
            p50_ms, p99_ms = self._query(
                # S608: only constants of this module are put together.
                f"WITH latencies AS ({latencies})"  # noqa: S608
                " SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms),"
                " percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) FROM"
                " (SELECT round(extract(epoch FROM latency) * 1000)::int AS ms"
                " FROM latencies) AS in_ms"
            )
            rate = round(count / self.duration_s, 1)
            lines.append(
                TableFigures(WRITERS[table_name], table_name, count, rate, what, p50_ms, p99_ms)
            )
        return lines


def checks_of(counts: Counts, end_offset: int) -> list[Check]:
    """Return what must hold of the counts once everything has been processed."""
    stored = counts.readings + counts.rejected
    return [
        Check(
            min(counts.readings, counts.aggregates, counts.predictions) > 0,
            "all three tables grew",
        ),
        Check(
            end_offset == counts.sent,
            f"{counts.sent} sent by the producer = {end_offset} in the topic",
        ),
        Check(
            end_offset == stored,
            f"{end_offset} in the topic = {counts.readings} stored + {counts.rejected} rejected",
        ),
        Check(
            counts.in_windows + counts.late == counts.readings,
            f"{counts.readings} stored = {counts.in_windows} in windows + {counts.late} late",
        ),
        Check(
            counts.predictions == counts.readings,
            f"{counts.readings} stored = {counts.predictions} predicted",
        ),
    ]


def table(lines: list[TableFigures]) -> list[str]:
    """Return the figures as lines of text."""
    layout = "{:<17} {:<23} {:>8} {:>8}   {:<35} {:>7} {:>7}"
    head = layout.format("service", "table", "rows", "rows/s", "latency", "p50 ms", "p99 ms")
    return [
        head,
        "-" * len(head),
        *(layout.format(*(("-" if v is None else v) for v in asdict(e).values())) for e in lines),
    ]


def verdict(checks: list[Check]) -> list[str]:
    """Return the checks as lines of text, the verdict last."""
    lines = [f"{'ok    ' if check.passed else 'FAILED'} {check.text}" for check in checks]
    failed = sum(not check.passed for check in checks)
    if not checks:
        return ["cut short: no verdict"]
    return ["", *lines, "", f"{failed} of {len(checks)} checks failed" if failed else "all is well"]


def dashboard_page(port: int) -> str:
    """Return the page that a browser gets first, or nothing."""
    with (
        suppress(OSError),
        urllib.request.urlopen(
            f"http://127.0.0.1:{port}/", timeout=REQUEST_TIMEOUT_SECONDS
        ) as answer,
    ):
        return str(answer.read().decode("utf-8", "replace"))
    return ""


def _say(line: str) -> None:
    # Progress; the figures alone go to standard output.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
