"""Rows of windows: refined under locks, closed, made final and rolled up, each exactly once."""

import random
import threading

import pytest

from db import aggregates
from db.connection import Database
from db.times import to_timestamp
from pipeline.windows import WindowKey
from tests.waiting import until

pytestmark = pytest.mark.integration

MINUTE_US = 60_000_000
PARTIAL = (
    "INSERT INTO window_partials SELECT %s, %s, 'Lab', 'co2', 1, 100, 10000, 100, 100, 0, 0, 0, 0,"
    " 0, 0, 0, 0"
)
SOURCES = (
    "INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0),"
    " ('c', 't', 't', 1)"
)
# Four days of windows of a given length, one a group, in two places.
WINDOWS = """
INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,
 min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies)
SELECT start, start + %(length)s * interval '1 s', place, kind, sin(n) * 1e6, sin(n) * 1e6 - 1 - n,
 sin(n) * 1e6 + n, n / 100.0, 1 + n %% 7, n %% 3, n %% 2
FROM generate_series(0, (4 * 86400 - %(length)s) / %(length)s) AS n,
 LATERAL (SELECT '1970-01-01'::timestamp + n * %(length)s * interval '1 s' AS start) AS at,
 unnest(ARRAY['Hall', 'Lab']) AS place, unnest(ARRAY['co2', 'power']) AS kind
"""
AS_ONE = """
SELECT {start}, location, sensor_type, round(sum(avg_value * count_readings)
 / sum(count_readings), 2), min(min_value), max(max_value), sum(count_readings),
 sum(anomaly_count), sum(statistical_anomalies), count(*)
FROM sensor_aggregates GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
SPREAD = """
SELECT {start}, location, sensor_type, sqrt(sum(count_readings * (stddev_value ^ 2
 + (avg_value - mean) ^ 2)) / sum(count_readings))::float
FROM sensor_aggregates JOIN (SELECT {start} AS s, location, sensor_type,
 sum(avg_value * count_readings) / sum(count_readings) AS mean FROM sensor_aggregates
 GROUP BY 1, 2, 3) AS means USING (location, sensor_type) WHERE s = {start}
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def finalize(database, until_us):
    with database.transaction() as tx:
        return aggregates.close_windows(tx, until_us, 0)


def refine(tx, *starts_us):
    keys = [WindowKey(start, "Lab", "co2") for start in starts_us]
    aggregates.refine(tx, aggregates.to_pages(keys, MINUTE_US))


def store_partial(tx, source_id, start_us):
    tx.execute(PARTIAL, (source_id, to_timestamp(start_us)))


@pytest.mark.parametrize("length_s", [60, 420, 1_500, 5_400])
@pytest.mark.parametrize(
    ("view", "unit"), [("hourly_aggregates", "hour"), ("daily_aggregates", "day")]
)
def test_windows_of_any_length_add_up_to_hours_and_days_however_they_became_final(
    database, query, monkeypatch, length_s, view, unit
):
    with database.transaction() as tx:
        tx.execute(WINDOWS, {"length": length_s})
    monkeypatch.setattr(aggregates, "MAX_CLOSED_ROWS", 1_873)
    chance = random.Random(length_s)
    steps = sorted(chance.uniform(0, 4 * 86_400) for _ in range(5))
    for until_s in (*steps, 4 * 86_400):
        while finalize(database, int(until_s * 1e6)):
            pass
    # A window belongs to the ten minutes it starts in, and those to the hour they lie in.
    start = f"date_trunc('{unit}', date_bin('10 minutes', window_start, '2000-01-01'))"
    assert query(
        f"SELECT {unit}, location, sensor_type, avg_value, min_value, max_value, count_readings,"
        f" anomaly_count, statistical_anomalies, windows FROM {view} ORDER BY 1, 2, 3"
    ) == query(AS_ONE.format(start=start + ("::date" if unit == "day" else "")))
    spreads = query(
        f"SELECT stddev_value::float FROM {view} ORDER BY {unit}, location, sensor_type"
    )
    expected = [row[3] for row in query(SPREAD.format(start=start))]
    assert [s for (s,) in spreads] == pytest.approx(expected, abs=0.0051)


def test_two_processors_roll_a_window_up_once(database_url, database, query):
    with database.transaction() as tx:
        tx.execute(WINDOWS, {"length": 60})
    at_work = threading.Barrier(2)

    def work():
        with Database(database_url, "test-processor") as mine:
            at_work.wait()
            while finalize(mine, 4 * 86_400_000_000):
                pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert query("SELECT sum(windows) FROM window_rollups") == [(4 * 1_440 * 4,)]


@pytest.mark.parametrize("is_there", [False, True])
def test_who_refines_a_window_second_waits_and_counts_what_the_first_has_stored(
    database_url, database, query, is_there
):
    query(SOURCES)
    if is_there:
        query(
            "INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('d', 't', 't', 0)"
        )
        with database.transaction() as tx:
            store_partial(tx, 3, 0)
            refine(tx, 0)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )

    def second():
        with Database(database_url, "test-second") as mine, mine.transaction() as tx:
            store_partial(tx, 2, 0)
            refine(tx, 0)

    thread = threading.Thread(target=second)
    with Database(database_url, "test-first") as first, first.transaction() as tx:
        store_partial(tx, 1, 0)
        refine(tx, 0)
        thread.start()
        until(lambda: query(waiting) == [(1,)])
    thread.join(30)
    assert query("SELECT count_readings FROM sensor_aggregates") == [(2 + is_there,)]


def test_a_row_that_is_being_refined_is_closed_later(database_url, database, query):
    query(SOURCES)
    for start_us in (0, MINUTE_US):
        with database.transaction() as tx:
            store_partial(tx, 1, start_us)
            refine(tx, start_us)
    with Database(database_url, "test-other") as other, other.transaction() as tx:
        store_partial(tx, 2, 0)
        refine(tx, 0)
        finalize(database, 10 * MINUTE_US)
        assert query("SELECT is_final FROM sensor_aggregates ORDER BY window_start") == [
            (False,),
            (True,),
        ]
    finalize(database, 10 * MINUTE_US)
    assert query("SELECT is_final, count_readings FROM sensor_aggregates ORDER BY 2") == [
        (True, 1),
        (True, 2),
    ]
    assert query("SELECT readings, total::float, squares::float, windows FROM window_rollups") == [
        (3, 3.0, 3.0, 2)
    ]


def test_final_rows_are_refused_and_nothing_is_written(database, query):
    query(SOURCES)
    starts = [n * MINUTE_US for n in range(3)]
    with database.transaction() as tx:
        for start_us in starts:
            store_partial(tx, 1, start_us)
        refine(tx, *starts)
    finalize(database, 2 * MINUTE_US)
    with pytest.raises(aggregates.WindowFinal) as refused, database.transaction() as tx:
        for start_us in starts:
            store_partial(tx, 2, start_us)
        refine(tx, *starts)
    assert refused.value.until_us == 2 * MINUTE_US
    assert query("SELECT sum(count_readings) FROM sensor_aggregates") == [(3,)]
