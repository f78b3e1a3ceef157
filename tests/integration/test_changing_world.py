"""What the services work with changes while they run: topic, log, database."""

from contextlib import closing

import psycopg2
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions
from psycopg2 import sql

from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from db.connection import Database, DatabaseUnavailable
from tests.messages import message, send
from tests.waiting import until

pytestmark = pytest.mark.integration

STORED = "SELECT count(*)::int FROM sensor_readings"
IN_WINDOWS = "SELECT coalesce(sum(count_readings), 0)::int FROM sensor_aggregates"
SCORED = "SELECT count(*)::int FROM ml_anomaly_predictions"


@pytest.fixture
def admin(kafka):
    return admin_client({"bootstrap.servers": kafka})


@pytest.fixture
def running(service, kafka, topic, query):
    """Start consumer and processor; return a function that waits until they have all of some."""
    processes = [service("consumer.py"), service("stream_processor.py")]

    def have(readings):
        until(
            lambda: query(f"SELECT ({STORED}), ({IN_WINDOWS})") == [(readings, readings)],
            seconds=60,
        )
        assert not any("Traceback" in p.log_path.read_text() for p in processes)

    send(kafka, topic, [message()] * 100)
    have(100)
    return have


def test_partitions_added_while_they_run_are_read(running, admin, kafka, topic):
    admin.create_partitions([NewPartitions(topic, 9)])[topic].result()
    until(lambda: ensure_topic(admin, topic, 9).partitions == 9, ignoring=BrokerUnavailable)
    for partition in range(9):
        send(kafka, topic, [message()] * 10, partition=partition)
    running(190)


def test_a_topic_created_again_with_other_partitions_is_begun_anew(running, admin, kafka, topic):
    send(kafka, topic, [message()] * 1000, partition=0)
    running(1100)
    old = ensure_topic(admin, topic, 6)
    admin.delete_topics([topic])[topic].result()
    until(lambda: ensure_topic(admin, topic, 2) != old, ignoring=BrokerUnavailable)
    send(kafka, topic, [message()] * 85, partition=0)  # shorter than the old one was
    running(1185)


def test_messages_deleted_before_they_were_read_are_noted_once_a_service(
    service, admin, kafka, topic, query
):
    send(kafka, topic, [message()] * 10, partition=3)
    for script in ("consumer.py", "stream_processor.py"):
        assert service(script, "--once").wait(60) == 0
    send(kafka, topic, [message()] * 100, partition=3)
    until_offset = TopicPartition(topic, 3, 60)
    admin.delete_records([until_offset])[until_offset].result()
    for script in ("consumer.py", "stream_processor.py") * 2:
        assert service(script, "--once").wait(60) == 0
    lost = query(
        "SELECT consumer_group, partition, first_offset, last_offset FROM lost_messages"
        " JOIN sources USING (source_id) ORDER BY 1"
    )
    assert lost == [("consumer", 3, 10, 59), ("stream_processor", 3, 10, 59)]
    assert query(STORED) == query(IN_WINDOWS) == [(60,)]


def test_messages_deleted_under_running_services_leave_a_gap_and_nothing_else(
    running, admin, kafka, topic, query
):
    ends = [TopicPartition(topic, p, -1) for p in range(6)]
    for future in admin.delete_records(ends).values():
        future.result()
    send(kafka, topic, [message()] * 100)
    running(200)
    assert query("SELECT count(*) FROM lost_messages") == [(0,)]


def test_what_a_log_lost_before_the_database_was_made_is_no_loss(
    service, admin, kafka, topic, query
):
    send(kafka, topic, [message()] * 100, partition=0)
    until_offset = TopicPartition(topic, 0, 60)
    admin.delete_records([until_offset])[until_offset].result()
    assert service("consumer.py", "--once").wait(60) == 0
    assert query(STORED) == [(40,)]
    assert query("SELECT count(*) FROM lost_messages") == [(0,)]


def test_an_aborted_transaction_at_the_end_of_the_log_leaves_no_lag(running, kafka, topic, query):
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    for finish, partition in ((producer.commit_transaction, 0), (producer.abort_transaction, 1)):
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(topic, message(), partition=partition)
        producer.flush(30)
        finish(30)
    running(110)
    until(
        lambda: (
            query(
                "SELECT partition, count(*) FROM stream_offsets JOIN sources USING (source_id)"
                " WHERE partition < 2 AND next_offset = end_offset AND next_offset > 10 GROUP BY 1"
            )
            == [(0, 2), (1, 2)]
        ),
        seconds=60,
    )


def test_two_databases_on_one_topic_get_every_message_each(
    running, service, postgres, kafka, topic, query
):
    other = postgres()
    service("consumer.py", DATABASE_URL=other)
    send(kafka, topic, [message()] * 200)
    running(300)
    with Database(other, "test") as database:

        def stored():
            with database.transaction() as tx:
                tx.execute(STORED)
                return tx.fetchall()

        until(lambda: stored() == [(300,)], seconds=60, ignoring=DatabaseUnavailable)


def test_a_database_made_anew_is_filled_from_the_beginning_of_the_topic(
    service, kafka, topic, database_url, query, postgres
):
    scripts = ("consumer.py", "stream_processor.py", "ml_detector.py")
    processes = [service(script) for script in scripts]
    send(kafka, topic, [message()] * 100)
    everything = f"SELECT ({STORED}), ({IN_WINDOWS}), ({SCORED})"
    until(lambda: query(everything) == [(100,) * 3], seconds=60)
    address, _, name = database_url.rpartition("/")
    with closing(psycopg2.connect(f"{address}/postgres")) as connection:
        connection.autocommit = True
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        connection.cursor().execute(drop)
    send(kafka, topic, [message()] * 50)
    until(lambda: query(everything) == [(150,) * 3], seconds=90, ignoring=DatabaseUnavailable)
    assert not any("Traceback" in p.log_path.read_text() for p in processes)
    assert [p.poll() for p in processes] == [None] * 3


@pytest.mark.slow
def test_a_batch_that_cannot_be_unpacked_is_said_and_after_a_minute_passed_over_as_a_loss(
    service, kafka, topic, query
):
    processes = [service("consumer.py"), service("stream_processor.py")]
    send(kafka, topic, [message()] * 50, partition=0)
    # 300 MB of blanks in one batch of some 30 kB: more than a client unpacks.
    _send_in_one_batch(kafka, topic, [b" " * 200_000] * 1500)
    send(kafka, topic, [message()] * 50, partition=0)
    for process in processes:
        until(lambda log=process.log_path: "partition=0 offset=50" in log.read_text())
    until(
        lambda: query(f"SELECT ({STORED}), ({IN_WINDOWS})") == [(100, 100)],
        seconds=150,
    )
    lost = query("SELECT consumer_group, first_offset, last_offset FROM lost_messages ORDER BY 1")
    assert lost == [("consumer", 50, 1549), ("stream_processor", 50, 1549)]


def _send_in_one_batch(servers, topic, payloads):
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "compression.type": "zstd",
            "linger.ms": 60_000,  # ended by the flush
            "batch.size": 2**31 - 1,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2**21 - 1,
        }
    )
    for payload in payloads:
        producer.produce(topic, payload, partition=0)
    assert producer.flush(60) == 0
