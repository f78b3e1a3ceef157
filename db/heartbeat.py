"""Heartbeats to service_status from a thread of its own, so that no service ever waits for one."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import psycopg2

from db import status
from db.connection import Database, DatabaseUnavailable

log = logging.getLogger(__name__)

# The last word ("stopped") is worth a moment at the end of a process, a dead database is not.
CLOSE_TIMEOUT_SECONDS = 2.0


class BackgroundReporter:
    """Calling it hands over a heartbeat; what an unreachable database cannot take is dropped.

    Parameters
    ----------
    url : str
        Database of ``service_status``.
    service, instance : str
        Name of the service and of this process.
    """

    def __init__(self, url: str, service: str, instance: str) -> None:
        self._database = Database(url, f"{service}-heartbeat")
        self._service = service
        self._instance = instance
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
        self._database.close()

    def close(self) -> None:
        """Write the last heartbeat handed over, if the database answers soon."""
        self._newest.put(None)
        self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def __enter__(self) -> BackgroundReporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
