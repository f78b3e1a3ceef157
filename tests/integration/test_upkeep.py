"""One consumer looks after the tables, whoever dies; a role that may not make tables says so."""

import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta

import psycopg2
import pytest

from db import partitions
from db.blocking import BlockingSession
from db.connection import Database, DatabaseUnavailable
from db.settings import Retention
from db.versions import apply_schema
from service.heartbeat import BackgroundReporter
from service.leases import Presence
from service.upkeep import Upkeep, look_after
from tests.conftest import CHECKOUT
from tests.waiting import until

pytestmark = pytest.mark.integration

OWNER = "SELECT owner FROM leases WHERE name = 'upkeep'"


@pytest.fixture
def writer_url(database_url, query):
    """Address of a role that may read and write rows, and nothing else."""
    query("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO iot_dashboard")
    return database_url.replace("iot_user:iot_password", "iot_dashboard:iot_dashboard")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_one_consumer_has_the_upkeep_and_another_takes_it_when_that_one_ends_or_sleeps(
    service, query, how
):
    consumers = {str(c.pid): c for c in (service("consumer.py"), service("consumer.py"))}
    until(lambda: len(query("SELECT owner FROM lease_owners WHERE counter > 0")) == 2)
    first = until(lambda: query(OWNER)[0][0])
    consumers[first.split("-")[-2]].send_signal(how)
    until(lambda: query(OWNER)[0][0] != first)
    until(lambda: len(query("SELECT owner FROM lease_owners")) == 1)


def test_a_role_that_may_not_make_tables_says_once_how_many_days_are_left(
    writer_url, query, caplog
):
    presence = Presence("consumer")
    caplog.set_level(logging.INFO)
    with (
        BackgroundReporter(writer_url, "consumer", "test", [presence]),
        Upkeep(writer_url, Retention(retention_days=1), presence) as upkeep,
    ):
        until(lambda: upkeep.gauges() == {"partition_days_left": 4})
    assert caplog.text.count("partitions_left_to_their_owner partition_days_left=4") == 1
    assert "upkeep_failed" not in caplog.text


def test_a_role_that_may_not_make_tables_waits_for_them_with_a_line_that_says_who_may(
    postgres, query
):
    url = postgres()
    role = url.replace("iot_user:iot_password", "iot_dashboard:iot_dashboard")
    with Database(role, "test") as database:
        with pytest.raises(DatabaseUnavailable, match=r"run python -m db\.schema"):
            apply_schema(database)


def test_the_owner_makes_and_drops_the_days_by_a_command(
    writer_url, database_url, database, environment, tmp_path, query
):
    with database.transaction() as tx:
        today = partitions.today_of(tx)
        partitions.make_ahead(tx, today - timedelta(days=9))  # nothing: there are later ones
        newest = max(partitions.of(tx, "sensor_readings"))
        tx.execute(f"DROP TABLE {newest}")
        assert partitions.days_left(tx, today) == 3
    with Database(writer_url, "test") as writer:
        assert look_after(writer, Retention(retention_days=1), today + timedelta(days=20))
    subprocess.run(
        [sys.executable, "-m", "db.schema"],
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        check=True,
    )
    with database.transaction() as tx:
        assert partitions.days_left(tx, today) == 4


def test_the_one_session_that_blocks_a_write_is_ended_whatever_its_name(database_url, database):
    query = "UPDATE leases SET version = version + 1 WHERE name = 'upkeep'"

    def write():
        with database.transaction() as tx:
            tx.execute(query)

    with (
        closing(psycopg2.connect(database_url)) as sleeper,
        closing(psycopg2.connect(database_url)) as bystander,
        Database(database_url, "watch") as watch,
    ):
        sleeper.cursor().execute(query)
        bystander.cursor().execute("SELECT 1")
        blocking = BlockingSession(database)
        writer = threading.Thread(target=write)
        writer.start()

        def looked_until_written():
            with watch.transaction() as tx:
                blocking.look(tx, time.monotonic())
            return not writer.is_alive()

        until(looked_until_written)
        bystander.cursor().execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError):
            sleeper.cursor().execute("SELECT 1")
