import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from tests.messages import message, send
from tests.waiting import until

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def reading(second, value=20.0, **changes):
    return message(
        timestamp=(START + timedelta(seconds=second)).isoformat(), value=value, **changes
    )


def run_once(service, **settings):
    process = service("stream_processor.py", "--once", **settings)
    assert process.wait(60) == 0, process.log_path.read_text()


AGGREGATES = (
    "SELECT window_start, location, sensor_type, avg_value, min_value, max_value, stddev_value,"
    " count_readings, anomaly_count FROM sensor_aggregates ORDER BY 1, 2, 3"
)


def recomputed(payloads, window="60s"):
    """Aggregate messages with pandas: written independently of the code under test."""
    frame = pd.DataFrame([json.loads(p) for p in payloads])
    frame["cents"] = [int((Decimal(str(v)) * 100).to_integral_value()) for v in frame["value"]]
    times = pd.to_datetime(frame["timestamp"], utc=True, format="ISO8601").dt.tz_localize(None)
    frame["window_start"] = times.dt.floor(window)
    rows = []
    for (start, location, kind), group in frame.groupby(
        ["window_start", "location", "sensor_type"]
    ):
        exact = [Decimal(c) for c in group["cents"]]
        mean = sum(exact) / len(exact)
        spread = (sum((x - mean) ** 2 for x in exact) / len(exact)).sqrt()
        cents = [round(mean), min(exact), max(exact), round(spread)]
        figures = [Decimal(int(c)).scaleb(-2) for c in cents]
        rows.append(
            (
                start.to_pydatetime(),
                location,
                kind,
                *figures,
                len(group),
                int(group["anomaly"].sum()),
            )
        )
    return sorted(rows, key=lambda row: row[:3])


def fleet(seed, count, seconds):
    """Return readings of several groups over a stretch of time, out of order by up to 30 s."""
    chance = random.Random(seed)
    rows = [
        (
            at := chance.uniform(0, seconds),
            at + chance.uniform(0, 30),
            reading(
                at,
                round(chance.gauss(0, 1000), 2),
                location=chance.choice(["Laboratory", "Warehouse"]),
                sensor_type=chance.choice(["co2", "temperature", "pressure"]),
                anomaly=chance.random() < 0.1,
            ),
        )
        for _ in range(count)
    ]
    return [payload for _, _, payload in sorted(rows, key=lambda row: row[1])]


@pytest.mark.parametrize("kafka", ["apache", "embedded"], indirect=True)
def test_windows_equal_a_recomputation_whatever_the_keys(service, kafka, topic, query):
    payloads = fleet(seed=1, count=5_000, seconds=600)
    send(kafka, topic, payloads)  # no keys: every window is spread over all partitions
    run_once(service, ALLOWED_LATENESS_SECONDS="600")
    assert query(AGGREGATES) == recomputed(payloads)


def test_killed_at_random_moments_it_counts_each_reading_once(service, kafka, topic, query):
    payloads = fleet(seed=2, count=20_000, seconds=1200)
    chance = random.Random(3)
    settings = {"ALLOWED_LATENESS_SECONDS": "2000"}
    counted = "SELECT coalesce(sum(count_readings), 0) FROM sensor_aggregates"
    processor = service("stream_processor.py", **settings)
    for begin in range(0, 20_000, 5_000):
        send(kafka, topic, payloads[begin : begin + 5_000])
        goal = chance.randrange(begin, begin + 5_000)
        until(lambda goal=goal: query(counted)[0][0] > goal)
        processor.kill()
        processor.wait()
        processor = service("stream_processor.py", **settings)
    until(lambda: query(counted)[0][0] >= 20_000, seconds=60)
    assert query(AGGREGATES) == recomputed(payloads)


def test_processors_that_share_windows_give_the_same_rows(service, kafka, topic, query):
    payloads = fleet(seed=4, count=12_000, seconds=600)
    for _ in range(3):
        service("stream_processor.py", ALLOWED_LATENESS_SECONDS="2000")
    counted = "SELECT sum(count_readings) FROM sensor_aggregates"
    for end in range(3_000, 12_001, 3_000):  # the group is rebalancing meanwhile
        send(kafka, topic, payloads[end - 3_000 : end])
        until(lambda end=end: query(counted)[0][0] == end, seconds=60)
    assert query(AGGREGATES) == recomputed(payloads)


def test_extreme_values_are_exact(service, kafka, topic, query):
    send(kafka, topic, [reading(n, 99999999.99) for n in range(50)], partition=0)
    send(kafka, topic, [reading(60, -99999999.99)], partition=0)
    run_once(service)
    rows = query(
        "SELECT avg_value, stddev_value, count_readings FROM sensor_aggregates"
        " ORDER BY window_start"
    )
    extreme, zero = Decimal("99999999.99"), Decimal("0.00")
    assert rows == [(extreme, zero, 50), (-extreme, zero, 1)]


def test_a_late_reading_is_kept_and_counted_in_no_window(service, kafka, topic, query):
    send(kafka, topic, [reading(1000), reading(0, 5.5), reading(999)], partition=3)
    run_once(service)
    late = query(
        "SELECT log_offset, value, window_start, late_by_seconds::float FROM late_readings"
    )
    assert late == [(1, Decimal("5.50"), START.replace(tzinfo=None), 1000 - 5 - 60)]
    assert query("SELECT sum(count_readings) FROM sensor_aggregates") == [(2,)]


def test_bad_messages_are_skipped(service, kafka, topic, query):
    send(kafka, topic, [b"bad", reading(0), None, reading(1)], partition=0)
    run_once(service)
    assert query("SELECT sum(count_readings) FROM sensor_aggregates") == [(2,)]
    assert query("SELECT count(*) FROM dead_letters") == [(0,)]  # the consumer's business


def test_windows_close_and_become_final_and_idle_partitions_hold_nothing_open(
    service, kafka, topic, query
):
    send(kafka, topic, [reading(n) for n in range(0, 600, 10)], partition=0)  # five stay empty
    service("stream_processor.py", ALLOWED_LATENESS_SECONDS="120")
    final = (
        "SELECT is_closed, is_final, count(*)::int FROM sensor_aggregates"
        " GROUP BY is_closed, is_final ORDER BY is_closed, is_final"
    )
    # The last event is at 590 s: the watermark is at 585 s and moves on with the wall clock.
    until(lambda: query(final) == [(False, False, 1), (True, False, 2), (True, True, 7)])


def test_a_silent_partition_whose_clock_is_at_1970_holds_nothing_open_and_is_late_afterwards(
    service, kafka, topic, query
):
    send(kafka, topic, [message(timestamp="1970-01-01T00:00:00Z")], partition=5)
    send(kafka, topic, [reading(n) for n in range(0, 600, 10)], partition=0)
    service("stream_processor.py", ALLOWED_LATENESS_SECONDS="120", IDLE_AFTER_SECONDS="1")
    final = "SELECT count(*)::int FROM sensor_aggregates WHERE is_final"
    until(lambda: query(final) == [(8,)])
    send(kafka, topic, [reading(1)], partition=5)
    until(lambda: query("SELECT timestamp FROM late_readings"))
    assert query("SELECT sum(count_readings)::int FROM sensor_aggregates") == [(61,)]


def test_once_ends_under_a_constant_stream(service, kafka, topic, query):
    send(kafka, topic, [reading(n) for n in range(0, 600, 10)], partition=0)
    service("producer.py", "--rate", "50")
    until(lambda: query("SELECT count(*) FROM service_status WHERE service = 'producer'") == [(1,)])
    run_once(service, ALLOWED_LATENESS_SECONDS="120")
    assert query("SELECT count(*) >= 7 FROM sensor_aggregates WHERE is_final") == [(True,)]


def test_a_window_of_several_units_is_marked_whatever_partition_they_come_from(
    service, kafka, topic, query
):
    send(kafka, topic, [reading(0), reading(60), reading(120, unit="K")], partition=0)
    send(kafka, topic, [reading(1, unit="°F"), reading(61)], partition=1)
    run_once(service)
    marked = "SELECT has_mixed_units, count_readings FROM sensor_aggregates ORDER BY window_start"
    assert query(marked) == [(True, 2), (False, 2), (False, 1)]


def test_while_all_is_silent_one_row_moves_and_no_other(service, kafka, topic, query):
    send(kafka, topic, [reading(0)], partition=0)
    send(kafka, topic, [reading(9)], partition=1)
    service("stream_processor.py", IDLE_AFTER_SECONDS="1")
    until(lambda: query("SELECT count(*) FROM stream_offsets WHERE is_idle") == [(6,)])
    moved = (
        "SELECT watermark FROM stream_offsets JOIN sources USING (source_id) WHERE partition = 1"
    )
    others = (
        "SELECT o.* FROM stream_offsets o JOIN sources USING (source_id) WHERE partition <> 1"
        " ORDER BY source_id"
    )
    before, rows = query(moved), query(others)
    until(lambda: query(moved)[0][0] > before[0][0] + timedelta(seconds=3))
    assert query(others) == rows


def test_correlations_are_written_for_closed_windows(service, kafka, topic, query):
    rising = [reading(60 * n, n, sensor_type="co2") for n in range(10)]
    falling = [reading(60 * n, -n, sensor_type="temperature") for n in range(10)]
    send(kafka, topic, [p for pair in zip(rising, falling, strict=True) for p in pair], partition=0)
    service("stream_processor.py", ALLOWED_LATENESS_SECONDS="120")
    found = (
        "SELECT sensor_type_a, sensor_type_b, correlation::float, window_count, is_final"
        " FROM sensor_correlations WHERE window_end = %s"
    )
    end = (START + timedelta(minutes=6)).replace(tzinfo=None)
    until(lambda: query(found, end) == [("co2", "temperature", -1.0, 6, True)])


@pytest.mark.slow
def test_hundreds_of_types_at_one_place_hold_no_window_open(service, kafka, topic, query):
    send(
        kafka,
        topic,
        [
            reading(60 * minute + kind % 60, minute * kind % 17, sensor_type=f"tag-{kind:03}")
            for minute in range(20)
            for kind in range(300)
        ],
        partition=0,
    )
    send(kafka, topic, [reading(3_600, location="Hall")], partition=0)
    service("stream_processor.py")
    final = "SELECT count(*) FROM sensor_aggregates WHERE is_final AND location = 'Laboratory'"
    until(lambda: query(final) == [(6_000,)], seconds=60)
    send(kafka, topic, [reading(3_601, location="Hall")], partition=0)
    new = "SELECT count_readings FROM sensor_aggregates WHERE location = 'Hall'"
    until(lambda: query(new) == [(2,)])
    # The newest come first; all of them take longer than this test.
    until(lambda: query("SELECT count(*) >= 2016 FROM sensor_correlations") == [(True,)])


def test_a_row_appears_soon_and_is_refined(service, kafka, topic, query):
    service("stream_processor.py")
    seen = "SELECT count_readings, is_final FROM sensor_aggregates"
    send(kafka, topic, [reading(0)], partition=0)
    until(lambda: query(seen) == [(1, False)])
    send(kafka, topic, [reading(1)], partition=1)
    until(lambda: query(seen) == [(2, False)])


def test_statistical_anomalies_follow_the_log_whatever_the_batches(service, kafka, topic, query):
    chance = random.Random(5)
    payloads = [reading(n / 2, round(chance.gauss(0, 1), 2)) for n in range(1_200)]
    payloads += [reading(600, 50.0), reading(601, -50.0)]
    send(kafka, topic, payloads[:700], partition=0)
    run_once(service)
    send(kafka, topic, payloads[700:], partition=0)
    run_once(service)
    verdicts = query("SELECT window_start, statistical_anomalies FROM sensor_aggregates ORDER BY 1")
    by_window = defaultdict(int, verdicts)
    assert by_window[START.replace(tzinfo=None)] == 0  # no baseline yet
    assert by_window[(START + timedelta(seconds=600)).replace(tzinfo=None)] == 2


def test_windows_of_two_lengths_are_not_mixed(service, kafka, topic, query):
    run_once(service, WINDOW_SECONDS="30")  # no window yet: any length will do
    send(kafka, topic, [message()])
    run_once(service, WINDOW_SECONDS="60")
    process = service("stream_processor.py", WINDOW_SECONDS="30")
    assert process.wait(40) == 2
    log = process.log_path.read_text()
    assert "error: WINDOW_SECONDS=30, but this database has rows made with WINDOW_SECONDS=60" in log
    assert "Traceback" not in log
    assert query("SELECT window_end - window_start = '1 min' FROM sensor_aggregates") == [(True,)]
