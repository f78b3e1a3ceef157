"""The shared results of the dashboard, without a database."""

import threading
from datetime import datetime, timedelta
from random import Random

import pytest

from dashboard_tabs.data import MAX_RESULTS, RETRY_SECONDS, Moment, Source
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
def source(clock):
    return Source(["database"], 10, clock)


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


def test_many_readers_cost_the_database_one_question(source, table):
    assert source.rows(table, 1) == source.rows(table, 1)
    assert table.asked == 1


def test_a_result_is_asked_for_again_at_the_next_moment(source, table, newest, clock):
    seen = source.moment()
    source.rows(table)
    clock.now = 4.0  # the other parts of a page, a click
    assert source.moment(10, seen) == seen
    assert source.rows(table)[0]["asked"] == 1
    clock.now = 8.0  # a timer that fires early
    assert source.moment(10, seen) != seen
    assert source.rows(table)[0]["asked"] == 2


def test_who_has_not_seen_a_moment_is_given_it(source, newest, clock):
    first = source.moment()
    clock.now = 9.9
    assert source.moment(10, None) == first


def test_a_browser_that_refreshes_faster_gets_newer_moments(source, newest, clock):
    first = source.moment(5)
    clock.now = 4.5
    assert source.moment(10, first) == first
    assert source.moment(5, first) != first


def test_a_browser_that_refreshes_slowly_is_not_shown_what_is_old(source, newest, clock):
    first = source.moment(60)
    clock.now = 11.0
    assert source.moment(60) != first


def refreshes(source, table, clock, sessions, intervals=60):
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
            moment = source.moment(10, seen.get(session))
            source.rows(table, moment)
        same += moment == seen.get(session)
        seen[session] = moment
    return table.asked, same


def test_ten_sessions_cost_what_one_does_and_each_refresh_is_new(source, table, newest, clock):
    assert refreshes(source, table, clock, 1) == (60, 0)
    table.asked = 0
    asked, same = refreshes(Source(["database"], 10, clock), table, clock, 10)
    assert asked <= 63
    assert same == 0


def test_what_was_last_known_stays_while_the_database_is_down(source, table, newest, clock):
    moment = source.moment()
    known = source.rows(table)
    newest.problem = table.problem = "gone\nwith details"
    clock.now = 60.0
    assert source.moment() == moment
    assert source.rows(table) == known
    assert source.problem == "gone"
    assert source.last_answer == moment.now


def test_a_moment_is_looked_for_as_soon_as_the_database_may_answer(source, table, newest, clock):
    source.moment()
    table.problem = "gone"
    source.rows(table)
    table.problem = None
    clock.now = RETRY_SECONDS
    source.moment()
    assert source.problem is None


def test_a_database_that_is_down_is_not_asked_by_every_chart(source, table, clock):
    table.problem = "gone"
    for number in range(20):
        assert source.rows(table, number) == []
    assert table.asked == 1
    clock.now = RETRY_SECONDS
    source.rows(table)
    assert table.asked == 2


def test_it_recovers_by_itself(source, table, clock):
    table.problem = "gone"
    source.rows(table)
    table.problem = None
    clock.now = 60.0
    assert source.rows(table)
    assert source.problem is None


def test_results_are_bounded(source, table):
    for number in range(MAX_RESULTS * 2):
        source.rows(table, number)
    assert len(source._results) == MAX_RESULTS


def test_ranges_of_moments_gone_by_are_not_kept(source, table, newest, clock):
    for tick in range(50):
        clock.now = 10.0 * tick
        source.rows(table, source.moment().selection(15))
        source.rows(table, "no range")
    assert len(source._results) <= 4  # two ranges, the newest reading, and what has no range


def test_the_owner_reads_where_the_readers_role_does_not_exist(clock):
    def query(database):
        if database == "reader":
            raise DatabaseUnavailable('password authentication failed for user "iot_dashboard"')
        return [{"database": database}]

    source = Source(["reader", "owner"], 10, clock)
    assert source.rows(query) == [{"database": "owner"}]
    assert source.problem is None


def moment(age=timedelta(0), stored_after=timedelta(0)):
    newest = NOW - age
    return Moment(NOW, newest, newest + stored_after)


def test_live_data_are_seen_up_to_now():
    assert moment(timedelta(seconds=5)).end == NOW


def test_when_nothing_comes_ranges_end_with_the_data():
    stale = moment(timedelta(minutes=5))
    assert stale.is_stale
    assert stale.end == stale.newest + timedelta(seconds=1)


def test_recorded_data_are_told_by_being_stored_long_after_they_were_measured():
    recorded = Moment(NOW, NOW - timedelta(days=400), NOW)
    assert recorded.is_recorded and not recorded.is_stale
    assert recorded.end < NOW - timedelta(days=399)


def test_an_empty_database_has_a_moment():
    nothing = Moment(NOW, None, None)
    assert not nothing.is_stale and not nothing.is_recorded and nothing.end == NOW


def test_a_range_begins_on_a_whole_minute_and_is_no_longer_than_asked():
    selection = moment().selection(15, "Lab", None)
    assert selection.start == NOW - timedelta(minutes=14, seconds=30)
    assert selection.end == NOW
    assert selection.location == "Lab"


def test_ten_sessions_at_once_cost_what_one_does(source, table):
    sessions = [threading.Thread(target=source.rows, args=(table, "same")) for _ in range(10)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    assert table.asked == 1
