"""Tables sensor_aggregates and window_rollups: what the stream processor shows to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from db.connection import Cursor, StaleCheckpoint
from db.statements import statements
from db.times import to_microseconds, to_timestamp
from pipeline.windows import Sums, WindowKey

SQL = statements(__file__)
LOCK_ROWS = SQL["lock_rows"]

# Rows whose sums are read and written back at a time, under their locks: some 10 ms.
PAGE_ROWS = 500
# Rows closed, and made final, in one transaction: 0.7 s of CPU; a backlog takes several.
MAX_CLOSED_ROWS = 10_000

Page = dict[str, Any]


class WindowFinal(StaleCheckpoint):
    """Readings arrived for windows that are final; so all are that end by ``until_us``."""

    def __init__(self, until_us: int) -> None:
        super().__init__(f"final_until={to_timestamp(until_us)}")
        self.until_us = until_us


def to_pages(keys: Iterable[WindowKey], window_us: int) -> list[Page]:
    """Return windows in the order in which their rows are locked, as ``refine`` takes them."""
    wanted = sorted(keys)
    return [
        {
            "starts": [to_timestamp(key.start_us) for key in page],
            "locations": [key.location for key in page],
            "types": [key.sensor_type for key in page],
            "window": timedelta(microseconds=window_us),
        }
        for page in (wanted[n : n + PAGE_ROWS] for n in range(0, len(wanted), PAGE_ROWS))
    ]


def refine(tx: Cursor, pages: Iterable[Page]) -> None:
    """Bring the rows of these windows up to date with the partials of all partitions.

    Two processors may do this for the same row at once, each without seeing the other's
    uncommitted partial. So the row is locked first, and the partials are read in a statement after
    that: whoever comes second sees what the first has committed.

    Raises
    ------
    WindowFinal
        When some of the rows are final: the transaction must be rolled back.
    """
    final: list[int] = []
    for page in pages:
        tx.execute(LOCK_ROWS, page)
        tx.execute(SQL["sum_partials"], page)
        rows = tx.fetchall()
        tx.execute(SQL["write_rows"], _figures([row for row in rows if not row[4]]))
        final += [to_microseconds(row[1] + page["window"]) for row in rows if row[4]]
    if final:
        raise WindowFinal(max(final))


def _figures(rows: Sequence[tuple[Any, ...]]) -> dict[str, list[int]]:
    """Return what rows of ``sum_partials`` come to as columns, values in hundredths."""
    names = ("id", "mean", "stddev", "low", "high", "readings", "flagged", "unusual", "mixed")
    columns: dict[str, list[int]] = {name: [] for name in names}
    for row in rows:
        n, total, squares, low, high, flagged, unusual = map(int, row[5:12])
        sums = Sums(n, total, squares)
        figures = (row[0], sums.mean(), sums.stddev(), low, high, n, flagged, unusual, row[12])
        for name, figure in zip(names, figures, strict=True):
            columns[name].append(figure)
    return columns


def close_windows(tx: Cursor, watermark_us: int, allowed_lateness_us: int) -> int:
    """Mark what the watermark has passed as closed, then final; return how many rows were marked.

    What becomes final is added to ``window_rollups``; it is noted that correlations are due.
    """
    marked = 0
    for statement, until_us in (
        (SQL["close"], watermark_us),
        (SQL["finalize"], watermark_us - allowed_lateness_us),
    ):
        tx.execute(statement, {"until": to_timestamp(until_us), "rows": MAX_CLOSED_ROWS})
        marked += tx.fetchone()[0]
    return marked


def final_until(tx: Cursor, watermark_us: int) -> int:
    """Return until when all windows are final: ``watermark_us``, or less where some are not."""
    tx.execute(SQL["oldest_open"])
    (oldest_open,) = tx.fetchone()
    if oldest_open is None:
        return watermark_us
    return min(watermark_us, to_microseconds(oldest_open) - 1)
