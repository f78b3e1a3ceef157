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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from broker.reader import PartitionBatch, TopicReader
from config import load_settings_or_exit
from db import aggregates, kept_settings, partials
from db.connection import Cursor, Database
from db.offsets import Position, load
from pipeline.decoding import Readings, decode_batch
from pipeline.settings import WindowRules
from pipeline.windows import (
    BEFORE_ALL,
    Group,
    Partial,
    PartitionWindows,
    Progress,
    WindowKey,
    common_watermark,
    leader_of_idle,
)
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
# Windows in memory, 0.9 KB each, besides those of one poll; more are in window_partials alone.
MAX_WINDOWS = 100_000


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
    is_tick : bool
        Whether windows are closed then.
    ends, ends_before : dict
        Where the broker says that the partitions end, asked now and at the tick before.
    watermark_us, final_until_us : int or None
        Up to when all partitions are complete then, and all windows final.
    closed_at : dict
        Where the partitions stood when all was closed that they allowed to close.
    leader : int or None
        The partition whose watermark goes on, if all are idle.
    moves : dict
        Where the partitions stand then.
    readings, late_readings : int
        How many there are, and how many of them came late.
    """

    is_tick: bool
    saved: list[partials.Page] = field(default_factory=list)
    forgotten: list[partials.Page] = field(default_factory=list)
    late: bytes = b""
    rows: list[aggregates.Page] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    ends_before: dict[int, int] = field(default_factory=dict)
    watermark_us: int | None = None
    final_until_us: int | None = None
    closed_at: dict[int, int] = field(default_factory=dict)
    leader: int | None = None
    moves: dict[int, Position] = field(default_factory=dict)
    readings: int = 0
    late_readings: int = 0


class AggregateWindows:
    """Windows per partition, those in memory exactly as they stand in the database."""

    def __init__(self, rules: WindowRules, database: Database) -> None:
        self.rules = rules
        self.database = database
        self.windows: dict[int, PartitionWindows] = {}
        self.next_offsets: dict[int, int] = {}
        # Monotonic time since when each partition has been at its end.
        self.silent_since_s: dict[int, float] = {}
        self.idle: set[int] = set()
        self.ends: dict[int, int] = {}
        self.ticked_s = 0.0
        self.has_more_to_close = False
        self.closed_at: dict[int, int] = {}
        self.is_length_kept = False
        self.watermark_us: int | None = None
        self.leader: int | None = None
        # All windows that end by then are final in the database: their state may go.
        self.final_until_us: int | None = None
        # All windows that end by then are final, or about to be: their readings are late.
        self.late_until_us = BEFORE_ALL
        self.late = 0

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Begin these partitions; refuse windows of another length."""
        kept_settings.check(tx, "WINDOW_SECONDS", self.rules.window_seconds)
        self.is_length_kept = False
        self.reader = reader
        self.sources = sources
        for p, position in at.items():
            fetch = partial(self._fetch, sources[p])
            self.windows[p] = PartitionWindows(self.rules, position.watermark_us, fetch)
            self.next_offsets[p] = position.next_offset
            self._note_heard(p)

    def _fetch(self, source_id: int, groups: Sequence[Group]) -> list[tuple[WindowKey, Partial]]:
        with self.database.transaction() as tx:  # before that which writes
            return list(partials.load(tx, source_id, groups))

    def retain(self, partitions: set[int]) -> None:
        """Forget the windows of partitions that others have now."""
        for state in (self.windows, self.next_offsets, self.silent_since_s):
            for p in state.keys() - partitions:
                del state[p]
        self.idle &= partitions

    def _note_heard(self, partition: int) -> None:
        self.silent_since_s.pop(partition, None)
        self.idle.discard(partition)

    def is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        """Return whether messages have come, or time has passed."""
        return bool(batches) or (self._has_ticked() and bool(self.windows))

    def _has_ticked(self) -> bool:
        return self.has_more_to_close or time.monotonic() - self.ticked_s > TICK_SECONDS

    def prepare(self, batch: PartitionBatch) -> DecodedBatch:
        """Decode the messages of one partition; what is no reading is the consumer's business."""
        return DecodedBatch(batch, decode_batch(batch.payloads, batch.timestamp_ms)[0])

    def compute(self, work: Sequence[DecodedBatch]) -> Changes:
        """Aggregate one poll, in memory; once a second also let time pass."""
        now_s = time.monotonic()
        changes = Changes(is_tick=self._has_ticked())
        changed = set().union(*(self._add(each, changes, now_s) for each in work))
        changes.rows = aggregates.to_pages(changed, self.rules.window_us)
        moved = {each.batch.partition for each in work}
        if changes.is_tick:
            changes.forgotten = self._forget()
            moved |= self._let_time_pass(changes, now_s)
        for p in moved:
            changes.moves[p] = Position(
                self.next_offsets[p], self.windows[p].watermark_us, p in self.idle
            )
        return changes

    def _add(self, prepared: DecodedBatch, changes: Changes, now_s: float) -> set[WindowKey]:
        """Add the readings of one partition; return the windows they are in."""
        batch, decoded, source_id = *prepared, self.sources[prepared.batch.partition]
        appended_us = batch.timestamp_ms[decoded.position] * 1000
        changed, late = self.windows[batch.partition].add(decoded, self.late_until_us, appended_us)
        changes.saved += partials.to_pages(source_id, changed)
        changes.late += partials.to_late_rows(
            source_id, batch.offsets, decoded, late, self.rules.window_us
        )
        changes.readings += len(decoded)
        changes.late_readings += len(late.rows)
        self.next_offsets[batch.partition] = batch.next_offset
        if len(batch) or not batch.is_at_end:
            self._note_heard(batch.partition)
        if batch.is_at_end:
            self.silent_since_s.setdefault(batch.partition, now_s)
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

    def _let_time_pass(self, changes: Changes, now_s: float) -> set[int]:
        """See which partitions are idle; return those of which that is news."""
        changes.ends_before, changes.ends = self.ends, self.reader.end_offsets(self.sources)
        self.ends = changes.ends
        silent = {
            p
            for p, since_s in self.silent_since_s.items()
            if now_s - since_s >= self.rules.idle_after_seconds
            and changes.ends[p] <= self.next_offsets[p]
        }
        moved, self.idle = silent ^ self.idle, silent
        if self.leader in self.windows and self.leader in self.idle:
            self.windows[self.leader].advance_idle(int((now_s - self.ticked_s) * 1_000_000))
            moved.add(self.leader)
        self.ticked_s = now_s
        return moved

    def store(self, tx: Cursor, changes: Changes) -> dict[int, Position]:
        """Write what has changed, and close windows once a second."""
        if changes.rows and not self.is_length_kept:
            kept_settings.keep(tx, "WINDOW_SECONDS", self.rules.window_seconds)
        partials.save(tx, changes.saved)
        partials.insert_late(tx, changes.late)
        try:
            aggregates.refine(tx, changes.rows)
        except aggregates.WindowFinal as problem:
            # On the next try these readings are late.
            self.late_until_us = max(self.late_until_us, problem.until_us)
            raise
        if changes.is_tick:
            partials.delete(tx, changes.forgotten)
            marked = self._close_windows(tx, changes)
            self.has_more_to_close = marked >= aggregates.MAX_CLOSED_ROWS
        return changes.moves

    def _close_windows(self, tx: Cursor, changes: Changes) -> int:
        """Close and finalize what all partitions, as stored, have passed; count it."""
        stored = load(tx, GROUP, list(self.sources.values()))
        if len(stored) < len(self.sources):
            return 0  # some have not been begun
        changes.closed_at = {p: stored[s].next_offset for p, s in self.sources.items()}
        progress = [self._progress(p, stored[s], changes) for p, s in self.sources.items()]
        changes.watermark_us = common_watermark(progress)
        if (leader := leader_of_idle(progress)) is not None:
            changes.leader = list(self.sources)[leader]
        if changes.watermark_us is None:
            return 0
        lateness_us = self.rules.allowed_lateness_us
        marked = aggregates.close_windows(tx, changes.watermark_us, lateness_us)
        changes.final_until_us = aggregates.final_until(tx, changes.watermark_us - lateness_us)
        return marked

    def _progress(self, partition: int, at: Position, changes: Changes) -> Progress:
        end = changes.ends[partition]
        is_idle = at.is_idle and at.next_offset >= end
        is_at_end = at.next_offset >= changes.ends_before.get(partition, end)
        return Progress(at.watermark_us, is_idle, is_at_end)

    def committed(self, changes: Changes) -> int:
        """Count late readings, and note what is final; return the number of all."""
        if changes.is_tick:
            self.watermark_us, self.leader = changes.watermark_us, changes.leader
            self.final_until_us = changes.final_until_us
            self.late_until_us = max(self.late_until_us, self.final_until_us or BEFORE_ALL)
            if not self.has_more_to_close:
                self.closed_at = changes.closed_at
        for windows in self.windows.values():
            windows.let_go(MAX_WINDOWS // len(self.windows))
        self.is_length_kept |= bool(changes.rows)
        self.late += changes.late_readings
        return changes.readings

    def is_settled(self, ends: Mapping[int, int]) -> bool:
        """Return whether the windows have been closed that readings before these offsets allow."""
        return all(self.closed_at.get(p, 0) >= end for p, end in ends.items())

    def gauges(self) -> dict[str, Any]:
        """Return late readings since the start, windows held, and the watermark's age."""
        gauges = {"late": self.late, "windows_held": sum(map(len, self.windows.values()))}
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
        run_stream(topic, AggregateWindows(settings.windows, process.database), process)


if __name__ == "__main__":
    run_service(main)
