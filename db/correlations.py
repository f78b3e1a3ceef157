"""Tables sensor_correlations and correlations_due: how the sensor types of a place go together.

Which windows have closed without it is noted with them (db/aggregates.py); here it is made up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg2

from db.connection import Cursor, Database, DatabaseUnavailable, RowExists
from db.statements import statements

SQL = statements(__file__)

# Of a place; they make 2,016 pairs, which is more than anybody looks at.
MAX_TYPES = 64
# Types of a place that are looked through for those that still come.
MAX_HOPS = 1_000
# Two points always lie on a line.
MIN_WINDOWS = 3
# What does not come to an end within this never does; seconds.
TIMEOUT_SECONDS = 10

Due = tuple[Any, ...]


class CorrelationsFailed(Exception):
    """What was due cannot be computed: it takes too long, or PostgreSQL refuses it."""

    def __init__(self, due: Sequence[Due], reason: object) -> None:
        super().__init__(str(reason))
        self.due = due


def work_off(database: Database, windows: int, rows: int) -> tuple[int, list[str]]:
    """Correlate the newest of what is due, in a transaction of its own.

    Parameters
    ----------
    windows : int
        Windows that two types have in common, the latest ones, within a day.
    rows : int
        At most so many window ends of a place.

    Returns
    -------
    tuple
        How many it were, and the places with more than ``MAX_TYPES`` types.

    Raises
    ------
    CorrelationsFailed
        With what was tried; it is still due.
    """
    due: list[Due] = []
    try:
        with database.transaction() as tx:
            tx.execute(f"SET LOCAL statement_timeout = '{TIMEOUT_SECONDS}s'")
            tx.execute(SQL["take"], {"rows": rows})
            due = tx.fetchall()
            if not due:
                return 0, []
            crowded = _write(tx, due, windows)
            _forget(tx, due)
    except DatabaseUnavailable as problem:
        if due and isinstance(problem.__cause__, psycopg2.errors.QueryCanceled):
            raise CorrelationsFailed(due, problem) from problem
        raise
    except (psycopg2.Error, RowExists) as problem:
        raise CorrelationsFailed(due, problem) from problem
    return len(due), crowded


def leave_out(database: Database, due: Sequence[Due]) -> None:
    """Forget that something is due."""
    with database.transaction() as tx:
        _forget(tx, due)


def _write(tx: Cursor, due: Sequence[Due], windows: int) -> list[str]:
    _, starts, ends, locations = zip(*due, strict=True)
    tx.execute(
        SQL["write"],
        {
            "starts": list(starts),
            "ends": list(ends),
            "locations": list(locations),
            "windows": windows,
            "least": MIN_WINDOWS,
            "types": MAX_TYPES,
            "hops": MAX_HOPS,
        },
    )
    return [location for (location,) in tx.fetchall()]


def _forget(tx: Cursor, due: Sequence[Due]) -> None:
    tx.execute("DELETE FROM correlations_due WHERE id = ANY(%s)", ([row[0] for row in due],))
