"""What the tabs know: results of the statements in ``db.dashboard``, shared by all sessions.

Ten browsers cost the database what one does, and what was last known stays while it is down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from db import dashboard as queries
from db.connection import Database, DatabaseUnavailable
from db.selecting import Rows, Selection

log = logging.getLogger(__name__)

# Two refreshes of the fastest browser fall on one result.
FRESH_SECONDS = 4.0
# A database that is down is asked again after this.
RETRY_SECONDS = 2.0
# Results kept: a few minutes of all tabs with several filters; each is bounded by its LIMIT.
MAX_RESULTS = 200
# Data older than this is no longer live.
STALE_AFTER = timedelta(seconds=60)
# Stored this long after it was measured, a reading comes from a recording.
RECORDED_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class Moment:
    """Where the data stands: everything on a page is relative to one of these.

    ``now`` is the database's clock, ``newest`` the newest event time, ``stored`` when that reading
    was stored: naive UTC, as in the tables. ``newest`` is None while there is no reading.
    """

    now: datetime
    newest: datetime | None
    stored: datetime | None

    @property
    def is_recorded(self) -> bool:
        """Whether the newest reading carries a time long before it was stored."""
        return (
            self.newest is not None
            and self.stored is not None
            and self.stored - self.newest > RECORDED_AFTER
        )

    @property
    def is_stale(self) -> bool:
        """Whether nothing came for a while."""
        return self.stored is not None and self.now - self.stored > STALE_AFTER

    @property
    def end(self) -> datetime:
        """End of every range: now, or the end of the data where that is long past."""
        if self.newest is None or not (self.is_recorded or self.is_stale):
            return self.now
        return self.newest + timedelta(seconds=1)

    def selection(
        self, minutes: int, location: str | None = None, sensor_type: str | None = None
    ) -> Selection:
        """Return the last ``minutes``, beginning on a whole minute as the windows do."""
        start = (self.end - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        return Selection(start + timedelta(minutes=1), self.end, location, sensor_type)


class Source:
    """Results of queries: fresh ones from a shared cache, else from the database, else the last.

    Parameters
    ----------
    databases : sequence of Database
        The first that can be logged in to is used: the SELECT-only role, then the owner.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, databases: Sequence[Database], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._databases = list(databases)
        self._clock = clock
        self._lock = threading.Lock()
        self._results: OrderedDict[tuple[Any, ...], tuple[float, Rows]] = OrderedDict()
        self._retry_at = 0.0
        self.problem: str | None = None
        self.last_answer: datetime | None = None

    def rows(self, query: Callable[..., Rows], *arguments: Any) -> Rows:
        """Return the rows of a query; the last known ones while the database is down."""
        key = (query.__name__, *arguments)
        with self._lock:
            known = self._results.get(key)
            now = self._clock()
            if known and now - known[0] < FRESH_SECONDS:
                return known[1]
            if self.problem is None or now >= self._retry_at:
                try:
                    known = now, self._ask(query, arguments)
                except DatabaseUnavailable as problem:
                    self._note(problem)
                else:
                    self._note(None)
                    self._results[key] = known
            if not known:
                return []
            self._results.move_to_end(key)
            while len(self._results) > MAX_RESULTS:
                self._results.popitem(last=False)
            return known[1]

    def frame(self, query: Callable[..., Rows], *arguments: Any) -> pd.DataFrame:
        """Return ``rows`` as a table; without columns if there are none."""
        return pd.DataFrame(self.rows(query, *arguments))

    def moment(self) -> Moment | None:
        """Return where the data stands; None if the database never answered."""
        rows = self.rows(queries.newest_reading)
        if not rows:
            return None
        row = rows[0]
        if self.problem is None:
            self.last_answer = row["now"]
        return Moment(row["now"], row["timestamp"], row["created_at"])

    def _ask(self, query: Callable[..., Rows], arguments: tuple[Any, ...]) -> Rows:
        try:
            return query(self._databases[0], *arguments)
        except DatabaseUnavailable as problem:
            if len(self._databases) == 1 or "authentication failed" not in str(problem):
                raise
            rows = query(self._databases[1], *arguments)
            log.warning("dashboard_role_missing using=owner mode=read_only")
            self._databases.pop(0)
            return rows

    def _note(self, problem: DatabaseUnavailable | None) -> None:
        text = None if problem is None else str(problem).strip().splitlines()[0]
        if problem is not None:
            self._retry_at = self._clock() + RETRY_SECONDS
        if (text is None) != (self.problem is None):
            if text is None:
                log.info("database_answers")
            else:
                log.warning("database_unavailable problem=%s", text)
        self.problem = text
