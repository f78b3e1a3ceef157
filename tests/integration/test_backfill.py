"""Late readings are folded into their windows exactly, beside the services, wherever it is killed.

Each window is compared with what other code makes of the same messages.
"""

import contextlib
import random
import subprocess
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from db import backfill, correlations
from db.connection import Database, StaleCheckpoint
from pipeline.decoding import Readings
from pipeline.settings import WindowRules
from pipeline.windows import PartitionWindows
from tests.integration.test_stream_processor import AGGREGATES, fleet, reading, recomputed
from tests.messages import send
from tests.waiting import output_of, until

pytestmark = pytest.mark.integration

HOURS = 3 * 3600
# What of the roll-ups is not what the final windows come to.
WRONG_ROLLUPS = """
WITH anew AS (
    SELECT date_bin('10 minutes', window_start, '2000-01-01') AS window_start, location,
        sensor_type, sum(count_readings) AS readings, sum(count_readings * avg_value) AS total,
        sum(count_readings * (avg_value * avg_value + stddev_value * stddev_value)) AS squares,
        min(min_value) AS low, max(max_value) AS high, sum(anomaly_count) AS rule_anomalies,
        sum(statistical_anomalies) AS statistical_anomalies, count(*) AS windows
    FROM sensor_aggregates WHERE is_final GROUP BY 1, 2, 3
)
SELECT * FROM anew FULL JOIN window_rollups USING (window_start, location, sensor_type,
    readings, total, squares, low, high, rule_anomalies, statistical_anomalies, windows)
WHERE anew IS NULL OR window_rollups IS NULL
"""
CORRELATIONS = (
    "SELECT window_end, location, sensor_type_a, sensor_type_b, correlation, window_count"
    " FROM sensor_correlations ORDER BY 1, 2, 3, 4"
)
LATE = "SELECT count(*)::int FROM late_readings"


@pytest.fixture
def backfilling(service):
    """A function that starts the command."""
    return partial(service, "service.backfill")


@pytest.fixture
def said(backfilling):
    """A function that runs the command to its end and returns what it says."""
    return lambda *arguments: output_of(backfilling(*arguments)).strip()


def catch_up(service, *scripts):
    for script in scripts or ("consumer.py", "stream_processor.py"):
        output_of(service(script, "--once"))


def store(service, kafka, topic, *batches):
    """Send and process batches one after the other, in one partition."""
    for batch in batches:
        send(kafka, topic, batch, partition=0)
        catch_up(service)


def live():
    """Return three hours of two types at one place, a reading of each every 20 s."""
    chance = random.Random(1)
    return [
        reading(second, round(chance.gauss(20, 5), 2), sensor_type=kind)
        for second in range(0, HOURS, 20)
        for kind in ("co2", "temperature")
    ]


def buffered():
    """Return what a gateway kept for three hours: at that place, and of a type only it has."""
    chance = random.Random(2)
    return [
        reading(
            second + 7,
            round(chance.gauss(20, 5), 2),
            sensor_type=("co2", "pressure")[minute % 2],
            anomaly=chance.random() < 0.1,
            unit="ppm" if minute % 7 == 0 else "°C",
        )
        for minute, second in enumerate(range(0, HOURS, 60))
    ]


def test_three_buffered_hours_come_to_what_they_would_have_in_order(
    service, kafka, topic, query, database, said
):
    store(service, kafka, topic, live(), buffered())
    (late,) = query(LATE)[0]
    assert 170 <= late <= 176
    statistical = "SELECT sum(statistical_anomalies) FROM sensor_aggregates"
    before = query(statistical)

    line = said()
    made = late // 2
    assert line == (
        f"windows_revised={late - made} windows_made={made} readings={late}"
        " left_to_retention=0 left_incomplete=0 left_for_later=0"
    )
    assert query(AGGREGATES) == recomputed(live() + buffered())
    assert query(LATE) == [(0,)]
    assert query("SELECT count(revised_at)::int FROM sensor_aggregates") == [(late,)]
    assert query("SELECT count(*) > 5 FROM sensor_aggregates WHERE has_mixed_units") == [(True,)]
    assert query(statistical) == before
    assert query(WRONG_ROLLUPS) == []
    found = query(CORRELATIONS)
    query(
        "INSERT INTO correlations_due (window_start, window_end, location)"
        " SELECT DISTINCT window_start, window_end, location FROM sensor_aggregates WHERE is_closed"
    )
    query("TRUNCATE sensor_correlations")
    while correlations.work_off(database, 30, 500)[0]:
        pass
    assert query(CORRELATIONS) == found

    rows = query("SELECT * FROM sensor_aggregates ORDER BY id")
    assert said() == (
        "nothing to do: windows_revised=0 windows_made=0 readings=0"
        " left_to_retention=0 left_incomplete=0 left_for_later=0"
    )
    assert query("SELECT * FROM sensor_aggregates ORDER BY id") == rows


def test_only_windows_that_begin_in_the_range_are_touched(service, kafka, topic, query, said):
    store(service, kafka, topic, live(), buffered())
    (late,) = query(LATE)[0]
    assert "readings=30 " in said("--from", "2026-01-31T13:00+01:00", "--to", "2026-01-31T12:30")
    assert query(LATE) == [(late - 30,)]
    revised = (
        "SELECT min(window_start), max(window_start) FROM sensor_aggregates"
        " WHERE revised_at IS NOT NULL"
    )
    assert [str(time) for time in query(revised)[0]] == [
        "2026-01-31 12:00:00",
        "2026-01-31 12:29:00",
    ]


def test_beside_running_services_no_reading_is_lost_or_doubled(service, kafka, topic, query, said):
    payloads = fleet(seed=6, count=12_000, seconds=2 * HOURS)
    old = fleet(seed=7, count=6_000, seconds=HOURS)
    for script in ("consumer.py", "consumer.py", "stream_processor.py", "stream_processor.py"):
        service(script, ALLOWED_LATENESS_SECONDS="30")
    for n in range(6):
        send(kafka, topic, payloads[2_000 * n : 2_000 * (n + 1)])
        send(kafka, topic, old[1_000 * n : 1_000 * (n + 1)])
        said()
    counted = (
        "SELECT (SELECT count(*) FROM sensor_readings), (SELECT count(*) FROM late_readings)"
        " + (SELECT sum(count_readings) FROM sensor_aggregates)"
    )
    until(lambda: query(counted) == [(18_000, 18_000)], seconds=60)
    until(lambda: (said(), query(LATE))[1] == [(0,)], seconds=60)
    assert query(AGGREGATES) == recomputed(payloads + old)
    assert query(WRONG_ROLLUPS) == []


def test_killed_anywhere_it_leaves_a_page_whole_or_untouched(
    service, kafka, topic, query, backfilling, said
):
    groups = [{"location": f"place-{n}", "sensor_type": kind} for n in range(20) for kind in "ab"]
    old = [reading(60 * n, n, **group) for n in range(100) for group in groups]
    now = [reading(HOURS), reading(HOURS + 1_000)]
    store(service, kafka, topic, now, old)
    late = f"SELECT ({LATE}), count(revised_at)::int FROM sensor_aggregates"
    assert query(late) == [(4_000, 0)]
    chance = random.Random(8)
    seen = set()
    for _ in range(6):
        before = query(late)
        process = backfilling()
        until(lambda b=before, p=process: query(late) != b or p.poll() is not None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        ((waiting, folded),) = query(late)
        assert waiting + folded == 4_000
        assert waiting % 500 == 0
        assert query(WRONG_ROLLUPS) == []
        seen.add(waiting)
    assert len(seen) > 1
    said()
    assert query(LATE) == [(0,)]
    assert query(AGGREGATES) == recomputed(now + old)


EXTREMES = (0, 1, -1, 50, -50, 9_999_999_999, -9_999_999_999)
INSERT = (
    "INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp, anomaly,"
    " unit, source_id, log_offset)"
    " SELECT 's', k, l, v * 0.01, to_timestamp(t / 1e6) AT TIME ZONE 'UTC', a, u, 1, o"
    " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[],"
    " %s::text[], %s::bigint[]) AS r (k, l, v, t, a, u, o)"
)


def test_the_database_adds_up_any_readings_as_the_processor_does(database, query):
    chance = random.Random(9)
    for _ in range(60):
        query("TRUNCATE sensor_readings")
        count = chance.randrange(1, 60)
        scale = chance.choice((10, 5_000, 10**10 - 1))
        kind, place, unit = (
            [chance.choice(each) for _ in range(count)] for each in ("ab", "xy", ("", "K", "°C"))
        )
        value = [
            chance.choice((*EXTREMES, chance.randrange(-scale, scale + 1))) for _ in range(count)
        ]
        time = [chance.randrange(-60_000_000, 120_000_000) for _ in range(count)]
        flag = [chance.random() < 0.3 for _ in range(count)]
        query(INSERT, kind, place, value, time, flag, unit, list(range(count)))
        query(INSERT, ["a"], ["x"], [5], [0], [True], ["?"], [count])  # beyond what is looked at
        query("UPDATE sensor_readings SET source_id = 0 WHERE log_offset = 0")
        readings = Readings(
            np.arange(count),
            *(pa.array(each, pa.string()) for each in (["s"] * count, kind, place)),
            *(np.array(value, dtype=np.int64), np.array(time, dtype=np.int64), np.array(flag)),
            pa.array(unit, pa.string()),
        ).take(np.arange(1, count))
        windows, _ = PartitionWindows(WindowRules(allowed_lateness_seconds=600)).add(readings)
        page = backfill.Page(
            [backfill.Window(key, 1, None) for key in windows],
            {"sources": [1], "ends": [count]},
            60_000_000,
        )
        found = {}
        for start_us in {key.start_us for key in windows}:
            with database.transaction() as tx:
                found |= backfill.figures(tx, page, start_us)
        assert found == {
            key: (
                *(each.all.readings, each.all.mean(), each.all.stddev()),
                *(each.minimum, each.maximum, each.anomalies, each.units[0] != each.units[1]),
            )
            for key, each in windows.items()
        }


def chosen(database):
    with database.transaction() as tx:
        page = backfill.choose(tx, backfill.Which(None, None, 60_000_000), None)
    with database.transaction() as tx:
        return page, backfill.figures(tx, page, page.windows[0].key.start_us)


def test_of_two_runs_the_second_writes_nothing_over_the_first(
    service, kafka, topic, query, database, said
):
    store(service, kafka, topic, [reading(0), reading(1_000)], [reading(1)])
    page, found = chosen(database)
    said()
    with pytest.raises(StaleCheckpoint), database.transaction() as tx:
        backfill.fold(tx, page, found)
    assert query("SELECT sum(count_readings)::int FROM sensor_aggregates") == [(3,)]


@pytest.mark.parametrize(("is_taken", "times"), [(False, 1), (True, 2)])
def test_correlations_that_are_being_computed_are_due_again(
    service, kafka, topic, query, database, database_url, is_taken, times
):
    batch = [reading(0), reading(1, sensor_type="co2"), reading(1_000)]
    store(service, kafka, topic, batch, [reading(2)])
    query("TRUNCATE correlations_due")
    query(
        "INSERT INTO correlations_due (window_start, window_end, location)"
        " SELECT DISTINCT window_start, window_end, location FROM sensor_aggregates WHERE is_final"
    )
    page, found = chosen(database)
    with Database(database_url, "correlator") as other, other.transaction() as correlating:
        if is_taken:
            correlating.execute("SELECT FROM correlations_due FOR UPDATE")
        with database.transaction() as tx:
            assert backfill.fold(tx, page, found) == 1
    assert query("SELECT count(*)::int FROM correlations_due") == [(times,)]


def test_readings_that_a_service_has_yet_to_see_are_left_for_later(
    service, kafka, topic, query, said
):
    store(service, kafka, topic, [reading(0), reading(1_000)])
    send(kafka, topic, [reading(1)], partition=0)
    catch_up(service, "stream_processor.py")
    assert said().startswith("nothing to do") and query(LATE) == [(1,)]
    assert "left_for_later=1" in said()
    catch_up(service, "consumer.py")
    assert "windows_revised=1 " in said()


def test_a_window_that_may_still_change_is_left_to_the_processor(
    service, kafka, topic, query, said
):
    store(service, kafka, topic, [reading(0), reading(1_000)])
    query("UPDATE sensor_aggregates SET is_final = false")
    send(kafka, topic, [reading(1), reading(2, location="Hall")], partition=0)
    catch_up(service, "consumer.py")
    query(
        "INSERT INTO late_readings SELECT source_id, log_offset, sensor_id, sensor_type, location,"
        " value, timestamp, anomaly, unit, '2026-01-31 12:00', now(), 1"
        " FROM sensor_readings WHERE log_offset > 1"
    )
    query("UPDATE stream_offsets SET next_offset = 4")
    assert said().endswith("left_for_later=2")


def test_where_counted_readings_are_not_stored_the_window_stays(service, kafka, topic, query, said):
    store(service, kafka, topic, [reading(0), reading(0), reading(1_000)], [reading(1)])
    query("DELETE FROM sensor_readings WHERE log_offset = 0")
    rows = query(AGGREGATES)
    assert said().startswith("nothing to do") and "left_incomplete=1" in said()
    assert query(AGGREGATES) == rows


def test_windows_that_retention_has_taken_readings_from_are_refused(
    service, kafka, topic, query, said
):
    store(service, kafka, topic, [reading(0), reading(10_000)])
    kept_from = "FROM ('2026-01-31')"
    for name, bound in query(
        "SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, oid) FROM pg_inherits"
        " JOIN pg_class ON oid = inhrelid WHERE inhparent = 'sensor_readings'::regclass"
    ):
        if "MINVALUE" in bound:
            query(f"ALTER TABLE sensor_readings DETACH PARTITION {name}")
            bound = bound.replace("FROM (MINVALUE)", kept_from)
            query(f"ALTER TABLE sensor_readings ATTACH PARTITION {name} {bound}")
    assert query("SELECT complete_from::text FROM kept_readings") == [("2026-01-31 00:05:00",)]
    midnight = -12 * 3600
    store(service, kafka, topic, [reading(midnight + second) for second in (0, 299, 300)])
    assert "readings=1 left_to_retention=2 " in said()
    revised = "SELECT window_start::text FROM sensor_aggregates WHERE revised_at IS NOT NULL"
    assert query(revised) == [("2026-01-31 00:05:00",)]
    assert query(LATE) == [(2,)]


def test_another_length_of_windows_is_refused_in_a_line(
    service, kafka, topic, environment, backfilling
):
    store(service, kafka, topic, [reading(0)])
    environment["WINDOW_SECONDS"] = "30"
    process = backfilling()
    assert process.wait(60) == 1
    output = process.log_path.read_text()
    assert output.startswith("error: WINDOW_SECONDS=30, but this database has rows made with")
    assert output.count("\n") == 1


def test_it_takes_no_window_of_the_future_for_final(service, kafka, topic, query, said):
    """No row, and beyond what is final: the partition that is behind may still make it."""
    store(service, kafka, topic, [reading(0)])
    query(
        "INSERT INTO late_readings SELECT source_id, 0, 's', 'co2', 'Hall', 1, %s, false, '', %s,"
        " now(), 1 FROM sources WHERE partition = 0",
        *(["2026-01-31 12:00"] * 2),
    )
    assert said().endswith("left_for_later=1")
