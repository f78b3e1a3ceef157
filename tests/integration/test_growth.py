"""Partitions come and go while others write and read."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from db import partitions, retention
from db.connection import Database, DatabaseUnavailable
from db.partitions import PARTITIONED
from db.readings import note_sensors as note_page
from db.settings import Retention
from service.upkeep import look_after, note_sensors
from tests.waiting import until

pytestmark = pytest.mark.integration

COLUMNS = "sensor_id, sensor_type, location, value, timestamp, anomaly, unit, source_id, log_offset"
READINGS = (
    "INSERT INTO sensor_readings ({columns}, ingested_on) SELECT 's-' || i % 3, 'co2', 'Lab', i,"
    " '{day}'::timestamp + i * interval '1 s', false, 'ppm', 1, i, '{day}'"
    " FROM generate_series({first}, {last}) AS i"
)
PREDICTIONS = (
    "INSERT INTO ml_anomaly_predictions (sensor_id, sensor_type, location, value, timestamp,"
    " rule_based_anomaly, source_id, log_offset) SELECT sensor_id, sensor_type, location, value,"
    " timestamp, anomaly, source_id, log_offset FROM sensor_readings"
)
FILL_OLD = (
    f"INSERT INTO sensor_readings ({COLUMNS}) SELECT 's-' || i % 3, 'co2', 'Lab', i,"
    " '2026-01-01'::timestamp + i * interval '1 h', false, 'ppm', 1, i"
    " FROM generate_series(1, 5000) AS i"
)
TODAY = datetime.now(UTC).date()  # what rows get that the database dates
LATER = TODAY + timedelta(days=10)
KEEP = Retention(retention_days=5)


def readings(day, first, last):
    return READINGS.format(columns=COLUMNS, day=day, first=first, last=last)


def size(query):
    return sum(
        query(
            "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits"
            " WHERE inhparent = %s::regclass",
            table,
        )[0][0]
        for table in PARTITIONED
    )


@pytest.fixture
def grown(database, query):
    """Readings and predictions of today and of ten days later, and one aggregate of today."""
    with database.transaction() as tx:
        partitions.make_ahead(tx, LATER)
    query(readings(TODAY, 1, 5000))
    query(PREDICTIONS)
    query(readings(LATER, 5001, 5100))
    query(
        "INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,"
        " min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies,"
        " is_final) SELECT %s, %s, 'Lab', t, 1, 1, 1, 0, 1, 0, 0, t = 'co2'"
        " FROM unnest(ARRAY['co2', 'pressure']) AS t",
        TODAY,
        TODAY,
    )


def test_days_are_dropped_while_a_reader_holds_them_and_a_writer_goes_on(
    grown, database_url, database, query
):
    before = size(query)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE '%%DETACH PARTITION%%' AND wait_event_type = 'Lock'"
    )
    with (
        closing(psycopg2.connect(database_url)) as reader,
        closing(psycopg2.connect(database_url, options="-c lock_timeout=100ms")) as writer,
        Database(database_url, "test-heartbeat") as keeper,
    ):
        reader.cursor().execute("SELECT count(*) FROM sensor_readings")
        upkeep = threading.Thread(target=look_after, args=(keeper, KEEP, LATER))
        upkeep.start()
        until(lambda: query(waiting) == [(1,)])
        for offset in range(5101, 5151):
            with writer, writer.cursor() as tx:
                tx.execute(readings(LATER, offset, offset))
        assert query(waiting) == [(1,)]
        reader.rollback()
        upkeep.join(30)
        assert not upkeep.is_alive()
    assert query("SELECT min(log_offset), count(*) FROM sensor_readings") == [(5001, 150)]
    assert query("SELECT count(*) FROM ml_anomaly_predictions") == [(0,)]
    assert query("SELECT count(*) FROM sensor_aggregates") == [(2,)]
    assert size(query) < before / 2


def test_without_retention_nothing_goes(grown, database, query):
    before = query("SELECT count(*) FROM sensor_readings")
    assert look_after(database, Retention(), LATER + timedelta(days=400))
    assert query("SELECT count(*) FROM sensor_readings") == before


def test_what_a_crash_left_is_cleaned_up_and_what_a_person_detached_stays(
    grown, database_url, database, query
):
    with database.transaction() as tx:
        partitions.make_ahead(tx, LATER)
        name, by_hand = list(partitions.of(tx, "sensor_readings"))[:2]
    query(f"ALTER TABLE sensor_readings DETACH PARTITION {by_hand}")
    query(f"COMMENT ON TABLE {name} IS '{retention._EXPIRED}'")
    database.execute_alone(f"ALTER TABLE sensor_readings DETACH PARTITION {name} CONCURRENTLY")
    assert query("SELECT to_regclass(%s) IS NULL", name) == [(False,)]
    assert look_after(database, KEEP, LATER)
    assert query("SELECT to_regclass(%s) IS NULL", name) == [(True,)]
    assert query("SELECT to_regclass(%s) IS NULL", by_hand) == [(False,)]
    assert query("SELECT count(*) FROM sensor_readings") == [(100,)]


def test_a_detachment_that_was_interrupted_is_finished(grown, database_url, database, query):
    with database.transaction() as tx:
        name = next(iter(partitions.of(tx, "sensor_readings")))
    with (
        closing(psycopg2.connect(database_url)) as reader,
        closing(psycopg2.connect(database_url, options="-c statement_timeout=300ms")) as killed,
    ):
        query(f"COMMENT ON TABLE {name} IS '{retention._EXPIRED}'")
        reader.cursor().execute("SELECT count(*) FROM sensor_readings")
        killed.autocommit = True
        with pytest.raises(psycopg2.errors.QueryCanceled):
            killed.cursor().execute(
                f"ALTER TABLE sensor_readings DETACH PARTITION {name} CONCURRENTLY"
            )
    assert query("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)]
    assert look_after(database, KEEP, LATER)
    assert query("SELECT to_regclass(%s) IS NULL", name) == [(True,)]
    assert query("SELECT count(*) FROM sensor_readings") == [(100,)]


def test_readings_that_go_unscored_are_told(grown, database, query, caplog):
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    query(
        "UPDATE detector_shards SET positions = '{\"1\": 4001}' WHERE shard = detector_shard('co2')"
    )
    look_after(database, KEEP, LATER)
    assert "unscored_readings_dropped" in caplog.text and "readings=1000" in caplog.text


def test_small_tables_are_emptied_in_steps_and_aggregates_outlive_the_rest(
    grown, database, query, monkeypatch
):
    monkeypatch.setattr(retention, "MAX_DELETED_ROWS", 30)
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    query(
        "INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason,"
        " payload_bytes) SELECT 1, 't', 0, i, 'x', 'x', 1 FROM generate_series(1, 100) AS i"
    )
    keep = Retention(retention_days=5, aggregate_retention_days=20)
    steps = 1
    while not look_after(database, keep, LATER):
        steps += 1
    assert steps == 4
    assert query("SELECT count(*) FROM dead_letters") == [(0,)]
    assert query("SELECT count(*) FROM sensor_aggregates") == [(2,)]
    assert look_after(database, keep, TODAY + timedelta(days=21))
    # The other is not final yet.
    assert query("SELECT sensor_type FROM sensor_aggregates") == [("pressure",)]


def test_a_day_without_a_partition_is_an_outage_that_the_upkeep_ends(database, query):
    with database.transaction() as tx:
        for name in partitions.of(tx, "sensor_readings"):
            tx.execute(f"DROP TABLE {name}")
    with pytest.raises(DatabaseUnavailable, match="no partition"):
        query(FILL_OLD)
    assert look_after(database, Retention())
    query(FILL_OLD)


def test_after_a_pause_one_partition_stands_for_all_days_of_it(database):
    with database.transaction() as tx:
        before = partitions.of(tx, "sensor_readings")
        partitions.make_ahead(tx, TODAY + timedelta(days=30))
        after = partitions.of(tx, "sensor_readings")
        assert partitions.days_left(tx, TODAY + timedelta(days=30)) == 4
    assert len(after) - len(before) == 4
    assert max(after.values()) == TODAY + timedelta(days=34)


@pytest.fixture
def stored(query):
    """Return a function that says how far the consumer is in the partition with source 1."""
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    query("INSERT INTO stream_offsets (consumer_group, source_id) VALUES ('consumer', 1)")
    return lambda offset: query("UPDATE stream_offsets SET next_offset = %s", offset)


def test_the_sensors_are_noted_and_stay_known(database, query, stored):
    query(readings(TODAY, 1, 10))
    stored(11)
    note_sensors(database)
    query("DELETE FROM sensor_readings WHERE sensor_id <> 's-1'")
    query(readings(TODAY, 11, 13))
    stored(14)
    note_sensors(database)
    assert query("SELECT sensor_id, value::int FROM sensors ORDER BY 1") == [
        ("s-0", 12),
        ("s-1", 13),
        ("s-2", 11),
    ]


def test_a_sensor_whose_clock_runs_ahead_hides_no_other_however_many_there_are(
    database, query, stored
):
    insert = f"INSERT INTO sensor_readings ({COLUMNS}) SELECT "
    values = (
        ", 'co2', 'Lab', 1, '2026-01-01 12:00'::timestamp + interval '{} s', false, 'ppm', 1, i"
    )
    query(insert + "'s-' || i" + values.format(0) + " FROM generate_series(1, 60000) i")
    query(insert + "'fast'" + values.format(240) + " FROM generate_series(60001, 90000) i")
    stored(90001)
    for _ in range(2):  # more than one transaction notes
        with database.transaction() as tx:
            assert note_page(tx)
    with database.transaction() as tx:
        assert not note_page(tx)
    assert query("SELECT count(*) FROM sensors") == [(60_001,)]


def test_readings_beyond_the_stored_offset_are_not_noted_yet(database, query, stored):
    query(readings(TODAY, 1, 10))
    stored(5)
    note_sensors(database)
    assert query("SELECT max(value)::int FROM sensors") == [(4,)]
    stored(11)
    note_sensors(database)
    assert query("SELECT max(value)::int FROM sensors") == [(10,)]


def test_the_state_of_a_topic_that_is_gone_goes_once_its_windows_are_final(database, query):
    query(
        "INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 'old', 't', 0),"
        " ('c', 'new', 't', 0), ('c', 'x', 'other', 0), ('other', 'y', 't', 0)"
    )
    query(
        "INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,"
        " min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies,"
        " is_final) SELECT start, start + interval '1 minute', 'Lab', 'co2', 1, 1, 1, 0, 1, 0, 0,"
        " n = 1 FROM (VALUES (1, '2026-01-01 12:00'::timestamp), (2, '2026-01-01 12:01'))"
        " AS windows (n, start)"
    )
    query(
        "INSERT INTO window_partials SELECT source_id, window_start, 'Lab', 'co2', 1, 100, 10000,"
        " 100, 100, 0, 0, 0, 0, 0, 0, 0, 0 FROM sources CROSS JOIN sensor_aggregates"
    )
    assert look_after(database, Retention())
    left = query("SELECT source_id, count(*) FROM window_partials GROUP BY 1 ORDER BY 1")
    assert left == [(1, 1), (2, 2), (3, 2), (4, 2)]


def test_the_state_of_a_group_long_silent_goes_once_no_baseline_reaches_back_to_it(database, query):
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 'x', 't', 0)")
    query(
        "INSERT INTO stream_offsets (consumer_group, source_id, watermark)"
        " VALUES ('stream_processor', 1, '2026-01-31 12:00')"
    )
    query(
        "INSERT INTO window_partials SELECT 1, day, 'Lab', 'co2', 1, 100, 10000, 100, 100, 0, 0, 0,"
        " 0, 0, 0, 0, 0 FROM generate_series('2026-01-15'::timestamp, '2026-01-17', '1 day') AS day"
    )
    assert look_after(database, Retention())
    assert query("SELECT extract(day FROM window_start)::int FROM window_partials") == [(17,)]
