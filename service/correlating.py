"""Correlations from a thread of its own: no window waits for them, however long they take."""

from __future__ import annotations

import logging
import threading
import time

from db import correlations
from db.connection import Database, DatabaseUnavailable
from service.lifecycle import one_line

log = logging.getLogger(__name__)

# How often is looked for what is due.
PAUSE_SECONDS = 0.5
# Window ends of a place in one transaction: so many that it takes about a second, at most these.
MAX_DUE = 500
LONG_SECONDS = 1.0
# A statement in hand is waited for so long at the end; what it leaves undone stays due.
CLOSE_TIMEOUT_SECONDS = 2.0


class BackgroundCorrelator:
    """Works off what is due until it is closed.

    Parameters
    ----------
    url : str
        Database.
    windows : int
        Windows that a correlation is computed over.
    is_drained : bool
        On closing, go on until nothing is due.
    """

    def __init__(self, url: str, windows: int, is_drained: bool = False) -> None:
        self._database = Database(url, "correlations")
        self._windows = windows
        self._is_drained = is_drained
        self._rows = 1
        self._crowded: set[str] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="correlations", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            is_last = self._closing.is_set()
            try:
                done = self._step()
            except DatabaseUnavailable as problem:
                log.debug("correlations_waiting reason=%s", one_line(problem))
                done = 0
            if is_last and not (done and self._is_drained):
                break
            if not done:
                self._closing.wait(PAUSE_SECONDS)
        self._database.close()

    def _step(self) -> int:
        """Work off some; return how many."""
        began_s = time.monotonic()
        try:
            done, crowded = correlations.work_off(self._database, self._windows, self._rows)
        except correlations.CorrelationsFailed as problem:
            return self._failed(problem)
        is_long = time.monotonic() - began_s > LONG_SECONDS
        self._rows = max(1, self._rows // 2) if is_long else min(MAX_DUE, self._rows * 2)
        for location in sorted(set(crowded) - self._crowded):
            log.warning(
                "correlations_limited location=%s types=%d", location, correlations.MAX_TYPES
            )
        self._crowded |= set(crowded)
        return done

    def _failed(self, problem: correlations.CorrelationsFailed) -> int:
        """Go on one at a time, and without the one that fails alone."""
        self._rows = 1
        if not problem.due:
            log.debug("correlations_waiting reason=%s", one_line(problem))  # e.g. no such table yet
        elif len(problem.due) == 1:
            ((_, _, end, location),) = problem.due
            log.warning(
                "correlations_left_out window_end=%s location=%s reason=%s",
                *(end.isoformat(), location, one_line(problem)),
            )
            correlations.leave_out(self._database, problem.due)
        return len(problem.due)

    def close(self) -> None:
        """Stop, after all that is due if ``is_drained``."""
        self._closing.set()
        self._thread.join(None if self._is_drained else CLOSE_TIMEOUT_SECONDS)

    def __enter__(self) -> BackgroundCorrelator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
