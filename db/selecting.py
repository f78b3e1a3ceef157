"""What the dashboard's statements have in common: the range and the filters, and how to ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from psycopg2.extras import RealDictCursor

from db.connection import Database, DatabaseUnavailable

Rows = list[dict[str, Any]]

# What a chart can show and a browser can hold.
MAX_POINTS = 150
MAX_SENSORS = 120
# Readings among which the last ones of each sensor are looked for.
MAX_NEWEST = 10_000
MAX_TABLE_ROWS = 500
MAX_MARKS = 1000
MAX_SCORES = 15_000
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
        """Parameters of the conditions below; ``before`` begins the range before, as long."""
        before = self.start - (self.end - self.start)
        return vars(self) | {
            "since": stored_since(self.start),
            "before": before,
            "merged_from": ten_minutes(before) + TEN_MINUTES,
            "merged_until": ten_minutes(self.end),
        }

    @property
    def seconds(self) -> float:
        """Length of the range."""
        return (self.end - self.start).total_seconds()


def stored_since(time: datetime) -> date:
    """Return a date before which no reading of ``time`` or later was stored: partitions to skip.

    A reading's time is never more than five minutes after its message's; the rest is to spare.
    """
    return time.date() - timedelta(days=1)


WHERE = (
    " (%(location)s IS NULL OR location = %(location)s)"
    " AND (%(sensor_type)s IS NULL OR sensor_type = %(sensor_type)s)"
)
IN_RANGE = (
    f" ingested_on >= %(since)s AND timestamp >= %(start)s AND timestamp < %(end)s AND{WHERE}"
)
WINDOWS = f" window_start >= %(start)s AND window_start < %(end)s AND{WHERE}"


# Rows of sensor_aggregates made one: the moments of what they hold together.
MEAN = "(sum(avg_value * count_readings) / sum(count_readings))"
POOLED = (
    f"sum(count_readings)::bigint AS readings, {MEAN}::float AS mean,"
    f" sqrt(greatest(0, sum((stddev_value * stddev_value + avg_value * avg_value) * count_readings)"
    f" / sum(count_readings) - {MEAN} ^ 2))::float AS stddev,"
    " min(min_value)::float AS low, max(max_value)::float AS high,"
    " sum(anomaly_count)::int AS rule_anomalies,"
    " sum(statistical_anomalies)::int AS statistical_anomalies"
)


_COLUMNS = "window_start, location, sensor_type, count_readings, anomaly_count,"
_SINGLE = (
    f"SELECT {_COLUMNS} statistical_anomalies, avg_value::float, stddev_value::float,"
    " min_value::float, max_value::float, 1 AS windows, is_closed FROM sensor_aggregates"
)
# Final windows ten minutes a row, and those that are not yet; at both ends window by window.
_MERGED_WINDOWS = (
    f"({_SINGLE} WHERE window_start < %(merged_from)s"
    " UNION ALL SELECT window_start, location, sensor_type, readings, rule_anomalies,"
    " statistical_anomalies, total::float / readings,"
    " sqrt((squares * readings - total * total)::float) / readings, low::float, high::float,"
    " windows, true FROM window_rollups"
    " WHERE window_start >= %(merged_from)s AND window_start < %(merged_until)s"
    f" UNION ALL {_SINGLE} WHERE NOT is_final"
    " AND window_start >= %(merged_from)s AND window_start < %(merged_until)s"
    f" UNION ALL {_SINGLE} WHERE window_start >= %(merged_until)s) AS merged"
)
_MERGED_VERDICTS = (
    "(SELECT * FROM verdict_counts WHERE minute < %(merged_from)s"
    " UNION ALL SELECT * FROM merged_verdicts"
    " WHERE minute >= %(merged_from)s AND minute < %(merged_until)s"
    " UNION ALL SELECT * FROM verdict_counts WHERE minute >= %(merged_until)s) AS merged"
)


def _is_long(seconds: float) -> bool:
    return seconds > MAX_POINTS * (TEN_MINUTES.total_seconds() - 60)


def windows_for(seconds: float) -> str:
    """Return what to read the windows of so long a range from; ``windows`` says how many a row."""
    return _MERGED_WINDOWS if _is_long(seconds) else f"({_SINGLE}) AS single"


def verdicts_for(seconds: float) -> str:
    """Return what to read the verdicts of so long a range from."""
    return _MERGED_VERDICTS if _is_long(seconds) else "verdict_counts"


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
    try:
        with database.transaction() as tx:
            with tx.connection.cursor(cursor_factory=RealDictCursor) as rows:
                rows.execute(_LIMITS)
                rows.execute(statement, parameters)
                return [dict(row) for row in rows.fetchall()]
    except (UndefinedTable, InsufficientPrivilege) as problem:
        raise DatabaseUnavailable("the tables are not there yet: start any service") from problem


def window_step_s(selection: Selection) -> int:
    """Return the seconds of whole minutes that cut the range into at most ``MAX_POINTS`` steps."""
    return _whole_step_s(selection, MAX_POINTS)


def verdict_step_s(selection: Selection) -> int:
    """Return the seconds of whole minutes that cut the range into at most 60 steps."""
    return _whole_step_s(selection, 60)


def _whole_step_s(selection: Selection, steps: int) -> int:
    unit_s = int(TEN_MINUTES.total_seconds()) if _is_long(selection.seconds) else 60
    return unit_s * max(1, ceil(selection.seconds / unit_s / steps))
