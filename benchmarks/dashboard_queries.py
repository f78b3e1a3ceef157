"""Time every statement of the dashboard, and every tab, on a table of many readings.

``python -m benchmarks.dashboard_queries --rows 10000000`` fills a database of its own (25 sensors,
one reading a second each, so ten million are 4.6 days; every twentieth flagged), asks each
statement for each time range, and prints a table and the same as JSON lines. With ``--url`` the
database is kept: the second run finds it filled.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from inspect import getmembers, isfunction, signature
from pathlib import Path
from statistics import median
from typing import Any

from dashboard_tabs.filters import RANGES_MINUTES
from db import dashboard as queries
from db import health
from db.connection import Database, DatabaseUnavailable
from db.schema import apply_schema
from db.selecting import MAX_RAW_READINGS, Selection
from local_stack.postgres import LocalPostgres

CHECKOUT = Path(__file__).resolve().parent.parent
STATEMENTS = [
    query
    for module in (queries, health)
    for name, query in getmembers(module, isfunction)
    if query.__module__ == module.__name__ and not name.startswith("_")
]
LIMIT_MS = 100.0
TAB_LIMIT_MS = 1000.0
CHUNK_ROWS = 1_000_000
SENSORS = 25
REPEATS = 5

# Reading i is measured SENSORS to the second; the last one at %(end)s.
_FLEET = """
WITH place AS (SELECT ARRAY['Server Room','Office Floor 3','Warehouse','Laboratory','Manufacturing']
 AS names), kind AS (SELECT ARRAY['temperature','humidity','air_quality','pressure','co2'] AS names,
 ARRAY['°C','%%','AQI','hPa','ppm'] AS units, ARRAY[22,45,50,1013,600] AS levels),
reading AS (SELECT i, i %% 25 AS s, %(end)s::timestamp
 - make_interval(secs => (%(rows)s - 1 - i) / 25.0) AS time
 FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i),
one AS (SELECT i, 'sensor-' || s AS sensor_id, kind.names[1 + s %% 5] AS sensor_type,
 kind.units[1 + s %% 5] AS unit, place.names[1 + s / 5] AS location, time,
 round((kind.levels[1 + s %% 5] * (1 + 0.02 * sin(extract(epoch FROM time) / 13751)
 + 0.01 * (random() - 0.5)))::numeric, 2) AS value,
 (i + i / 25) %% 20 = 0 AS is_anomaly, (i + i / 25) %% 33 = 0 AS rule,
 1 + s %% 6 AS source_id FROM reading, kind, place)
"""
READINGS = (
    _FLEET
    + """INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp, anomaly,
 unit, created_at, source_id, log_offset) SELECT sensor_id, sensor_type, location, value, time,
 rule, unit, time, source_id, i FROM one"""
)
PREDICTIONS = (
    _FLEET
    + """INSERT INTO ml_anomaly_predictions (sensor_id, sensor_type, location, value, timestamp,
 is_anomaly, anomaly_score, rule_based_anomaly, reason, source_id, log_offset)
 SELECT sensor_id, sensor_type, location, value, time, is_anomaly,
 CASE WHEN is_anomaly THEN -0.6 ELSE -0.4 END - 0.1 * random(), rule,
 CASE WHEN is_anomaly THEN 'value 5.2 usual deviations above normal' END, source_id, i FROM one"""
)
DERIVED = """
INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,
 min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies,
 is_closed, is_final)
SELECT date_trunc('minute', timestamp), date_trunc('minute', timestamp) + interval '1 minute',
 location, sensor_type, avg(value), min(value), max(value), stddev_pop(value), count(*),
 count(*) FILTER (WHERE anomaly), 0, true, true FROM sensor_readings GROUP BY 1, 2, 3, 4;
INSERT INTO verdict_counts SELECT date_trunc('minute', timestamp), location, sensor_type,
 count(*) FILTER (WHERE NOT is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE NOT is_anomaly AND rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND rule_based_anomaly), 0
 FROM ml_anomaly_predictions GROUP BY 1, 2, 3;
INSERT INTO sensor_correlations SELECT window_end, location, a.t, b.t, 0.5, 30, true
 FROM (SELECT DISTINCT window_end, location FROM sensor_aggregates) AS w,
 unnest(ARRAY['temperature','humidity','air_quality','pressure','co2']) AS a (t),
 unnest(ARRAY['temperature','humidity','air_quality','pressure','co2']) AS b (t) WHERE a.t < b.t;
INSERT INTO sources (cluster_id, topic_id, topic, partition)
 SELECT 'c', 't', 'iot_sensors', i FROM generate_series(0, 5) AS i;
INSERT INTO sensor_types SELECT DISTINCT sensor_type, 1, 0 FROM sensor_aggregates;
INSERT INTO model_runs (sensor_type, fitted_at, training_rows, duration_seconds, threshold,
 flagged_share, drift) SELECT sensor_type, window_start, 1000, 0.3, -0.55, 0.05, 0.02
 FROM sensor_aggregates WHERE location = 'Laboratory' AND extract(minute FROM window_start)::int
 % 5 = 0 ORDER BY window_start;
INSERT INTO late_readings SELECT source_id, log_offset, sensor_id, sensor_type, location, value,
 timestamp, anomaly, unit, timestamp, timestamp, 400 FROM sensor_readings
 WHERE source_id = 1 ORDER BY log_offset LIMIT 10000;
INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason, payload,
 payload_bytes) SELECT 1, 'iot_sensors', 0, i, 'not_json', 'not JSON', '\\x7b7b', 2
 FROM generate_series(1, 10000) AS i;
INSERT INTO service_status (service, instance, state, details) VALUES
 ('consumer', 'a-1', 'running', '{"readings_per_s": 25, "lag": 7, "latency_ms_p99": 120}');
"""


def fill(database: Database, rows: int, end: datetime) -> None:
    """Fill the tables with ``rows`` readings that end at ``end``, in the order of their times."""
    for what, statement in (("readings", READINGS), ("predictions", PREDICTIONS)):
        for first in range(0, rows, CHUNK_ROWS):
            last = min(rows, first + CHUNK_ROWS) - 1
            say(f"filling {what}: {last + 1:,} of {rows:,}")
            with database.transaction() as tx:
                tx.execute(statement, {"first": first, "last": last, "rows": rows, "end": end})
    say("filling the derived tables")
    with database.transaction() as tx:
        tx.execute(DERIVED)


def measure(database: Database, end: datetime) -> Iterator[dict[str, Any]]:
    """Yield a row per statement and time range: the first answer and the median of five more."""
    for query in STATEMENTS:
        takes_range = "selection" in signature(query).parameters
        for name, minutes in RANGES_MINUTES.items() if takes_range else [("–", 15)]:
            if query is queries.series and minutes * 60 * SENSORS > MAX_RAW_READINGS:
                continue  # window_series is asked instead
            start = (end - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
            given = {
                "selection": Selection(start, end),
                "sensor_id": "sensor-7",
                "around": end,
                "location": None,
            }
            arguments = [given[p] for p in signature(query).parameters if p in given]
            times, answer = [], []
            for _ in range(REPEATS + 1):
                began = time.perf_counter()
                try:
                    answer = query(database, *arguments)
                except DatabaseUnavailable as problem:
                    if "timeout" not in str(problem):
                        raise
                times.append(1000 * (time.perf_counter() - began))
            yield {
                "statement": query.__name__,
                "range": name,
                "rows": len(answer),
                "first_ms": round(times[0], 1),
                "median_ms": round(median(times[1:]), 1),
            }


def measure_tabs(url: str) -> Iterator[dict[str, Any]]:
    """Yield a row per tab and time range: what a refresh with nothing cached takes, undrawn."""
    from streamlit.testing.v1 import AppTest

    from dashboard import TABS

    os.environ["DATABASE_URL"] = url
    os.environ["DASHBOARD_REFRESH_SECONDS"] = "1"
    for tab in TABS:
        for name in RANGES_MINUTES:
            page = AppTest.from_file(str(CHECKOUT / "dashboard.py"), default_timeout=60)
            page.query_params["tab"], page.query_params["range"] = tab, name
            times = []
            for _ in range(3):
                began = time.perf_counter()
                page.run()
                times.append(1000 * (time.perf_counter() - began))
                time.sleep(1.1)  # a refresh interval: what is cached is too old then
            yield {"tab": tab, "range": name, "median_ms": round(median(times[1:]), 1)}


def show(rows: list[dict[str, Any]], limit_ms: float) -> int:
    """Print a table and JSON lines; return how many were slower than ``limit_ms``."""
    slow = 0
    for row in rows:
        is_slow = row["median_ms"] > limit_ms
        slow += is_slow
        print("  ".join(f"{value!s:>22}" for value in row.values()), "SLOW" if is_slow else "")
    for row in rows:
        print(json.dumps(row))
    return slow


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """Yield the address of a database to fill: the one given, or that of a server of our own."""
    if url:
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="dashboard-bench-") as folder,
        LocalPostgres(Path(folder), durable=False) as local,
    ):
        yield local.create_database("bench")


def say(text: str) -> None:
    """Say on stderr what goes on: the figures alone go to stdout."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Fill, measure, print; return 1 if anything was slower than promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="readings to fill in")
    parser.add_argument("--url", help="a database to use and keep; default: one of its own")
    parser.add_argument("--no-tabs", action="store_true", help="measure the statements only")
    options = parser.parse_args(arguments)
    with server(options.url) as url, Database(url, "bench") as database:
        apply_schema(database)
        end = datetime.now(UTC).replace(tzinfo=None)
        stored = newest(database)
        if stored is None:
            fill(database, options.rows, end)
            analyse(url)
        else:
            end = stored + timedelta(seconds=1)
        print(f"{options.rows:,} readings, {platform.machine()}, {os.cpu_count()} cores")
        slow = show(list(measure(database, end)), LIMIT_MS)
        if not options.no_tabs:
            slow += show(list(measure_tabs(url)), TAB_LIMIT_MS)
    return int(slow > 0)


def newest(database: Database) -> datetime | None:
    """Return the newest event time there is."""
    rows = queries.newest_reading(database)
    return rows[0]["timestamp"] if rows else None


def analyse(url: str) -> None:
    """Do what autovacuum does after a while: planner statistics and the visibility map."""
    import psycopg2

    say("vacuuming")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute("VACUUM (ANALYZE)")
    connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
