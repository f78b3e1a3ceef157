"""What the dashboard reads about the pipeline itself: bounded SELECTs; nothing large is counted.

Each returns rows as dictionaries. Times are naive datetimes in UTC, as in the tables.
"""

from __future__ import annotations

from datetime import datetime

from db.connection import Database
from db.selecting import Rows, fetch
from db.statements import statements

SQL = statements(__file__)
NEWEST_DEAD_LETTERS = 100


def services(database: Database) -> Rows:
    """Return the newest heartbeat of each process of the last ten minutes, or a service's last."""
    return fetch(database, SQL["services"])


def verdict_latency(database: Database) -> Rows:
    """Return how long after their storing the newest 500 readings were judged, milliseconds."""
    return fetch(database, SQL["verdict_latency"])


def dead_letters(database: Database, most: int = NEWEST_DEAD_LETTERS) -> Rows:
    """Return the newest dead letters."""
    return fetch(database, SQL["dead_letters"], {"most": most})


def dead_letter_total(database: Database) -> Rows:
    """Return how many messages were rejected, and how many of them only counted."""
    return fetch(database, SQL["dead_letter_total"])


def rejected_since(database: Database, since: datetime) -> Rows:
    """Return how many messages were rejected for each reason since a time, the commonest first."""
    return fetch(database, SQL["rejected_since"], {"since": since})


def lost_messages(database: Database) -> Rows:
    """Return how many messages each service could never read, and where."""
    return fetch(database, SQL["lost_messages"])


def late_to_fold(database: Database) -> Rows:
    """Return how many late readings ``python -m service.backfill`` may count in their windows."""
    return fetch(database, SQL["late_to_fold"])


def offsets(database: Database) -> Rows:
    """Return where each service stands in each partition."""
    return fetch(database, SQL["offsets"])


def database_size(database: Database) -> Rows:
    """Return the size of the database in bytes."""
    return fetch(database, "SELECT pg_database_size(current_database())::float AS bytes")


def table_sizes(database: Database) -> Rows:
    """Return estimated rows and size of each table, all partitions in one; nothing is counted."""
    return fetch(database, SQL["table_sizes"])
