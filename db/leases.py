"""Tables lease_owners and leases: counters of the living, and who holds what only one may do.

No time is stored: a lease is free when others have seen its owner's counter unmoved for long enough
by their own clocks (service/leases.py), whatever the clocks of databases and hosts do.
"""

from __future__ import annotations

from db.connection import Cursor
from db.statements import statements

SQL = statements(__file__)


def move_counter(tx: Cursor, service: str, owner: str) -> None:
    """Show that this process lives."""
    tx.execute(SQL["move_counter"], {"service": service, "owner": owner})


def counters(tx: Cursor, service: str) -> dict[str, int]:
    """Return the counter of each process of a service."""
    tx.execute("SELECT owner, counter FROM lease_owners WHERE service = %s", (service,))
    return dict(tx.fetchall())


def forget(tx: Cursor, service: str, owner: str) -> None:
    """Remove a process that has ended: what it held is free."""
    tx.execute("DELETE FROM lease_owners WHERE service = %s AND owner = %s", (service, owner))


def holder(tx: Cursor, name: str) -> tuple[str | None, int]:
    """Return owner and version of a lease."""
    tx.execute("SELECT owner, version FROM leases WHERE name = %s", (name,))
    owner, version = tx.fetchone()
    return owner, version


def take(tx: Cursor, name: str, owner: str, version: int) -> bool:
    """Take a lease if it still has this version; return whether that was so."""
    tx.execute(SQL["take"], {"name": name, "owner": owner, "version": version})
    return bool(tx.rowcount)
