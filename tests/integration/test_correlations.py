"""Correlations are those pandas computes, are made up after a kill, and hold nothing else up."""

import threading

import numpy as np
import pandas as pd
import psycopg2
import pytest

from db import aggregates, correlations
from db.connection import Database
from service.correlating import BackgroundCorrelator
from tests.waiting import until

pytestmark = pytest.mark.integration

WINDOWS = 30
START = pd.Timestamp("2026-01-31 12:00")
STORE = (
    "INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,"
    " min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies)"
    " VALUES (%s, %s, %s, %s, %s, 0, 0, 0, 1, 0, 0)"
)
FOUND = (
    "SELECT sensor_type_a, sensor_type_b, correlation::float, window_count, is_final"
    " FROM sensor_correlations WHERE location = %s AND window_end = %s ORDER BY 1, 2"
)
REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON sensor_correlations FOR EACH ROW
 WHEN (new.window_end = '2026-01-31 12:07') EXECUTE FUNCTION refuse()
"""
MINUTE = pd.Timedelta(minutes=1)


def store(database, means):
    """Store windows; ``means`` has a column per sensor type, a row per minute, perhaps holes."""
    with database.transaction() as tx:
        for start, row in means.iterrows():
            for kind, mean in row.dropna().items():
                tx.execute(STORE, (start, start + MINUTE, "Lab", kind, mean))


def close_all(database, lateness_us=10**15):
    with database.transaction() as tx:
        return aggregates.close_windows(tx, 2 * 10**15, lateness_us)


def work_off(database, windows=WINDOWS):
    while correlations.work_off(database, windows, 10)[0]:
        pass


def by_pandas(means, end, windows=WINDOWS):
    """Compute what the table should hold for one window end."""
    recent = means[(means.index > end - MINUTE - pd.Timedelta(days=1)) & (means.index < end)]
    rows = []
    kinds = sorted(kind for kind in recent if recent[kind].notna().any())
    for n, a in enumerate(kinds):
        for b in kinds[n + 1 :]:
            common = recent[[a, b]].dropna().tail(windows)
            flat = len(common) < 3 or (common.nunique() == 1).any()
            r = None if flat else common[a].corr(common[b])
            rows.append((a, b, r, len(common)))
    return rows


def unkind_means():
    """Return series with holes, constants, different beats, and one that stopped long ago."""
    chance = np.random.default_rng(11)
    index = pd.date_range(START, periods=26 * 60, freq="min")
    level = chance.normal(0, 1, len(index)).cumsum()
    means = pd.DataFrame(
        {
            "co2": level + chance.normal(0, 3, len(index)),
            "constant": np.full(len(index), 0.1),
            "five_minutes": np.where(np.arange(len(index)) % 5 == 0, level, np.nan),
            "holes": np.where(chance.random(len(index)) < 0.4, np.nan, -level),
            "odd": np.where(np.arange(len(index)) % 2 == 1, level, np.nan),
            "stopped": np.where(np.arange(len(index)) < 200, level, np.nan),
            "young": np.where(np.arange(len(index)) >= 26 * 60 - 2, level, np.nan),
        },
        index,
    )
    return (means * 1000).round().div(1000).round(2)


@pytest.mark.parametrize("windows", [3, 30, 1000])
def test_every_pair_is_what_pandas_says_over_its_last_common_windows(database, query, windows):
    means = unkind_means()
    store(database, means)
    while close_all(database):
        pass
    ends = [means.index[-1] + MINUTE, means.index[-37] + MINUTE, means.index[205] + MINUTE]
    query("DELETE FROM correlations_due WHERE NOT window_end = ANY(%s)", ends)
    work_off(database, windows)
    for end in ends:
        expected = by_pandas(means, end, windows)
        found = query(FOUND, "Lab", end)
        assert [(a, b, n) for a, b, _, n, _ in found] == [(a, b, n) for a, b, _, n in expected]
        for (_, _, r, _, _), (_, _, same, _) in zip(found, expected, strict=True):
            assert r == (None if same is None else pytest.approx(same, abs=6e-6))


def test_they_are_written_when_windows_close_and_again_when_they_are_final(database, query):
    means = unkind_means().iloc[:10, :2]
    store(database, means)
    end = means.index[-1] + MINUTE
    close_all(database)
    work_off(database)
    assert [row[-1] for row in query(FOUND, "Lab", end)] == [False]
    close_all(database, lateness_us=0)
    work_off(database)
    assert [row[-1] for row in query(FOUND, "Lab", end)] == [True]
    assert query("SELECT count(*) FROM correlations_due") == [(0,)]


def test_a_place_with_one_type_owes_nothing(database, query):
    store(database, unkind_means().iloc[:10, :1])
    assert close_all(database) == 10
    assert query("SELECT count(*) FROM correlations_due") == [(0,)]


def test_of_many_types_64_are_correlated_and_that_is_said_once(
    database_url, database, query, caplog
):
    kinds = [f"type-{n:03}" for n in range(300)]
    index = pd.date_range(START, periods=3, freq="min")
    chance = np.random.default_rng(1)
    store(database, pd.DataFrame(chance.normal(0, 9, (3, 300)).round(2), index, kinds))
    close_all(database)
    with BackgroundCorrelator(database_url, WINDOWS, is_drained=True):
        pass
    assert query("SELECT count(*), max(sensor_type_b) FROM sensor_correlations") == [
        (3 * 2016, "type-063")
    ]
    assert [r.message for r in caplog.records] == ["correlations_limited location=Lab types=64"]


def test_what_fails_is_left_out_and_the_rest_is_done(database_url, database, query, caplog):
    store(database, unkind_means().iloc[:20, :2])
    close_all(database)
    query(REFUSE)
    with BackgroundCorrelator(database_url, WINDOWS, is_drained=True):
        pass
    assert query("SELECT count(*) FROM sensor_correlations") == [(19,)]
    assert "correlations_left_out window_end=2026-01-31T12:07:00 location=Lab" in caplog.text


def test_windows_close_while_a_correlation_takes_long(database_url, database, query):
    means = unkind_means().iloc[:20, :2]
    store(database, means.iloc[:10])
    close_all(database)
    with psycopg2.connect(database_url) as slow:
        slow.cursor().execute("LOCK TABLE sensor_correlations IN SHARE MODE")
        correlator = BackgroundCorrelator(database_url, WINDOWS)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'correlations'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: query(waiting) == [(1,)])
        store(database, means.iloc[10:])
        assert close_all(database) == 20
        assert close_all(database, lateness_us=0) == 40
        assert query(waiting) == [(1,)]
    slow.close()
    until(lambda: query("SELECT count(*) FROM correlations_due") == [(0,)])
    correlator.close()
    assert query("SELECT count(*) FROM sensor_correlations") == [(20,)]


def test_two_processors_share_what_is_due(database_url, database, query):
    store(database, unkind_means().iloc[:200, :3])
    close_all(database)
    both = [threading.Thread(target=drain, args=(database_url,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(30)
    assert query("SELECT count(DISTINCT window_end) FROM sensor_correlations") == [(200,)]


def drain(url):
    with Database(url, "test-correlations") as mine:
        work_off(mine)
