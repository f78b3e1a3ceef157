"""What the dashboard's statements have in common: the range and the filters, and how to ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

from psycopg2.errors import InsufficientPrivilege, UndefinedFunction, UndefinedTable
from psycopg2.extras import RealDictCursor

from db.connection import Database, DatabaseUnavailable

Rows = list[dict[str, Any]]


class TablesMissing(DatabaseUnavailable):
    """The database answers, and nobody has made the tables in it yet."""


# What a chart can show.
MAX_POINTS = 150
# Above this many readings in range a series is drawn from the windows instead of the readings.
MAX_RAW_READINGS = 30_000

# Ranges of a day and more are read ten minutes at a time, what sticks out by the minute.
TEN_MINUTES = timedelta(minutes=10)


def ten_minutes(time: datetime) -> datetime:
    """Return the start of the ten minutes in which a time lies."""
    return time.replace(minute=time.minute // 10 * 10, second=0, microsecond=0)


@dataclass(frozen=True)
class Selection:
    """What the filters let through: a half-open range of event time, perhaps of one location."""

    start: datetime
    end: datetime
    location: str | None = None
    sensor_type: str | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements ask for; ``before`` begins the range before, as long."""
        return vars(self) | {
            "since": stored_since(self.start),
            "before": self.start - (self.end - self.start),
            "in_tens": self.is_long,
        }

    @property
    def seconds(self) -> float:
        """Length of the range."""
        return (self.end - self.start).total_seconds()

    @property
    def is_long(self) -> bool:
        """Whether it is read ten minutes at a time: it is no picture's loss."""
        return self.seconds > MAX_POINTS * (TEN_MINUTES.total_seconds() - 60)


def stored_since(time: datetime) -> date:
    """Return a date before which no reading of ``time`` or later was stored: partitions to skip.

    A reading's time is never more than five minutes after its message's; the rest is to spare.
    """
    return time.date() - timedelta(days=1)


# Enough memory to group a week of windows without sorting them on disk; no parallel workers: they
# take the processors from the services, and to start takes as long as most of this.
_LIMITS = (
    "SET LOCAL statement_timeout = '5s'; SET LOCAL work_mem = '32MB';"
    " SET LOCAL max_parallel_workers_per_gather = 0"
)


def fetch(database: Database, statement: str, parameters: dict[str, Any] | None = None) -> Rows:
    """Return the rows of one statement.

    Raises
    ------
    DatabaseUnavailable
        When PostgreSQL does not answer, or has no tables yet.
    """
    with (
        database.transaction() as tx,
        tx.connection.cursor(cursor_factory=RealDictCursor) as rows,
    ):
        try:
            rows.execute(_LIMITS)
            rows.execute(statement, parameters)
        except (UndefinedTable, UndefinedFunction, InsufficientPrivilege) as problem:
            raise TablesMissing("the tables are not there yet") from problem
        return [dict(row) for row in rows.fetchall()]


def window_step_s(selection: Selection, points: int = MAX_POINTS) -> int:
    """Return the seconds of whole minutes that cut the range into at most ``points`` steps."""
    unit_s = int(TEN_MINUTES.total_seconds()) if selection.is_long else 60
    return unit_s * max(1, ceil(selection.seconds / unit_s / points))


def verdict_step_s(selection: Selection) -> int:
    """Return the seconds of whole minutes that cut the range into at most 60 steps."""
    return window_step_s(selection, 60)
