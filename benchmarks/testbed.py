"""What the benchmarks stand on: a Kafka and a PostgreSQL of their own, and measured processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
from confluent_kafka import Consumer, TopicPartition

from broker.topics import BrokerUnavailable, Topic, admin_client, ensure_topic
from broker.writer import TopicWriter
from db.connection import Database
from db.versions import apply_schema
from local_stack.kafka import LocalKafka
from local_stack.postgres import LocalPostgres
from pipeline.encoding import Messages, encode_readings, envelope
from simulator.fleet import SensorSimulator

CHECKOUT = Path(__file__).resolve().parent.parent
PARTITIONS = 6
SAMPLE_SECONDS = 0.05
DEADLINE_SECONDS = 900.0
NEARLY_ALL = 0.95
# A backlog: the readings of so many minutes of event time, up to now.
BACKLOG_SECONDS = 600
FILL_CHUNK = 5_000


@dataclass(frozen=True)
class Cost:
    """What a process took: CPU seconds of user and system, and the most memory it ever had."""

    cpu_s: float
    peak_mb: float


class Measured:
    """A process whose CPU time and memory are watched; ended when the context is left."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=log.parent,  # no .env of the checkout
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.cpu_s = 0.0
        self.peak_mb = 0.0
        self._ps = psutil.Process(self.process.pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.sample()
            time.sleep(SAMPLE_SECONDS)

    def sample(self) -> Cost:
        """Return what it has taken up to now."""
        try:
            with self._ps.oneshot():
                times = self._ps.cpu_times()
                self.peak_mb = max(self.peak_mb, self._ps.memory_info().rss / 1e6)
            self.cpu_s = times.user + times.system
        except psutil.Error:
            pass  # it has ended: what was seen last stands
        return Cost(self.cpu_s, self.peak_mb)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()

    def output(self) -> str:
        """Return what it has said."""
        return self._log.read_text(errors="replace")

    def require_alive(self) -> None:
        """Raise when it has failed, with the end of what it said."""
        if self.process.poll() not in (None, 0):
            raise RuntimeError(f"exit status {self.process.returncode}: {self.output()[-2000:]}")

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Testbed:
    """Servers in a temporary directory; a context manager.

    PostgreSQL runs with the local stack's settings, fsync on. Topics and databases are made as
    they are asked for, and databases are dropped as soon as they are measured.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kafka = LocalKafka(directory / "kafka")
        self.postgres = LocalPostgres(directory / "postgres")
        self._logs = 0

    def __enter__(self) -> Testbed:
        with ExitStack() as stack:  # what has started ends, too, where the next does not start
            for server in (self.kafka, self.postgres):
                stack.enter_context(server)
            self._started = stack.pop_all()
        self.client = {"bootstrap.servers": self.kafka.bootstrap_servers}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._started.close()

    def topic(self, partitions: int = PARTITIONS) -> Topic:
        """Create a topic."""
        admin, name = admin_client(self.client), f"bench_{uuid.uuid4().hex[:8]}"
        while True:
            try:
                return ensure_topic(admin, name, partitions)
            except BrokerUnavailable:
                time.sleep(0.1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create a database with the schema applied; drop it in the end."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        url = self.postgres.create_database(name)
        try:
            with Database(url, "benchmark") as database:
                apply_schema(database)
            yield url
        finally:
            self.postgres.drop_database(name)

    def filled_topic(self, count: int, sensors: int = 25, partitions: int = PARTITIONS) -> Topic:
        """Create a topic that holds a backlog of so many simulated readings."""
        topic = self.topic(partitions)
        with TopicWriter(self.client, topic.name, "lz4") as writer:
            for messages in backlog(count, sensors):
                while messages:
                    messages = messages.since(writer.send(messages))
            while writer.flush(1):
                pass
        return topic

    def append_span_s(self, topic: Topic) -> float:
        """Return the seconds from the first to the last message, by the broker's clock."""
        times = []
        consumer = Consumer({**self.client, "group.id": "span", "log_level": 0})
        for partition in range(topic.partitions):
            place = TopicPartition(topic.name, partition)
            first, end = consumer.get_watermark_offsets(place, 10)
            for offset in {first, end - 1} if end > first else ():
                consumer.assign([TopicPartition(topic.name, partition, offset)])
                times += [message.timestamp()[1] for message in consumer.consume(1, 10)]
        consumer.close()
        return (max(times) - min(times)) / 1000

    def environment(self, topic: Topic, url: str, **settings: str) -> dict[str, str]:
        """Return the settings of a service."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("KAFKA_")},
            "PRODUCER_COMPRESSION": "lz4",
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_TOPIC": topic.name,
            "DATABASE_URL": url,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(CHECKOUT),
            **settings,
        }

    def start(self, arguments: list[str], environment: dict[str, str]) -> Measured:
        """Start Python with these arguments."""
        self._logs += 1
        log = self.directory / f"{self._logs}.log"
        return Measured([sys.executable, *arguments], environment, log)

    def start_service(
        self, script: str, topic: Topic, url: str, *arguments: str, **settings: str
    ) -> Measured:
        """Start one of the five scripts."""
        environment = self.environment(topic, url, **settings)
        return self.start([str(CHECKOUT / script), *arguments], environment)


def backlog(count: int, sensors: int) -> Iterator[Messages]:
    """Yield the messages of a simulated fleet, its times spread evenly up to now."""
    simulator = SensorSimulator(42, sensors)
    envelopes = [envelope(sensor) for sensor in simulator.sensors]
    step_us = BACKLOG_SECONDS * 1_000_000 / count
    start_us = time.time_ns() // 1000 - BACKLOG_SECONDS * 1_000_000
    for first in range(0, count, FILL_CHUNK):
        numbers = np.arange(first, min(first + FILL_CHUNK, count))
        readings = simulator.read((start_us + numbers * step_us).astype(np.int64))
        own = [envelopes[i] for i in readings.sensor.tolist()]
        values, flags = readings.hundredths / 100, readings.anomaly.tolist()
        payloads = encode_readings(own, values, readings.timestamp_us, flags)
        yield Messages([each.key for each in own], payloads, [None] * len(own))


def query(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own; return its rows."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@dataclass(frozen=True)
class Run:
    """One backlog worked off: messages per second of wall time, and what it took."""

    rate: float
    cpu_us: float
    peak_mb: float


def work_off(url: str, group: str, count: int, processes: list[Measured]) -> Run:
    """Watch services until ``count`` messages of the topic are processed.

    The clock starts with the first checkpoint, so that imports and joining the group do not count,
    and ends when few are left: a poll that does not fill waits for more.
    """
    begun_s = begun_at = ended_s = ended_at = 0.0
    cpu_before = 0.0
    deadline_s = time.monotonic() + DEADLINE_SECONDS
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        while time.monotonic() < deadline_s:
            for process in processes:
                process.require_alive()
            cursor.execute(
                "SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offsets"
                " WHERE consumer_group = %s",
                (group,),
            )
            done, now_s = cursor.fetchone()[0], time.monotonic()
            if done and not begun_s:
                begun_s, begun_at = now_s, done
                if begun_at >= count * NEARLY_ALL:
                    raise RuntimeError(f"{count} messages are too few to measure {group}")
                cpu_before = sum(p.sample().cpu_s for p in processes)
            if done >= count * NEARLY_ALL and not ended_s:
                ended_s, ended_at = now_s, done
            if done >= count:
                break
            time.sleep(0.01)
        else:
            raise RuntimeError(f"{group}: {done} of {count} messages after {DEADLINE_SECONDS} s")
    connection.close()
    costs = [process.sample() for process in processes]
    handled = count - begun_at
    return Run(
        (ended_at - begun_at) / (ended_s - begun_s),
        (sum(cost.cpu_s for cost in costs) - cpu_before) / handled * 1e6,
        max(cost.peak_mb for cost in costs),
    )
