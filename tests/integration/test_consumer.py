import random
import signal
from collections import Counter
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.chaos.proxy import TcpProxy
from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from db.dead_letters import KEPT_PAYLOAD_BYTES
from local_stack.processes import free_port
from tests.messages import ARBITRARY, BAD, NEARLY_VALID, STRANGE, message, send
from tests.waiting import until

pytestmark = pytest.mark.integration


def run_once(service, **settings):
    process = service("consumer.py", "--once", **settings)
    assert process.wait(60) == 0, process.log_path.read_text()
    return process


@pytest.mark.parametrize("kafka", ["apache", "embedded"], indirect=True)
def test_every_bad_message_is_a_dead_letter_once_and_every_good_one_is_stored(
    service, kafka, topic, query
):
    bad = [payload for _, payload, _ in BAD]
    good = [payload for _, payload in STRANGE]
    mixed = [p for payload in bad for p in (payload, message())] + good
    send(kafka, topic, mixed, partition=0)
    run_once(service)
    run_once(service)

    letters = query(
        "SELECT log_offset, reason_code, payload, payload_bytes FROM dead_letters ORDER BY 1"
    )
    assert [(offset, code) for offset, code, *_ in letters] == [
        (2 * n, code) for n, (_, _, code) in enumerate(BAD)
    ]
    for (*_, kept, size), payload in zip(letters, bad, strict=True):
        assert size == len(payload or b"")
        assert (None if kept is None else bytes(kept)) == (payload and payload[:KEPT_PAYLOAD_BYTES])
    stored = query("SELECT count(*), count(DISTINCT (source_id, log_offset)) FROM sensor_readings")
    assert stored == [(len(bad) + len(good),) * 2]
    counted = query("SELECT reason_code, kept, counted_only FROM dead_letter_counts")
    assert {code: kept for code, kept, _ in counted} == Counter(code for _, _, code in BAD)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(ARBITRARY | NEARLY_VALID, min_size=1, max_size=60))
def test_every_message_whatever_it_is_ends_in_exactly_one_of_the_two_tables(
    service, kafka, topic, query, payloads
):
    def total(statement):
        return query(f"SELECT coalesce(({statement}), 0)::int")[0][0]

    if not total("SELECT count(*) FROM service_status WHERE service = 'consumer'"):
        service("consumer.py")
    end = total("SELECT sum(next_offset) FROM stream_offsets")
    rows = "SELECT count(*) FROM (SELECT source_id, log_offset FROM {}) AS each"
    before = [total(rows.format(table)) for table in ("sensor_readings", "dead_letters")]
    assert sum(before) == end
    send(kafka, topic, [message(), *payloads])
    until(lambda: total("SELECT sum(next_offset) FROM stream_offsets") == end + 1 + len(payloads))
    stored, rejected = (total(rows.format(table)) for table in ("sensor_readings", "dead_letters"))
    assert stored + rejected == end + 1 + len(payloads)
    assert stored > before[0]
    both = "SELECT count(*) FROM sensor_readings JOIN dead_letters USING (source_id, log_offset)"
    assert total(both) == 0


def test_strange_text_and_extreme_values_are_stored_as_they_came(service, kafka, topic, query):
    strange = message(sensor_id="a\tb\\N\n\r\\.", location="\\N", unit="°C", value=-99999999.99)
    send(kafka, topic, [strange, message(value=1.145, timestamp="2026-01-31T13:00:00+01:00")], 0)
    run_once(service)
    rows = query(
        "SELECT sensor_id, location, unit, value::text, timestamp::text"
        " FROM sensor_readings ORDER BY log_offset"
    )
    assert rows == [
        ("a\tb\\N\n\r\\.", "\\N", "°C", "-99999999.99", "2026-01-31 12:00:00"),
        ("temperature-laboratory-1", "Laboratory", "°C", "1.14", "2026-01-31 12:00:00"),
    ]


def test_beyond_the_cap_rejects_are_only_counted(service, kafka, topic, query):
    send(kafka, topic, [b"x"] * 30, partition=0)
    send(kafka, topic, [b"x"] * 7, partition=1)
    run_once(service, DEAD_LETTER_ROWS_PER_HOUR="10")
    send(kafka, topic, [b"x"] * 5, partition=0)
    run_once(service, DEAD_LETTER_ROWS_PER_HOUR="10")
    counts = query(
        "SELECT partition, sum(kept)::int, sum(counted_only)::int FROM dead_letter_counts"
        " JOIN sources USING (source_id) GROUP BY partition ORDER BY partition"
    )
    assert counts == [(0, 10, 25), (1, 7, 0)]
    assert query("SELECT partition, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1") == [
        (0, 10),
        (1, 7),
    ]


def test_killed_at_random_moments_it_stores_each_message_once(service, kafka, topic, query):
    total, kills, chance = 30_000, 4, random.Random(7)
    send(kafka, topic, [message(value=n / 100) for n in range(total)])
    for _ in range(kills):
        process = service("consumer.py")
        stored = query("SELECT count(*) FROM sensor_readings")[0][0]
        goal = min(total, stored + chance.randrange(1, total // kills))
        until(lambda goal=goal: query("SELECT count(*) FROM sensor_readings")[0][0] >= goal)
        process.kill()
        process.wait()
    run_once(service)
    rows = query(
        "SELECT count(*), count(DISTINCT value), count(DISTINCT (source_id, log_offset))"
        " FROM sensor_readings"
    )
    assert rows == [(total, total, total)]


def test_the_newer_group_protocol_stores_each_message_once(service, kafka, topic, query):
    send(kafka, topic, [message()] * 1000)
    run_once(service, KAFKA_GROUP_PROTOCOL="consumer")
    send(kafka, topic, [message()] * 1000)
    run_once(service, KAFKA_GROUP_PROTOCOL="consumer")
    assert query("SELECT count(*) FROM sensor_readings") == [(2000,)]


def test_a_topic_created_again_is_read_from_its_beginning(service, kafka, topic, query):
    consumer = service("consumer.py")
    send(kafka, topic, [message()] * 100)
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(100,)])
    admin = admin_client({"bootstrap.servers": kafka})
    old = ensure_topic(admin, topic, 6)
    admin.delete_topics([topic])[topic].result()
    until(lambda: ensure_topic(admin, topic, 6) != old, ignoring=BrokerUnavailable)
    send(kafka, topic, [message()] * 500)  # already longer than the old one was
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(600,)])
    assert "topic_recreated" in consumer.log_path.read_text()


def test_once_ends_also_where_another_instance_has_all_partitions(service, kafka, topic, query):
    name = f"{topic}_single"
    admin = admin_client({"bootstrap.servers": kafka})
    until(lambda: ensure_topic(admin, name, 1), ignoring=BrokerUnavailable)
    service("consumer.py", KAFKA_TOPIC=name)
    send(kafka, name, [message()] * 100)
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(100,)])
    process = run_once(service, KAFKA_TOPIC=name)
    assert "caught_up partitions=0" in process.log_path.read_text()


def test_an_offset_beyond_the_end_stops_it_with_one_line(service, kafka, topic, query):
    send(kafka, topic, [message()] * 10, partition=0)
    run_once(service)
    query("UPDATE stream_offsets SET next_offset = 1000 WHERE next_offset = 10")
    process = service("consumer.py")
    assert process.wait(40) == 2
    log = process.log_path.read_text()
    assert f"error: offset 1000 of {topic}[0] is beyond its end 10" in log
    assert "Traceback" not in log


def test_an_operator_may_set_an_offset_back_while_it_runs(service, kafka, topic, query):
    service("consumer.py")
    send(kafka, topic, [message()] * 10, partition=0)
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(10,)])
    query("DELETE FROM sensor_readings WHERE log_offset >= 4")
    query("UPDATE stream_offsets SET next_offset = 4 WHERE next_offset = 10")
    send(kafka, topic, [message()], partition=0)
    until(lambda: query("SELECT count(*) FROM sensor_readings") == [(11,)])


@pytest.mark.parametrize("days", [0, 1])
def test_an_offset_set_back_before_rows_that_exist_stops_it_with_one_line(
    days, service, kafka, topic, query
):
    send(kafka, topic, [message()] * 10, partition=0)
    run_once(service)
    query("UPDATE sensor_readings SET ingested_on = ingested_on + %s", days)
    query("UPDATE stream_offsets SET next_offset = 4 WHERE next_offset = 10")
    process = service("consumer.py")
    assert process.wait(40) == 2
    assert "set back to before rows that exist" in process.log_path.read_text()
    assert "Traceback" not in process.log_path.read_text()
    assert query("SELECT count(*) FROM sensor_readings") == [(10,)]


def test_a_zombie_that_wakes_up_writes_nothing_twice(service, kafka, topic, query):
    send(kafka, topic, [message()] * 100)
    zombie = service("consumer.py")
    until(lambda: query("SELECT count(*) FROM sensor_readings")[0][0] == 100)
    zombie.send_signal(signal.SIGSTOP)
    send(kafka, topic, [message()] * 1000)
    service("consumer.py")
    until(lambda: query("SELECT count(*) FROM sensor_readings")[0][0] == 1100, seconds=60)
    zombie.send_signal(signal.SIGCONT)
    send(kafka, topic, [message()] * 1000)
    until(lambda: query("SELECT count(*) FROM sensor_readings")[0][0] >= 2100, seconds=60)
    zombie.send_signal(signal.SIGTERM)
    assert zombie.wait(30) == 0
    assert query("SELECT count(*) FROM sensor_readings") == [(2100,)]


def test_a_zombie_stopped_in_the_middle_of_its_copy_holds_nobody_up(
    service, kafka, topic, query, database_url
):
    total = 60_000
    send(kafka, topic, [message(value=n / 100) for n in range(total)])
    copying = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'COPY sensor_readings%' AND wait_event = 'ClientRead'"
        " AND state = 'active' AND query_start < now() - interval '0.1 s'"
    )
    address = urlsplit(database_url)
    with TcpProxy(free_port(), address.port) as proxy:
        proxied = database_url.replace(f":{address.port}/", f":{proxy.port}/")
        proxy.delay_s = 0.05  # a chunk of 64 KB: a COPY takes a second
        zombie = service("consumer.py", DATABASE_URL=proxied)
        until(lambda: query(copying) == [(1,)])
        zombie.send_signal(signal.SIGSTOP)
        proxy.delay_s = 1000.0  # what it has sent before does not arrive either
        service("consumer.py")
        until(lambda: query("SELECT count(*) FROM sensor_readings") == [(total,)], seconds=60)
        proxy.cut()
        proxy.delay_s = 0.0
        zombie.send_signal(signal.SIGCONT)
        send(kafka, topic, [message()] * 10)
        until(lambda: query("SELECT count(*) FROM sensor_readings") == [(total + 10,)], seconds=60)
        assert zombie.poll() is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_on_a_signal(service, kafka, topic, query, how):
    send(kafka, topic, [message()] * 10)
    process = service("consumer.py")
    until(lambda: query("SELECT count(*) FROM sensor_readings")[0][0] == 10)
    process.send_signal(how)
    assert process.wait(20) == 0


def test_it_waits_for_a_database_and_a_broker_that_are_not_there_and_stops_when_told(service):
    process = service(
        "consumer.py",
        DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
    )
    until(lambda: "postgresql_unavailable" in process.log_path.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    log = process.log_path.read_text()
    assert log.count("postgresql_unavailable") == 1
    assert "secret" not in log
    assert "Traceback" not in log


def test_where_everything_is_rejected_the_log_says_why_and_no_reading_is_counted(
    service, kafka, topic, query
):
    send(kafka, topic, [message(location=...)] * 300)
    log = run_once(service).log_path.read_text()
    assert log.count("messages_rejected reason_code=missing_field") == 1
    assert "location" in log
    details = query("SELECT details FROM service_status WHERE service = 'consumer'")[0][0]
    assert (details["readings"], details.get("rejected", 300)) == (0, 300)
