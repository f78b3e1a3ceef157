"""Heartbeats to service_status from a thread of its own, so that no service ever waits for one.

The same thread looks after the partitions of the large tables (db/partitions.py).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

import psycopg2

from db import status
from db.connection import Database, DatabaseUnavailable
from db.partitions import Retention, look_after

log = logging.getLogger(__name__)

# The last word ("stopped") is worth a moment at the end of a process, a dead database is not.
CLOSE_TIMEOUT_SECONDS = 2.0
UPKEEP_SECONDS = 60.0


class BackgroundReporter:
    """Calling it hands over a heartbeat; what an unreachable database cannot take is dropped.

    Parameters
    ----------
    url : str
        Database of ``service_status``.
    service, instance : str
        Name of the service and of this process.
    keep : Retention, optional
        How long rows are kept; without it the partitions are left to others.
    """

    def __init__(
        self, url: str, service: str, instance: str, keep: Retention | None = None
    ) -> None:
        self._database = Database(url, f"{service}-heartbeat")
        self._service = service
        self._instance = instance
        self._keep = keep
        self._upkeep_at_s = time.monotonic()
        self._newest: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def __call__(self, state: str, details: dict[str, Any]) -> None:
        """Hand over a heartbeat; returns at once."""
        self._newest.put((state, details))

    def _run(self) -> None:
        while (beat := self._newest.get()) is not None:
            if self._newest.qsize() > 1:
                continue  # the database was slow: only the newest ones are worth writing
            try:
                with self._database.transaction() as tx:
                    status.report(tx, self._service, self._instance, *beat)
            except (DatabaseUnavailable, psycopg2.Error) as problem:  # e.g. no such table yet
                log.debug("heartbeat_not_written reason=%s", str(problem).strip())
            else:
                self._look_after()
        self._database.close()

    def _look_after(self) -> None:
        if self._keep is None or time.monotonic() < self._upkeep_at_s:
            return
        pause_s = UPKEEP_SECONDS
        try:
            if not look_after(self._database, self._keep):
                pause_s = 0.0  # the next step with the next heartbeat
        except DatabaseUnavailable as problem:  # e.g. a long reader uses what is to go
            log.debug("upkeep_interrupted reason=%s", str(problem).strip())
        except psycopg2.Error as problem:
            log.warning("upkeep_failed reason=%s", " ".join(str(problem).split()))
        self._upkeep_at_s = time.monotonic() + pause_s

    def close(self) -> None:
        """Write the last heartbeat handed over, if the database answers soon."""
        self._newest.put(None)
        self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def __enter__(self) -> BackgroundReporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
