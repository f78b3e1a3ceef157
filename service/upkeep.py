"""Looks after the tables: days made and dropped, sensors noted.

One consumer does it at a time, under a lease, in a thread of its own: no writer ever waits.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import date

from db import leases, partitions, readings, retention
from db.connection import Database, DatabaseError, DatabaseUnavailable
from db.settings import Retention
from service.leases import Presence
from service.lifecycle import one_line

log = logging.getLogger(__name__)

UPKEEP_SECONDS = 60.0
# How often one without the lease looks for it, and the pause between two steps of deleting.
LOOK_SECONDS = 2.0
# Noting sensors takes so long of each: in a flood of readings a tenth of a core.
NOTE_SECONDS = 0.2
LEASE = "upkeep"
# A stop waits so long for a statement; what is half done is finished by whoever comes next.
CLOSE_TIMEOUT_SECONDS = 1.0


def look_after(database: Database, keep: Retention, today: date | None = None) -> bool:
    """Do all there is to do, some of it in steps; return whether that was all."""
    with database.transaction() as tx:
        today = today or partitions.today_of(tx)
        if partitions.owns_tables(tx):
            partitions.make_ahead(tx, today)
    return retention.let_go(database, keep, today)


def note_sensors(database: Database) -> None:
    """Note the sensors of what was stored meanwhile, of some if that takes long."""
    until_s = time.monotonic() + NOTE_SECONDS
    more = True
    while more and time.monotonic() < until_s:
        with database.transaction() as tx:
            more = readings.note_sensors(tx)


class Upkeep:
    """A thread that looks after the tables while this process holds the lease.

    Parameters
    ----------
    url : str
        The database.
    keep : Retention
        How long rows are kept.
    presence : Presence
        Says which consumers live.
    """

    def __init__(self, url: str, keep: Retention, presence: Presence) -> None:
        self._database = Database(url, "upkeep")
        self._keep = keep
        self._presence = presence
        self._days_left: int | None = None
        self._owns_tables = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def gauges(self) -> dict[str, int]:
        """Return for how many days, today included, there are partitions; nothing if unknown."""
        return {} if self._days_left is None else {"partition_days_left": self._days_left}

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                if not self._holds_lease():
                    continue
                note_sensors(self._database)
                if time.monotonic() >= due_s and self._step():
                    due_s = time.monotonic() + UPKEEP_SECONDS
            except DatabaseUnavailable as problem:  # e.g. a long reader uses what is to go
                log.debug("upkeep_interrupted reason=%s", one_line(problem))
            except DatabaseError as problem:
                log.warning("upkeep_failed reason=%s", one_line(problem))
                self._stopped.wait(UPKEEP_SECONDS)
        self._database.close()

    def _holds_lease(self) -> bool:
        if not self._presence.has_begun:
            return False
        with self._database.transaction() as tx:
            owner, version = leases.holder(tx, LEASE)
            if owner in self._presence.alive:
                return owner == self._presence.owner
            return leases.take(tx, LEASE, self._presence.owner, version)

    def _step(self) -> bool:
        done = look_after(self._database, self._keep)
        with self._database.transaction() as tx:
            owned = partitions.owns_tables(tx)
            self._days_left = partitions.days_left(tx, partitions.today_of(tx))
        if self._owns_tables and not owned:
            log.warning(
                "partitions_left_to_their_owner partition_days_left=%d"
                " do=run python -m db.schema as the owner, daily",
                self._days_left,
            )
        self._owns_tables = owned
        return done

    def __enter__(self) -> Upkeep:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._thread.join(CLOSE_TIMEOUT_SECONDS)
