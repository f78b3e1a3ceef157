"""Aggregate readings in tumbling event-time windows per location and sensor type, exactly once.

Reads    the Kafka topic
Writes   sensor_aggregates (early, refined, final), late_readings, sensor_correlations; its state is
         in window_partials
Promises every reading is counted in its window, or kept as late, exactly once, through any crash
         and with any number of processors: state, rows and offsets move in one transaction
         (service/stream.py)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.reader import PartitionBatch, TopicReader
from config import Settings, load_settings_or_exit
from db import aggregates, windows
from db.connection import Cursor, Database
from db.offsets import Position
from pipeline.decoding import Readings, decode_batch
from pipeline.windows import PartitionWindows, WindowKey, WindowRules
from service.cli import service_parser
from service.correlating import BackgroundCorrelator
from service.heartbeat import BackgroundReporter
from service.lifecycle import Heartbeat, StopSignal, instance_name, run_service
from service.logs import setup_logging
from service.metrics import serve_metrics
from service.stream import Stream, run_stream

GROUP = "stream_processor"
# One transaction. A window's row is to be seen within 2 s of its first reading.
MAX_BATCH_MESSAGES = 20_000
BATCH_TIMEOUT_SECONDS = 0.5
# How often idle partitions move on and windows are closed.
TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Prepared:
    """The messages of one partition, decoded."""

    batch: PartitionBatch
    decoded: Readings


class AggregateWindows:
    """Windows per partition in memory, exactly as they stand in the database."""

    def __init__(self, rules: WindowRules) -> None:
        self.rules = rules
        self.windows: dict[int, PartitionWindows] = {}
        self.next_offsets: dict[int, int] = {}
        # Monotonic time of the last message, or idle step, of each partition at its end.
        self.idle_since_s: dict[int, float] = {}
        self.final: set[WindowKey] = set()
        self.ticked_s = 0.0
        self.has_settled = False
        self.watermark_us: int | None = None
        self.late = 0

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Load the windows of these partitions."""
        self.reader = reader
        self.sources = sources
        for p, position in at.items():
            partials = windows.load(tx, sources[p])
            self.windows[p] = PartitionWindows(self.rules, position.watermark_us, partials)
            self.next_offsets[p] = position.next_offset
            self.idle_since_s.pop(p, None)

    def retain(self, partitions: set[int]) -> None:
        """Forget the windows of partitions that others have now."""
        for state in (self.windows, self.next_offsets, self.idle_since_s):
            for p in state.keys() - partitions:
                del state[p]

    def is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        """Return whether messages have come, or time has passed."""
        has_ticked = time.monotonic() - self.ticked_s > TICK_SECONDS
        return bool(batches) or (has_ticked and bool(self.windows))

    def prepare(self, batch: PartitionBatch) -> Prepared:
        """Decode the messages of one partition; what is no reading is the consumer's business."""
        return Prepared(batch, decode_batch(batch.payloads, batch.timestamp_ms)[0])

    def store(self, tx: Cursor, work: Sequence[Prepared]) -> dict[int, Position]:
        """Aggregate one poll."""
        now_s = time.monotonic()
        batches = [each.batch for each in work]
        changed: set[WindowKey] = set()
        for each in work:
            changed |= self._add(tx, each)
        for batch in batches:
            self.next_offsets[batch.partition] = batch.next_offset
            self.idle_since_s.pop(batch.partition, None)
            if batch.is_at_end:
                self.idle_since_s[batch.partition] = now_s
        moved = {batch.partition for batch in batches}
        self.has_settled = False
        try:
            aggregates.refine(tx, changed, self.rules.window_us)
        except aggregates.WindowFinal as problem:
            self.final |= problem.keys  # on the next try their readings are late
            raise
        if now_s - self.ticked_s > TICK_SECONDS:
            marked = self._close_windows(tx)
            self.has_settled = marked == 0 and not any(len(batch) for batch in batches)
            moved |= self._advance_idle(now_s)
            self.ticked_s = now_s
        return {p: Position(self.next_offsets[p], self.windows[p].watermark_us) for p in moved}

    def _add(self, tx: Cursor, prepared: Prepared) -> set[WindowKey]:
        """Add the readings of one partition."""
        batch, decoded = prepared.batch, prepared.decoded
        source_id = self.sources[batch.partition]
        changed, late = self.windows[batch.partition].add(decoded, self.final)
        windows.save(tx, source_id, changed)
        windows.insert_late(tx, source_id, batch.offsets, decoded, late, self.rules.window_us)
        self.late += len(late.rows)
        return set(changed)

    def _advance_idle(self, now_s: float) -> set[int]:
        """Move the watermarks of partitions at their end on by the time that has passed."""
        idle = set(self.idle_since_s)
        ends = self.reader.end_offsets(idle) if idle else {}
        for p in idle:
            if ends[p] <= self.next_offsets[p]:  # else something has just come
                elapsed_s = now_s - self.idle_since_s[p]
                self.windows[p].advance_idle(int(elapsed_s * 1_000_000))
            self.idle_since_s[p] = now_s
        return idle

    def _close_windows(self, tx: Cursor) -> int:
        """Close and finalize what all partitions' watermarks, as stored, have passed; count it."""
        self.watermark_us = aggregates.watermark(tx, GROUP, list(self.sources.values()))
        if self.watermark_us is None:
            return 0
        lateness_us = self.rules.allowed_lateness_us
        marked = aggregates.close_windows(tx, self.watermark_us, lateness_us)
        final_until_us = aggregates.final_until(tx, self.watermark_us - lateness_us)
        for p, state in self.windows.items():
            windows.delete(tx, self.sources[p], state.forget(final_until_us))
        return marked

    def is_settled(self) -> bool:
        """Return whether the windows have been closed that the last readings allow to close."""
        return self.has_settled

    def gauges(self) -> dict[str, Any]:
        """Return late readings since the start, windows held, and the watermark's age."""
        gauges = {"late": self.late, "open_windows": sum(len(w) for w in self.windows.values())}
        if self.watermark_us is not None:
            gauges["watermark_age_s"] = round(time.time() - self.watermark_us / 1e6)
        return gauges


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    parser.add_argument(
        "--once", action="store_true", help="catch up to the end of the topic, then exit"
    )
    return parser.parse_args()


def window_rules(settings: Settings) -> WindowRules:
    """Return the lengths in microseconds."""
    return WindowRules(
        settings.window_seconds * 1_000_000,
        settings.allowed_lateness_seconds * 1_000_000,
        settings.out_of_orderness_seconds * 1_000_000,
        settings.baseline_windows,
    )


def main() -> None:
    """Run until stopped."""
    args = parse_args()
    settings = load_settings_or_exit()
    setup_logging(GROUP, settings.log_level, settings.log_format)
    stop = StopSignal().install()
    stream = Stream(
        settings.kafka_client,
        settings.kafka_topic,
        settings.kafka_partitions,
        GROUP,
        settings.kafka_group_protocol,
        settings.kafka_session_timeout_seconds,
        MAX_BATCH_MESSAGES,
        BATCH_TIMEOUT_SECONDS,
        args.once,
    )
    handler = AggregateWindows(window_rules(settings))
    database = Database(settings.database_url, GROUP)
    reporter = BackgroundReporter(settings.database_url, GROUP, instance_name(), database)
    correlator = BackgroundCorrelator(
        settings.database_url, settings.correlation_windows, args.once
    )
    with database, reporter, correlator:
        beat = Heartbeat(serve_metrics(GROUP, reporter, settings.metrics_port))
        run_stream(stream, handler, database, beat, stop)
        beat.beat("stopped", force=True)


if __name__ == "__main__":
    run_service(main)
