"""PostgreSQL refuses in every way it can while readings flow; all three writers wait and go on."""

import random
import signal

import pytest

from tests.messages import message, send
from tests.waiting import until

pytestmark = pytest.mark.integration

SERVICES = ("consumer.py", "stream_processor.py", "ml_detector.py")
END_OTHER_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = '53100'; END $$;
"""
FULL_TABLES = ("sensor_readings", "window_partials", "ml_anomaly_predictions")
# What an administrator or a full disk does to the database, and how it ends.
OUTAGES = {
    "read_only": (
        "ALTER DATABASE {name} SET default_transaction_read_only = on",
        "SET default_transaction_read_only = off;"
        " ALTER DATABASE {name} RESET default_transaction_read_only",
    ),
    "out_of_connections": (
        "ALTER DATABASE {name} CONNECTION LIMIT 0",
        "ALTER DATABASE {name} CONNECTION LIMIT -1",
    ),
    "out_of_disk": (
        REFUSE
        + ";".join(
            f"CREATE TRIGGER refuse BEFORE INSERT ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
            for table in FULL_TABLES
        ),
        ";".join(f"DROP TRIGGER refuse ON {table}" for table in FULL_TABLES),
    ),
}
COUNTS = (
    "SELECT (SELECT count(*) FROM sensor_readings)::int,"
    " (SELECT count(DISTINCT value) FROM sensor_readings)::int,"
    " (SELECT coalesce(sum(count_readings), 0) FROM sensor_aggregates)::int,"
    " (SELECT count(*) FROM ml_anomaly_predictions)::int"
)


@pytest.fixture
def running(service, kafka, topic, query):
    """Start the writers; return their processes and a function that sends readings."""
    processes = [service(script) for script in SERVICES]
    sent = 0

    def send_more(count):
        nonlocal sent
        send(kafka, topic, [message(value=n / 100) for n in range(sent, sent + count)])
        sent += count
        return sent

    def settle():
        until(lambda: query(COUNTS) == [(sent,) * 4], seconds=60)

    send_more(300)
    settle()
    return processes, send_more, settle


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_waited_out_with_a_line_at_each_end(running, database_url, query, outage):
    processes, send_more, settle = running
    name = database_url.rpartition("/")[2]
    begin, end = (statement.format(name=name) for statement in OUTAGES[outage])
    query(begin)
    query(END_OTHER_SESSIONS)
    send_more(300)
    logs = [process.log_path for process in processes]
    until(lambda: all("postgresql_unavailable" in log.read_text() for log in logs))
    query(end)
    settle()
    until(lambda: all("postgresql_available" in log.read_text() for log in logs))
    for log in logs:
        # Ending its session is one change of state, what it finds after that may be another.
        assert log.read_text().count("postgresql_unavailable") <= 2
        assert "Traceback" not in log.read_text()


def test_connections_cut_in_the_middle_of_transactions_double_nothing(running, query):
    _, send_more, settle = running
    chance = random.Random(11)
    for _ in range(15):
        total = send_more(400)
        goal = total - chance.randrange(1, 400)
        until(lambda goal=goal: query(COUNTS)[0][0] >= goal, seconds=60)
        query(END_OTHER_SESSIONS)
    settle()


def test_told_to_stop_in_the_middle_of_an_outage_they_exit_with_0(running, database_url, query):
    processes, send_more, _ = running
    query(f"ALTER DATABASE {database_url.rpartition('/')[2]} CONNECTION LIMIT 0")
    query(END_OTHER_SESSIONS)
    send_more(100)
    until(lambda: all("postgresql_unavailable" in p.log_path.read_text() for p in processes))
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(25) for process in processes] == [0, 0, 0]
