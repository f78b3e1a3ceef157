"""Applies the schema: whoever comes first does it, everyone else finds it done."""

from __future__ import annotations

import logging
from pathlib import Path

from db.connection import Database, DatabaseUnavailable

log = logging.getLogger(__name__)

# Serializes services that start at once; any number that no other program locks will do.
_LOCK_KEY = 0x10753C
# File N of db/migrations brings version N-1 to version N.
SCHEMA_VERSION = 2
_HERE = Path(__file__).parent


def prepare_database(database: Database) -> None:
    """Create the database if there is none, and bring it to ``SCHEMA_VERSION``.

    Raises
    ------
    DatabaseUnavailable
        When that is not possible now: try again.
    """
    try:
        apply_schema(database)
    except DatabaseUnavailable:
        if not database.create_if_missing():
            raise
        log.info("database_created")
        apply_schema(database)


def apply_schema(database: Database) -> None:
    """Bring the database to ``SCHEMA_VERSION``: schema.sql if empty, else missing migrations."""
    with database.transaction() as tx:
        tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        tx.execute(
            "CREATE TABLE IF NOT EXISTS schema_version ("
            " version INTEGER PRIMARY KEY,"
            " applied_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))"
        )
        tx.execute("SELECT coalesce(max(version), 0) FROM schema_version")
        version = tx.fetchone()[0]
        for step in _steps_after(version):
            tx.execute(step.read_text(encoding="utf-8"))
            log.info("schema_applied file=%s", step.name)
        if version < SCHEMA_VERSION:
            tx.execute("INSERT INTO schema_version (version) VALUES (%s)", (SCHEMA_VERSION,))


def _steps_after(version: int) -> list[Path]:
    if version == 0:
        return [_HERE / "schema.sql"]
    migrations = sorted((_HERE / "migrations").glob("[0-9]*.sql"))
    return [m for m in migrations if version < int(m.name.split("_")[0]) <= SCHEMA_VERSION]
