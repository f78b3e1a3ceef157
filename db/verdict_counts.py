"""Tables verdict_counts and merged_verdicts: how often detector and rule flagged what.

Per place, type, and minute or ten of them. Written in the transaction of the predictions, so they
count each exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from db.connection import Cursor
from db.statements import statements
from db.times import to_timestamp

SQL = statements(__file__)

_MINUTE_US = 60_000_000
# Rows of one statement.
PAGE_ROWS = 500

# Columns of the counts.
Page = dict[str, list[Any]]

# What the tables count, in the order in which ``outcomes`` numbers it.
OUTCOMES = ("neither", "rule_only", "ml_only", "both", "without_verdict")


def outcomes(
    known: npt.NDArray[np.bool_], by_detector: npt.NDArray[np.bool_], by_rule: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return for each reading which of ``OUTCOMES`` it is."""
    return np.where(known, 2 * by_detector.astype(np.int64) + by_rule, 4)


def to_pages(
    timestamps_us: npt.NDArray[np.int64],
    locations: Sequence[str],
    sensor_types: Sequence[str],
    outcome: npt.NDArray[np.int64],
) -> list[Page]:
    """Return the counts of readings as ``add`` takes them; the arguments are columns."""
    minutes, minute = np.unique(timestamps_us - timestamps_us % _MINUTE_US, return_inverse=True)
    places, place = _factorized(locations)
    types, sensor_type = _factorized(sensor_types)
    shape = (len(minutes), len(places), len(types), len(OUTCOMES))
    # One number a cell: sorting numbers costs a hundredth of counting tuples in a dictionary.
    cell = np.ravel_multi_index((minute, place, sensor_type, outcome), shape)
    cells, counts = np.unique(cell, return_counts=True)
    groups, group = np.unique(cells // len(OUTCOMES), return_inverse=True)
    sums = np.zeros((len(groups), len(OUTCOMES)), dtype=np.int64)
    sums[group, cells % len(OUTCOMES)] = counts
    of_minute, of_place, of_type = (axis.tolist() for axis in np.unravel_index(groups, shape[:3]))
    columns: Page = {
        "minutes": [to_timestamp(int(minutes[m])) for m in of_minute],
        "locations": [places[p] for p in of_place],
        "types": [types[t] for t in of_type],
        **dict(zip(OUTCOMES, sums.T.tolist(), strict=True)),
    }
    return [
        {name: column[begin : begin + PAGE_ROWS] for name, column in columns.items()}
        for begin in range(0, len(groups), PAGE_ROWS)
    ]


def add(tx: Cursor, pages: Iterable[Page]) -> None:
    """Add what ``to_pages`` counted."""
    for page in pages:
        tx.execute(SQL["add"], page)


def _factorized(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in order, and for each text its number among them."""
    known = sorted(set(texts))
    number = {text: place for place, text in enumerate(known)}
    return known, np.fromiter(map(number.__getitem__, texts), np.int64, len(texts))
