"""What the tabs know: results of the statements in ``db.dashboard``, shared by all sessions.

Ten browsers cost the database what one does, and what was last known stays while it is down.
"""

from __future__ import annotations

import logging
import math
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
from db.selecting import TEN_MINUTES, Rows, Selection, TablesMissing, ten_minutes

log = logging.getLogger(__name__)

# Share of a refresh interval after which who has seen a moment may ask for the next. Timers fire
# early and late: with a whole interval one browser would often be shown the same again.
SEEN_SHARE = 0.8
# A database that is down is asked again after this.
RETRY_SECONDS = 2.0
# Results kept: all tabs with several filters; each is bounded by its LIMIT.
MAX_RESULTS = 200
# Data older than this is no longer live.
STALE_AFTER = timedelta(seconds=60)
# Stored this long after it was measured, a reading comes from a recording.
RECORDED_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class AsOf:
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

    @property
    def reference(self) -> datetime:
        """What silence is measured against: now, or in a recording the end of the data."""
        return self.end if self.is_recorded else self.now

    def selection(
        self, minutes: int, location: str | None = None, sensor_type: str | None = None
    ) -> Selection:
        """Return the last ``minutes``, beginning on a whole minute as the windows do.

        A day or more begins on ten minutes: so many windows are merged then.
        """
        start = self.end - timedelta(minutes=minutes)
        if minutes < 1440:
            start = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
        else:
            start = ten_minutes(start) + TEN_MINUTES
        return Selection(start, self.end, location, sensor_type)


class QueryCache:
    """Results of queries: each is asked for once per moment, and while the database is down kept.

    Parameters
    ----------
    databases : sequence of Database
        The first that can be logged in to is used: the SELECT-only role, then the owner.
    refresh_seconds : float
        The usual refresh interval; what is as of a moment is never used for longer.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        databases: Sequence[Database],
        refresh_seconds: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._databases = list(databases)
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._results: OrderedDict[tuple[Any, ...], tuple[float, Rows]] = OrderedDict()
        self._retry_at = 0.0
        self._as_of: AsOf | None = None
        self._asked_at = -math.inf
        self.problem: str | None = None
        self.tables_are_missing = False

    def rows(self, query: Callable[..., Rows], *arguments: Any) -> Rows:
        """Return the rows of a query; the last known ones while the database is down."""
        with self._lock:
            return self._rows(query, arguments)

    def _rows(self, query: Callable[..., Rows], arguments: tuple[Any, ...]) -> Rows:
        key = (query.__name__, *arguments)
        known = self._results.get(key)
        is_old = known is None or known[0] < self._asked_at
        if is_old and (self.problem is None or self._clock() >= self._retry_at):
            asked_at = self._clock()
            try:
                known = asked_at, self._ask(query, arguments)
            except DatabaseUnavailable as problem:
                self._note(problem)
            else:
                self._note(None)
                self._results[key] = known
        if known is None:
            return []
        self._results.move_to_end(key)
        while len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)
        return known[1]

    def frame(self, query: Callable[..., Rows], *arguments: Any) -> pd.DataFrame:
        """Return ``rows`` as a table; without columns if there are none."""
        return pd.DataFrame(self.rows(query, *arguments))

    def ask(self, query: Callable[..., Rows], *arguments: Any) -> Rows:
        """Return the rows of a query that one person asked for; none while the database is down."""
        try:
            with self._lock:
                return self._ask(query, arguments)
        except DatabaseUnavailable as problem:
            self._note(problem)
            return []

    def as_of(self, refresh_seconds: float | None = None, seen: AsOf | None = None) -> AsOf | None:
        """Return where the data stands; None if the database never answered.

        A new moment, with which all results before it grow old, is for who has seen the last one
        and comes again; others are given the last one. So each browser sees something new at each
        refresh, and all together ask as often as one.

        Parameters
        ----------
        refresh_seconds : float or None
            Interval at which the caller refreshes.
        seen : AsOf or None
            What the caller was given the last time.
        """
        interval = min(refresh_seconds or self._refresh_seconds, self._refresh_seconds)
        with self._lock:
            now = self._clock()
            if self.problem is not None or now - self._asked_at >= interval * (
                SEEN_SHARE if seen == self._as_of else 1
            ):
                before, self._asked_at = self._asked_at, now
                rows = self._rows(queries.newest_reading, ())
                if self.problem is not None:
                    self._asked_at = before  # nothing newer can be had: what is known stays
                    return self._as_of
                self._drop_older_than(before)
                if rows:
                    self._as_of = AsOf(rows[0]["now"], rows[0]["timestamp"], rows[0]["created_at"])
            return self._as_of

    def _drop_older_than(self, asked_at: float) -> None:
        """Forget ranges that ended at moments gone by: nobody asks for them again."""
        for key, (at, _) in list(self._results.items()):
            if at < asked_at and any(isinstance(each, Selection) for each in key):
                del self._results[key]

    @property
    def last_answer(self) -> datetime | None:
        """The database's clock when it last told a moment."""
        return None if self._as_of is None else self._as_of.now

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
        self.tables_are_missing = isinstance(problem, TablesMissing)
