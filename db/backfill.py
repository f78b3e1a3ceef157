"""Late readings folded into their final windows, from sensor_readings, a page of windows at a time.

A page is chosen, summed up and written in transactions of their own. What fences it: the last one
locks the windows as the stream processor does (db/aggregates.py), and writes only if they are as
they were when they were chosen. A final window is changed by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from db.aggregates import LOCK_ROWS, PAGE_ROWS, to_pages
from db.connection import Cursor, StaleCheckpoint
from db.statements import statements
from db.times import to_microseconds, to_timestamp
from pipeline.windows import Sums, WindowKey

SQL = statements(__file__)


class Which(NamedTuple):
    """Windows that begin in a range of time (None = no limit), and how long they are."""

    since: datetime | None
    until: datetime | None
    window_us: int


class Window(NamedTuple):
    """A window with late readings: how many, and how many are counted in it; None = no row."""

    key: WindowKey
    late: int
    counted: int | None


@dataclass(frozen=True)
class Page:
    """Windows in the order in which they are chosen.

    Attributes
    ----------
    offsets : mapping
        ``sources``, and by source in ``ends`` the first offset that is not looked at.
    """

    windows: list[Window]
    offsets: Mapping[str, list[int]]
    window_us: int


class Figures(NamedTuple):
    """What the readings of a window come to; values in hundredths."""

    readings: int
    mean: int
    stddev: int
    low: int
    high: int
    flagged: int
    mixed: bool


def choose(tx: Cursor, which: Which, after: WindowKey | None) -> Page:
    """Return the windows after ``after`` that late readings can be folded into, some of them."""
    start, location, sensor_type = after or (None, "", "")
    behind = {
        "start": "-infinity" if start is None else to_timestamp(start),
        "location": location,
        "type": sensor_type,
    }
    page = {"window": timedelta(microseconds=which.window_us), "rows": PAGE_ROWS}
    tx.execute(SQL["choose"], which._asdict() | behind | page)
    rows = tx.fetchall()
    windows = [Window(WindowKey(to_microseconds(row[0]), *row[1:3]), *row[3:5]) for row in rows]
    offsets = dict(zip(("sources", "ends"), rows[0][5:], strict=True)) if rows else {}
    return Page(windows, offsets, which.window_us)


def figures(tx: Cursor, page: Page, start_us: int) -> dict[WindowKey, Figures]:
    """Return what the stored readings of the page's windows that begin then come to."""
    (keys,) = to_pages((w.key for w in page.windows if w.key.start_us == start_us), page.window_us)
    tx.execute(SQL["sums"], {**keys, **page.offsets, "start": to_timestamp(start_us)})
    found = {}
    for location, sensor_type, *whole, is_mixed in tx.fetchall():
        readings, total, squares, low, high, flagged = map(int, whole)
        sums = Sums(readings, total, squares)
        found[WindowKey(start_us, location, sensor_type)] = Figures(
            readings, sums.mean(), sums.stddev(), low, high, flagged, is_mixed
        )
    return found


def fold(tx: Cursor, page: Page, found: Mapping[WindowKey, Figures]) -> int:
    """Write windows of a page anew, and take their readings out of late_readings; count these.

    Raises
    ------
    StaleCheckpoint
        When somebody has changed one since it was chosen: choose again.
    """
    (keys,) = to_pages(found, page.window_us)
    tx.execute(LOCK_ROWS, keys)
    tx.execute(SQL["as_they_are"], keys)
    now = {WindowKey(to_microseconds(r[1]), *r[2:4]): (r[0], *r[4:]) for r in tx.fetchall()}
    for window in page.windows:
        if window.key in found:
            counted, is_final = window.counted or 0, window.counted is not None
            if now[window.key][1:] not in ((counted, is_final, None), (counted, is_final, False)):
                raise StaleCheckpoint(f"window={window.key}")
    columns = _columns([(now[key][0], *each) for key, each in found.items()])
    tx.execute(SQL["fold"], {**columns, **page.offsets})
    folded: int = tx.rowcount
    return folded


def _columns(rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    names = ("id", *Figures._fields)
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def left(tx: Cursor, which: Which) -> tuple[int, int]:
    """Return how many late readings are not folded since retention came first, and how many are."""
    tx.execute(SQL["left"], which._asdict())
    of_retention, total = tx.fetchone()
    return of_retention, total - of_retention
