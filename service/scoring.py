"""Moves readings through the detector: claims on sensor types, batches, snapshots, figures."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from itertools import compress

import numpy as np

from db import claims, predictions
from db.connection import Cursor, Database
from db.predictions import Offsets, StoredReadings
from pipeline.detector import AnomalyDetector, Verdicts
from pipeline.settings import DetectorSettings
from service.lifecycle import RecentLatencies

log = logging.getLogger("ml_detector")

# Readings of one transaction: from a backlog large enough for numpy to be the cost, but few enough
# to end well before the claim or an idle transaction does (recordings of slow sensors set off a
# training every 50 readings). So it starts small, and doubles or halves with the time it takes.
MIN_BATCH_READINGS = 100
MAX_BATCH_READINGS = 20_000
QUICK_BATCH_SECONDS = 0.5
SLOW_BATCH_SECONDS = 1.5
# Others may take a type this long after its holder was last heard of, and how often it is heard.
LEASE_SECONDS = 6.0
RENEW_SECONDS = 2.0
# A restart learns again what came since the last snapshot: at most about this much.
SNAPSHOT_SECONDS = 60.0
SNAPSHOT_READINGS = 200_000
SNAPSHOT_FITS = 5
# Types whose progress lies no further apart than this (offsets) are read together.
NEAR_OFFSETS = 100_000
RATES_SECONDS = 60.0


@dataclass
class Held:
    """A sensor type this instance works on."""

    stored: Offsets  # detector_progress as last read or written
    readings: int = 0  # since the last snapshot
    fits: int = 0
    saved_s: float = 0.0
    scored: int = 0  # since the last line of rates
    anomalies: int = 0


@dataclass
class Cohort:
    """Types that are read together: one scan of the sources serves all of them."""

    types: set[str]
    position: Offsets = field(default_factory=dict)
    since: date = date.min  # none of the readings to come was stored before


class Scoring:
    """Moves readings through the detector, a batch a transaction."""

    def __init__(self, settings: DetectorSettings, database: Database, instance: str) -> None:
        self.settings = settings
        self.database = database
        self.instance = instance
        self.latency = RecentLatencies()
        self.anomalies = 0
        self.lag = 0
        self.known_types = 1
        self.batch_readings = 1_000
        self.reset()

    def reset(self) -> None:
        """Forget everything in memory: what counts is in the database."""
        self.detector = AnomalyDetector(self.settings)
        self.held: dict[str, Held] = {}
        self.cohorts: list[Cohort] = []
        self.renew_at_s = 0.0
        self.rates_at_s = time.monotonic() + RATES_SECONDS

    # ------------------------------------------------------------------ claims

    def share(self) -> None:
        """Renew the claims, give up surplus types, load new ones."""
        if time.monotonic() < self.renew_at_s:
            return
        self.renew_at_s = time.monotonic() + RENEW_SECONDS
        with self.database.transaction() as tx:
            known = predictions.origins(tx)
            held, surplus = claims.share_types(tx, self.instance, known, LEASE_SECONDS)
            self.known_types = max(1, len(known))
        for sensor_type in self.held.keys() - held:
            log.info("type_lost sensor_type=%s", sensor_type)
            self.drop(sensor_type)
        self.release(surplus)
        new = [t for t in held if t not in self.held and t not in surplus]
        if new:
            self.load(new)

    def load(self, sensor_types: list[str]) -> None:
        """Take types on: their state as saved, and what was scored since learnt again."""
        for sensor_type in sensor_types:
            with self.database.transaction() as tx:
                ends = predictions.visible_ends(tx)
                snapshot = predictions.load_snapshot(tx, sensor_type)
                starts = predictions.origins(tx)[sensor_type]
                stored = predictions.progress(tx, {sensor_type: starts})[sensor_type]
                self.detector.forget(sensor_type)
                begin = dict(starts)
                if snapshot is not None:
                    if self.detector.restore(sensor_type, snapshot[0]):
                        begin |= snapshot[1]
                    else:
                        log.warning("snapshot_of_another_version sensor_type=%s", sensor_type)
                again = 0
                for readings in predictions.read_scored(
                    tx, sensor_type, begin, stored, MAX_BATCH_READINGS
                ):
                    self.process(readings, learn_only=True)
                    again += len(readings)
            self.held[sensor_type] = Held(stored, readings=again, saved_s=time.monotonic())
            self.join(sensor_type, {**ends, **stored})
            log.info("type_taken sensor_type=%s learnt_again=%d", sensor_type, again)

    def join(self, sensor_type: str, position: Offsets) -> None:
        """Read a type together with others that have come about as far."""
        for cohort in self.cohorts:
            apart = sum(abs(cohort.position.get(s, 0) - o) for s, o in position.items())
            if apart <= NEAR_OFFSETS:
                cohort.types.add(sensor_type)
                cohort.since = date.min
                for source, offset in position.items():
                    cohort.position[source] = min(cohort.position.get(source, offset), offset)
                return
        self.cohorts.append(Cohort({sensor_type}, position))

    def drop(self, sensor_type: str) -> None:
        """Stop working on a type."""
        self.detector.forget(sensor_type)
        self.held.pop(sensor_type, None)
        for cohort in self.cohorts:
            cohort.types.discard(sensor_type)
        self.cohorts = [cohort for cohort in self.cohorts if cohort.types]

    def release(self, sensor_types: list[str]) -> None:
        """Give types back, with their state."""
        mine = [t for t in sensor_types if t in self.held]
        with self.database.transaction() as tx:
            for sensor_type in mine:
                self.save(tx, sensor_type)
            # Fenced like a batch: a snapshot must not be older than another's progress.
            predictions.advance(tx, {t: (self.held[t].stored, self.held[t].stored) for t in mine})
            claims.release_types(tx, self.instance, sensor_types)
        for sensor_type in mine:
            log.info("type_released sensor_type=%s", sensor_type)
            self.drop(sensor_type)

    # ----------------------------------------------------------------- batches

    def poll(self) -> int:
        """Score what has become visible, a batch a cohort; return the number of readings."""
        with self.database.transaction() as tx:
            ends = predictions.visible_ends(tx)
        scored = 0
        for cohort in self.cohorts:
            if any(cohort.position.get(s, 0) < end for s, end in ends.items()):
                began_s = time.monotonic()
                scored += self.score(cohort, ends)
                self.pace(time.monotonic() - began_s)
        self.lag = self.unscored(ends)
        self.merge()
        return scored

    def unscored(self, ends: Offsets) -> int:
        """Return how many visible readings wait for this instance; offsets are shared by all types.

        By the cohorts' positions, not by the stored progress: that of a silent type stands still.
        """
        behind = sum(
            len(cohort.types) * max(0, end - cohort.position.get(source, 0))
            for cohort in self.cohorts
            for source, end in ends.items()
        )
        return behind // self.known_types

    def pace(self, batch_seconds: float) -> None:
        """Make the next batch larger or smaller after one that took so long."""
        if batch_seconds > SLOW_BATCH_SECONDS:
            self.batch_readings = max(MIN_BATCH_READINGS, self.batch_readings // 2)
        elif batch_seconds < QUICK_BATCH_SECONDS:
            self.batch_readings = min(MAX_BATCH_READINGS, self.batch_readings * 2)

    def merge(self) -> None:
        """Read cohorts together that have come equally far."""
        merged: list[Cohort] = []
        for cohort in self.cohorts:
            for other in merged:
                if other.position == cohort.position:
                    other.types |= cohort.types
                    other.since = min(other.since, cohort.since)
                    break
            else:
                merged.append(cohort)
        self.cohorts = merged

    def score(self, cohort: Cohort, ends: Offsets) -> int:
        """Score one batch of a cohort in one transaction."""
        with self.database.transaction() as tx:
            self.meet_sources(tx, cohort)
            readings, following, since = predictions.read(
                tx, sorted(cohort.types), cohort.position, ends, self.batch_readings, cohort.since
            )
            began_s = time.monotonic()
            readings = self.not_yet_scored(cohort, readings)
            moves: dict[str, tuple[Offsets, Offsets]] = {}
            if len(readings):
                verdicts = self.process(readings)
                predictions.insert(tx, readings, verdicts)
                predictions.insert_trainings(tx, verdicts.trainings)
                for sensor_type in set(readings.sensor_type):
                    held = self.held[sensor_type]
                    moved = {s: max(o, following[s]) for s, o in held.stored.items()}
                    moves[sensor_type] = (held.stored, moved)
                    held.stored = moved
                    if self.snapshot_due(held):
                        self.save(tx, sensor_type)
                predictions.advance(tx, moves)
        cohort.position, cohort.since = following, since
        self.latency.add(readings.age_ms + (time.monotonic() - began_s) * 1000)
        return len(readings)

    def meet_sources(self, tx: Cursor, cohort: Cohort) -> None:
        """Begin the progress of types that have turned up in a source for the first time."""
        new = {
            t: offsets
            for t, offsets in predictions.origins(tx).items()
            if t in cohort.types and offsets.keys() - self.held[t].stored.keys()
        }
        if new:
            for sensor_type, offsets in predictions.progress(tx, new).items():
                self.held[sensor_type].stored = {**offsets, **self.held[sensor_type].stored}

    def not_yet_scored(self, cohort: Cohort, readings: StoredReadings) -> StoredReadings:
        """Leave out what a type of the cohort that is ahead of the others has behind it."""
        ahead = np.zeros(len(readings), dtype=np.bool_)
        of_type = np.array(readings.sensor_type)
        for sensor_type in cohort.types:
            for source, offset in self.held[sensor_type].stored.items():
                if cohort.position.get(source, 0) < offset:
                    behind = (readings.source_id == source) & (readings.log_offset < offset)
                    ahead |= behind & (of_type == sensor_type)
        return readings.take(np.flatnonzero(~ahead)) if ahead.any() else readings

    def process(self, readings: StoredReadings, learn_only: bool = False) -> Verdicts:
        """Take readings through the detector."""
        verdicts = self.detector.process(
            readings.sensor_type,
            readings.sensor_id,
            readings.values,
            readings.timestamp_us,
            learn_only,
        )
        if not learn_only:
            self.count(readings, verdicts)
        return verdicts

    def count(self, readings: StoredReadings, verdicts: Verdicts) -> None:
        """Keep the figures of the log and the heartbeat."""
        self.anomalies += int(verdicts.is_anomaly.sum())
        found = Counter(compress(readings.sensor_type, verdicts.is_anomaly.tolist()))
        for sensor_type, readings_of_type in Counter(readings.sensor_type).items():
            held = self.held[sensor_type]
            held.readings += readings_of_type
            held.scored += readings_of_type
            held.anomalies += found[sensor_type]
        for training in verdicts.trainings:
            self.held[training.sensor_type].fits += 1
            log.info(
                "model_fitted sensor_type=%s rows=%d threshold=%.4f drift=%s duration_s=%.3f",
                training.sensor_type,
                training.rows,
                training.threshold,
                training.drift,
                training.duration_seconds,
            )

    def snapshot_due(self, held: Held) -> bool:
        """Whether a restart would have too much to learn again."""
        return (
            held.fits >= SNAPSHOT_FITS
            or held.readings >= SNAPSHOT_READINGS
            or time.monotonic() >= held.saved_s + SNAPSHOT_SECONDS
        )

    def save(self, tx: Cursor, sensor_type: str) -> None:
        """Keep a type's state."""
        held = self.held[sensor_type]
        predictions.save_snapshot(tx, sensor_type, self.detector.save(sensor_type), held.stored)
        held.readings, held.fits, held.saved_s = 0, 0, time.monotonic()

    def log_rates(self) -> None:
        """Log each type's detection rate, once a minute."""
        if time.monotonic() < self.rates_at_s:
            return
        self.rates_at_s = time.monotonic() + RATES_SECONDS
        for sensor_type, held in sorted(self.held.items()):
            log.info(
                "detection sensor_type=%s readings=%d anomalies=%d rate=%.4f",
                sensor_type,
                held.scored,
                held.anomalies,
                held.anomalies / max(1, held.scored),
            )
            held.scored = held.anomalies = 0
