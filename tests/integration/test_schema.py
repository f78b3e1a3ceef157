from concurrent.futures import ThreadPoolExecutor

import pytest

from db import versions
from db.connection import Database, DatabaseUnavailable
from db.versions import SCHEMA_VERSION, SchemaMismatch, apply_schema, prepare_database
from tests.waiting import until

pytestmark = pytest.mark.integration


def prepare(url):
    with Database(url, "test") as database:
        until(lambda: prepare_database(database), ignoring=DatabaseUnavailable)
        with database.transaction() as tx:
            tx.execute("SELECT max(version) FROM schema_version")
            return tx.fetchone()[0]


def test_services_that_start_at_once_create_a_missing_database_once(postgres):
    url = f"{postgres()}_missing"
    with ThreadPoolExecutor(6) as services:
        assert list(services.map(prepare, [url] * 6)) == [SCHEMA_VERSION] * 6


def test_a_role_that_may_not_create_databases_waits_for_one(postgres):
    url = f"{postgres()}_missing"
    with Database(url.replace("iot_user:iot_password", "iot_dashboard:iot_dashboard"), "test") as d:
        with pytest.raises(DatabaseUnavailable, match=r'no database ".*_missing"'):
            prepare_database(d)


def test_a_database_one_version_behind_is_migrated_once_and_keeps_its_rows(
    database, query, tmp_path, monkeypatch
):
    following = SCHEMA_VERSION + 1
    (tmp_path / f"{following}_made_up.sql").write_text(
        "ALTER TABLE sources ADD note TEXT NOT NULL DEFAULT 'from before'"
    )
    (tmp_path / f"{following + 1}_later.sql").write_text("SELECT not yet")
    monkeypatch.setattr(versions, "MIGRATIONS", tmp_path)
    monkeypatch.setattr(versions, "SCHEMA_VERSION", following)
    query("INSERT INTO sources (cluster_id, topic_id, topic, partition) VALUES ('c', 't', 't', 0)")
    for _ in range(2):
        apply_schema(database)
    assert query("SELECT topic, note FROM sources") == [("t", "from before")]
    assert query("SELECT version FROM schema_version ORDER BY 1") == [
        (SCHEMA_VERSION,),
        (following,),
    ]


@pytest.mark.parametrize("script", ["consumer.py", "stream_processor.py", "ml_detector.py"])
def test_a_version_without_a_migration_is_one_line_and_status_2(script, service, query):
    query("UPDATE schema_version SET version = 3")
    process = service(script)
    assert process.wait(30) == 2
    (line,) = (x for x in process.log_path.read_text().splitlines() if "error" in x)
    assert "has schema version 3, this program needs 4" in line and "drop the database" in line


def test_a_version_from_the_future_is_refused(database, query):
    query("INSERT INTO schema_version VALUES (%s)", SCHEMA_VERSION + 1)
    with pytest.raises(SchemaMismatch, match=r"newer than this program's.*update the program"):
        apply_schema(database)


def test_a_gap_in_the_migrations_is_refused(database, query, tmp_path, monkeypatch):
    (tmp_path / f"{SCHEMA_VERSION + 2}_made_up.sql").write_text("SELECT 1")
    monkeypatch.setattr(versions, "MIGRATIONS", tmp_path)
    monkeypatch.setattr(versions, "SCHEMA_VERSION", SCHEMA_VERSION + 2)
    with pytest.raises(SchemaMismatch, match=f"no migration to version {SCHEMA_VERSION + 1}"):
        apply_schema(database)
