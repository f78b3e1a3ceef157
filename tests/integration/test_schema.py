from concurrent.futures import ThreadPoolExecutor

import pytest

from db.connection import Database, DatabaseUnavailable
from db.schema import SCHEMA_VERSION, prepare_database
from tests.waiting import until

pytestmark = pytest.mark.integration


def prepare(url):
    with Database(url, "test") as database:
        until(lambda: prepare_database(database) is None, ignoring=DatabaseUnavailable)
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
