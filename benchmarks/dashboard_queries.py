"""Time every statement of dashboard and detector, and every tab, as the tables grow.

``python -m benchmarks.dashboard_queries --rows 1000000 5000000 10000000 20000000`` fills a database
of its own (25 sensors, one reading a second each, so ten million are 4.6 days in as many
partitions; every twentieth flagged) to each size in turn, asks each statement for each time range,
and prints a table a size, the medians side by side, and the same as JSON lines. ``--partitions``
adds older, empty ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from inspect import getmembers, isfunction, signature
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from dashboard_tabs.filters import RANGES_MINUTES
from db import dashboard as queries
from db import health, partitions, predictions, readings
from db.connection import Cursor, Database, DatabaseUnavailable
from db.selecting import MAX_RAW_READINGS, Selection
from db.settings import Retention
from db.shards import SHARDS, shard_of
from db.statements import statements
from db.versions import apply_schema
from local_stack.interrupts import end_as_by_ctrl_c
from local_stack.postgres import LocalPostgres
from service import upkeep

CHECKOUT = Path(__file__).resolve().parent.parent
STATEMENTS = [
    query
    for module in (queries, health)
    for name, query in getmembers(module, isfunction)
    if query.__module__ == module.__name__ and not name.startswith("_")
]
LIMIT_MS = 50.0
TAB_LIMIT_MS = 1000.0
CHUNK_ROWS = 1_000_000
SENSORS = 25
REPEATS = 5

SQL = statements(__file__)


def partition(database: Database, days: int, end: datetime) -> None:
    """Replace the partitions of empty tables by one a day, for so many days up to ``end``."""
    with database.transaction() as tx:
        for table in partitions.PARTITIONED:
            for name in partitions.of(tx, table):
                tx.execute(f"DROP TABLE {name}")
    for back in range(days, -1, -1):
        with database.transaction() as tx:
            partitions.make_ahead(tx, end.date() - timedelta(days=back))


def fill(database: Database, first: int, rows: int, end: datetime) -> None:
    """Grow the tables from ``first`` to ``rows`` readings, which end at ``end``."""
    with database.transaction() as tx:
        tx.execute(SQL["fleet"])
    for what in ("readings", "predictions"):
        for begin in range(first, rows, CHUNK_ROWS):
            last = min(rows, begin + CHUNK_ROWS) - 1
            say(f"filling {what}: {last + 1:,} of {rows:,}")
            with database.transaction() as tx:
                tx.execute(SQL[what], {"first": begin, "last": last, "end": end})
    say("filling the derived tables")
    with database.transaction() as tx:
        tx.execute(SQL["derived"])
    upkeep.look_after(database, Retention())
    upkeep.note_sensors(database)


# Behind the end: what the detector finds after a pause, and what it learns again after a restart.
BEHIND = 1_000_000_000 - 1_500
ENDS = dict.fromkeys(range(1, 7), 1_000_000_001)


def detector_poll(tx: Cursor, end: datetime) -> Sized:
    """Read what came in the last minute, knowing of which day it is."""
    since = end.date() - timedelta(days=1)
    begin = dict.fromkeys(ENDS, BEHIND)
    return predictions.fetch(tx, range(SHARDS), begin, ENDS, 20_000, since).readings()[0]


def detector_first_poll(tx: Cursor, end: datetime) -> Sized:
    """Read the same right after a start, when any partition might hold it."""
    begin = dict.fromkeys(ENDS, BEHIND)
    return predictions.fetch(tx, range(SHARDS), begin, ENDS, 20_000, date.min).readings()[0]


def detector_restart(tx: Cursor, end: datetime) -> Sized:
    """Learn again what one shard's readings were since its state was saved."""
    begin = dict.fromkeys(ENDS, BEHIND)
    return predictions.fetch_scored(tx, shard_of("co2"), begin, ENDS, 20_000).readings()[0]


def consumer_start(tx: Cursor, end: datetime) -> Sized:
    """Look for readings beyond the stored offsets."""
    readings.refuse_rows_ahead(tx, "consumer", ENDS)
    return ()


def note_sensors(tx: Cursor, end: datetime) -> Sized:
    """Note the sensors of as many readings as one transaction takes, all of them stored anew."""
    tx.execute("DELETE FROM noted_offsets")
    readings.note_sensors(tx)
    return ()


SERVICES = (detector_poll, detector_first_poll, detector_restart, consumer_start, note_sensors)


def measure_services(database: Database, end: datetime) -> Iterator[dict[str, Any]]:
    """Yield a row per statement of detector and consumer that reads the large tables."""
    for ask in SERVICES:
        times: list[float] = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            with database.transaction() as tx:
                answer = ask(tx, end)
            times.append(1000 * (time.perf_counter() - began))
        yield _row(ask.__name__, "–", len(answer), times)


def _row(statement: str, time_range: str, rows: int, times: list[float]) -> dict[str, Any]:
    return {
        "statement": statement,
        "range": time_range,
        "rows": rows,
        "first_ms": round(times[0], 1),
        "median_ms": round(median(times[1:]), 1),
    }


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
                "series": ("Office Floor 3", "air_quality", "sensor-7"),
                **{"around": end, "now": end, "since": start},
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
            yield _row(query.__name__, name, len(answer), times)


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
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000_000], help="readings to grow to, in turn"
    )
    parser.add_argument("--partitions", type=int, default=0, help="at least so many, a day each")
    parser.add_argument("--url", help="an empty database to use and keep; default: one of its own")
    parser.add_argument("--no-tabs", action="store_true", help="measure the statements only")
    options = parser.parse_args(arguments)
    with server(options.url) as url, Database(url, "bench") as database:
        apply_schema(database)
        end = datetime.now(UTC).replace(tzinfo=None)
        days = max(options.rows) // (SENSORS * 86_400) + 1
        partition(database, max(days, options.partitions), end)
        slow = 0
        medians: dict[tuple[str, str], list[float]] = {}
        for before, rows in pairwise([0, *sorted(options.rows)]):
            fill(database, before, rows, end)
            analyse(url)
            print(f"{rows:,} readings, {platform.machine()}, {os.cpu_count()} cores")
            results = [*measure(database, end), *measure_services(database, end)]
            slow += show(results, LIMIT_MS)
            for row in results:
                medians.setdefault((row["statement"], row["range"]), []).append(row["median_ms"])
        print(f"median ms at {sorted(options.rows)} readings")
        for (statement, name), curve in medians.items():
            print(f"{statement:>22} {name:>4}", *(f"{ms:8.1f}" for ms in curve))
        if not options.no_tabs:
            slow += show(list(measure_tabs(url)), TAB_LIMIT_MS)
    return int(slow > 0)


def analyse(url: str) -> None:
    """Do what autovacuum does after a while: statistics and visibility map, not of the parents."""
    import psycopg2

    say("vacuuming")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(
        "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    cursor.execute(f"VACUUM (ANALYZE) {cursor.fetchone()[0]}")
    connection.close()


if __name__ == "__main__":
    end_as_by_ctrl_c()
    raise SystemExit(main())
