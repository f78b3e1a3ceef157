"""Applies the schema: whoever comes first does it, everyone else finds it done."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from db import partitions
from db.connection import Cursor, Database, DatabaseUnavailable, RowExists, UnsuitableDatabase

log = logging.getLogger(__name__)

# A number is never used twice. File N_*.sql of db/migrations brings version N-1 to version N.
SCHEMA_VERSION = 4
_HERE = Path(__file__).parent
MIGRATIONS = _HERE / "migrations"


class SchemaMismatch(UnsuitableDatabase):
    """The database has a version that this program cannot work with."""


def prepare_database(database: Database) -> str:
    """Create the database if there is none, and bring it to ``SCHEMA_VERSION``.

    Returns
    -------
    str
        The identity that this database was given when it was created.

    Raises
    ------
    DatabaseUnavailable
        When that is not possible now: try again.
    SchemaMismatch
        When only a person can help.
    """
    try:
        apply_schema(database)
    except DatabaseUnavailable:
        if not database.create_if_missing():
            raise
        log.info("database_created")
        apply_schema(database)
    with database.transaction() as tx:
        tx.execute("SELECT identity FROM database_identity")
        identity: str = tx.fetchone()[0]
    return identity


def apply_schema(database: Database) -> None:
    """Bring the database to ``SCHEMA_VERSION``: schema.sql if empty, else missing migrations.

    And see that there are partitions for the days to come.

    Raises
    ------
    DatabaseUnavailable
        Also when another process is at it: try again.
    SchemaMismatch
        When the version is newer than this program, or no migration leads on from it.
    """
    try:
        with database.transaction() as tx:
            tx.execute("SET LOCAL lock_timeout = '500ms'")  # another process may be at it
            if _steps_after(_version(tx)):
                _apply(tx)
            if partitions.owns_tables(tx):
                partitions.make_ahead(tx, partitions.today_of(tx))
    except RowExists as problem:  # of two that create a table at once one gets this
        raise DatabaseUnavailable("another process is applying the schema") from problem


def _apply(tx: Cursor) -> None:
    tx.execute("SELECT current_user, has_schema_privilege(current_schema(), 'CREATE')")
    role, may_create = tx.fetchone()
    if not may_create:
        raise DatabaseUnavailable(
            f"the tables are not there, and role {role} may not make them: run python -m db.schema"
            " as a role that may"
        )
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_version ("
        " version INTEGER PRIMARY KEY,"
        " applied_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))"
    )
    tx.execute("LOCK TABLE schema_version IN EXCLUSIVE MODE")
    version = _version(tx)  # it may have been applied while we came here
    if version == 0:
        _refuse_tables_of_others(tx)
    for step in _steps_after(version):
        tx.execute(step.read_text(encoding="utf-8"))
        log.info("schema_applied file=%s", step.name)
    if version < SCHEMA_VERSION:
        tx.execute("INSERT INTO schema_version (version) VALUES (%s)", (SCHEMA_VERSION,))


def _refuse_tables_of_others(tx: Cursor) -> None:
    """Raise SchemaMismatch where a table of the contract is there, with other columns."""
    schema = (_HERE / "schema.sql").read_text(encoding="utf-8")
    for table in ("sensor_readings", "sensor_aggregates", "ml_anomaly_predictions"):
        tx.execute(
            "SELECT array_agg(attname::text) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (table,),
        )
        found = tx.fetchone()[0]
        body = schema.partition(f"CREATE TABLE IF NOT EXISTS {table} (\n")[2].partition("\n)")[0]
        missing = sorted(set(_COLUMN.findall(body)) - set(found or ()))
        if found and missing:
            raise SchemaMismatch(
                f"the database has a table {table} that this program did not make: it has no column"
                f" {missing[0]}. Nothing was changed; rename it, or name another database in"
                " DATABASE_URL"
            )


# A line of a table that is a column, not a constraint.
_COLUMN = re.compile(r"^    ([a-z_0-9]+) ", re.MULTILINE)


def _version(tx: Cursor) -> int:
    tx.execute("SELECT to_regclass('schema_version') IS NOT NULL")
    if not tx.fetchone()[0]:
        return 0
    tx.execute("SELECT coalesce(max(version), 0) FROM schema_version")
    version: int = tx.fetchone()[0]
    return version


def _steps_after(version: int) -> list[Path]:
    if version == 0:
        return [_HERE / "schema.sql"]
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the database has schema version {version}, newer than this program's"
            f" {SCHEMA_VERSION}: update the program, or name another database in DATABASE_URL"
        )
    known = {int(path.name.split("_")[0]): path for path in MIGRATIONS.glob("[0-9]*.sql")}
    wanted = range(version + 1, SCHEMA_VERSION + 1)
    if missing := [number for number in wanted if number not in known]:
        raise SchemaMismatch(
            f"the database has schema version {version}, this program needs {SCHEMA_VERSION}, and"
            f" there is no migration to version {missing[0]}: drop the database, or name another in"
            " DATABASE_URL; the services create it and fill it from the topic"
        )
    return [known[number] for number in wanted]
