"""Growth: what is over goes, as whole days of the large tables and as rows of the small ones.

A partition goes by DETACH CONCURRENTLY, so that no writer ever waits, and dropping it gives the
space back. Rows are deleted some at a time.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta

from psycopg2 import sql

from db import partitions
from db.connection import Cursor, Database
from db.settings import Retention
from db.statements import statements

log = logging.getLogger(__name__)

SQL = statements(__file__)

# One step of deleting: some 50 ms.
MAX_DELETED_ROWS = 5_000
# Who detaches a partition by hand means to keep it: only what bears this comment is dropped.
_EXPIRED = "expired: may be dropped"
_RAW_TIMES = {
    "late_readings": "created_at",
    "dead_letters": "created_at",
    "sensors": "updated_at",
}
_AGGREGATE_TIMES = {
    "sensor_aggregates": "window_start",
    "window_rollups": "window_start",
    "sensor_correlations": "window_end",
    "correlations_due": "window_end",
    "verdict_counts": "minute",
    "merged_verdicts": "minute",
    "dead_letter_counts": "hour",
    "model_runs": "created_at",
}


def let_go(database: Database, keep: Retention, today: date) -> bool:
    """Delete and drop what is over, of the small tables some; return whether that was all."""
    with database.transaction() as tx:
        owned = partitions.owns_tables(tx)
    done = [
        _delete(database, table, column, today - timedelta(days=days))
        for days, times in (
            (keep.retention_days, _RAW_TIMES),
            (keep.aggregate_retention_days, _AGGREGATE_TIMES),
        )
        for table, column in times.items()
        if days
    ]
    with database.transaction() as tx:
        tx.execute(SQL["spent_partials"], {"rows": MAX_DELETED_ROWS})
        done.append(tx.rowcount < MAX_DELETED_ROWS)
    # Last: a long transaction of others may keep this from getting done.
    for table in partitions.PARTITIONED if keep.retention_days and owned else ():
        _drop_partitions(database, table, today - timedelta(days=keep.retention_days))
    return all(done)


def _drop_partitions(database: Database, table: str, limit: date) -> None:
    """Drop what ends by ``limit``, and what an earlier attempt has left behind."""
    with database.transaction() as tx:
        for name in _half_detached(tx, table):
            tx.execute(f"ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")
    with database.transaction() as tx:
        for name in _detached(tx, table):
            tx.execute(f"DROP TABLE {name}")
            log.info("partition_dropped name=%s", name)
        expired = [name for name, until in partitions.of(tx, table).items() if until <= limit]
    for name in expired:
        with database.transaction() as tx:
            if table == "sensor_readings":
                _warn_of_unscored(tx, name)
            tx.execute(f"COMMENT ON TABLE {name} IS '{_EXPIRED}'")
        database.execute_alone(f"ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")
        with database.transaction() as tx:
            tx.execute(f"DROP TABLE {name}")
        log.info("partition_dropped name=%s", name)


def _half_detached(tx: Cursor, table: str) -> list[str]:
    tx.execute(SQL["half_detached"], {"table": table})
    return [name for (name,) in tx.fetchall()]


def _detached(tx: Cursor, table: str) -> list[str]:
    tx.execute(SQL["detached"], {"table": table, "comment": _EXPIRED})
    return [name for (name,) in tx.fetchall()]


def _warn_of_unscored(tx: Cursor, name: str) -> None:
    tx.execute(sql.SQL(SQL["unscored"]).format(partition=sql.Identifier(name)))
    (unscored,) = tx.fetchone()
    if unscored:
        log.warning("unscored_readings_dropped partition=%s readings=%d", name, unscored)


def _delete(database: Database, table: str, column: str, limit: date) -> bool:
    """Delete some rows of before ``limit``; return whether there are no more."""
    statement = SQL["delete_windows"] if table == "sensor_aggregates" else SQL["delete"]
    names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
    with database.transaction() as tx:
        tx.execute(sql.SQL(statement).format(**names), {"limit": limit, "rows": MAX_DELETED_ROWS})
        deleted: int = tx.rowcount
    if deleted:
        log.info("rows_deleted table=%s rows=%d", table, deleted)
    return deleted < MAX_DELETED_ROWS
