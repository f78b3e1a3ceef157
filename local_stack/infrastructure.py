"""The local Kafka and PostgreSQL as one: started, watched, stopped; or the user's own, if set."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config import Settings
from local_stack.embedded_kafka import EmbeddedKafka
from local_stack.interrupts import Interrupts
from local_stack.kafka import KafkaImpossible, LocalKafka
from local_stack.postgres import LocalPostgres
from local_stack.processes import CHECKOUT, PidFile, PortTaken, Say, StartFailed
from local_stack.server import LocalServer
from service.lifecycle import UserError

LOCAL_DIRECTORY = CHECKOUT / ".local"
WATCH_INTERVAL_SECONDS = 1.0
# Between two tries at a server that cannot be started again; its disk may be full for a while.
MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Ports:
    """Where to listen; 0 = a free port."""

    kafka: int
    postgres: int


class Infrastructure:
    """Kafka and PostgreSQL for the services.

    What the user has set (``KAFKA_BOOTSTRAP_SERVERS``, ``DATABASE_URL``) is used as it is, and
    nothing is started in its place.

    Parameters
    ----------
    settings : Settings
        Which broker to start.
    given : mapping
        What the user has set, by name.
    directory : Path
        Place of data and logs.
    ports : Ports
        Where the two listen.
    say : callable
        Takes progress, a line at a time; may be called from another thread.
    durable : bool
        False switches PostgreSQL's fsync off.
    """

    def __init__(
        self,
        settings: Settings,
        given: Mapping[str, str],
        directory: Path,
        ports: Ports,
        say: Say,
        durable: bool = True,
    ) -> None:
        self.settings = settings
        self.given = given
        self.directory = directory
        self.ports = ports
        self.say = say
        self.durable = durable
        self.kafka: LocalKafka | EmbeddedKafka | None = None
        self.postgres: LocalPostgres | None = None
        self._pid_file = PidFile(directory / "run.pid")
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def starts_something(self) -> bool:
        """Whether anything is left to start."""
        return not {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"} <= self.given.keys()

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Address of the broker."""
        return self.kafka.bootstrap_servers if self.kafka else self.settings.kafka.bootstrap_servers

    @property
    def database_url(self) -> str:
        """Address of the database."""
        return self.postgres.url if self.postgres else self.settings.service.database_url

    @property
    def connection_settings(self) -> dict[str, str]:
        """The two settings that lead the services here."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
            "DATABASE_URL": self.database_url,
        }

    @property
    def service_environment(self) -> dict[str, str]:
        """What the services need in their environment to come here."""
        # A dashboard address that was set belongs to another database than ours; empty = unset.
        dashboard = {"DASHBOARD_DATABASE_URL": ""} if self.postgres else {}
        return {**self.connection_settings, **dashboard}

    def start(self) -> None:
        """Start what is not given.

        Raises
        ------
        UserError
            When a port is taken, the wanted broker cannot be had, or it all runs already.
        StartFailed
            When a server does not come up.
        """
        self._require_alone()
        if "DATABASE_URL" in self.given:
            self.say("DATABASE_URL is set: using that database, starting no PostgreSQL")
        else:
            self._start_postgres()
        if "KAFKA_BOOTSTRAP_SERVERS" in self.given:
            self.say(
                f"KAFKA_BOOTSTRAP_SERVERS is set: using {self.settings.kafka.bootstrap_servers},"
                " starting no Kafka"
            )
        else:
            self._start_kafka()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop what was started: Kafka, then PostgreSQL."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(WATCH_INTERVAL_SECONDS)
        for name, server in (("Kafka", self.kafka), ("PostgreSQL", self.postgres)):
            if server is not None:
                server.stop()
                self.say(f"{name} stopped")
        if self._pid_file.running() == os.getpid():
            self._pid_file.remove()

    def _require_alone(self) -> None:
        if not self.starts_something:
            return
        running = self._pid_file.running()
        if running is not None:
            raise UserError(
                f"it already runs in this directory (pid {running}):"
                " use that one, or end it with Ctrl-C first"
            )
        self._pid_file.write(os.getpid())

    def _start_postgres(self) -> None:
        postgres = LocalPostgres(
            self.directory / "postgres",
            self.ports.postgres,
            durable=self.durable,
            log_path=self.directory / "logs" / "postgres.log",
            say=self.say,
        )
        try:
            postgres.start()
        except PortTaken as problem:
            raise UserError(
                f"PostgreSQL: {problem}; {_instead('LOCAL_POSTGRES_PORT')}"
            ) from problem
        self.postgres = postgres
        self.say(f"PostgreSQL runs on localhost:{postgres.port}")

    def _start_kafka(self) -> None:
        choice = self.settings.local.kafka
        if choice != "embedded":
            try:
                self._start_apache_kafka()
                return
            except KafkaImpossible as problem:
                if choice == "apache":
                    raise UserError(f"LOCAL_KAFKA=apache, but {problem}") from problem
                self.say(f"{problem}")
        self.say(
            "using the broker inside librdkafka: it keeps messages in memory only and little of"
            " them, fit for a first look"
        )
        self.kafka = EmbeddedKafka()
        self.kafka.start()
        self.say(f"the embedded broker runs on {self.kafka.bootstrap_servers}")

    def _start_apache_kafka(self) -> None:
        kafka = LocalKafka(
            self.directory / "kafka",
            self.ports.kafka,
            log_path=self.directory / "logs" / "kafka.log",
            say=self.say,
        )
        self.say("starting Kafka ...")
        try:
            kafka.start()
        except PortTaken as problem:
            raise UserError(f"Kafka: {problem}; {_instead('LOCAL_KAFKA_PORT')}") from problem
        self.kafka = kafka
        self.say(f"Kafka runs on {kafka.bootstrap_servers}")

    def _watch(self) -> None:
        pause_s = WATCH_INTERVAL_SECONDS
        while not self._stopping.wait(pause_s):
            run = [self._keep_running(server) for server in (self.kafka, self.postgres)]
            pause_s = WATCH_INTERVAL_SECONDS if all(run) else min(2 * pause_s, MAX_PAUSE_SECONDS)

    def _keep_running(self, server: LocalKafka | EmbeddedKafka | LocalPostgres | None) -> bool:
        """Start it again if it has died; return False where that failed."""
        if not isinstance(server, LocalServer) or server.pid is not None:
            return True
        self.say(f"{server.name} died: starting it again on its data")
        try:
            server.start()
        except (StartFailed, KafkaImpossible) as problem:
            if not self._stopping.is_set():
                self.say(f"could not start it again, will go on trying: {problem}")
            return False
        self.say(f"{server.name} runs again")
        return True

    @contextmanager
    def started(self, stop: Interrupts) -> Iterator[Infrastructure]:
        """Start; stop on leaving. Until it is started, a signal cuts it short."""
        try:
            with stop.cutting_short():
                self.start()
            yield self
        finally:
            self.stop()


def _instead(name: str) -> str:
    return f"end that one, or set {name} to a free port"
