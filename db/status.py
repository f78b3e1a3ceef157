"""Table service_status: one row per service process, its last heartbeat."""

from __future__ import annotations

from typing import Any

from psycopg2.extras import Json

from db.connection import Cursor
from db.statements import statements

SQL = statements(__file__)


def report(tx: Cursor, service: str, instance: str, state: str, details: dict[str, Any]) -> None:
    """Write a heartbeat and remove those of processes that have been silent for a day."""
    tx.execute(
        SQL["report"],
        {"service": service, "instance": instance, "state": state, "details": Json(details)},
    )
    tx.execute(SQL["forget_silent"])
