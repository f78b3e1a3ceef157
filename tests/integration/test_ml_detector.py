"""The detector on real services: each reading scored once, whoever dies, sleeps, joins or waits."""

import json
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg2
import pytest

from db.shards import shard_of
from simulator.fleet import SensorSimulator
from tests.conftest import CHECKOUT
from tests.messages import message, send
from tests.waiting import until

# Whoever takes over from a killed one waits 8 s to be sure.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
OWNERS = "SELECT owner, count(*) FROM detector_shards GROUP BY owner ORDER BY count(*)"
VERDICTS = (
    "SELECT source_id, log_offset, is_anomaly, anomaly_score, reason"
    " FROM ml_anomaly_predictions ORDER BY 1, 2"
)


def readings(count, first=0, per_second=25):
    """Messages of a simulated fleet of 25 sensors of five types."""
    simulator = SensorSimulator(seed=3)
    if first:
        simulator.read(range_us(0, first, per_second))
    read = simulator.read(range_us(first, first + count, per_second))
    return [
        message(
            sensor_id=simulator.sensors[which].sensor_id,
            sensor_type=simulator.sensors[which].sensor_type,
            location=simulator.sensors[which].location,
            value=hundredths / 100,
            timestamp=(START + timedelta(seconds=(first + row) / per_second)).isoformat(),
        )
        for row, (which, hundredths) in enumerate(
            zip(read.sensor.tolist(), read.hundredths.tolist(), strict=True)
        )
    ]


def range_us(first, last, per_second):
    start_us = round(START.timestamp() * 1e6)
    return start_us + np.arange(first, last) * (1_000_000 // per_second)


@pytest.fixture
def run_once(service):
    """Run a script until there is nothing more to do."""

    def run(script):
        process = service(script, "--once")
        assert process.wait(90) == 0, process.log_path.read_text()

    return run


@pytest.fixture
def stored(kafka, topic, run_once):
    """Store so many readings of the fleet, as the consumer does."""

    def store(count, first=0):
        send(kafka, topic, readings(count, first), partition=first % 6)
        run_once("consumer.py")
        return count

    return store


@pytest.fixture
def scored(query):
    """Number of predictions."""
    return lambda: query("SELECT count(*) FROM ml_anomaly_predictions")[0][0]


@pytest.fixture
def uninterrupted(query, run_once):
    """Verdicts of one detector that nothing happens to, on the readings that are stored."""

    def run():
        query(
            "TRUNCATE ml_anomaly_predictions, model_runs, lease_owners; UPDATE detector_shards"
            " SET owner = NULL, positions = '{}', state = NULL, state_positions = '{}'"
        )
        run_once("ml_detector.py")
        return query(VERDICTS)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_random_moments_it_gives_the_verdicts_of_an_uninterrupted_run(
    service, stored, scored, query, run_once, uninterrupted, how
):
    total, chance = stored(20_000), random.Random(11)
    for _ in range(2):
        process = service("ml_detector.py")
        goal = min(total, scored() + chance.randrange(1, total // 5))
        until(lambda goal=goal: scored() >= goal, seconds=90)
        process.send_signal(how)
        process.wait(60)
    run_once("ml_detector.py")
    interrupted = query(VERDICTS)
    assert len(interrupted) == total
    assert any(is_anomaly for _, _, is_anomaly, *_ in interrupted)
    assert interrupted == uninterrupted()


def test_it_misses_none_and_scores_none_twice_while_several_consumers_write(
    service, kafka, topic, scored, query
):
    for _ in range(3):
        service("consumer.py")
    for _ in range(2):
        service("ml_detector.py")
    total = 0
    for part in range(6):
        send(kafka, topic, readings(2_000, first=2_000 * part))
        total += 2_000
    until(lambda: scored() >= total, seconds=90)
    assert query(
        "SELECT count(*), count(DISTINCT (source_id, log_offset)) FROM ml_anomaly_predictions"
    ) == [(total, total)]
    assert query(
        "SELECT count(*) FROM sensor_readings AS r LEFT JOIN ml_anomaly_predictions AS p"
        " USING (source_id, log_offset) WHERE p.id IS NULL OR p.value <> r.value"
    ) == [(0,)]


@pytest.mark.slow
def test_a_long_open_transaction_of_another_neither_stalls_it_nor_hides_a_reading(
    stored, scored, run_once, database_url
):
    other = psycopg2.connect(database_url)
    with other.cursor() as cursor:
        # It takes an id and a transaction number that are not committed for as long as it is open.
        cursor.execute(
            "INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp,"
            " anomaly, unit, source_id, log_offset)"
            " VALUES ('x', 'temperature', 'x', 1, now(), false, '', -1, 0)"
        )
        total = stored(1_000)
        run_once("ml_detector.py")
        assert scored() == total
    other.rollback()
    other.close()
    total += stored(1_000, first=1_000)
    run_once("ml_detector.py")
    assert scored() == total


def test_readings_before_the_first_model_have_no_verdict_and_are_not_scored_again(
    stored, query, run_once
):
    stored(100)  # 20 of each type
    run_once("ml_detector.py")
    rows = query("SELECT id, is_anomaly, anomaly_score FROM ml_anomaly_predictions ORDER BY id")
    assert [row[1:] for row in rows] == [(None, None)] * 100
    stored(2_000, first=100)
    run_once("ml_detector.py")
    again = query("SELECT id, is_anomaly, anomaly_score FROM ml_anomaly_predictions ORDER BY id")
    assert again[:100] == rows
    assert len(again) == 2_100 and again[-1][1] is not None


@pytest.mark.slow
def test_two_of_them_killed_at_random_moments_give_the_verdicts_of_an_uninterrupted_run(
    service, stored, scored, query, run_once, uninterrupted
):
    total, chance = stored(20_000), random.Random(12)
    running = [service("ml_detector.py"), service("ml_detector.py")]
    for _ in range(3):
        goal = min(total, scored() + chance.randrange(1, total // 5))
        until(lambda goal=goal: scored() >= goal, seconds=90)
        victim = running.pop(chance.randrange(2))
        victim.kill()
        victim.wait()
        running.append(service("ml_detector.py"))
    until(lambda: scored() >= total, seconds=90)
    # Those that run now: a killed one is an owner too, for as long as its counter may yet move.
    alive = {str(process.pid): 8 for process in running}
    until(
        lambda: {f"-{owner}".split("-")[-2]: count for owner, count in query(OWNERS)} == alive,
        seconds=90,
    )
    for process in running:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert query(OWNERS) == [(None, 16)]
    interrupted = query(VERDICTS)
    assert len(interrupted) == total
    assert interrupted == uninterrupted()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_several_detectors_share_the_types_and_take_over_from_one_that_dies_or_sleeps(
    service, stored, scored, query, how
):
    total = stored(500)
    first, second = service("ml_detector.py"), service("ml_detector.py")
    until(lambda: [count for _, count in query(OWNERS)] == [8, 8], seconds=90)
    first.send_signal(how)
    until(lambda: [count for _, count in query(OWNERS)] == [16], seconds=90)
    total += stored(2_000, first=500)
    until(lambda: scored() >= total, seconds=90)
    assert scored() == total
    assert second.poll() is None


@pytest.mark.slow
def test_host_names_of_sixty_characters_are_told_apart(service, stored, scored, query, tmp_path):
    script = tmp_path / "on_a_host_with_a_long_name.py"
    script.write_text(
        "import runpy, socket, sys\n"
        f"sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "socket.gethostname = lambda: 'h' * 60\n"
        f"runpy.run_path({str(CHECKOUT / 'ml_detector.py')!r}, run_name='__main__')\n"
    )
    total = stored(500)
    first, _ = service(str(script)), service(str(script))
    until(lambda: [count for _, count in query(OWNERS)] == [8, 8], seconds=90)
    assert all(len(owner) > 63 for owner, _ in query(OWNERS))
    first.kill()
    total += stored(500, first=500)
    until(lambda: scored() == total, seconds=90)


def test_readings_that_a_clock_set_back_dates_to_days_before_are_scored(
    service, stored, scored, query
):
    total = stored(500)
    service("ml_detector.py")
    until(lambda: scored() == total, seconds=90)
    total += stored(100, first=500)
    until(lambda: scored() == total, seconds=90)  # by now it reads from yesterday on
    query(
        "ALTER TABLE sensor_readings ALTER COLUMN ingested_on"
        " SET DEFAULT (now() AT TIME ZONE 'UTC')::date - 2"
    )
    total += stored(500, first=600)
    until(lambda: scored() == total, seconds=90)
    assert query("SELECT count(DISTINCT ingested_on) FROM ml_anomaly_predictions") == [(2,)]


def test_once_scores_all_that_is_there_though_a_type_is_silent(
    kafka, topic, stored, scored, run_once
):
    total = stored(500)
    run_once("ml_detector.py")
    send(kafka, topic, [message(sensor_type="temperature", value=n / 10) for n in range(3_000)])
    run_once("consumer.py")
    run_once("ml_detector.py")
    assert scored() == total + 3_000


def test_thousands_of_made_up_types_hold_the_others_up_by_no_more_than_their_readings(
    kafka, topic, service, stored, scored, run_once
):
    send(kafka, topic, [message(sensor_type=f"made-up-{n}") for n in range(8_000)])
    total = 8_000 + stored(1_000)
    service("ml_detector.py")
    until(lambda: scored() == total, seconds=90)
    total += stored(1_000, first=1_000)
    until(lambda: scored() == total, seconds=90)


def test_with_a_changed_setting_it_learns_again_what_it_had_scored_and_goes_on(
    service, stored, scored, query, environment
):
    total = stored(5_000)
    first = service("ml_detector.py", "--once")
    assert first.wait(60) == 0
    total += stored(500, first=5_000)
    second = service("ml_detector.py", "--once", DETECTOR_HISTORY_SIZE="200")
    assert second.wait(60) == 0, second.log_path.read_text()
    assert "state_of_another_version" in second.log_path.read_text()
    assert scored() == total
    assert query(
        "SELECT count(*) FROM ml_anomaly_predictions WHERE is_anomaly IS NULL AND id > 5000"
    ) == [(0,)]


@pytest.mark.parametrize("sensor_type", ["co2", "temperature", "", "Wärme °C", "a'b\\c", "x" * 50])
def test_the_shard_of_a_type_is_the_same_in_the_database(query, sensor_type):
    assert query("SELECT detector_shard(%s)", sensor_type) == [(shard_of(sensor_type),)]


@pytest.mark.slow
def test_a_zombie_that_wakes_up_scores_nothing_twice(service, stored, scored, query):
    total = stored(2_000)
    zombie = service("ml_detector.py")
    until(lambda: scored() == total, seconds=90)
    zombie.send_signal(signal.SIGSTOP)
    total += stored(2_000, first=2_000)
    service("ml_detector.py")
    until(lambda: scored() == total, seconds=90)
    zombie.send_signal(signal.SIGCONT)
    total += stored(2_000, first=4_000)
    until(lambda: scored() >= total, seconds=90)
    assert len(query(VERDICTS)) == total
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(30) == 0


def test_progress_set_back_before_predictions_that_exist_stops_it_with_one_line(
    service, stored, scored, query, run_once
):
    total = stored(500)
    run_once("ml_detector.py")
    query(
        "UPDATE detector_shards SET positions = (SELECT jsonb_object_agg(key, value::bigint - 4)"
        " FROM jsonb_each_text(positions)) WHERE shard = detector_shard('co2')"
    )
    process = service("ml_detector.py")
    assert process.wait(40) == 2
    log = process.log_path.read_text()
    assert "position in detector_shards was set back to before rows that exist" in log
    assert log.count("checkpoint_stale") == 1 and "Traceback" not in log
    assert scored() == total


def test_a_prediction_keeps_the_band_it_was_judged_by_and_an_anomaly_its_reason(
    stored, query, run_once
):
    stored(5_000)
    run_once("ml_detector.py")
    assert query(
        "SELECT count(*) FILTER (WHERE is_anomaly) > 0,"
        " count(*) FILTER (WHERE is_anomaly AND (reason IS NULL OR lower IS NULL)),"
        " count(*) FILTER (WHERE NOT is_anomaly AND reason IS NOT NULL),"
        " count(*) FILTER (WHERE lower >= upper),"
        " count(*) FILTER (WHERE reason LIKE '%usually%to%' AND value BETWEEN lower AND upper)"
        " FROM ml_anomaly_predictions"
    ) == [(True, 0, 0, 0, 0)]


def test_each_training_leaves_a_row_that_says_how_it_went(stored, query, run_once):
    stored(10_000)
    run_once("ml_detector.py")
    runs = query(
        "SELECT sensor_type, training_rows, threshold, flagged_share, duration_seconds, drift"
        " FROM model_runs ORDER BY id"
    )
    assert {run[0] for run in runs} == {
        *("temperature", "humidity", "air_quality", "pressure", "co2")
    }
    assert max(run[1] for run in runs) == 1_000
    assert all(-1 < run[2] < 0 and 0 <= run[3] <= 0.2 and run[4] < 2 for run in runs)
    assert runs[0][5] is None and runs[-1][5] is not None


@pytest.mark.slow
def test_live_quality_compares_detector_and_rule_with_the_truth_in_the_headers(
    service, run_once, environment, tmp_path
):
    producer = service("producer.py", "--rate", "0", "--max-messages", "6000", "--seed", "5")
    assert producer.wait(60) == 0
    run_once("consumer.py")
    run_once("ml_detector.py")
    lines = subprocess.run(
        [sys.executable, "-m", "benchmarks.live_quality"],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.splitlines()
    detector, rule = map(json.loads, lines)
    assert (detector["method"], rule["method"]) == ("detector", "rule")
    assert detector["readings"] == rule["readings"] > 5_000
    assert detector["recall"] > 0.8 and detector["precision"] > 0.5
    assert detector["event_recall_by_kind"]["spike"] > 0.9
