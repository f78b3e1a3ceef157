"""Table verdict_counts: how often detector and rule flagged what, per minute, place and type.

Written in the transaction of the predictions, so it counts each exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor
from db.times import to_timestamp

_MINUTE_US = 60_000_000
# What the table counts, in the order in which ``kinds`` numbers it.
KINDS = ("neither", "rule_only", "ml_only", "both", "without_verdict")


def kinds(
    known: npt.NDArray[np.bool_], by_detector: npt.NDArray[np.bool_], by_rule: npt.NDArray[np.bool_]
) -> list[int]:
    """Return for each reading which of ``KINDS`` it is."""
    found: list[int] = np.where(
        known, 2 * by_detector.astype(int) + by_rule.astype(int), 4
    ).tolist()
    return found


def add(
    tx: Cursor,
    timestamps_us: npt.NDArray[np.int64],
    locations: Iterable[str],
    sensor_types: Iterable[str],
    kind: Iterable[int],
) -> None:
    """Add readings to the counts; the arguments are columns, a reading a row."""
    minutes = (timestamps_us // _MINUTE_US).tolist()
    counted: dict[tuple[int, str, str], Counter[int]] = {}
    for minute, place, sensor_type, what in zip(
        minutes, locations, sensor_types, kind, strict=True
    ):
        counted.setdefault((minute, place, sensor_type), Counter())[what] += 1
    execute_values(
        tx,
        "INSERT INTO verdict_counts AS old (minute, location, sensor_type, neither, rule_only,"
        " ml_only, both_flag, without_verdict) VALUES %s"
        " ON CONFLICT (minute, location, sensor_type) DO UPDATE SET"
        " neither = old.neither + excluded.neither,"
        " rule_only = old.rule_only + excluded.rule_only, ml_only = old.ml_only + excluded.ml_only,"
        " both_flag = old.both_flag + excluded.both_flag,"
        " without_verdict = old.without_verdict + excluded.without_verdict",
        # In one order, so that two detectors never wait for each other.
        [
            (
                to_timestamp(minute * _MINUTE_US),
                place,
                sensor_type,
                *(n[i] for i in range(len(KINDS))),
            )
            for (minute, place, sensor_type), n in sorted(counted.items())
        ],
    )
