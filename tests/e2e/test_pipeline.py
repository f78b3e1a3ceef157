"""The whole system as a user runs it: five processes, a real Kafka, a real PostgreSQL."""

import csv
import re
import signal
import subprocess
import sys
import urllib.request
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import groupby

import pytest
from psycopg2.errors import UndefinedTable

from db.connection import Database, DatabaseUnavailable
from local_stack.kafka import LocalKafka
from local_stack.leftovers import mark
from local_stack.postgres import LocalPostgres
from local_stack.processes import free_port
from tests.conftest import CHECKOUT
from tests.messages import BAD, send
from tests.waiting import until

pytestmark = pytest.mark.e2e

SERVICES = ("dashboard.py", "ml_detector.py", "stream_processor.py", "consumer.py", "producer.py")
TABLES = ("sensor_readings", "sensor_aggregates", "ml_anomaly_predictions")


@pytest.fixture
def start_all(service, environment, tmp_path):
    """A function that starts the five services; returns processes and the dashboard's port."""
    dashboards = []

    def start(*producer_arguments):
        port = free_port()
        command = [sys.executable, "-m", "streamlit", "run", str(CHECKOUT / "dashboard.py")]
        command += ["--server.port", str(port), "--server.headless", "true"]
        with (tmp_path / "dashboard.log").open("wb") as log:
            dashboards.append(
                subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
            )
        processes = [service(script) for script in SERVICES[1:-1]]
        return [*processes, service("producer.py", *producer_arguments)], dashboards[0], port

    yield start
    for dashboard in dashboards:
        dashboard.kill()
        dashboard.wait()


def test_all_tables_grow_and_the_dashboard_answers(start_all, query):
    processes, dashboard, port = start_all("--rate", "200", "--seed", "1")
    for table in TABLES:
        until(lambda table=table: query(f"SELECT count(*) FROM {table}")[0][0] > 0, seconds=60)
    verdicts = "SELECT count(*) FROM ml_anomaly_predictions WHERE is_anomaly IS NOT NULL"
    until(lambda: query(verdicts)[0][0] > 0, seconds=60)
    health = f"http://127.0.0.1:{port}/_stcore/health"
    until(lambda: urllib.request.urlopen(health).read() == b"ok", ignoring=OSError)

    processes[-1].send_signal(signal.SIGINT)  # the producer: what it sent must arrive everywhere
    assert processes[-1].wait(20) == 0
    log = processes[-1].log_path.read_text()
    (sent,) = re.findall(r"finished sent=(\d+) delivered=\1 failed=0", log)
    for goal in (
        "SELECT count(*) FROM sensor_readings",
        "SELECT sum(count_readings) FROM sensor_aggregates",
        "SELECT count(*) FROM ml_anomaly_predictions",
    ):
        until(lambda goal=goal: query(goal)[0][0] >= int(sent))
        assert query(goal) == [(int(sent),)]

    for process in [*processes[:-1], dashboard]:
        process.send_signal(signal.SIGINT)
    for process in processes[:-1]:
        assert process.wait(20) == 0, process.log_path.read_text()
    assert dashboard.wait(20) == 0


def test_started_in_the_worst_order_everything_comes_up_by_itself(tmp_path):
    kafka, postgres = LocalKafka(tmp_path / "k"), LocalPostgres(tmp_path / "p", durable=False)
    environment = {
        **mark(),
        "PATH": "",
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DATABASE_URL": postgres.url,
    }
    processes = [
        subprocess.Popen([sys.executable, str(CHECKOUT / script)], env=environment, cwd=tmp_path)
        for script in SERVICES[1:]
    ]
    try:
        with postgres, kafka:
            with Database(postgres.url, "test") as database:

                def grown():
                    with database.transaction() as tx:
                        for table in TABLES:
                            tx.execute(f"SELECT count(*) FROM {table}")
                            if not tx.fetchone()[0]:
                                return False
                    return True

                until(grown, seconds=60, ignoring=(DatabaseUnavailable, UndefinedTable))
            for process in processes:
                process.send_signal(signal.SIGTERM)
            assert [process.wait(25) for process in processes] == [0, 0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def recording(tmp_path):
    """Write a recording: three sensors of a type, a reading a second each, for five minutes."""
    path = tmp_path / "recording.csv"
    start = datetime.fromisoformat("2020-03-09T10:14:33")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["sensor_id", "sensor_type", "location", "value", "timestamp", "unit", "anomaly"]
        )
        for second in range(300):
            for sensor in range(3):
                value = 20 + sensor + (second * 37 % 101) / 1000
                time = (start + timedelta(seconds=second)).isoformat(" ")
                writer.writerow(
                    [f"pump_{sensor}", "vibration", "Testbed", value, time, "g", "false"]
                )
    return path


def test_a_recording_replayed_with_its_own_times_is_in_every_table(service, query, recording):
    for script, *arguments in (
        ("producer.py", "--replay", str(recording), "--speed", "0", "--keep-timestamps"),
        ("consumer.py", "--once"),
        ("stream_processor.py", "--once"),
        ("ml_detector.py", "--once"),
    ):
        process = service(script, *arguments)
        assert process.wait(60) == 0, process.log_path.read_text()

    rows = list(csv.DictReader(recording.read_text("utf-8").splitlines()))
    assert query("SELECT count(*) FROM sensor_readings") == [(len(rows),)]
    assert query("SELECT count(*) FROM ml_anomaly_predictions") == [(len(rows),)]
    aggregates = query(
        "SELECT window_start, avg_value, min_value, max_value, count_readings"
        " FROM sensor_aggregates ORDER BY window_start"
    )
    expected = []
    for minute, group in groupby(rows, key=lambda row: row["timestamp"][:16]):
        cents = [(Decimal(r["value"]) * 100).to_integral_value(ROUND_HALF_EVEN) for r in group]
        mean = (sum(cents) / len(cents)).to_integral_value(ROUND_HALF_EVEN)
        figures = [c.scaleb(-2) for c in (mean, min(cents), max(cents))]
        expected.append((datetime.fromisoformat(minute), *figures, len(cents)))
    assert aggregates == expected


def test_rubbish_on_the_topic_between_readings_stops_nobody(service, kafka, topic, query):
    services = [service(script) for script in SERVICES[1:-1]]
    producer = service("producer.py", "--rate", "500", "--max-messages", "2000")
    bad = [payload for _, payload, _ in BAD]
    for payload in bad:
        send(kafka, topic, [payload])
    assert producer.wait(60) == 0
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(2000,)])
    until(lambda: query("SELECT count(*) FROM dead_letters") == [(len(bad),)])
    until(lambda: query("SELECT sum(count_readings) FROM sensor_aggregates") == [(2000,)])
    until(lambda: query("SELECT count(*) FROM ml_anomaly_predictions") == [(2000,)])
    assert [process.poll() for process in services] == [None] * 3
