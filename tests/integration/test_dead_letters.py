"""Dead letters: listed by reason, and sent to the topic again exactly once."""

import contextlib
import random
import signal
import subprocess
from functools import partial

import pytest

from tests.messages import message, send
from tests.waiting import output_of, until

pytestmark = pytest.mark.integration

INSERT = """INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason,
    payload, payload_bytes)
    SELECT min(source_id), min(topic), 0, %s, %s, 'a reason', %s, %s FROM sources"""


@pytest.fixture
def command(service):
    """A function that starts the command."""
    return partial(service, "service.dead_letters")


@pytest.fixture
def letters(service, kafka, topic, database):
    """A function that keeps payloads as dead letters of the topic, as an older version did."""
    send(kafka, topic, [message()])
    assert service("consumer.py", "--once").wait(60) == 0

    def keep(payloads, code="wrong_type", cut=0):
        with database.transaction() as tx:
            tx.execute("SELECT coalesce(max(log_offset), 1000) FROM dead_letters")
            first = tx.fetchone()[0] + 1
            for offset, payload in enumerate(payloads, first):
                tx.execute(INSERT, (offset, code, payload, len(payload) + cut))

    return keep


def catch_up(service):
    for script in ("consumer.py", "stream_processor.py"):
        output_of(service(script, "--once"))


def test_they_are_listed_by_reason_with_an_example_and_sent_again_by_reason(
    command, letters, service, query
):
    letters([message(sensor_id=f"r{i}") for i in range(3)])
    letters([message(sensor_id="other")], code="bad_timestamp")
    letters([message(value="x")])
    letters([message(sensor_id="cut")], cut=1)
    listed = output_of(command())
    assert "reason_code=wrong_type kept=5 sent_again=0 cut=1" in listed
    assert "a reason" in listed and '"sensor_id": "other"' in listed

    assert "sent_again=3 finished_of_an_earlier_run=0 still_no_reading=1 cut=1" in output_of(
        command("--send", "--reason", "wrong_type")
    )
    assert "sent_again=0 " in output_of(command("--send", "--reason", "wrong_type"))
    assert "sent_again=0 " in output_of(command("--send", "--until", "2020-01-01"))
    catch_up(service)
    found = query("SELECT sensor_id FROM sensor_readings WHERE sensor_id LIKE 'r%' ORDER BY 1")
    assert found == [("r0",), ("r1",), ("r2",)]
    assert "reason_code=wrong_type kept=5 sent_again=3 cut=1" in output_of(command())


def test_killed_anywhere_it_sends_each_once(command, letters, service, query):
    letters([message(sensor_id=f"r{i}") for i in range(2000)])
    rng = random.Random(4)
    noted = "SELECT count(sending_since), count(sent_again_at) FROM dead_letters"
    for _ in range(8):
        before = query(noted)
        process = command("--send")
        # Somewhere between what it notes before it sends and what it notes afterwards.
        until(lambda b=before, p=process: query(noted) != b or p.poll() is not None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
    output_of(command("--send"))
    catch_up(service)
    counts = query("SELECT count(*), count(DISTINCT sensor_id) FROM sensor_readings")
    assert counts == [(2001, 2001)]
    assert query("SELECT sum(count_readings)::int FROM sensor_aggregates") == [(2001,)]


def test_a_later_run_shuts_an_earlier_one_out(command, letters, service, query):
    letters([message(sensor_id=f"r{i}") for i in range(1000)])
    noted = "SELECT count(sending_since), count(sent_again_at) FROM dead_letters"
    first = command("--send")
    until(lambda: query(noted)[0][0] > 0 or first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    output_of(command("--send"))
    first.send_signal(signal.SIGCONT)
    first.wait(60)
    catch_up(service)
    counts = query("SELECT count(*), count(DISTINCT sensor_id) FROM sensor_readings")
    assert counts == [(1001, 1001)]
