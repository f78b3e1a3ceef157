"""A thread of its own for what must go on whatever the service waits for.

Heartbeats to service_status, so that no service ever waits for one; and what its watchers look at:
whoever blocks its writes (db/blocking.py), who else lives (service/leases.py).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from db import status
from db.connection import Cursor, Database, DatabaseError, DatabaseUnavailable

log = logging.getLogger(__name__)

# The last word ("stopped") is worth a moment at the end of a process, a dead database is not.
CLOSE_TIMEOUT_SECONDS = 2.0
# How often watchers look.
LOOK_SECONDS = 0.5

Beat = tuple[str, dict[str, Any]]


class Watcher(Protocol):
    """Looks at something from this thread, in a transaction that is over soon."""

    def look(self, tx: Cursor, now_s: float) -> None:
        """Look, and do what is to be done; ``now_s`` are monotonic seconds."""

    def leave(self, tx: Cursor) -> None:
        """The process ends."""


class BackgroundReporter:
    """Calling it hands over a heartbeat; what an unreachable database cannot take is dropped.

    Parameters
    ----------
    url : str
        Database of ``service_status``.
    service, instance : str
        Name of the service and of this process.
    watchers : sequence of Watcher
        They look as long as this runs.
    """

    def __init__(
        self, url: str, service: str, instance: str, watchers: Sequence[Watcher] = ()
    ) -> None:
        self._database = Database(url, f"{service}-heartbeat")
        self._service = service
        self._instance = instance
        self._watchers = watchers
        self._newest: queue.Queue[Beat | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def __call__(self, state: str, details: dict[str, Any]) -> None:
        """Hand over a heartbeat; returns at once."""
        self._newest.put((state, details))

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            beats = self._wait()
            goes_on = None not in beats
            try:
                with self._database.transaction() as tx:
                    self._step(tx, [beat for beat in beats if beat], goes_on)
            except (DatabaseUnavailable, DatabaseError) as problem:  # e.g. no such table yet
                log.debug("heartbeat_not_written reason=%s", str(problem).strip())
        self._database.close()

    def _wait(self) -> list[Beat | None]:
        """Return what was handed over, after a pause if that is nothing."""
        try:
            beats = [self._newest.get(timeout=LOOK_SECONDS)]
        except queue.Empty:
            return []
        while not self._newest.empty():
            beats.append(self._newest.get())
        return beats

    def _step(self, tx: Cursor, beats: list[Beat], goes_on: bool) -> None:
        for beat in beats[-1:]:  # the database was slow: only the newest one is worth writing
            status.report(tx, self._service, self._instance, *beat)
        for watcher in self._watchers:
            if goes_on:
                watcher.look(tx, time.monotonic())
            else:
                watcher.leave(tx)

    def close(self) -> None:
        """Write the last heartbeat handed over, if the database answers soon."""
        self._newest.put(None)
        self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def __enter__(self) -> BackgroundReporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
