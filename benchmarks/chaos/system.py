"""The system under attack: real servers behind proxies, and instances of the services."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions, OffsetSpec

from benchmarks.chaos.proxy import TcpProxy
from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from db.connection import Database, DatabaseUnavailable
from db.versions import apply_schema
from local_stack.kafka import LocalKafka
from local_stack.postgres import LocalPostgres
from local_stack.processes import free_port, tail

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SERVICES = ("consumer", "stream_processor", "ml_detector")
PARTITIONS = 6
# Short windows, so that a run sees them open, close and become final.
SETTINGS = {
    "WINDOW_SECONDS": "10",
    "ALLOWED_LATENESS_SECONDS": "60",
    "DEAD_LETTER_ROWS_PER_HOUR": "1000000",
    "PYTHONUNBUFFERED": "1",
}
# The services end themselves 20 s after a signal at the latest.
STOP_DEADLINE_SECONDS = 30.0


class Servers:
    """Kafka and PostgreSQL, each behind a proxy; a context manager."""

    def __init__(self, directory: Path) -> None:
        kafka_port, proxied_kafka_port = free_port(), free_port()
        self.kafka = LocalKafka(directory / "kafka", kafka_port, proxied_kafka_port)
        self.postgres = LocalPostgres(directory / "postgres", durable=False)
        self.kafka_proxy = TcpProxy(proxied_kafka_port, kafka_port)
        self.postgres_proxy = TcpProxy(free_port(), self.postgres.port)

    @property
    def proxies(self) -> tuple[TcpProxy, TcpProxy]:
        """Both proxies."""
        return self.kafka_proxy, self.postgres_proxy

    @property
    def bootstrap_servers(self) -> str:
        """Address of Kafka's proxy."""
        return f"127.0.0.1:{self.kafka_proxy.port}"

    def __enter__(self) -> Servers:
        with ExitStack() as stack:  # what has started ends, too, where the next does not start
            for each in (self.kafka_proxy, self.postgres_proxy, self.kafka, self.postgres):
                stack.enter_context(each)
            self._started = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._started.close()


class System:
    """A topic and a database of their own, and services that can be started, killed and frozen.

    Parameters
    ----------
    servers : Servers
        Where topic and database are made.
    logs : Path
        Directory for the services' logs.
    """

    def __init__(self, servers: Servers, logs: Path) -> None:
        self.servers = servers
        self.topic = f"chaos_{uuid.uuid4().hex[:8]}"
        self.database_url = servers.postgres.create_database(self.topic)
        self.instances: dict[str, list[subprocess.Popen[bytes]]] = {s: [] for s in SERVICES}
        self.unclean: list[str] = []
        self._logs = logs
        self._logs.mkdir(parents=True, exist_ok=True)
        self._admin = admin_client({"bootstrap.servers": servers.bootstrap_servers})
        self._partitions = PARTITIONS
        self._create_topic()
        with Database(self.database_url, "chaos") as database:
            apply_schema(database)
        proxied = self.database_url.replace(
            f":{servers.postgres.port}/", f":{servers.postgres_proxy.port}/"
        )
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("KAFKA_")},
            **SETTINGS,
            "KAFKA_BOOTSTRAP_SERVERS": servers.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "DATABASE_URL": proxied,
        }

    def _create_topic(self) -> None:
        while True:
            try:
                ensure_topic(self._admin, self.topic, PARTITIONS)
                return
            except BrokerUnavailable:
                time.sleep(0.1)

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Start one more instance."""
        with (self._logs / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(CHECKOUT / f"{service}.py")],
                env=self._environment,
                cwd=self._logs,  # no .env of the checkout
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.instances[service].append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> str:
        """Kill -9 an instance; return its service."""
        service = self._service_of(process)
        process.kill()
        process.wait()
        self.instances[service].remove(process)
        return service

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Tell an instance to stop, and note if it does so untidily."""
        service = self._service_of(process)
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self.instances[service].remove(process)
        if status != 0:
            self.unclean.append(f"{service} ended with {status}")

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """Stop an instance in the middle of whatever it does, as a long pause of its host would."""
        process.send_signal(signal.SIGSTOP)

    def thaw(self, process: subprocess.Popen[bytes]) -> None:
        """Let a frozen instance go on."""
        process.send_signal(signal.SIGCONT)

    def any_instance(self, chance: random.Random) -> subprocess.Popen[bytes]:
        """Return an instance of any service."""
        return chance.choice([p for processes in self.instances.values() for p in processes])

    def _service_of(self, process: subprocess.Popen[bytes]) -> str:
        return next(s for s, processes in self.instances.items() if process in processes)

    def note_deaths(self) -> None:
        """Note instances that have ended without being told to."""
        for service, processes in self.instances.items():
            for process in list(processes):
                if process.poll() is not None:
                    processes.remove(process)
                    last = tail(self._logs / f"{service}.log", 3)
                    self.unclean.append(f"{service} died with {process.returncode}:{last}")

    def stop_all(self) -> None:
        """Stop everything that runs."""
        self.note_deaths()
        for process in [p for each in self.instances.values() for p in each]:
            self.stop(process)

    def add_partitions(self, number: int) -> None:
        """Add partitions to the topic."""
        self._partitions += number
        grown = NewPartitions(self.topic, self._partitions)
        self._admin.create_partitions([grown])[self.topic].result()

    def make_database_anew(self) -> None:
        """Drop the database, whoever is connected to it, and make an empty one of its name."""
        self.servers.postgres.drop_database(self.topic)
        self.servers.postgres.create_database(self.topic)

    def delete_unread_records(self, chance: random.Random) -> None:
        """Delete some of what no service has read from the log, in each partition."""
        with Database(self.database_url, "chaos") as database, database.transaction() as tx:
            tx.execute(
                "SELECT partition, max(next_offset) FROM stream_offsets"
                " JOIN sources USING (source_id) GROUP BY 1"
            )
            read = dict(tx.fetchall())
        asked = {TopicPartition(self.topic, p): OffsetSpec.latest() for p in read}
        ends = {tp: each.result().offset for tp, each in self._admin.list_offsets(asked).items()}
        until = [
            TopicPartition(self.topic, tp.partition, chance.randint(read[tp.partition], end))
            for tp, end in ends.items()
        ]
        for deleted in self._admin.delete_records(until).values():
            deleted.result()

    def drop(self) -> None:
        """Remove topic and database."""
        self._admin.delete_topics([self.topic])[self.topic].result()
        self.servers.postgres.drop_database(self.topic)


class Progress:
    """How far each service has come, asked of PostgreSQL itself, past the proxy."""

    # The least of the detector's shards counts; a rejected message is behind it once it moves on.
    _HANDLED = (
        "SELECT (SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offsets"
        "        WHERE consumer_group = 'consumer'),"
        "       (SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_offsets"
        "        WHERE consumer_group = 'stream_processor'),"
        "       (SELECT coalesce(sum(least), 0)::bigint FROM ("
        "        SELECT min(coalesce((positions ->> source_id::text)::bigint, 0)) AS least"
        "        FROM detector_shards CROSS JOIN sources GROUP BY source_id) AS each)"
    )

    def __init__(self, system: System) -> None:
        self._database = Database(system.database_url, "chaos")

    def read(self) -> dict[str, int] | None:
        """Return messages handled by service, or None while PostgreSQL is away."""
        try:
            with self._database.transaction() as tx:
                tx.execute(self._HANDLED)
                return dict(zip(SERVICES, tx.fetchone(), strict=True))
        except DatabaseUnavailable:
            return None

    def clock_ahead_s(self) -> float:
        """Return how far PostgreSQL's clock is ahead of ours, seconds."""
        return self._ask("SELECT extract(epoch FROM clock_timestamp())::float") - time.time()

    def open_made_up_windows(self) -> int:
        """Return the number of windows of made-up types that are not final."""
        return int(
            self._ask(
                "SELECT count(*) FROM sensor_aggregates"
                " WHERE sensor_type LIKE 'made-up-%' AND NOT is_final"
            )
        )

    def _ask(self, statement: str) -> float:
        with self._database.transaction() as tx:
            tx.execute(statement)
            figure: float = tx.fetchone()[0]
            return figure

    def close(self) -> None:
        """Close the connection."""
        self._database.close()
