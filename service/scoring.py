"""Moves readings through the detector: shards taken and handed on, batches, states, figures.

Reading, computing and writing are three parts. No transaction is open while something is computed,
and what is written is fenced by the versions of the shards: whoever lost one rolls back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from db import predictions, shards, verdict_counts
from db.connection import Database
from db.shards import SHARDS, Move, Offsets, Shard, shard_of
from pipeline.detector import AnomalyDetector, Training, Verdicts
from pipeline.settings import DetectorSettings
from service.latencies import RecentLatencies
from service.leases import Presence
from service.sharing import share_out

log = logging.getLogger("ml_detector")

Ints = npt.NDArray[np.int64]

# Readings of one batch: from a backlog large enough for numpy to be the cost, but few enough that
# leases and stop signals are looked at meanwhile (recordings of slow sensors set off a training
# every 50 readings). So it starts small, and doubles or halves with the time it takes.
FIRST_BATCH_READINGS = 1_000
MIN_BATCH_READINGS = 100
MAX_BATCH_READINGS = 20_000
QUICK_BATCH_SECONDS = 0.5
SLOW_BATCH_SECONDS = 1.5
# How often the shards are shared out anew.
SHARE_SECONDS = 0.5
# A shard without readings follows the others' offsets this much later, not with every batch.
CARRY_SECONDS = 1.0
# A restart does again what was done since the state was saved: after so long, or so much work, if
# that is several times what saving takes.
SAVE_AFTER_SECONDS = 60.0
SAVE_AFTER_WORK_SECONDS = 1.0
WORK_PER_SAVING = 10.0
# Without a state that can be used so many offsets of each source are learnt again at most.
LEARN_AGAIN_OFFSETS = 500_000


@dataclass
class Held:
    """A shard this instance works on.

    Attributes
    ----------
    at : dict
        How far its readings are looked through: beyond ``shard.positions`` where there was none.
    learnt_until : dict or None
        How far what was scored before is learnt again; None when that is done.
    """

    shard: Shard
    at: Offsets
    learnt_until: Offsets | None
    types: set[str] = field(default_factory=set)
    moved_s: float = field(default_factory=time.monotonic)
    saved_s: float = field(default_factory=time.monotonic)
    unsaved_work_s: float = 0.0
    saving_s: float = 0.0

    def is_behind(self) -> bool:
        """Whether the stored positions are behind, since some time."""
        return self.at != self.shard.positions and time.monotonic() > self.moved_s + CARRY_SECONDS

    def is_save_due(self) -> bool:
        """Whether a restart would have too much to do again."""
        if self.unsaved_work_s < WORK_PER_SAVING * self.saving_s:
            return False
        is_old = time.monotonic() > self.saved_s + SAVE_AFTER_SECONDS and self.unsaved_work_s > 0
        return is_old or self.unsaved_work_s > SAVE_AFTER_WORK_SECONDS


@dataclass(frozen=True)
class Batch:
    """What is to be stored: rows of predictions, counts of verdicts, trainings."""

    rows: bytes = b""
    counts: list[verdict_counts.Page] = field(default_factory=list)
    anomalies: int = 0
    trainings: list[Training] = field(default_factory=list)


class Scoring:
    """Moves readings through the detector, batch by batch."""

    def __init__(self, settings: DetectorSettings, database: Database, presence: Presence) -> None:
        self.settings = settings
        self.database = database
        self.presence = presence
        self.latency = RecentLatencies()
        self.anomalies = 0
        self.lag = 0
        self.goal: Offsets | None = None
        self.batch_readings = FIRST_BATCH_READINGS
        self.reset()

    def reset(self) -> None:
        """Forget everything in memory: what counts is in the database."""
        self.detector = AnomalyDetector(self.settings)
        self.held: dict[int, Held] = {}
        self.to_load: list[int] = []
        self.since = date.min
        self.share_at_s = 0.0
        self.is_busy = False

    # ------------------------------------------------------------------ shards

    def share(self) -> None:
        """Take free shards, hand surplus ones on, and see which are to be loaded."""
        if time.monotonic() < self.share_at_s or not self.presence.has_begun:
            return
        self.share_at_s = time.monotonic() + SHARE_SECONDS
        me = self.presence.owner
        with self.database.transaction() as tx:
            seen = shards.owners(tx)
            free, gifts = share_out(
                {shard: owner for shard, (owner, _) in seen.items()},
                me,
                self.presence.alive,
                self.presence.moving,
            )
            shards.take(tx, me, {shard: seen[shard][1] for shard in free})
            mine = {n: version for n, (owner, version) in shards.owners(tx).items() if owner == me}
        lost = [n for n, held in self.held.items() if mine.get(n) != held.shard.version]
        for number in lost:
            log.info("shard_lost shard=%d", number)
            self.drop(number)
        self.to_load = sorted(mine.keys() - self.held.keys())
        self.hand_over(gifts)

    def load(self, number: int) -> None:
        """Take a shard on: its state as saved; what was scored since is learnt again later."""
        with self.database.transaction() as tx:
            shard = shards.load(tx, self.presence.owner, number)
        if shard is None:
            return
        learnt = shard.state_positions
        held = Held(shard, shard.positions, None)
        if shard.state is not None and not self.restore(held, shard.state):
            log.warning("state_of_another_version shard=%d action=learn_again", number)
            learnt = {}
        begin = {
            s: max(learnt.get(s, 0), o - LEARN_AGAIN_OFFSETS) for s, o in shard.positions.items()
        }
        held.learnt_until = begin if begin != shard.positions else None
        shard.state = None
        self.held[number] = held
        log.info("shard_taken shard=%d sensor_types=%d", number, len(held.types))
        self.since = date.min

    def restore(self, held: Held, state: bytes) -> bool:
        """Give the detector the state of a shard's types; return whether it could be used."""
        states: dict[str, bytes] = msgspec.msgpack.decode(state)
        if all(self.detector.restore(t, of_type) for t, of_type in states.items()):
            held.types = set(states)
            return True
        for sensor_type in states:
            self.detector.forget(sensor_type)
        return False

    def drop(self, number: int) -> None:
        """Stop working on a shard."""
        held = self.held.pop(number)
        for sensor_type in held.types:
            self.detector.forget(sensor_type)

    def hand_over(self, to: Mapping[int, str | None]) -> None:
        """Give shards with their state to others, or to whoever comes (None)."""
        giving = {number: self.held[number] for number in to if number in self.held}
        moves = []
        for number, held in giving.items():
            if held.learnt_until is None:
                moves.append((held, Move(held.at, to[number], self.state(held))))
            else:
                moves.append((held, Move(held.shard.positions, to[number])))
        self.write(Batch(), moves)
        for number in giving:
            log.info("shard_handed_over shard=%d to=%s", number, to[number])
            self.drop(number)

    def release(self) -> None:
        """Give all shards back, one by one: the time to stop may not suffice for all."""
        for number in list(self.held):
            self.hand_over({number: None})
        with self.database.transaction() as tx:
            shards.leave(tx, self.presence.owner)

    def state(self, held: Held) -> bytes:
        """Return all that is known of a shard's types."""
        began_s = time.monotonic()
        state = msgspec.msgpack.encode({t: self.detector.save(t) for t in sorted(held.types)})
        held.saving_s = time.monotonic() - began_s
        held.saved_s, held.unsaved_work_s = time.monotonic(), 0.0
        return state

    # ----------------------------------------------------------------- batches

    def poll(self) -> int:
        """Do a bit of each kind of work there is; return the number of readings scored.

        ``is_busy`` says whether there was anything to do.
        """
        self.is_busy = bool(self.to_load)
        if self.to_load:
            self.load(self.to_load.pop())
            return 0
        with self.database.transaction() as tx:
            ends = predictions.visible_ends(tx)
        self.goal = ends if self.goal is None else self.goal
        pause_s = time.monotonic() + QUICK_BATCH_SECONDS
        while (learning := self.learning()) and time.monotonic() < pause_s:
            self.is_busy = True
            self.learn(learning)
        scored = sum(self.score(group, ends) for group in self.groups())
        unscored = (max(0, e - h.at.get(s, 0)) for h in self.held.values() for s, e in ends.items())
        self.lag = sum(unscored) // SHARDS
        return scored

    def learning(self) -> Held | None:
        """Return a shard that has something to learn again."""
        return next((h for h in self.held.values() if h.learnt_until is not None), None)

    def groups(self) -> list[list[Held]]:
        """Return the shards by where they are: normally at one place, and one scan serves all."""
        groups: dict[tuple[tuple[int, int], ...], list[Held]] = {}
        for held in self.held.values():
            if held.learnt_until is None:
                groups.setdefault(tuple(sorted(held.at.items())), []).append(held)
        return list(groups.values())

    def is_done(self) -> bool:
        """Whether all that was there at the beginning is scored, by this instance or others."""
        if self.is_busy or self.goal is None:
            return False
        with self.database.transaction() as tx:
            at = shards.positions(tx)
        at |= {number: held.at for number, held in self.held.items()}
        return all(each.get(s, 0) >= end for each in at.values() for s, end in self.goal.items())

    def learn(self, held: Held) -> None:
        """Learn again a portion of what was scored since a shard's state was saved."""
        began_s, end = time.monotonic(), held.shard.positions
        with self.database.transaction() as tx:
            fetched = predictions.fetch_scored(
                tx, held.shard.number, held.learnt_until or {}, end, self.batch_readings
            )
        readings, following = fetched.readings()
        self.process(readings, learn_only=True)
        self.pace(time.monotonic() - began_s)
        is_done = all(following.get(source, 0) >= offset for source, offset in end.items())
        held.learnt_until = None if is_done else following
        if is_done:
            log.info("shard_learnt shard=%d sensor_types=%d", held.shard.number, len(held.types))

    def score(self, group: list[Held], ends: Offsets) -> int:
        """Score a batch of shards that are at one place: read, compute, write."""
        began_s, begin = time.monotonic(), group[0].at
        # What is behind reads only up to where others are, and goes on with them.
        end = {
            s: min([e, *(h.at[s] for h in self.held.values() if h.at.get(s, 0) > begin.get(s, 0))])
            for s, e in ends.items()
        }
        if all(begin.get(source, 0) >= offset for source, offset in end.items()):
            self.write(Batch(), self.moves(group, set()))
            return 0
        self.is_busy = True
        readings, following = self.read([held.shard.number for held in group], begin, end)
        read_s = time.monotonic()
        for held in group:
            held.at = following
        batch = self.judged(readings)
        self.write(batch, self.moves(group, set(_shards(readings).tolist())))
        self.latency.add(readings["age_ms"].to_numpy() + (time.monotonic() - read_s) * 1000)
        self.pace(time.monotonic() - began_s)
        return len(readings)

    def read(self, numbers: list[int], begin: Offsets, end: Offsets) -> tuple[pa.Table, Offsets]:
        """Return the next readings of shards, and where to go on."""
        with self.database.transaction() as tx:
            fetched = predictions.fetch(tx, numbers, begin, end, self.batch_readings, self.since)
        readings, following = fetched.readings()
        with self.database.transaction() as tx:
            hidden = predictions.hidden_since(tx, begin, following, self.since)
        if hidden is not None:
            self.since = hidden
            return self.read(numbers, begin, end)
        self.since = predictions.since_of(readings, self.since)
        return readings, following

    def judged(self, readings: pa.Table) -> Batch:
        """Return what is to be stored of readings."""
        if not len(readings):
            return Batch()
        verdicts = self.process(readings)
        for t in verdicts.trainings:
            log.info(
                "model_fitted sensor_type=%s rows=%d threshold=%.4f drift=%s duration_s=%.3f",
                *(t.sensor_type, t.rows, t.threshold, t.drift, t.duration_seconds),
            )
        rule = readings["anomaly"].to_numpy()
        counts = verdict_counts.to_pages(
            readings["timestamp_us"].to_numpy(),
            readings["location"].to_pylist(),
            readings["sensor_type"].to_pylist(),
            verdict_counts.outcomes(verdicts.known, verdicts.is_anomaly, rule),
        )
        return Batch(
            predictions.to_rows(readings, verdicts),
            counts,
            int(verdicts.is_anomaly.sum()),
            verdicts.trainings,
        )

    def process(self, readings: pa.Table, learn_only: bool = False) -> Verdicts:
        """Take readings through the detector."""
        began_s, of_row = time.monotonic(), _shards(readings)
        types = readings["sensor_type"].to_pylist()
        verdicts = self.detector.process(
            readings["location"].to_pylist(),
            types,
            readings["sensor_id"].to_pylist(),
            readings["hundredths"].to_numpy() / 100.0,
            readings["timestamp_us"].to_numpy(),
            readings["unit"].to_pylist(),
            learn_only,
        )
        for sensor_type in set(types):
            self.held[shard_of(sensor_type)].types.add(sensor_type)
        numbers, counts = np.unique(of_row, return_counts=True)
        work_s = (time.monotonic() - began_s) * counts / max(1, len(of_row))
        for number, spent_s in zip(numbers.tolist(), work_s.tolist(), strict=True):
            self.held[number].unsaved_work_s += spent_s
        return verdicts

    def moves(self, ready: list[Held], with_readings: set[int]) -> list[tuple[Held, Move]]:
        """Return the shards to be moved: those with readings, and now and then the others.

        At most one of them with its state: a batch stays small.
        """
        moving = [h for h in ready if h.shard.number in with_readings or h.is_behind()]
        saving = next((h for h in moving if h.is_save_due()), None)
        return [
            (
                held,
                Move(
                    held.at,
                    self.presence.owner,
                    self.state(held) if held is saving else None,
                    carries_state=held.unsaved_work_s == 0,
                ),
            )
            for held in moving
        ]

    def write(self, batch: Batch, moves: list[tuple[Held, Move]]) -> None:
        """Store a batch, and move its shards with it, in one transaction."""
        if not moves:
            return
        with self.database.transaction() as tx:
            predictions.insert(tx, batch.rows)
            verdict_counts.add(tx, batch.counts)
            predictions.insert_trainings(tx, batch.trainings)
            shards.advance(tx, [(held.shard, move) for held, move in moves])
        self.anomalies += batch.anomalies
        for held, move in moves:
            held.shard.follow(move)
            held.moved_s = time.monotonic()

    def pace(self, batch_seconds: float) -> None:
        """Make the next batch larger or smaller after one that took so long."""
        if batch_seconds > SLOW_BATCH_SECONDS:
            self.batch_readings = max(MIN_BATCH_READINGS, self.batch_readings // 2)
        elif batch_seconds < QUICK_BATCH_SECONDS:
            self.batch_readings = min(MAX_BATCH_READINGS, self.batch_readings * 2)


def _shards(readings: pa.Table) -> Ints:
    """Return the shard of each reading."""
    types = readings["sensor_type"].combine_chunks().dictionary_encode()
    number = np.array([shard_of(t) for t in types.dictionary.to_pylist()], dtype=np.int64)
    return number[types.indices.to_numpy(zero_copy_only=False)]
