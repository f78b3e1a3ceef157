"""The producer on a real Kafka: each reading once, keyed, and an end that loses nothing."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from local_stack.kafka import LocalKafka
from local_stack.leftovers import mark
from simulator.fleet import make_fleet
from tests.conftest import CHECKOUT
from tests.waiting import until

pytestmark = pytest.mark.integration


def messages(kafka, topic):
    """All messages of a topic, partition by partition."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "test", "enable.partition.eof": True}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found, ended = [], 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                ended += 1
            else:
                found.append(message)
        return found
    finally:
        consumer.close()


def test_it_sends_exactly_what_was_asked_for_keyed_and_with_the_truth_in_a_header(
    service, kafka, topic
):
    process = service("producer.py", "--rate", "0", "--max-messages", "5000", "--seed", "3")
    assert process.wait(30) == 0, process.log_path.read_text()
    found = messages(kafka, topic)
    readings = [json.loads(m.value()) for m in found]
    assert len(found) == 5000
    assert {r["sensor_id"] for r in readings} == {s.sensor_id for s in make_fleet(25)}
    keys = {m.key().decode() for m in found}
    assert keys == {f"{r['location']}/{r['sensor_type']}" for r in readings}
    truths = [m.headers()[0][1] for m in found if m.headers()]
    assert 0 < len(truths) < 1000
    assert len({m.partition() for m in found}) > 1
    assert "sent=5000 delivered=5000" in process.log_path.read_text()


def test_it_ends_cleanly_in_the_middle_with_all_it_counted_delivered(service, kafka, topic):
    process = service("producer.py", "--rate", "2000")
    until(lambda: len(messages(kafka, topic)) > 1000)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    said = process.log_path.read_text().rpartition("delivered=")[2].split()[0]
    assert len(messages(kafka, topic)) == int(said)


def test_an_outage_of_the_broker_loses_and_doubles_nothing(tmp_path):
    kafka = LocalKafka(tmp_path / "kafka")
    environment = {**mark(), "PATH": "", "KAFKA_BOOTSTRAP_SERVERS": "", "KAFKA_TOPIC": "outage"}
    with kafka:
        environment["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
        environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
        command = [sys.executable, str(CHECKOUT / "producer.py"), "--rate", "500"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--max-messages", "4000"],
                env=environment,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
            )
        try:
            log_path = tmp_path / "log"
            until(lambda: "sent=" in log_path.read_text() and process.poll() is None)
            kafka.kill()
            kafka.start()
            assert process.wait(60) == 0, log_path.read_text()
        finally:
            process.kill()
            process.wait()
        values = [m.value() for m in messages(kafka.bootstrap_servers, "outage")]
        assert len(values) == 4000
        assert "delivered=4000" in log_path.read_text()


RECORDED = "time;a;b\n" + "".join(f"2024-05-01 10:00:{s:02};{s},5;{s}\n" for s in range(60))


@pytest.mark.parametrize("way", ["gzip", "stdin", "pipe"])
def test_a_recording_is_sent_whole_from_a_file_or_a_pipe(way, service, kafka, topic, tmp_path):
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(RECORDED.encode()))
    (tmp_path / "r.csv").write_text(RECORDED)
    path = {"gzip": tmp_path / "r.csv.gz", "stdin": "-", "pipe": "/dev/stdin"}[way]
    with subprocess.Popen(["cat", str(tmp_path / "r.csv")], stdout=subprocess.PIPE) as cat:
        process = service("producer.py", "--replay", str(path), "--speed", "0", stdin=cat.stdout)
        assert process.wait(30) == 0, process.log_path.read_text()
    readings = [json.loads(m.value()) for m in messages(kafka, topic)]
    assert sorted(r["value"] for r in readings if r["sensor_id"] == "a") == [
        s + 0.5 for s in range(60)
    ]
    assert len(readings) == 120
    assert "sent=120 delivered=120 failed=0 skipped_lines=0" in process.log_path.read_text()


def test_a_pipe_that_stays_open_is_sent_as_it_comes(service, kafka, topic):
    process = service("producer.py", "--replay", "-", "--speed", "0", stdin=subprocess.PIPE)

    def write(*lines):
        process.stdin.write("".join(line + "\n" for line in lines).encode())
        process.stdin.flush()

    def sent():
        return [json.loads(m.value())["value"] for m in messages(kafka, topic)]

    write("time,value")
    write("2024-05-01 10:00:01,2", "2024-05-01 10:00:00,1")
    until(lambda: sent() == [1, 2])  # sorted within what came together
    write("2024-05-01 10:00:02,3")
    until(lambda: sent() == [1, 2, 3])
    for second in range(3, 34):  # a trickle that never pauses for a second
        write(f"2024-05-01 10:00:{second:02},{second + 1}")
        time.sleep(0.1)
    assert len(sent()) > 6
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0, process.log_path.read_text()
    process.stdin.close()


def test_a_recording_of_which_nothing_can_be_sent_is_an_error(service, topic, tmp_path):
    (tmp_path / "r.csv").write_text("time,value\nyesterday,1\n2024-05-01,unknown\n")
    process = service("producer.py", "--replay", str(tmp_path / "r.csv"), "--speed", "0")
    assert process.wait(30) == 2
    said = process.log_path.read_text()
    assert "line_skipped line=2" in said and "line_skipped line=3" in said
    assert "sent=0 delivered=0 failed=0 skipped_lines=2 " in said
    assert "nothing in it could be sent" in said


def test_a_long_wait_says_until_when(service, topic, tmp_path):
    (tmp_path / "r.csv").write_text("time,value\n2024-05-01,1\n2024-05-20,1\n")
    process = service("producer.py", "--replay", str(tmp_path / "r.csv"))
    until(lambda: "waiting next_reading_at=" in process.log_path.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replay", "missing.csv"], "missing.csv"),
        (["--replay", "wrong.csv", "--timezone", "Mars"], "Europe/Berlin"),
        (["--replay", "wrong.csv", "--decimal", "x"], "--decimal"),
        (["--replay", "wrong.csv", "--time-column", "c"], "no column c"),
        (["--time-column", "c"], "--time-column"),
        (["--replay", "wrong.csv"], "no column"),
        (["--rate", "-1"], "--rate"),
        (["--speed", "2"], "--speed"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, says, tmp_path):
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    ended = subprocess.run(
        [sys.executable, str(CHECKOUT / "producer.py"), *arguments],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and says in ended.stderr, ended.stderr
