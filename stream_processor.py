"""Aggregate readings in tumbling event-time windows per location and sensor type, exactly once.

Reads    the Kafka topic
Writes   sensor_aggregates (early, refined, final), late_readings, sensor_correlations; its state is
         in window_partials
Promises every reading is counted in its window, or kept as late, exactly once, through any crash
         and with any number of processors: state, rows and offsets move in one transaction
         (service/stream.py)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker.reader import PartitionBatch, TopicReader
from config import load_settings_or_exit
from db import aggregates, kept_settings, partials
from db.connection import Cursor
from db.offsets import Position
from pipeline.decoding import Readings, decode_batch
from pipeline.settings import WindowRules
from pipeline.windows import PartitionWindows, WindowKey
from service.cli import service_parser
from service.correlating import BackgroundCorrelator
from service.runner import run_service, running
from service.stream import Intake, run_stream

GROUP = "stream_processor"
# One transaction. A window's row is to be seen within 2 s of its first reading.
MAX_BATCH_MESSAGES = 20_000
BATCH_TIMEOUT_SECONDS = 0.5
# How often idle partitions move on and windows are closed.
TICK_SECONDS = 1.0


class DecodedBatch(NamedTuple):
    """The messages of one partition, decoded."""

    batch: PartitionBatch
    decoded: Readings


@dataclass
class Changes:
    """What one transaction writes.

    Attributes
    ----------
    saved, forgotten : list
        Pages of window_partials to write, and to drop.
    late : bytes
        Rows of late_readings.
    rows : list
        Pages of sensor_aggregates to bring up to date.
    is_tick, has_messages : bool
        Whether windows are closed then, and whether there is anything new in it.
    moves : dict
        Where the partitions stand then.
    readings, late_readings : int
        How many there are, and how many of them came late.
    """

    is_tick: bool
    has_messages: bool = False
    saved: list[partials.Page] = field(default_factory=list)
    forgotten: list[partials.Page] = field(default_factory=list)
    late: bytes = b""
    rows: list[aggregates.Page] = field(default_factory=list)
    moves: dict[int, Position] = field(default_factory=dict)
    readings: int = 0
    late_readings: int = 0


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
        self.is_length_kept = False
        self.watermark_us: int | None = None
        # All windows that end by then were final in the transaction before.
        self.final_until_us: int | None = None
        self.late = 0

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Load the windows of these partitions; refuse windows of another length."""
        kept_settings.check(tx, "WINDOW_SECONDS", self.rules.window_seconds)
        self.is_length_kept = False
        self.reader = reader
        self.sources = sources
        self.final_until_us = None  # the transaction that said so may have failed
        for p, position in at.items():
            stored = partials.load(tx, sources[p])
            self.windows[p] = PartitionWindows(self.rules, position.watermark_us, stored)
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

    def prepare(self, batch: PartitionBatch) -> DecodedBatch:
        """Decode the messages of one partition; what is no reading is the consumer's business."""
        return DecodedBatch(batch, decode_batch(batch.payloads, batch.timestamp_ms)[0])

    def compute(self, work: Sequence[DecodedBatch]) -> Changes:
        """Aggregate one poll, in memory; once a second also let time pass."""
        now_s = time.monotonic()
        changes = Changes(is_tick=now_s - self.ticked_s > TICK_SECONDS)
        changed = set().union(*(self._add(each, changes, now_s) for each in work))
        changes.rows = aggregates.to_pages(changed, self.rules.window_us)
        moved = {each.batch.partition for each in work}
        self.has_settled = False
        if changes.is_tick:
            changes.has_messages = any(len(each.batch) for each in work)
            changes.forgotten = self._forget()
            moved |= self._advance_idle(now_s)
            self.ticked_s = now_s
        for p in moved:
            changes.moves[p] = Position(self.next_offsets[p], self.windows[p].watermark_us)
        return changes

    def _add(self, prepared: DecodedBatch, changes: Changes, now_s: float) -> set[WindowKey]:
        """Add the readings of one partition; return the windows they are in."""
        batch, decoded, source_id = *prepared, self.sources[prepared.batch.partition]
        appended_us = batch.timestamp_ms[decoded.position] * 1000
        changed, late = self.windows[batch.partition].add(decoded, self.final, appended_us)
        changes.saved += partials.to_pages(source_id, changed)
        changes.late += partials.to_late_rows(
            source_id, batch.offsets, decoded, late, self.rules.window_us
        )
        changes.readings += len(decoded)
        changes.late_readings += len(late.rows)
        self.next_offsets[batch.partition] = batch.next_offset
        self.idle_since_s.pop(batch.partition, None)
        if batch.is_at_end:
            self.idle_since_s[batch.partition] = now_s
        return set(changed)

    def _forget(self) -> list[partials.Page]:
        """Let go of the windows that were no longer needed when some were last closed."""
        if self.final_until_us is None:
            return []
        return [
            page
            for p, state in self.windows.items()
            for page in partials.key_pages(self.sources[p], state.forget(self.final_until_us))
        ]

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

    def store(self, tx: Cursor, changes: Changes) -> dict[int, Position]:
        """Write what has changed, and close windows once a second."""
        if changes.rows and not self.is_length_kept:
            kept_settings.keep(tx, "WINDOW_SECONDS", self.rules.window_seconds)
        partials.save(tx, changes.saved)
        partials.insert_late(tx, changes.late)
        try:
            aggregates.refine(tx, changes.rows)
        except aggregates.WindowFinal as problem:
            self.final |= problem.keys  # on the next try their readings are late
            raise
        if changes.is_tick:
            partials.delete(tx, changes.forgotten)
            marked = self._close_windows(tx)
            self.has_settled = marked == 0 and not changes.has_messages
        return changes.moves

    def _close_windows(self, tx: Cursor) -> int:
        """Close and finalize what all partitions' watermarks, as stored, have passed; count it."""
        self.watermark_us = aggregates.watermark(tx, GROUP, list(self.sources.values()))
        if self.watermark_us is None:
            return 0
        lateness_us = self.rules.allowed_lateness_us
        marked = aggregates.close_windows(tx, self.watermark_us, lateness_us)
        self.final_until_us = aggregates.final_until(tx, self.watermark_us - lateness_us)
        if marked >= aggregates.MAX_CLOSED_ROWS:
            self.ticked_s = 0.0  # there are more: at once
        return marked

    def committed(self, changes: Changes) -> int:
        """Count late readings; return the number of all."""
        self.is_length_kept |= bool(changes.rows)
        self.late += changes.late_readings
        return changes.readings

    def is_settled(self) -> bool:
        """Return whether the windows have been closed that the last readings allow to close."""
        return self.has_settled

    def gauges(self) -> dict[str, Any]:
        """Return late readings since the start, windows held, and the watermark's age."""
        gauges = {"late": self.late, "open_windows": sum(len(w) for w in self.windows.values())}
        if self.watermark_us is not None:
            gauges["watermark_age_s"] = round(time.time() - self.watermark_us / 1e6)
        return gauges


def main() -> None:
    """Run until stopped."""
    args = service_parser(__doc__, once="catch up to the end of the topic, then exit").parse_args()
    settings = load_settings_or_exit()
    topic = Intake(settings.kafka, GROUP, MAX_BATCH_MESSAGES, BATCH_TIMEOUT_SECONDS, args.once)
    correlator = BackgroundCorrelator(
        settings.service.database_url, settings.windows.correlation_windows, args.once
    )
    with running(GROUP, settings.service) as process, correlator:
        run_stream(topic, AggregateWindows(settings.windows), process)


if __name__ == "__main__":
    run_service(main)
