"""Every row counted after an attack, against what the broker has acknowledged."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.chaos.system import SETTINGS
from benchmarks.chaos.traffic import is_late, is_rubbish
from db.connection import Database
from pipeline.decoding import Readings
from pipeline.detector import AnomalyDetector
from pipeline.settings import WindowRules
from pipeline.windows import PartitionWindows

WINDOW_SECONDS = int(SETTINGS["WINDOW_SECONDS"])
LATENESS_SECONDS = int(SETTINGS["ALLOWED_LATENESS_SECONDS"])
# A window that should have been final for so long, as event time passes, will never be.
STUCK_SECONDS = 20


@dataclass(frozen=True)
class Counts:
    """What came of the messages.

    Attributes
    ----------
    acknowledged : int
        Messages that the broker has taken.
    stored : int
        Rows in ``sensor_readings`` and ``dead_letters``.
    lost, duplicated : int
        Acknowledged messages in neither table; rows beyond the first of a message.
    wrong_windows : int
        Windows whose row is not what one uninterrupted run over the same log gives (each column),
        and readings that are late and should not be, or the other way round.
    wrong_predictions : int
        Readings without exactly one prediction, and predictions that an uninterrupted detector
        would not have made on the same readings in the same order.
    stuck_windows : int
        Windows that should have been final for a while and are not.
    """

    acknowledged: int
    stored: int
    lost: int
    duplicated: int
    wrong_windows: int
    wrong_predictions: int
    stuck_windows: int

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost, doubled, wrong or stuck."""
        wrong = self.wrong_windows or self.stuck_windows or self.wrong_predictions
        return not (self.lost or self.duplicated or wrong)


@dataclass(frozen=True)
class _Stored:
    """A row of ``sensor_readings``."""

    source_id: int
    log_offset: int
    number: int
    location: str
    sensor_type: str
    cents: int
    timestamp_us: int
    anomaly: bool


def count(database: Database, placed: dict[int, tuple[int, int]]) -> Counts:
    """Count and compare everything; ``placed`` says where acknowledged messages are in the log."""
    acknowledged = set(placed)
    readings = _readings(database)
    rubbish = _query(database, "SELECT convert_from(payload, 'UTF8') FROM dead_letters")
    rubbish_numbers = [int(payload.split()[1]) for (payload,) in rubbish]
    stored = Counter(r.number for r in readings)
    stored.update(rubbish_numbers)
    misplaced = sum(is_rubbish(r.number) for r in readings)
    misplaced += sum(not is_rubbish(number) for number in rubbish_numbers)
    return Counts(
        acknowledged=len(acknowledged),
        stored=stored.total(),
        lost=len(acknowledged - stored.keys() - _deleted(database, placed)) + misplaced,
        duplicated=stored.total() - len(stored),
        wrong_windows=_wrong_windows(database, readings),
        stuck_windows=_stuck_windows(database),
        wrong_predictions=_wrong_predictions(database),
    )


def _deleted(database: Database, placed: dict[int, tuple[int, int]]) -> set[int]:
    """Return the numbers of messages that were deleted before both readers came to them."""
    gaps = _query(
        database,
        "SELECT partition, first_offset, last_offset FROM lost_messages JOIN sources"
        " USING (source_id) GROUP BY 1, 2, 3 HAVING count(DISTINCT consumer_group) = 2",
    )
    return {
        number
        for number, (partition, offset) in placed.items()
        if any(p == partition and first <= offset <= last for p, first, last in gaps)
    }


def _stuck_windows(database: Database) -> int:
    ((stuck,),) = _query(
        database,
        "SELECT count(*) FROM sensor_aggregates WHERE NOT is_final AND window_end"
        " + %s * interval '1 s' <= (SELECT min(watermark)"
        " FROM stream_offsets WHERE consumer_group = 'stream_processor')",
        LATENESS_SECONDS + STUCK_SECONDS,
    )
    return int(stuck)


def _query(database: Database, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with database.transaction() as tx:
        tx.execute(statement, parameters or None)
        rows: list[tuple[Any, ...]] = tx.fetchall()
        return rows


def _readings(database: Database) -> list[_Stored]:
    rows = _query(
        database,
        "SELECT source_id, log_offset, unit::int, location, sensor_type, (value * 100)::bigint,"
        " (extract(epoch FROM timestamp) * 1000000)::bigint, anomaly"
        " FROM sensor_readings ORDER BY source_id, log_offset",
    )
    return [_Stored(*row) for row in rows]


def _wrong_windows(database: Database, readings: list[_Stored]) -> int:
    late = {
        (source, offset)
        for source, offset in _query(database, "SELECT source_id, log_offset FROM late_readings")
    }
    wrong = sum(((r.source_id, r.log_offset) in late) != is_late(r.number) for r in readings)
    groups: dict[tuple[int, str, str], list[_Stored]] = defaultdict(list)
    for r in readings:
        if not is_late(r.number):
            start = r.timestamp_us // (WINDOW_SECONDS * 1_000_000) * WINDOW_SECONDS
            groups[start, r.location, r.sensor_type].append(r)
    unusual = _statistical_anomalies(readings)
    expected = {key: (*_figures(group), unusual[key]) for key, group in groups.items()}
    found = {
        (start, location, kind): tuple(figures)
        for start, location, kind, *figures in _query(
            database,
            "SELECT extract(epoch FROM window_start)::bigint, location, sensor_type, avg_value,"
            " min_value, max_value, stddev_value, count_readings, anomaly_count,"
            " statistical_anomalies FROM sensor_aggregates",
        )
    }
    return wrong + sum(found.get(key) != expected.get(key) for key in found.keys() | expected)


def _figures(group: list[_Stored]) -> tuple[Any, ...]:
    """Return mean, min, max, standard deviation, count and flags of a window, by decimals."""
    cents = [Decimal(r.cents) for r in group]
    zero = Decimal(0)
    mean = sum(cents, zero) / len(cents)
    spread = (sum(((c - mean) ** 2 for c in cents), zero) / len(cents)).sqrt()
    rounded = [
        figure.quantize(Decimal(1), ROUND_HALF_EVEN).scaleb(-2)
        for figure in (mean, min(cents), max(cents), spread)
    ]
    return (*rounded, len(group), sum(r.anomaly for r in group))


def _statistical_anomalies(readings: list[_Stored]) -> Counter[tuple[int, str, str]]:
    """Return the verdicts of one run over each partition's log, without a break."""
    rules = WindowRules(WINDOW_SECONDS, LATENESS_SECONDS)
    logs: dict[int, list[_Stored]] = defaultdict(list)
    for r in readings:
        if not is_late(r.number):
            logs[r.source_id].append(r)
    found: Counter[tuple[int, str, str]] = Counter()
    for log in logs.values():
        windows, _ = PartitionWindows(rules).add(_columns(log))
        for key, partial in windows.items():
            start = key.start_us // 1_000_000
            found[start, key.location, key.sensor_type] += partial.statistical_anomalies
    return found


def _columns(log: list[_Stored]) -> Readings:
    nothing = pa.array([""] * len(log), pa.string())
    return Readings(
        np.arange(len(log)),
        nothing,
        pa.array([r.sensor_type for r in log], pa.string()),
        pa.array([r.location for r in log], pa.string()),
        np.array([r.cents for r in log], dtype=np.int64),
        np.array([r.timestamp_us for r in log], dtype=np.int64),
        np.array([r.anomaly for r in log], dtype=np.bool_),
        nothing,
    )


def _wrong_predictions(database: Database) -> int:
    ((unmatched,),) = _query(
        database,
        "SELECT count(*) FROM (SELECT source_id, log_offset, count(*) AS n"
        " FROM ml_anomaly_predictions GROUP BY 1, 2) AS p"
        " FULL JOIN sensor_readings AS r USING (source_id, log_offset)"
        " WHERE r.sensor_id IS NULL OR n IS DISTINCT FROM 1",
    )
    made = _query(
        database,
        "SELECT location, sensor_type, sensor_id, value::float,"
        " (extract(epoch FROM timestamp) * 1000000)::bigint, is_anomaly, anomaly_score::float"
        " FROM ml_anomaly_predictions ORDER BY id",
    )
    if not made:
        return int(unmatched)
    places, types, ids, values, times, flags, scores = zip(*made, strict=True)
    verdicts = AnomalyDetector().process(places, types, ids, np.array(values), np.array(times))
    known = np.array([flag is not None for flag in flags])
    difference = np.abs(np.array(scores, dtype=np.float64) - verdicts.score)
    agree = (verdicts.is_anomaly == np.array(flags, dtype=np.bool_)) & (difference < 2e-6)
    same = (verdicts.known == known) & (agree | ~known)
    return int(unmatched) + int((~same).sum())
