"""Other programs beside ours: their rows, their tables, their topic."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from confluent_kafka.admin import NewTopic

from broker.topics import admin_client
from db import dashboard as queries
from db.connection import Database
from db.versions import SchemaMismatch, apply_schema
from tests.messages import GOOD, message, send
from tests.waiting import until

pytestmark = pytest.mark.integration

INSERT = """INSERT INTO sensor_readings
    (sensor_id, sensor_type, location, value, timestamp, anomaly, unit)
    SELECT 's' || n, 'temperature', 'Lab', 20 + n, '2026-01-31 12:00:00', false, ''
    FROM generate_series(1, 3) AS n"""


def test_rows_of_other_programs_are_source_0_in_no_window_and_not_scored(
    service, kafka, topic, database, query
):
    with database.transaction() as tx:
        tx.execute(INSERT)
        tx.execute(INSERT)
    send(kafka, topic, [message(sensor_id=f"ours{i}") for i in range(4)])
    for script in ("consumer.py", "stream_processor.py", "ml_detector.py"):
        process = service(script, "--once")
        assert process.wait(90) == 0, process.log_path.read_text()
    of_others = "SELECT count(DISTINCT log_offset) FROM sensor_readings WHERE source_id = 0"
    assert query(of_others) == [(6,)]
    assert query("SELECT count(*) FROM sensor_readings WHERE source_id <> 0") == [(4,)]
    assert query("SELECT sum(count_readings)::int FROM sensor_aggregates") == [(4,)]
    assert query("SELECT count(*), min(source_id) > 0 FROM ml_anomaly_predictions") == [(4, True)]
    assert query("SELECT count(*) FROM distinct_readings") == [(7,)]


def test_rows_of_other_programs_are_shown_and_can_be_chosen(database):
    with database.transaction() as tx:
        tx.execute(INSERT.replace("'2026-01-31 12:00:00'", "clock_timestamp() AT TIME ZONE 'UTC'"))
    [newest] = queries.newest_reading(database)
    hour = timedelta(hours=1)
    selection = queries.Selection(newest["now"] - hour, newest["now"] + hour, None, None)
    [shown] = queries.latest_readings(database, selection, newest["now"])
    assert (shown["location"], shown["sensor_type"], shown["sensors"]) == ("Lab", "temperature", 3)
    assert queries.choices(database) == [{"location": "Lab", "sensor_type": "temperature"}]


def test_a_table_that_somebody_else_made_is_refused_with_the_column_and_left_alone(postgres):
    with Database(postgres(), "test") as database:
        with database.transaction() as tx:
            tx.execute("CREATE TABLE sensor_readings (id serial, sensor_id text, value float)")
        with pytest.raises(SchemaMismatch, match=r"sensor_readings .* no column anomaly"):
            apply_schema(database)
        with database.transaction() as tx:
            tx.execute(
                "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v')"
                " AND relnamespace = 'public'::regnamespace"
            )
            assert tx.fetchone() == (1,)


def test_a_topic_with_its_senders_times_is_warned_of_once_with_what_mends_it(service, kafka):
    name = "with_senders_times"
    admin = admin_client({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 2)])[name].result()
    process = service("consumer.py", KAFKA_TOPIC=name)
    until(lambda: "partitions_assigned" in process.log_path.read_text())
    said = process.log_path.read_text()
    assert said.count("topic_has_senders_times") == 1
    assert "--entity-name with_senders_times --add-config message.timestamp.type" in said


# As people write it against kafka-python.
OTHER_PROGRAM = """
import sys
from kafka import KafkaConsumer, KafkaProducer

servers, topic, payload = sys.argv[1:]
found = KafkaConsumer(
    topic, bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=10_000
)
print(sum(each.value.startswith(b"{") for each in found))
producer = KafkaProducer(bootstrap_servers=servers)
producer.send(topic, payload.encode()).get(30)
producer.close()
"""


def test_a_plain_python_client_reads_and_writes_our_topic(service, kafka, topic, query):
    assert service("producer.py", "--rate", "0", "--max-messages", "50").wait(60) == 0
    other = [sys.executable, "-c", OTHER_PROGRAM, kafka, topic, json.dumps(GOOD)]
    ended = subprocess.run(other, capture_output=True, text=True, timeout=90)
    assert (ended.returncode, ended.stdout) == (0, "50\n"), ended.stderr
    assert service("consumer.py", "--once").wait(60) == 0
    assert query("SELECT count(*) FROM sensor_readings") == [(51,)]
