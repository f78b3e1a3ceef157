"""The MQTT bridge between Debian's mosquitto and a real Kafka: every message at least once."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time

import paho.mqtt.publish
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from broker.topics import admin_client
from local_stack.kafka import LocalKafka
from local_stack.processes import free_port
from tests.conftest import _missing
from tests.integration.test_producer import messages
from tests.waiting import until

pytestmark = pytest.mark.integration

TOPIC = "site/{location}/{sensor_type}/{sensor_id}"


class Mosquitto:
    """A broker that keeps sessions over its own end."""

    def __init__(self, path, port):
        self.path, self.port = path, port
        self.process = None

    def start(self, anonymous="true"):
        configuration = self.path / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous {anonymous}\n"
            f"user {self.path.owner()}\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {self.path}/\n"
        )
        with (self.path / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program(), "-c", str(configuration)], stdout=log, stderr=log
            )
        until(self.is_there, ignoring=OSError)

    def is_there(self):
        with socket.create_connection(("127.0.0.1", self.port)):
            return True

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def program():
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@pytest.fixture
def mosquitto(tmp_path):
    if not program():
        _missing("mosquitto", "it is not installed (apt-get install mosquitto)")
    path = tmp_path / "mosquitto"
    path.mkdir()
    broker = Mosquitto(path, free_port())
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def bridge(service, mosquitto):
    def start(*arguments, **settings):
        process = service(
            "bridges.mqtt",
            *("--topic", TOPIC, *arguments),
            MQTT_URL=f"mqtt://127.0.0.1:{mosquitto.port}",
            **settings,
        )
        until(lambda: "mqtt_connected" in process.log_path.read_text() or process.poll())
        return process

    return start


def publish(mosquitto, numbers, gap_s=0.0):
    """Publish a reading a number at QoS 1; return once the broker has them all."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    for number in numbers:
        info = client.publish(f"site/hall/temperature/t{number % 7}", str(number), qos=1)
        if gap_s:
            time.sleep(gap_s)
    info.wait_for_publish(60)
    until(lambda: not client._out_messages)
    client.disconnect()
    client.loop_stop()


def arrived(kafka, topic):
    """How many messages a topic has."""
    wanted = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(6)}
    admin = admin_client({"bootstrap.servers": kafka})
    answers = admin.list_offsets(wanted)
    return sum(answer.result().offset for answer in answers.values())


def values(kafka, topic):
    return sorted(json.loads(m.value())["value"] for m in messages(kafka, topic))


def test_what_devices_publish_is_stored(bridge, mosquitto, service, query):
    process = bridge("--set", "unit=°C")
    for topic, payload in [
        ("site/hall/temperature/t1", "21.5"),
        ("site/hall/humidity/h1", '{"value": 40, "unit": "%", "timestamp": 1769860800}'),
        ("site/hall/state/s1", "on"),
        ("elsewhere/hall/temperature/t1", "1"),
    ]:
        paho.mqtt.publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=mosquitto.port)
    service("consumer.py")
    until(lambda: query("SELECT count(*) FROM dead_letters") == [(1,)])
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(2,)])
    assert query(
        "SELECT sensor_id, sensor_type, location, value::float, unit FROM sensor_readings"
        " ORDER BY sensor_id"
    ) == [("h1", "humidity", "hall", 40.0, "%"), ("t1", "temperature", "hall", 21.5, "°C")]
    assert query("SELECT convert_from(payload, 'UTF8') FROM dead_letters") == [("on",)]
    process.terminate()
    assert process.wait(10) == 0, process.log_path.read_text()


def test_killed_in_the_middle_every_message_arrives_and_is_stored(
    bridge, mosquitto, kafka, topic, service, query
):
    process = bridge()
    publisher = threading.Thread(target=publish, args=(mosquitto, range(5000), 0.004))
    publisher.start()
    for _ in range(3):
        before = arrived(kafka, topic)
        until(lambda b=before: arrived(kafka, topic) > b + 200)
        process.kill()
        process.wait()
        assert publisher.is_alive()
        process = bridge()
        assert "session_kept=1" in process.log_path.read_text()
    publisher.join()
    until(lambda: set(values(kafka, topic)) == set(range(5000)))
    service("consumer.py")
    until(
        lambda: query("SELECT count(DISTINCT value) FROM sensor_readings") == [(5000,)], seconds=60
    )


def test_told_to_stop_it_acknowledges_what_it_has_sent_and_nothing_comes_twice(
    bridge, mosquitto, kafka, topic
):
    process = bridge()
    publisher = threading.Thread(target=publish, args=(mosquitto, range(2000), 0.002))
    publisher.start()
    until(lambda: arrived(kafka, topic) > 300)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0, process.log_path.read_text()
    bridge()
    publisher.join()
    until(lambda: arrived(kafka, topic) >= 2000)
    assert values(kafka, topic) == list(range(2000))


def test_while_kafka_is_away_nothing_is_acknowledged(bridge, mosquitto, tmp_path):
    with LocalKafka(tmp_path / "kafka") as kafka:
        away = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_TOPIC": "away"}
        process = bridge(**away)
        publish(mosquitto, range(100))
        until(lambda: len(messages(kafka.bootstrap_servers, "away")) == 100)
        kafka.kill()
        publish(mosquitto, range(100, 3000))
        until(lambda: "kafka_unavailable" in process.log_path.read_text())
        process.kill()
        process.wait()
        kafka.start()
        process = bridge(**away)
        until(lambda: set(values(kafka.bootstrap_servers, "away")) == set(range(3000)))


def test_an_mqtt_broker_that_comes_back_is_read_on(bridge, mosquitto, kafka, topic):
    process = bridge()
    publish(mosquitto, range(100))
    mosquitto.stop()
    until(lambda: "mqtt_unavailable" in process.log_path.read_text())
    mosquitto.start()
    publish(mosquitto, range(100, 200))
    until(lambda: set(values(kafka, topic)) == set(range(200)))
    until(lambda: "mqtt_available" in process.log_path.read_text())


def test_two_of_one_name_are_told_so_and_lose_nothing(bridge, mosquitto, kafka, topic):
    first = bridge()
    bridge()
    publish(mosquitto, range(300))
    until(lambda: "--client-id" in first.log_path.read_text())
    until(lambda: set(values(kafka, topic)) == set(range(300)))


def test_a_user_the_broker_does_not_know_is_one_line_and_status_2(bridge, mosquitto):
    mosquitto.stop()
    mosquitto.start(anonymous="false")
    process = bridge()
    assert process.wait(10) == 2
    last = process.log_path.read_text().splitlines()[-1]
    assert last == "error: the MQTT broker refuses: Not authorized; check MQTT_URL"


def test_an_address_that_is_none_is_one_line(service):
    process = service("bridges.mqtt", "--topic", "a", MQTT_URL="me:secret@x")
    assert process.wait(20) == 2
    [line] = process.log_path.read_text().splitlines()
    assert line.startswith("error: MQTT_URL=") and "secret" not in line
