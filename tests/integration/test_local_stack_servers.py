"""Kafka and PostgreSQL as the local stack runs them: faults, restarts, taken ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from broker.settings import KafkaSettings
from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from config import LocalSettings, Settings
from local_stack import infrastructure as infrastructure_module
from local_stack import kafka as kafka_module
from local_stack.infrastructure import Infrastructure, Ports
from local_stack.kafka import KafkaImpossible, LocalKafka, fetch_jars, find_java
from local_stack.postgres import LocalPostgres
from local_stack.processes import PortTaken
from service.lifecycle import UserError
from service.settings import ServiceSettings
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    with LocalPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as local:
        yield local


def query(url: str, statement: str) -> Any:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


def test_the_owner_is_no_superuser_and_may_make_databases_but_no_roles(
    server: LocalPostgres,
) -> None:
    rights = (
        "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    )
    assert query(server.url, rights) == [(False, False, True)]


def test_a_wrong_password_is_refused(server: LocalPostgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(server.url.replace("iot_password", "wrong"))


def test_what_was_committed_outlives_a_killed_server(server: LocalPostgres) -> None:
    query(server.url, "CREATE TABLE kept AS SELECT 7 AS n")
    port = server.port
    server.kill()
    server.start()
    assert server.port == port
    assert query(server.url, "SELECT n FROM kept") == [(7,)]


def test_a_lock_file_with_somebody_else_s_process_id_does_not_prevent_a_start(
    server: LocalPostgres,
) -> None:
    server.stop()
    lock = server.data_directory / "postmaster.pid"
    lock.write_text(f"{os.getppid()}\n{server.data_directory}\n", encoding="utf-8")
    server.start()
    assert query(server.url, "SELECT 1") == [(1,)]


def test_a_server_left_behind_by_a_killed_run_is_ended_by_the_next(
    server: LocalPostgres, tmp_path: Path
) -> None:
    server.stop()
    run = (
        "import sys, os; from pathlib import Path; from local_stack.postgres import LocalPostgres;"
        "p = LocalPostgres(Path(sys.argv[1])); p.start(); print(p.pid, flush=True); os._exit(0)"
    )
    directory = tmp_path / "postgres"
    directory.mkdir()
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)  # as root: the server's own user must get in, or data goes to /var/lib
    output = subprocess.check_output([sys.executable, "-c", run, str(directory)])
    left_behind = int(output)
    assert psutil.pid_exists(left_behind)
    said: list[str] = []
    with LocalPostgres(directory, say=said.append):
        assert not psutil.pid_exists(left_behind) or (
            psutil.Process(left_behind).status() == psutil.STATUS_ZOMBIE
        )
    assert any("left behind" in line for line in said)
    server.start()


def test_no_process_is_left_after_a_stop(tmp_path: Path) -> None:
    with LocalPostgres(tmp_path / "postgres", durable=False) as local:
        assert local.pid is not None
        family = [psutil.Process(local.pid), *psutil.Process(local.pid).children(recursive=True)]
        data = local.data_directory
    until(lambda: not any(p.is_running() for p in family))
    if data.parent != tmp_path / "postgres":  # as root: it was outside
        assert not data.exists()


@pytest.mark.parametrize("make", [LocalPostgres, LocalKafka])
def test_a_taken_port_is_said_before_anything_is_made(
    tmp_path: Path, make: Callable[..., LocalPostgres | LocalKafka]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        local = make(tmp_path, port=other.getsockname()[1])
        with pytest.raises(PortTaken, match="is taken by another program"):
            local.start()
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_taken_port_names_the_setting_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        infrastructure = Infrastructure(Settings(), {}, tmp_path, Ports(0, port), lambda line: None)
        with pytest.raises(UserError, match=f"port {port} .* LOCAL_POSTGRES_PORT"):
            infrastructure.start()
        infrastructure.stop()


def test_what_the_user_has_set_is_used_and_nothing_started(tmp_path: Path) -> None:
    given = {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "DATABASE_URL": "postgresql://u:secret@h:5/d"}
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=given["KAFKA_BOOTSTRAP_SERVERS"]),
        service=ServiceSettings(database_url=given["DATABASE_URL"]),
    )
    said: list[str] = []
    infrastructure = Infrastructure(settings, given, tmp_path, Ports(0, 0), said.append)
    infrastructure.start()
    infrastructure.stop()
    assert infrastructure.connection_settings == given
    assert list(tmp_path.iterdir()) == []
    assert not any("secret" in line for line in said)


def test_a_server_that_could_not_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infrastructure_module, "WATCH_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(infrastructure_module, "MAX_PAUSE_SECONDS", 0.05)
    said: list[str] = []
    given = {"KAFKA_BOOTSTRAP_SERVERS": "k:1"}
    infrastructure = Infrastructure(
        Settings(), given, tmp_path, Ports(0, 0), said.append, durable=False
    )
    infrastructure.start()
    try:
        server = infrastructure.postgres
        assert server is not None
        settings = server.data_directory / "postgresql.conf"
        settings.rename(settings.with_suffix(".away"))
        psutil.Process(server.pid).kill()
        until(lambda: sum("will go on trying" in line for line in said) >= 5)
        settings.with_suffix(".away").rename(settings)
        until(lambda: "PostgreSQL runs again" in said)
        assert query(server.url, "SELECT 1") == [(1,)]
    finally:
        infrastructure.stop()


def test_a_second_start_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    given = {"DATABASE_URL": "postgresql://u@h/d"}
    settings = Settings(local=LocalSettings(kafka="embedded"))
    first = Infrastructure(settings, given, tmp_path, Ports(0, 0), lambda line: None)
    second = Infrastructure(settings, given, tmp_path, Ports(0, 0), lambda line: None)
    first.start()
    try:
        with pytest.raises(UserError, match=f"already runs in this directory .pid {os.getpid()}"):
            second.start()
    finally:
        first.stop()


def test_without_java_the_embedded_broker_takes_over_and_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    said: list[str] = []
    given = {"DATABASE_URL": "postgresql://u@h/d"}
    infrastructure = Infrastructure(Settings(), given, tmp_path, Ports(0, 0), said.append)
    infrastructure.start()
    try:
        servers = infrastructure.kafka_bootstrap_servers
        assert admin_client({"bootstrap.servers": servers}).list_topics(timeout=10).brokers
    finally:
        infrastructure.stop()
    assert any("Java 17" in line for line in said)
    assert any("in memory only" in line for line in said)


def test_apache_kafka_that_is_wanted_but_impossible_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    settings = Settings(local=LocalSettings(kafka="apache"))
    given = {"DATABASE_URL": "postgresql://u@h/d"}
    infrastructure = Infrastructure(settings, given, tmp_path, Ports(0, 0), lambda line: None)
    with pytest.raises(UserError, match=r"LOCAL_KAFKA=apache, but .* openjdk-17"):
        infrastructure.start()
    infrastructure.stop()


def test_without_maven_the_jars_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaImpossible, match="Maven"):
        fetch_jars(tmp_path / "libs", lambda line: None)


def test_a_failing_maven_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho 'noise'; echo '[ERROR] no   network'; exit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(KafkaImpossible, match="no network"):
        fetch_jars(tmp_path / "libs", lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mvn"]


def test_a_java_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(KafkaImpossible, match="is Java 11"):
        find_java()


@pytest.mark.slow
def test_kafka_keeps_topics_and_port_when_it_is_killed(tmp_path: Path) -> None:
    local = LocalKafka(tmp_path / "kafka")
    try:
        local.start()
    except KafkaImpossible as problem:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(str(problem))
        pytest.skip(f"Apache Kafka cannot be started: {problem}")
    try:
        servers = local.bootstrap_servers
        admin = admin_client({"bootstrap.servers": servers})
        topic = until(lambda: ensure_topic(admin, "kept", 3), ignoring=BrokerUnavailable)
        local.kill()
        local.start()
        assert local.bootstrap_servers == servers
        admin = admin_client({"bootstrap.servers": servers})
        assert until(lambda: ensure_topic(admin, "kept", 3), ignoring=BrokerUnavailable) == topic
    finally:
        local.stop()
    assert local.pid is None


def test_a_kafka_that_dies_while_starting_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "fetch_jars", lambda libs, say: None)
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.2\"' >&2; echo broken; exit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr(kafka_module, "find_java", lambda: str(java))
    with pytest.raises(kafka_module.StartFailed, match=r"status 3.*kafka\.log(.|\n)*broken"):
        LocalKafka(tmp_path / "kafka").start()
