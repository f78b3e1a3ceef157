"""Real services: one Kafka and one PostgreSQL a session, a topic and a database a test.

KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL name services to use instead; the role must be allowed to
create databases then. Where a service cannot be started its tests are skipped, or fail with
REQUIRE_SERVICES=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, settings

from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from db.connection import Database
from db.versions import apply_schema
from local_stack.embedded_kafka import EmbeddedKafka
from local_stack.kafka import KafkaImpossible, LocalKafka
from local_stack.postgres import LocalPostgres
from tests.waiting import until

# Shared machines stall: how long a property takes to check says nothing about it.
settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("shared")

CHECKOUT = Path(__file__).resolve().parent.parent


def _missing(what: str, problem: object) -> None:
    text = f"{what} cannot be started: {problem}"
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of an Apache Kafka."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    local = LocalKafka(tmp_path_factory.mktemp("kafka"))
    try:
        local.start()
    except KafkaImpossible as problem:
        _missing("Apache Kafka", problem)
    yield local.bootstrap_servers
    local.stop()


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[str]:
    """Bootstrap servers of the broker inside librdkafka."""
    with EmbeddedKafka() as local:
        yield local.bootstrap_servers


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> str:
    """Bootstrap servers; ``parametrize("kafka", [...], indirect=True)`` runs on both brokers."""
    servers: str = request.getfixturevalue(f"{getattr(request, 'param', 'apache')}_kafka")
    return servers


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A function that creates a database and returns its address."""
    if url := os.environ.get("DATABASE_URL"):
        yield lambda: _create_database(url)
        return
    with LocalPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as local:
        yield lambda: local.create_database(_new_name())


def _new_name() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


def _create_database(url: str) -> str:
    name = _new_name()
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture
def database_url(postgres: Callable[[], str]) -> str:
    """Address of a fresh database with the schema applied."""
    url = postgres()
    with Database(url, "test") as database:
        apply_schema(database)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connection to the test's database."""
    with Database(database_url, "test") as database:
        yield database


@pytest.fixture
def topic(kafka: str) -> str:
    """Name of a fresh topic with 6 partitions."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = admin_client({"bootstrap.servers": kafka})
    until(lambda: ensure_topic(admin, name, 6), ignoring=BrokerUnavailable)
    return name


@pytest.fixture
def environment(
    kafka: str, topic: str, database_url: str, request: pytest.FixtureRequest
) -> dict[str, str]:
    """The settings of a service under test."""
    # Crash tests wait for a session to end; the embedded broker takes 3 s to let a member join.
    session_s = "6" if kafka == request.getfixturevalue("embedded_kafka") else "1"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")},
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_TOPIC": topic,
        "DATABASE_URL": database_url,
        "KAFKA_SESSION_TIMEOUT_SECONDS": session_s,
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def service(
    environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts a script, or a module (``-m``) by its name; killed at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(
        script: str, *arguments: str, stdin: Any = subprocess.DEVNULL, **settings: str
    ) -> subprocess.Popen[bytes]:
        program = [str(CHECKOUT / script)] if script.endswith(".py") else ["-m", script]
        log = tmp_path / f"{script}.{len(running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env={**environment, "PYTHONPATH": str(CHECKOUT), **settings},
                cwd=tmp_path,  # no .env of the checkout
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process.log_path = log  # type: ignore[attr-defined]
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def query(database: Database) -> Callable[..., Any]:
    """A function that runs one SQL statement and returns its rows."""

    def run(statement: str, *parameters: object) -> Any:
        with database.transaction() as tx:
            tx.execute(statement, parameters or None)
            return tx.fetchall() if tx.description else None

    return run
