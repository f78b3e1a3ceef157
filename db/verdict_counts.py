"""Tables verdict_counts and merged_verdicts: how often detector and rule flagged what.

Per place, type, and minute or ten of them. Written in the transaction of the predictions, so they
count each exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor
from db.times import to_timestamp

_SPANS_US = {"verdict_counts": 60_000_000, "merged_verdicts": 600_000_000}
# What the tables count, in the order in which ``kinds`` numbers it.
KINDS = ("neither", "rule_only", "ml_only", "both", "without_verdict")


def kinds(
    known: npt.NDArray[np.bool_], by_detector: npt.NDArray[np.bool_], by_rule: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return for each reading which of ``KINDS`` it is."""
    return np.where(known, 2 * by_detector.astype(np.int64) + by_rule, 4)


def add(
    tx: Cursor,
    timestamps_us: npt.NDArray[np.int64],
    locations: Sequence[str],
    sensor_types: Sequence[str],
    kind: npt.NDArray[np.int64],
) -> None:
    """Add readings to the counts; the arguments are columns, a reading a row."""
    places, place = _numbered(locations)
    types, sensor_type = _numbered(sensor_types)
    for table, span_us in _SPANS_US.items():
        starts_us = timestamps_us - timestamps_us % span_us
        _add(tx, table, starts_us, (places, place), (types, sensor_type), kind)


def _add(
    tx: Cursor,
    table: str,
    starts_us: npt.NDArray[np.int64],
    numbered_places: tuple[list[str], npt.NDArray[np.int64]],
    numbered_types: tuple[list[str], npt.NDArray[np.int64]],
    kind: npt.NDArray[np.int64],
) -> None:
    minutes, minute = np.unique(starts_us, return_inverse=True)
    (places, place), (types, sensor_type) = numbered_places, numbered_types
    shape = (len(minutes), len(places), len(types), len(KINDS))
    # One number a cell: sorting numbers costs a hundredth of counting tuples in a dictionary.
    cell = np.ravel_multi_index((minute, place, sensor_type, kind), shape)
    cells, counts = np.unique(cell, return_counts=True)
    groups, group = np.unique(cells // len(KINDS), return_inverse=True)
    sums = np.zeros((len(groups), len(KINDS)), dtype=np.int64)
    sums[group, cells % len(KINDS)] = counts
    of_minute, of_place, of_type = (axis.tolist() for axis in np.unravel_index(groups, shape[:3]))
    execute_values(
        tx,
        f"INSERT INTO {table} AS old (minute, location, sensor_type, neither, rule_only,"  # noqa: S608
        " ml_only, both_flag, without_verdict) VALUES %s"
        " ON CONFLICT (minute, location, sensor_type) DO UPDATE SET"
        " neither = old.neither + excluded.neither,"
        " rule_only = old.rule_only + excluded.rule_only, ml_only = old.ml_only + excluded.ml_only,"
        " both_flag = old.both_flag + excluded.both_flag,"
        " without_verdict = old.without_verdict + excluded.without_verdict",
        # In one order, so that two detectors never wait for each other.
        [
            (to_timestamp(int(minutes[m])), places[p], types[t], *row)
            for m, p, t, row in zip(of_minute, of_place, of_type, sums.tolist(), strict=True)
        ],
    )


def _numbered(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in order, and for each text its number among them."""
    known = sorted(set(texts))
    number = {text: place for place, text in enumerate(known)}
    return known, np.fromiter(map(number.__getitem__, texts), np.int64, len(texts))
