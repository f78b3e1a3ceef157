"""No transaction of the detector computes, between two statements, what grows with the data."""

import time
from contextlib import contextmanager
from statistics import median

import numpy as np
import pytest

from db.connection import Database
from db.copying import copy_csv, times, to_csv, values
from pipeline.detector import DetectorSettings
from service.heartbeat import BackgroundReporter
from service.leases import Presence
from service.scoring import Scoring
from tests.waiting import until

pytestmark = pytest.mark.integration

BATCH_READINGS = 1_500
# Below this the ratio of two gaps says nothing.
NOTHING_SECONDS = 0.005


class Watched:
    """A cursor that notes how long its thread computes between statements, CPU seconds."""

    def __init__(self, cursor):
        self.cursor, self.gaps_s = cursor, []
        self.ended_s = time.thread_time()

    def __getattr__(self, name):
        attribute = getattr(self.cursor, name)
        if name not in ("execute", "copy_expert"):
            return attribute

        def statement(*arguments):
            self.gaps_s.append(time.thread_time() - self.ended_s)
            try:
                return attribute(*arguments)
            finally:
                self.ended_s = time.thread_time()

        return statement


class WatchedDatabase(Database):
    """Notes the largest gap of its transactions."""

    largest_gap_s = 0.0

    @contextmanager
    def transaction(self):
        with super().transaction() as tx:
            watched = Watched(tx)
            yield watched
            gaps_s = [*watched.gaps_s, time.thread_time() - watched.ended_s]
            self.largest_gap_s = max(self.largest_gap_s, *gaps_s)


def store(tx, first, count):
    """Store readings of a few sensors, as the consumer would."""
    rows = np.arange(first, first + count)
    columns = {
        "sensor_id": [f"sensor-{row % 25}" for row in rows],
        "sensor_type": [f"type-{row % 5}" for row in rows],
        "location": ["Lab"] * count,
        "value": values(2_000 + rows % 97),
        "timestamp": times(1_767_312_000_000_000 + rows * 40_000),
        "anomaly": np.zeros(count, dtype=np.bool_),
        "unit": [""] * count,
        "source_id": np.full(count, 1),
        "log_offset": rows,
    }
    copy_csv(tx, "sensor_readings", list(columns), to_csv(columns))
    tx.execute("UPDATE stream_offsets SET next_offset = %s", (int(first + count),))


@pytest.fixture
def gap_of(database, database_url, query):
    """The largest gap while so many readings are scored in one batch, median of several."""
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    query("INSERT INTO stream_offsets (consumer_group, source_id) VALUES ('consumer', 1)")
    presence, stored = Presence("ml_detector"), 0
    with (
        WatchedDatabase(database_url, "test") as watched,
        BackgroundReporter(database_url, "ml_detector", "test", [presence]),
    ):
        until(lambda: presence.has_begun)
        scoring = Scoring(DetectorSettings(), watched, presence)

        def measure(readings):
            nonlocal stored
            gaps_s = []
            for _ in range(5):
                with database.transaction() as tx:
                    store(tx, stored, readings)
                stored += readings
                watched.largest_gap_s = 0.0
                scored = 0
                while scored < readings:
                    scoring.batch_readings = readings
                    scoring.share()
                    scored += scoring.poll()
                gaps_s.append(watched.largest_gap_s)
            return median(gaps_s)

        measure(BATCH_READINGS)  # the models are there
        yield measure


def test_ten_times_the_readings_make_no_longer_gaps_between_statements(gap_of):
    few, many = gap_of(BATCH_READINGS), gap_of(10 * BATCH_READINGS)
    assert many < 2 * few or max(few, many) < NOTHING_SECONDS, (few, many)
