"""How fast the detector is: its pure path, and a backlog from poll to stored in one process.

python -m benchmarks.detector_throughput [--readings N] [--sensors N]

Starts a PostgreSQL of its own, unless DATABASE_URL names one whose role may create databases.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sklearn.ensemble import IsolationForest

from db.connection import Database
from db.copying import copy_csv, times, to_csv, values
from db.versions import apply_schema
from local_stack.interrupts import end_as_by_ctrl_c
from local_stack.postgres import LocalPostgres
from pipeline.detector import AnomalyDetector
from pipeline.settings import DetectorSettings
from service.heartbeat import BackgroundReporter
from service.leases import Presence
from service.scoring import Scoring
from simulator.fleet import SensorSimulator

START_US = 1_767_312_000_000_000
PURE_BATCH = 10_000


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readings", type=int, default=300_000, metavar="N")
    parser.add_argument("--sensors", type=int, nargs="+", default=[25, 1000], metavar="N",
                        help="sizes of the fleet, one reading a second each")  # fmt: skip
    return parser.parse_args()


class Backlog:
    """Readings of a fleet, a second apart for each sensor."""

    def __init__(self, readings: int, sensors: int) -> None:
        simulator = SensorSimulator(seed=1, sensors=sensors)
        times = START_US + np.arange(readings) * (1_000_000 // sensors)
        self.read = simulator.read(times)
        picked = [simulator.sensors[i] for i in self.read.sensor.tolist()]
        self.ids = [sensor.sensor_id for sensor in picked]
        self.types = [sensor.sensor_type for sensor in picked]
        self.locations = [sensor.location for sensor in picked]
        self.values = self.read.hundredths / 100

    def store(self, database: Database) -> None:
        """Store them as the consumer would have."""
        n = len(self.ids)
        with database.transaction() as tx:
            tx.execute(
                "INSERT INTO sources (cluster_id, topic_id, topic, partition)"
                " VALUES ('c', 't', 'bench', 0) RETURNING source_id"
            )
            source = tx.fetchone()[0]
            columns = {
                "sensor_id": self.ids,
                "sensor_type": self.types,
                "location": self.locations,
                "value": values(self.read.hundredths),
                "timestamp": times(self.read.timestamp_us),
                "anomaly": self.read.anomaly,
                "unit": [""] * n,
                "source_id": np.full(n, source),
                "log_offset": np.arange(n),
            }
            copy_csv(tx, "sensor_readings", list(columns), to_csv(columns))
            tx.execute(
                "INSERT INTO stream_offsets (consumer_group, source_id, next_offset, end_offset)"
                " VALUES ('consumer', %s, %s, %s)",
                (source, n, n),
            )


@contextmanager
def fresh_database() -> Iterator[str]:
    """Yield the address of an empty database."""
    with tempfile.TemporaryDirectory() as directory, LocalPostgres(Path(directory)) as server:
        yield server.create_database("bench")


def pure_rate(backlog: Backlog) -> float:
    """Return readings a second through features and score, in batches."""
    detector = AnomalyDetector()
    began = time.perf_counter()
    for first in range(0, len(backlog.ids), PURE_BATCH):
        cut = slice(first, first + PURE_BATCH)
        detector.process(
            backlog.locations[cut], backlog.types[cut], backlog.ids[cut], backlog.values[cut],
            backlog.read.timestamp_us[cut],
        )  # fmt: skip
    return len(backlog.ids) / (time.perf_counter() - began)


def stored_rate(backlog: Backlog) -> float:
    """Return readings a second from the first poll until all predictions are committed."""
    presence = Presence("ml_detector")
    with (
        fresh_database() as url,
        Database(url, "ml_detector bench") as database,
        BackgroundReporter(url, "ml_detector", "bench", [presence]),
    ):
        apply_schema(database)
        backlog.store(database)
        scoring = Scoring(DetectorSettings(), database, presence)
        while not presence.has_begun:
            time.sleep(0.01)
        began = time.perf_counter()
        scored = 0
        while not scoring.is_done():
            scoring.share()
            scored += scoring.poll()
        elapsed = time.perf_counter() - began
        with database.transaction() as tx:
            tx.execute("SELECT count(*) FROM ml_anomaly_predictions")
            assert tx.fetchone()[0] == scored == len(backlog.ids)
    return scored / elapsed


def bare_rate() -> float:
    """Return readings a second of scikit-learn's ``score_samples`` alone, batches of 10,000."""
    rows = np.random.default_rng(1).standard_normal((100_000, 7))
    model = IsolationForest(random_state=1).fit(rows[:1000])
    began = time.perf_counter()
    for first in range(0, len(rows), PURE_BATCH):
        model.score_samples(rows[first : first + PURE_BATCH])
    return len(rows) / (time.perf_counter() - began)


def main() -> None:
    """Measure."""
    args = parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps({"bare_score_samples_per_s": round(bare_rate())}), flush=True)
    for sensors in args.sensors:
        backlog = Backlog(args.readings, sensors)
        result = {
            "sensors": sensors,
            "readings": args.readings,
            "features_and_score_per_s": round(pure_rate(backlog)),
            "poll_to_stored_per_s": round(stored_rate(backlog)),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    end_as_by_ctrl_c()
    main()
