"""Table service_status: one row per service process, its last heartbeat."""

from __future__ import annotations

from typing import Any

from psycopg2.extras import Json

from db.connection import Cursor


def report(tx: Cursor, service: str, instance: str, state: str, details: dict[str, Any]) -> None:
    """Write a heartbeat and remove those of processes that have been silent for a day."""
    tx.execute(
        "INSERT INTO service_status (service, instance, state, details) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (service, instance) DO UPDATE SET state = EXCLUDED.state,"
        " details = EXCLUDED.details, updated_at = EXCLUDED.updated_at",
        (service, instance, state, Json(details)),
    )
    tx.execute(
        "DELETE FROM service_status"
        " WHERE updated_at < (clock_timestamp() AT TIME ZONE 'UTC') - interval '1 day'"
    )
