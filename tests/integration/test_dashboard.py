"""Every tab in every state, rendered by Streamlit on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from inspect import signature

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.dashboard_queries import STATEMENTS, main
from dashboard import TABS
from dashboard_tabs.queries import QueryCache
from db import aggregates, verdict_counts
from db import dashboard as queries
from db.connection import Database
from db.selecting import Selection
from db.times import to_microseconds
from tests.conftest import CHECKOUT
from tests.waiting import until

pytestmark = pytest.mark.integration

HOSTILE = "<script>alert(1)</script>"
# Twenty minutes of three sensors, one reading a second in turn; ends at a given time.
READINGS = """
WITH fleet AS (SELECT * FROM (VALUES ('t-1', 'temperature', 'Lab', '°C', 20.0),
 ('c-1', 'co2', 'Lab', 'ppm', 500.0), (%s, 'temperature', 'Hall', '°C', 18.0))
 AS fleet (sensor_id, sensor_type, location, unit, level)), readings AS (
SELECT i, fleet.*, (level + sin(i / 60.0))::numeric(10, 2) AS value,
 %s::timestamp - make_interval(secs => i) AS time FROM generate_series(0, 1199) AS i, fleet)
"""
STORE = (
    READINGS
    + """INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp, anomaly,
 unit, source_id, log_offset) SELECT sensor_id, sensor_type, location, value, time, i %% 97 = 0,
 unit, 1, row_number() OVER () FROM readings"""
)
AGGREGATE = """INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type,
 avg_value, min_value, max_value, stddev_value, count_readings, anomaly_count,
 statistical_anomalies, is_closed, is_final) SELECT date_trunc('minute', timestamp),
 date_trunc('minute', timestamp) + interval '1 minute', location, sensor_type, avg(value),
 min(value), max(value), stddev_pop(value), count(*), count(*) FILTER (WHERE anomaly), 1,
 max(timestamp) < (SELECT max(timestamp) - interval '1 minute' FROM sensor_readings), false
 FROM sensor_readings GROUP BY 1, 2, 3, 4"""
CORRELATE = """INSERT INTO sensor_correlations SELECT max(window_end), 'Lab', 'co2', 'temperature',
 0.5, 20, true FROM sensor_aggregates"""
PREDICT = """INSERT INTO ml_anomaly_predictions (sensor_id, sensor_type, location, value, timestamp,
 is_anomaly, anomaly_score, rule_based_anomaly, reason, source_id, log_offset)
 SELECT sensor_id, sensor_type, location, value, timestamp, log_offset % 41 = 0, -0.5, anomaly,
 'value 9.1 usual deviations above normal', source_id, log_offset FROM sensor_readings"""
COUNT = """INSERT INTO verdict_counts SELECT date_trunc('minute', timestamp), location, sensor_type,
 count(*) FILTER (WHERE NOT is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE NOT is_anomaly AND rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND rule_based_anomaly), 0
 FROM ml_anomaly_predictions GROUP BY 1, 2, 3;
INSERT INTO merged_verdicts SELECT date_bin('10 minutes', minute, '2000-01-01'), location,
 sensor_type, sum(neither), sum(rule_only), sum(ml_only), sum(both_flag), sum(without_verdict)
 FROM verdict_counts GROUP BY 1, 2, 3"""
FIT = """INSERT INTO model_runs (sensor_type, fitted_at, training_rows, duration_seconds, threshold,
 flagged_share) VALUES ('co2', now(), 1000, 0.1, -0.49, 0.05);
INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 'iot_sensors', 0);
INSERT INTO stream_offsets (consumer_group, source_id, next_offset) VALUES ('consumer', 1, 3600)"""
HEARTBEAT = """INSERT INTO service_status (service, instance, state, details) VALUES
 ('consumer', 'a-1', 'running', '{"readings_per_s": 3, "lag": 7, "latency_ms_p99": 120}')"""
REJECT = """INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason,
 payload, payload_bytes) VALUES (1, 'iot_sensors', 0, 9999, 'not_json', 'not JSON', %s, 25)"""


def test_rolled_up_windows_say_what_the_windows_say(database, query, store):
    store(now())
    query("UPDATE sensor_aggregates SET is_closed = true")
    newest = query("SELECT max(window_start) FROM sensor_aggregates")[0][0]
    end = newest.replace(minute=newest.minute // 10 * 10)
    asked = Selection(end - timedelta(days=1), end)
    statements = (
        *(queries.windows, queries.window_series, queries.hour_profile),
        *(queries.location_statistics, queries.totals),
    )

    def answers():
        rows = [row for statement in statements for row in statement(database, asked)]
        return [{k: v for k, v in row.items() if k != "first_window"} for row in rows]

    before = answers()
    some = to_microseconds(newest - timedelta(minutes=12))  # the others are not final yet
    with database.transaction() as tx:
        rolled_up = aggregates.close_windows(tx, some, 0)
    assert rolled_up == query("SELECT sum(windows) FROM window_rollups")[0][0] > 0
    assert len(before) > 10
    for row, same in zip(before, answers(), strict=True):
        figures = {k: v for k, v in row.items() if isinstance(v, float)}
        assert {k: same.pop(k) for k in figures} == pytest.approx(figures, abs=1e-6)
        assert same.items() <= row.items()


def test_long_ranges_count_verdicts_as_the_minutes_do(database, query):
    random = np.random.default_rng(7)
    clock = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    times = int(clock.timestamp()) * 1_000_000 - random.integers(0, 3 * 86_400_000_000, 5000)
    end = clock.replace(tzinfo=None)
    with database.transaction() as tx:
        outcomes = random.integers(0, 5, 5000)
        counts = verdict_counts.to_pages(times, ["Lab"] * 5000, ["co2"] * 5000, outcomes)
        verdict_counts.add(tx, counts)
    asked = Selection(end.replace(minute=0, second=0) - timedelta(hours=23), end)
    anomalies = (
        "SELECT sum(ml_only + both_flag)::int FROM verdict_counts"
        " WHERE minute >= %s AND minute < %s"
    )
    current = query(anomalies, asked.start, end)[0][0]
    before = query(anomalies, asked.start - (end - asked.start), asked.start)[0][0]
    assert current > 100
    totals = queries.ml_totals(database, asked)
    assert {row["is_current"]: row["anomalies"] for row in totals} == {True: current, False: before}
    assert [row["anomalies"] for row in queries.verdicts_by_place(database, asked)] == [current]
    steps = queries.agreement(database, asked)
    assert sum(row["both"] + row["ml_only"] for row in steps) == current
    query("DELETE FROM verdict_counts WHERE minute < %s", end - timedelta(hours=1))
    assert queries.verdicts_by_place(database, asked)[0]["anomalies"] == current


@pytest.fixture
def open_tab(database_url, monkeypatch, tmp_path):
    """A function that runs the page with a tab open and returns what it shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(tab="Real-Time Monitoring", **parameters):
        page = AppTest.from_file(str(CHECKOUT / "dashboard.py"), default_timeout=30)
        page.query_params["tab"] = tab
        for name, value in parameters.items():
            page.query_params[name] = value
        page.run()
        assert [each.value for each in page.exception] == []
        return page

    return run


@pytest.fixture
def store(query):
    """A function that fills the tables with readings that end at a time."""

    def fill(end, predictions=True, sensor_id="t-2"):
        query(STORE, sensor_id, end.replace(tzinfo=None))
        query(AGGREGATE)
        query(CORRELATE)
        query(HEARTBEAT)
        query(FIT)
        if predictions:
            query(PREDICT)
            query(COUNT)

    return fill


def now():
    return datetime.now(UTC)


def shown(page):
    """All text of a page."""
    blocks = (page.info, page.warning, page.error, page.markdown, page.caption, page.metric)
    html = [each.proto.body for each in page.get("html")]
    return "\n".join([str(e.value) for block in blocks for e in block] + html)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_shows_live_data(tab, open_tab, store):
    store(now())
    page = open_tab(tab)
    assert len(page.get("bidi_component")) + len(page.dataframe) >= 3
    assert not page.warning and not page.info


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_says_what_it_waits_for_while_there_is_nothing(tab, open_tab):
    text = shown(open_tab(tab))
    assert "python producer.py" in text or "No service has read from the topic yet" in text


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_stands_without_predictions(tab, open_tab, store):
    store(now(), predictions=False)
    page = open_tab(tab)
    if tab.startswith("ML"):
        assert "python ml_detector.py" in shown(page)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_says_since_when_nothing_came_and_shows_what_came_last(tab, open_tab, store, query):
    store(now() - timedelta(minutes=30))
    query("UPDATE sensor_readings SET created_at = timestamp")
    page = open_tab(tab)
    assert "No new reading since" in page.warning[0].value
    assert len(page.get("bidi_component")) + len(page.dataframe) >= 3


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_shows_recorded_data_of_years_ago_and_says_so(tab, open_tab, store):
    store(datetime(2014, 5, 6, tzinfo=UTC))
    page = open_tab(tab)
    assert "Recorded data" in page.info[0].value
    assert len(page.get("bidi_component")) + len(page.dataframe) >= 3


def test_hostile_text_is_text(open_tab, store, query):
    store(now(), sensor_id=HOSTILE)
    query(REJECT, HOSTILE.encode())
    text = shown(open_tab())
    assert "<script" not in text and "&lt;script" in text
    assert HOSTILE in open_tab("Pipeline Health").dataframe[-1].value["payload"].iloc[0]


def test_filters_come_from_the_data_and_from_the_address(open_tab, store):
    store(now())
    page = open_tab(location="Hall", range="5m")
    boxes = {each.label: each for each in page.selectbox}
    assert boxes["Location"].options == ["All", "Hall", "Lab"]
    assert boxes["Location"].value == "Hall"
    figures = {metric.label: metric.value for metric in page.metric}
    assert figures["Active sensors"] == "1 of 1"


def test_the_figures_are_those_of_the_tables(open_tab, store, query):
    store(now())
    page = open_tab(range="1h")
    [[readings]] = query("SELECT sum(count_readings) FROM sensor_aggregates")
    [[flagged]] = query("SELECT count(*) FROM ml_anomaly_predictions WHERE is_anomaly")
    figures = {metric.label: metric.value for metric in page.metric}
    assert figures["Readings"] == f"{readings:,}"
    assert figures["Anomalies"] == f"{flagged:,}"
    assert figures["Anomaly rate"] == f"{flagged / readings:.1%}"


def test_without_a_database_there_is_a_calm_banner(open_tab, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://iot_user:secret@127.0.0.1:1/iot_db")
    text = shown(open_tab())
    assert "The database does not answer" in text
    assert "secret" not in text


def test_a_database_without_tables_is_told_apart(open_tab, postgres, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgres())
    text = shown(open_tab())
    assert "python consumer.py" in text and "does not answer" not in text


def test_where_everything_is_rejected_the_first_page_says_why(open_tab, query):
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    query(
        "INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason,"
        " payload, payload_bytes) SELECT source_id, 't', 0, 1, 'missing_field',"
        " 'missing field location', '{}', 2 FROM sources"
    )
    query(
        "INSERT INTO dead_letter_counts SELECT source_id, now(), 'missing_field', 1, 6 FROM sources"
    )
    text = shown(open_tab())
    assert "7 messages came, and none of them is a reading" in text
    assert "missing field location" in text


def test_a_wrong_setting_is_one_line(open_tab, monkeypatch):
    monkeypatch.setenv("WINDOW_SECONDS", "0")
    assert "WINDOW_SECONDS" in open_tab().error[0].value


def test_the_page_reads_as_the_role_that_may_only_read(open_tab, store, query):
    store(now())
    open_tab()
    sessions = "SELECT usename FROM pg_stat_activity WHERE application_name = 'dashboard'"
    names = until(lambda: query(f"{sessions} AND datname = current_database()"))
    assert {name for (name,) in names} == {"iot_dashboard"}


def test_every_statement_of_the_page_is_bounded(database_url, store):
    store(now())
    end = now().replace(tzinfo=None)
    selection = Selection(end - timedelta(minutes=15), end)
    arguments = {
        "selection": selection,
        "series": ("Lab", "temperature", "t-1"),
        **{"around": end, "now": end, "since": end},
        "location": None,
    }
    with Database(database_url, "test", read_only=True) as database:
        for query in STATEMENTS:
            needed = [p for p in signature(query).parameters if p in arguments]
            rows = query(database, *(arguments[p] for p in needed))
            assert len(rows) <= 20_000, query.__name__


def test_marks_are_of_all_the_range_and_no_more_than_a_browser_draws(database, query, store):
    store(now())
    query("UPDATE ml_anomaly_predictions SET is_anomaly = true")
    end = now().replace(tzinfo=None)
    selection = Selection(end - timedelta(minutes=20), end)
    marks = [row["timestamp"] for row in queries.anomaly_marks(database, selection)]
    assert len(marks) <= queries.MARK_STEPS * queries.MARKS_A_STEP
    assert max(marks) - min(marks) > timedelta(minutes=18)


def test_one_device_with_two_quantities_at_two_places_is_four_series(database, query, store):
    store(now())
    query("DELETE FROM sensors")
    query("UPDATE sensor_readings SET sensor_id = 'bme280'")
    query(
        "INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp, anomaly,"
        " unit, source_id, log_offset) SELECT sensor_id, 'CO', location, 7, timestamp, false,"
        " 'ppm', 2, log_offset FROM sensor_readings WHERE sensor_type = 'temperature'"
    )
    end = now().replace(tzinfo=None)
    selection = Selection(end - timedelta(minutes=15), end)
    cells = queries.latest_readings(database, selection, end)
    assert {(row["location"], row["sensor_type"]) for row in cells} == {
        *(("Hall", "CO"), ("Hall", "temperature")),
        *(("Lab", "CO"), ("Lab", "temperature"), ("Lab", "co2")),
    }
    assert {row["sensors"] for row in cells} == {1}
    history = queries.sensor_history(database, ("Lab", "CO", "bme280"), end)
    assert {row["value"] for row in history} == {7.0}


def test_the_newest_minutes_of_a_long_range_are_there(database, store):
    store(now())
    end = now().replace(tzinfo=None)
    week = Selection(end - timedelta(days=7), end)
    for statement in (queries.window_series, queries.windows):
        newest = max(row["time"] for row in statement(database, week))
        assert end - newest < timedelta(minutes=3), statement.__name__


def test_many_lines_get_longer_steps_and_none_is_cut(database, store):
    store(now())
    end = now().replace(tzinfo=None)
    hour = Selection(end - timedelta(hours=1), end)
    few, many = (queries.series(database, hour, lines) for lines in (3, 5_000))
    assert {(r["location"], r["sensor_type"]) for r in many} == {
        (r["location"], r["sensor_type"]) for r in few
    }
    assert len(many) < len(few) / 10


@pytest.mark.parametrize("rows", [3, 200])
def test_a_type_that_never_changes_is_shown_like_any_other(open_tab, query, store, rows):
    store(now())
    query("UPDATE sensor_readings SET value = 3.0")
    query("DELETE FROM sensor_readings WHERE log_offset > %s", rows)
    query(
        "UPDATE sensor_aggregates SET avg_value = 3, min_value = 3, max_value = 3, stddev_value = 0"
    )
    for tab in TABS:
        open_tab(tab)


def test_a_download_has_all_rows_of_the_range_not_only_those_listed(database_url, store, query):
    store(now())
    query("UPDATE ml_anomaly_predictions SET is_anomaly = true")
    end = now().replace(tzinfo=None)
    selection = Selection(end - timedelta(minutes=15), end)
    with Database(database_url, "test", read_only=True) as database:
        cache = QueryCache([database])
        [[expected]] = query(
            "SELECT count(*) FROM ml_anomaly_predictions WHERE timestamp >= %s AND timestamp < %s",
            *(selection.start, selection.end),
        )
        listed = cache.rows(queries.anomalies, selection)
        assert len(listed) == queries.MAX_LISTED < expected
        assert len(cache.ask(queries.anomalies, selection, queries.MAX_DOWNLOAD)) == expected


def test_the_measurement_of_every_statement_runs(postgres, capsys):
    main(["--rows", "1000", "--no-tabs", "--url", postgres()])  # how fast, is not asked here
    measured = capsys.readouterr().out
    assert all(f" {query.__name__} " in measured for query in STATEMENTS)


def test_a_sensor_is_silent_by_its_own_usual_interval_and_against_now(database, query, store):
    store(now())
    end = now().replace(tzinfo=None)
    query(
        "INSERT INTO sensors (sensor_id, sensor_type, location, value, timestamp, anomaly, unit,"
        " interval_seconds) SELECT 's-' || i, 'level', 'Tank', 1, %s - make_interval(mins => age),"
        " false, 'm', 600 FROM unnest(ARRAY[9, 25, 31]) WITH ORDINALITY AS ages (age, i)",
        end,
    )
    selection = Selection(end - timedelta(minutes=60), end)

    def active(at):
        rows = queries.latest_readings(database, selection, at)
        return {(r["location"], r["sensor_type"]): (r["active"], r["sensors"]) for r in rows}

    assert active(end)["Tank", "level"] == (2, 3)
    assert active(end)["Lab", "temperature"] == (1, 1)
    later = active(end + timedelta(hours=1))
    assert {active for active, _ in later.values()} == {0}


def test_after_a_halt_nothing_is_active_and_nothing_comes_a_second(open_tab, store, query):
    store(now() - timedelta(minutes=30))
    query("UPDATE sensor_readings SET created_at = timestamp")
    figures = {metric.label: metric.value for metric in open_tab().metric}
    assert figures["Active sensors"].startswith("0 of")
    assert figures["Readings/s"] == "0"


def test_rejected_messages_are_a_figure_with_the_commonest_reason(open_tab, store, query):
    store(now())
    query(
        "INSERT INTO dead_letter_counts SELECT 1, now() AT TIME ZONE 'UTC', reason, n, 0"
        " FROM (VALUES ('not_json', 3), ('missing_field', 40)) AS counts (reason, n)"
    )
    (figure,) = (metric for metric in open_tab().metric if metric.label == "Rejected")
    assert (figure.value, figure.delta) == ("43", "missing field")


@pytest.mark.parametrize(("days_ago", "told"), [(0, True), (2, False)])
def test_lost_messages_are_told_on_every_tab_for_a_day(open_tab, store, query, days_ago, told):
    store(now())
    query(
        "INSERT INTO lost_messages (consumer_group, source_id, first_offset, last_offset, reason,"
        " noticed_at) VALUES ('consumer', 1, 10, 29, 'deleted', %s)",
        (now() - timedelta(days=days_ago)).replace(tzinfo=None),
    )
    assert ("consumer lost 20 messages" in shown(open_tab())) is told


def test_late_readings_are_told_with_the_command_that_counts_them(open_tab, store, query):
    store(now())
    query(
        "INSERT INTO late_readings SELECT 1, log_offset, sensor_id, sensor_type, location, value,"
        " timestamp, anomaly, unit, timestamp, timestamp, 400 FROM sensor_readings LIMIT 20"
    )
    told = [each.value for each in open_tab("Pipeline Health").info if "backfill" in each.value]
    assert told == ["20 late readings are in no window: `python -m service.backfill` counts them."]


def test_windows_of_several_units_are_told(open_tab, store, query):
    store(now())
    query(
        "UPDATE sensor_aggregates SET has_mixed_units = true WHERE location = 'Hall'"
        " AND window_start = (SELECT max(window_start) FROM sensor_aggregates)"
    )
    assert "several units here" in open_tab("Windowed Aggregates").warning[0].value
    assert "Temperature at Hall" in open_tab("Windowed Aggregates").warning[0].value


def test_of_places_together_the_deviation_is_that_within_a_place(database, query, store):
    store(now())
    query(
        "UPDATE sensor_aggregates SET stddev_value = 2, avg_value = CASE location"
        " WHEN 'Hall' THEN 10 ELSE 30 END WHERE sensor_type = 'temperature'"
    )
    end = now().replace(tzinfo=None)
    rows = queries.windows(database, Selection(end - timedelta(minutes=15), end))
    found = {round(row["stddev"], 6) for row in rows if row["sensor_type"] == "temperature"}
    assert found == {2.0}


def test_before_twenty_common_windows_there_is_a_line_and_no_empty_grid(open_tab, store, query):
    store(now())
    query("UPDATE sensor_correlations SET window_count = 7")
    page = open_tab("Analytics")
    assert "so far 7" in shown(page)
