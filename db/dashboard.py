"""What the dashboard reads about readings, windows and verdicts: bounded, parameterised SELECTs.

Whatever can be added up is added up where the rows are (``dashboard.sql``; windows and verdicts by
functions of ``schema.sql``, which read long ranges ten minutes at a time).

Each returns rows as dictionaries. Times are naive datetimes in UTC, as in the tables.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from db.connection import Database
from db.selecting import (
    MAX_POINTS,
    Rows,
    Selection,
    fetch,
    stored_since,
    ten_minutes,
    verdict_step_s,
    window_step_s,
)
from db.statements import statements

SQL = statements(__file__)

# Readings among which the last ones of each sensor are looked for.
MAX_NEWEST = 10_000
MAX_SCORES = 15_000
# Rows of a list; a download has all, up to MAX_DOWNLOAD.
MAX_LISTED = 100
MAX_DOWNLOAD = 200_000
# A range is cut into so many steps, each with so many marks at most.
MARK_STEPS, MARKS_A_STEP = 100, 20
# Points of all lines of a picture together: what a browser draws without a stutter.
MAX_SERIES_POINTS = 20_000


def newest_reading(database: Database) -> Rows:
    """Return one row: the database's clock, the newest event time and when that was stored."""
    return fetch(database, SQL["newest_reading"])


def choices(database: Database) -> Rows:
    """Return the locations and sensor types of the newest windows and readings."""
    return fetch(database, SQL["choices"])


def totals(database: Database, selection: Selection) -> Rows:
    """Return readings and their first window, in range and in the range as long before it."""
    return fetch(database, SQL["totals"], selection.parameters)


def ml_totals(database: Database, selection: Selection) -> Rows:
    """Return the detector's anomalies in range and in the range before it."""
    return fetch(database, SQL["ml_totals"], selection.parameters)


def latest_readings(database: Database, selection: Selection, now: datetime) -> Rows:
    """Return of each location and type the newest sensor's last 30 values at most.

    ``sensors`` says how many there are, ``active`` how many are not silent at ``now``: they spoke
    in the last minute, or in the last three of their own usual intervals. One that has fallen
    silent is not among the newest readings, but in the table ``sensors``.
    """
    at = {"newest": MAX_NEWEST, "now": now}
    return fetch(database, SQL["latest_readings"], selection.parameters | at)


def units(database: Database) -> Rows:
    """Return the units in which sensors of each type last measured."""
    return fetch(database, SQL["units"])


def series(database: Database, selection: Selection, lines: int = 25) -> Rows:
    """Return the mean per type and location over at most ``MAX_POINTS`` equal steps of time.

    From the readings, which costs as much as there are of them; see ``window_series``. The more
    lines there are, the longer the steps.
    """
    step_s = max(1, round(selection.seconds / _points(lines)))
    return fetch(database, SQL["series"], selection.parameters | {"step": step_s})


def window_series(database: Database, selection: Selection, lines: int = 25) -> Rows:
    """Return what ``series`` does from the windows, whatever the number of readings."""
    step_s = window_step_s(selection, _points(lines))
    return fetch(database, SQL["window_series"], selection.parameters | {"step": step_s})


def _points(lines: int) -> int:
    return max(2, min(MAX_POINTS, MAX_SERIES_POINTS // max(1, lines)))


def anomalies(database: Database, selection: Selection, most: int = MAX_LISTED) -> Rows:
    """Return the detector's newest anomalies in range."""
    return fetch(database, SQL["anomalies"], selection.parameters | {"most": most})


def anomaly_marks(database: Database, selection: Selection) -> Rows:
    """Return the newest anomalies of each of ``MARK_STEPS`` steps: some of all the range."""
    step_s = selection.seconds / MARK_STEPS
    return fetch(
        database,
        SQL["anomaly_marks"],
        selection.parameters | {"step": step_s, "most": MARKS_A_STEP},
    )


def verdicts_by_place(database: Database, selection: Selection) -> Rows:
    """Return predictions with a verdict, and the detector's anomalies, by location and type."""
    return fetch(database, SQL["verdicts_by_place"], selection.parameters)


def windows(database: Database, selection: Selection) -> Rows:
    """Return windows in range, merged over locations and, in long ranges, over time.

    One row per type and step of at most ``MAX_POINTS`` equal steps, each of whole minutes.
    """
    step = {"step": window_step_s(selection)}
    return fetch(database, SQL["windows"], selection.parameters | step)


def window_table(database: Database, selection: Selection, most: int = MAX_LISTED) -> Rows:
    """Return the newest windows in range as they stand in the table."""
    return fetch(database, SQL["window_table"], selection.parameters | {"most": most})


def mixed_units(database: Database, selection: Selection) -> Rows:
    """Return at which places the newest windows of which types are of several units."""
    return fetch(database, SQL["mixed_units"], selection.parameters)


def late_readings(database: Database, most: int = MAX_LISTED) -> Rows:
    """Return the newest late readings."""
    return fetch(database, SQL["late_readings"], {"most": most})


def agreement(database: Database, selection: Selection) -> Rows:
    """Return, over equal steps of time, how detector and rule agree on the readings."""
    step = {"step": verdict_step_s(selection)}
    return fetch(database, SQL["agreement"], selection.parameters | step)


def score_histogram(database: Database, selection: Selection) -> Rows:
    """Return how many of the newest readings in range have which score, in steps of 0.01."""
    return fetch(database, SQL["score_histogram"], selection.parameters | {"most": MAX_SCORES})


def sensor_history(database: Database, series: tuple[str, str, str], around: datetime) -> Rows:
    """Return readings and verdicts of a series around a time, at most 400.

    ``series`` is (location, sensor_type, sensor_id).
    """
    location, sensor_type, sensor_id = series
    return fetch(
        database,
        SQL["sensor_history"],
        {
            **{"location": location, "sensor_type": sensor_type, "sensor_id": sensor_id},
            **{"around": around, "since": stored_since(around)},
        },
    )


def models(database: Database) -> Rows:
    """Return the last training of each sensor type."""
    return fetch(database, SQL["models"])


def correlations(database: Database, location: str | None) -> Rows:
    """Return the newest correlations of each location."""
    return fetch(database, SQL["correlations"], {"location": location})


def location_statistics(database: Database, selection: Selection) -> Rows:
    """Return pooled statistics, and quantiles of the window means, by location and type."""
    step = {"step": window_step_s(selection)}
    return fetch(database, SQL["location_statistics"], selection.parameters | step)


def hour_profile(database: Database, selection: Selection) -> Rows:
    """Return the mean by hour of the day (UTC) and type over the last seven days of data."""
    week = replace(selection, start=ten_minutes(selection.end) - timedelta(days=7))
    return fetch(database, SQL["hour_profile"], week.parameters)
