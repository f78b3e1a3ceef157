"""What the dashboard reads about readings, windows and verdicts: bounded, parameterised SELECTs.

Whatever can be added up is added up where the rows are.

Each returns rows as dictionaries. Times are naive datetimes in UTC, as in the tables.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from db.connection import Database
from db.selecting import (
    IN_RANGE,
    MAX_MARKS,
    MAX_NEWEST,
    MAX_POINTS,
    MAX_SCORES,
    MAX_SENSORS,
    MAX_TABLE_ROWS,
    MEAN,
    POOLED,
    WHERE,
    WINDOWS,
    Rows,
    Selection,
    fetch,
    stored_since,
    ten_minutes,
    verdict_step_s,
    verdicts_for,
    window_step_s,
    windows_for,
)


def newest_reading(database: Database) -> Rows:
    """Return one row: the database's clock, the newest event time and when that was stored."""
    return fetch(
        database,
        "SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now, timestamp, created_at"
        " FROM (SELECT) AS one_row LEFT JOIN (SELECT timestamp, created_at FROM sensor_readings"
        " ORDER BY timestamp DESC LIMIT 1) AS newest ON true",
    )


def choices(database: Database) -> Rows:
    """Return the locations and sensor types of the newest windows."""
    return fetch(
        database,
        "SELECT DISTINCT location, sensor_type FROM (SELECT location, sensor_type"
        " FROM sensor_aggregates ORDER BY window_start DESC LIMIT 5000) AS newest",
    )


def totals(database: Database, selection: Selection) -> Rows:
    """Return readings and locations in range and in the range of the same length before it."""
    return fetch(
        database,
        "SELECT is_current, sum(readings)::float AS readings, min(first_window) AS first_window,"
        " count(*) AS locations FROM (SELECT window_start >= %(start)s AS is_current, location,"
        " sum(count_readings) AS readings, min(window_start) AS first_window"
        f" FROM {windows_for(selection.seconds)} WHERE window_start < %(end)s"
        " AND window_start >= %(before)s"
        f" AND{WHERE} GROUP BY 1, 2) AS per_location GROUP BY is_current",
        selection.parameters,
    )


def ml_totals(database: Database, selection: Selection) -> Rows:
    """Return the detector's anomalies in range and in the range before it."""
    return fetch(
        database,
        "SELECT minute >= %(start)s AS is_current, sum(ml_only + both_flag)::float AS anomalies"
        f" FROM {verdicts_for(selection.seconds)} WHERE minute < %(end)s"
        " AND minute >= %(before)s"
        f" AND{WHERE} GROUP BY is_current",
        selection.parameters,
    )


def latest_readings(database: Database, selection: Selection) -> Rows:
    """Return each sensor's last value, and its last 30 at most among the newest readings.

    A sensor that has fallen silent is not among those, but it is in ``sensors``.
    """
    return fetch(
        database,
        "WITH numbered AS (SELECT *, row_number() OVER (PARTITION BY sensor_id"
        " ORDER BY timestamp DESC) AS back FROM (SELECT sensor_id, sensor_type, location, unit,"
        " value, timestamp, anomaly FROM sensor_readings WHERE ingested_on >= %(since)s"
        " AND timestamp < %(end)s ORDER BY timestamp DESC LIMIT %(newest)s) AS newest),"
        " last AS (SELECT sensor_id, min(sensor_type) AS sensor_type, min(location) AS location,"
        " min(unit) AS unit, max(timestamp) AS timestamp,"
        " array_agg(value::float ORDER BY timestamp) AS recent,"
        " bool_or(anomaly) FILTER (WHERE back = 1) AS anomaly"
        " FROM numbered WHERE back <= 30 GROUP BY sensor_id),"
        " silent AS (SELECT sensor_id, sensor_type, location, unit, timestamp,"
        " ARRAY[value::float] AS recent, anomaly FROM sensors s WHERE timestamp < %(end)s AND"
        f"{WHERE} AND NOT EXISTS (SELECT FROM last WHERE last.sensor_id = s.sensor_id)"
        " ORDER BY sensor_id LIMIT %(most)s)"
        f" SELECT * FROM last WHERE{WHERE} UNION ALL SELECT * FROM silent"
        " ORDER BY location, sensor_type, sensor_id LIMIT %(most)s",
        selection.parameters | {"newest": MAX_NEWEST, "most": MAX_SENSORS},
    )


def units(database: Database) -> Rows:
    """Return the units in which sensors of each type last measured."""
    return fetch(
        database,
        "SELECT DISTINCT sensor_type, unit FROM ((SELECT sensor_type, unit FROM sensors"
        " ORDER BY sensor_id LIMIT 1000) UNION ALL (SELECT sensor_type, unit FROM sensor_readings"
        " ORDER BY timestamp DESC LIMIT 1000)) AS last LIMIT 200",
    )


def series(database: Database, selection: Selection) -> Rows:
    """Return the mean per type and location over at most ``MAX_POINTS`` equal steps of time.

    From the readings, which costs as much as there are of them; see ``window_series``.
    """
    return fetch(
        database,
        "SELECT sensor_type, location,"
        " date_bin(make_interval(secs => %(step)s), timestamp, '2000-01-01') AS time,"
        " avg(value::float8) AS mean FROM sensor_readings"
        f" WHERE{IN_RANGE} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT 20000",
        selection.parameters | {"step": max(1, round(selection.seconds / MAX_POINTS))},
    )


def window_series(database: Database, selection: Selection) -> Rows:
    """Return what ``series`` does from the windows, whatever the number of readings."""
    return fetch(
        database,
        "SELECT sensor_type, location,"
        " date_bin(make_interval(secs => %(step)s), window_start, '2000-01-01') AS time,"
        f" {MEAN}::float AS mean FROM {windows_for(selection.seconds)}"
        f" WHERE{WINDOWS} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT 20000",
        selection.parameters | {"step": window_step_s(selection)},
    )


def anomalies(database: Database, selection: Selection, limit: int = MAX_MARKS) -> Rows:
    """Return the detector's newest anomalies in range."""
    return fetch(
        database,
        "SELECT timestamp, sensor_id, sensor_type, location, value::float AS value,"
        " anomaly_score::float AS score, rule_based_anomaly, reason"
        f" FROM ml_anomaly_predictions WHERE is_anomaly AND{IN_RANGE}"
        " ORDER BY timestamp DESC LIMIT %(limit)s",
        selection.parameters | {"limit": limit},
    )


def verdicts_by_place(database: Database, selection: Selection) -> Rows:
    """Return predictions with a verdict, and the detector's anomalies, by location and type."""
    return fetch(
        database,
        "SELECT location, sensor_type, sum(ml_only + both_flag)::int AS anomalies,"
        " sum(neither + rule_only + ml_only + both_flag)::int AS judged"
        f" FROM {verdicts_for(selection.seconds)} WHERE minute >= %(start)s AND minute < %(end)s"
        f" AND{WHERE} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 500",
        selection.parameters,
    )


def windows(database: Database, selection: Selection) -> Rows:
    """Return windows in range, merged over locations and, in long ranges, over time.

    One row per type and step of at most ``MAX_POINTS`` equal steps, each of whole minutes.
    """
    return fetch(
        database,
        "SELECT sensor_type,"
        " date_bin(make_interval(secs => %(step)s), window_start, '2000-01-01') AS time,"
        f" {POOLED}, bool_and(is_closed) AS is_closed"
        f" FROM {windows_for(selection.seconds)} WHERE{WINDOWS}"
        " GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 10000",
        selection.parameters | {"step": window_step_s(selection)},
    )


def window_table(database: Database, selection: Selection) -> Rows:
    """Return the newest windows in range as they stand in the table."""
    return fetch(
        database,
        "SELECT window_start, location, sensor_type, avg_value::float AS mean,"
        " stddev_value::float AS stddev, min_value::float AS low, max_value::float AS high,"
        " count_readings AS readings, anomaly_count AS rule_anomalies, statistical_anomalies,"
        " CASE WHEN is_final THEN 'final' WHEN is_closed THEN 'closed' ELSE 'open' END AS state"
        f" FROM sensor_aggregates WHERE{WINDOWS}"
        " ORDER BY window_start DESC, location, sensor_type LIMIT %(limit)s",
        selection.parameters | {"limit": MAX_TABLE_ROWS},
    )


def late_readings(database: Database) -> Rows:
    """Return the newest late readings."""
    return fetch(
        database,
        "SELECT created_at AS arrived, timestamp, sensor_id, location, sensor_type,"
        " value::float AS value, late_by_seconds::float AS late_by_seconds"
        " FROM late_readings ORDER BY created_at DESC LIMIT 100",
    )


def agreement(database: Database, selection: Selection) -> Rows:
    """Return, over equal steps of time, how detector and rule agree on the readings."""
    return fetch(
        database,
        "SELECT date_bin(make_interval(secs => %(step)s), minute, '2000-01-01') AS time,"
        " sum(both_flag)::float AS both, sum(ml_only)::float AS ml_only,"
        " sum(rule_only)::float AS rule_only, sum(neither)::float AS neither,"
        " sum(without_verdict)::float AS without_verdict"
        f" FROM {verdicts_for(selection.seconds)} WHERE minute >= %(start)s AND minute < %(end)s"
        f" AND{WHERE} GROUP BY 1 ORDER BY 1",
        selection.parameters | {"step": verdict_step_s(selection)},
    )


def score_histogram(database: Database, selection: Selection) -> Rows:
    """Return how many of the newest readings in range have which score, in steps of 0.01.

    Of ``MAX_SCORES`` readings, whatever the range: their course is the same as that of more.
    """
    return fetch(
        database,
        "SELECT sensor_type, round(anomaly_score, 2)::float AS score, count(*)::int AS readings"
        " FROM (SELECT sensor_type, anomaly_score FROM ml_anomaly_predictions"
        f" WHERE{IN_RANGE} ORDER BY timestamp DESC LIMIT %(most)s) AS newest"
        " WHERE anomaly_score IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 2000",
        selection.parameters | {"most": MAX_SCORES},
    )


def sensor_history(database: Database, sensor_id: str, around: datetime) -> Rows:
    """Return one sensor's readings and verdicts around a time, at most 400."""
    near = (
        "SELECT timestamp, value, ingested_on, source_id, log_offset FROM sensor_readings"
        " WHERE ingested_on >= %(since)s AND sensor_id = %(sensor_id)s"
        " AND timestamp >= %(around)s - interval '15 minutes'"
        " AND timestamp <= %(around)s + interval '5 minutes'"
    )
    return fetch(
        database,
        "SELECT timestamp, r.value::float AS value, is_anomaly, anomaly_score::float AS score,"
        f" reason FROM (({near} AND timestamp <= %(around)s ORDER BY timestamp DESC LIMIT 300)"
        f" UNION ALL ({near} AND timestamp > %(around)s ORDER BY timestamp LIMIT 100)) AS r"
        " LEFT JOIN LATERAL (SELECT is_anomaly, anomaly_score, reason FROM ml_anomaly_predictions p"
        " WHERE p.ingested_on = r.ingested_on AND p.source_id = r.source_id"
        " AND p.log_offset = r.log_offset) AS verdict ON true ORDER BY timestamp",
        {"sensor_id": sensor_id, "around": around, "since": stored_since(around)},
    )


def models(database: Database) -> Rows:
    """Return the last training of each sensor type."""
    return fetch(
        database,
        "SELECT t.sensor_type, last.*"
        " FROM (SELECT DISTINCT sensor_type FROM sensor_types LIMIT 200) AS t, LATERAL ("
        " SELECT fitted_at, training_rows, duration_seconds::float AS duration_s,"
        " threshold::float AS threshold, flagged_share::float AS flagged_share,"
        " drift::float AS drift FROM model_runs m WHERE m.sensor_type = t.sensor_type"
        " ORDER BY id DESC LIMIT 1) AS last ORDER BY t.sensor_type",
    )


def correlations(database: Database, location: str | None) -> Rows:
    """Return the newest correlations of each location."""
    return fetch(
        database,
        "SELECT location, sensor_type_a, sensor_type_b, correlation::float AS correlation,"
        " window_count, window_end, is_final FROM (SELECT *, max(window_end)"
        " OVER (PARTITION BY location) AS last_end FROM (SELECT * FROM sensor_correlations"
        " ORDER BY window_end DESC LIMIT 10000) AS newest) AS ended"
        " WHERE window_end = last_end AND (%(location)s IS NULL OR location = %(location)s)"
        " LIMIT 2000",
        {"location": location},
    )


def location_statistics(database: Database, selection: Selection) -> Rows:
    """Return pooled statistics, and quantiles of the window means, by location and type.

    The quantiles are those of at most ``MAX_POINTS`` windows a group, evenly spaced: sorting all
    the windows of a week takes longer than everything else.
    """
    return fetch(
        database,
        "WITH quantile AS (SELECT location, sensor_type, percentile_cont("
        "ARRAY[0.05, 0.25, 0.5, 0.75, 0.95]::float[]) WITHIN GROUP (ORDER BY avg_value::float)"
        " AS quantiles FROM sensor_aggregates WHERE window_start = ANY(ARRAY("
        "SELECT generate_series(date_bin(make_interval(secs => %(step)s), %(start)s, '2000-01-01'),"
        f" %(end)s, make_interval(secs => %(step)s)))) AND{WINDOWS} GROUP BY 1, 2),"
        f" whole AS (SELECT location, sensor_type, {POOLED}, sum(windows)::int AS windows"
        f" FROM {windows_for(selection.seconds)} WHERE{WINDOWS} GROUP BY 1, 2)"
        " SELECT * FROM whole LEFT JOIN quantile USING (location, sensor_type)"
        " ORDER BY location, sensor_type LIMIT 500",
        selection.parameters | {"step": window_step_s(selection)},
    )


def hour_profile(database: Database, selection: Selection) -> Rows:
    """Return the mean by hour of the day (UTC) and type over the last seven days of data."""
    week = replace(selection, start=ten_minutes(selection.end) - timedelta(days=7))
    return fetch(
        database,
        "SELECT sensor_type, extract(hour FROM time)::int AS hour,"
        " (sum(total) / sum(readings))::float AS mean FROM (SELECT sensor_type,"
        " date_bin('1 hour', window_start, '2000-01-01') AS time,"
        " sum(avg_value * count_readings) AS total, sum(count_readings) AS readings"
        f" FROM {windows_for(week.seconds)} WHERE{WINDOWS} GROUP BY 1, 2) AS hours"
        " GROUP BY 1, 2 ORDER BY 1, 2",
        week.parameters,
    )
