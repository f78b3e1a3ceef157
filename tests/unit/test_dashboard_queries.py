"""The shared results of the dashboard, without a database."""

import threading
from datetime import datetime, timedelta
from random import Random

import pytest

from dashboard_tabs.queries import MAX_RESULTS, RETRY_SECONDS, AsOf, QueryCache
from db import dashboard as queries
from db.connection import DatabaseUnavailable

NOW = datetime(2026, 1, 1, 12, 0, 30)  # noqa: DTZ001 - naive UTC, as in the tables


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Table:
    """A query whose database can be taken away."""

    __name__ = "table"

    def __init__(self):
        self.asked = 0
        self.problem = None

    def __call__(self, database, *arguments):
        self.asked += 1
        if self.problem:
            raise DatabaseUnavailable(self.problem)
        return [{"asked": self.asked, "database": database, "arguments": arguments}]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def cache(clock):
    return QueryCache(["database"], 10, clock)


@pytest.fixture
def newest(monkeypatch, clock):
    """The query for the newest reading; its clock is that of the test."""

    def newest_reading(database):
        newest_reading.asked += 1
        if newest_reading.problem:
            raise DatabaseUnavailable(newest_reading.problem)
        now = NOW + timedelta(seconds=clock.now)
        return [{"now": now, "timestamp": now, "created_at": now}]

    newest_reading.asked, newest_reading.problem = 0, None
    monkeypatch.setattr(queries, "newest_reading", newest_reading)
    return newest_reading


def test_many_readers_cost_the_database_one_question(cache, table):
    assert cache.rows(table, 1) == cache.rows(table, 1)
    assert table.asked == 1


def test_a_result_is_asked_for_again_at_the_next_moment(cache, table, newest, clock):
    seen = cache.as_of()
    cache.rows(table)
    clock.now = 4.0  # the other parts of a page, a click
    assert cache.as_of(10, seen) == seen
    assert cache.rows(table)[0]["asked"] == 1
    clock.now = 8.0  # a timer that fires early
    assert cache.as_of(10, seen) != seen
    assert cache.rows(table)[0]["asked"] == 2


def test_who_has_not_seen_a_moment_is_given_it(cache, newest, clock):
    first = cache.as_of()
    clock.now = 9.9
    assert cache.as_of(10, None) == first


def test_a_browser_that_refreshes_faster_gets_newer_moments(cache, newest, clock):
    first = cache.as_of(5)
    clock.now = 4.5
    assert cache.as_of(10, first) == first
    assert cache.as_of(5, first) != first


def test_a_browser_that_refreshes_slowly_is_not_shown_what_is_old(cache, newest, clock):
    first = cache.as_of(60)
    clock.now = 11.0
    assert cache.as_of(60) != first


def refreshes(cache, table, clock, sessions, intervals=60):
    """Let sessions refresh every 10 s, early or late; return how much was asked, how much old."""
    jitter = Random(1)
    ticks = [
        (max(0.0, 10 * tick + 10 * session / sessions + jitter.uniform(-1, 1)), session)
        for tick in range(intervals)
        for session in range(sessions)
    ]
    seen, same = {}, 0
    for at, session in sorted(ticks):
        clock.now = at
        for _ in range(2):  # the head of a page and its body
            as_of = cache.as_of(10, seen.get(session))
            cache.rows(table, as_of)
        same += as_of == seen.get(session)
        seen[session] = as_of
    return table.asked, same


def test_ten_sessions_cost_what_one_does_and_each_refresh_is_new(cache, table, newest, clock):
    assert refreshes(cache, table, clock, 1) == (60, 0)
    table.asked = 0
    asked, same = refreshes(QueryCache(["database"], 10, clock), table, clock, 10)
    assert asked <= 63
    assert same == 0


def test_what_was_last_known_stays_while_the_database_is_down(cache, table, newest, clock):
    as_of = cache.as_of()
    known = cache.rows(table)
    newest.problem = table.problem = "gone\nwith details"
    clock.now = 60.0
    assert cache.as_of() == as_of
    assert cache.rows(table) == known
    assert cache.problem == "gone"
    assert cache.last_answer == as_of.now


def test_a_moment_is_looked_for_as_soon_as_the_database_may_answer(cache, table, newest, clock):
    cache.as_of()
    table.problem = "gone"
    cache.rows(table)
    table.problem = None
    clock.now = RETRY_SECONDS
    cache.as_of()
    assert cache.problem is None


def test_a_database_that_is_down_is_not_asked_by_every_chart(cache, table, clock):
    table.problem = "gone"
    for number in range(20):
        assert cache.rows(table, number) == []
    assert table.asked == 1
    clock.now = RETRY_SECONDS
    cache.rows(table)
    assert table.asked == 2


def test_it_recovers_by_itself(cache, table, clock):
    table.problem = "gone"
    cache.rows(table)
    table.problem = None
    clock.now = 60.0
    assert cache.rows(table)
    assert cache.problem is None


def test_results_are_bounded(cache, table):
    for number in range(MAX_RESULTS * 2):
        cache.rows(table, number)
    assert len(cache._results) == MAX_RESULTS


def test_ranges_of_moments_gone_by_are_not_kept(cache, table, newest, clock):
    for tick in range(50):
        clock.now = 10.0 * tick
        cache.rows(table, cache.as_of().selection(15))
        cache.rows(table, "no range")
    assert len(cache._results) <= 4  # two ranges, the newest reading, and what has no range


def test_the_owner_reads_where_the_readers_role_does_not_exist(clock):
    def query(database):
        if database == "reader":
            raise DatabaseUnavailable('password authentication failed for user "iot_dashboard"')
        return [{"database": database}]

    cache = QueryCache(["reader", "owner"], 10, clock)
    assert cache.rows(query) == [{"database": "owner"}]
    assert cache.problem is None


def as_of(age=timedelta(0), stored_after=timedelta(0)):
    newest = NOW - age
    return AsOf(NOW, newest, newest + stored_after)


def test_live_data_are_seen_up_to_now():
    assert as_of(timedelta(seconds=5)).end == NOW


def test_when_nothing_comes_ranges_end_with_the_data():
    stale = as_of(timedelta(minutes=5))
    assert stale.is_stale
    assert stale.end == stale.newest + timedelta(seconds=1)


def test_recorded_data_are_told_by_being_stored_long_after_they_were_measured():
    recorded = AsOf(NOW, NOW - timedelta(days=400), NOW)
    assert recorded.is_recorded and not recorded.is_stale
    assert recorded.end < NOW - timedelta(days=399)


def test_an_empty_database_has_a_moment():
    nothing = AsOf(NOW, None, None)
    assert not nothing.is_stale and not nothing.is_recorded and nothing.end == NOW


def test_a_range_begins_on_a_whole_minute_and_is_no_longer_than_asked():
    selection = as_of().selection(15, "Lab", None)
    assert selection.start == NOW - timedelta(minutes=14, seconds=30)
    assert selection.end == NOW
    assert selection.location == "Lab"


def test_ten_sessions_at_once_cost_what_one_does(cache, table):
    sessions = [threading.Thread(target=cache.rows, args=(table, "same")) for _ in range(10)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert table.asked == 1
