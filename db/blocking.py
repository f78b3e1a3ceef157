"""Ends the one session that blocks a write of this process: e.g. one stopped within its COPY.

To PostgreSQL a client that sleeps in the middle of a COPY is not idle, and holds its rows against
its successor for as long as it sleeps. Each transaction of these services can be repeated.
"""

from __future__ import annotations

import logging

from db.connection import Cursor, Database
from db.statements import statements

log = logging.getLogger(__name__)

SQL = statements(__file__)
# A transaction is looked into after this; a usual one is over by then.
SLOW_AFTER_SECONDS = 1.0
# A session that blocks for so long sleeps. Less than LOCK_TIMEOUT_MS: after that nobody waits.
PATIENCE_SECONDS = 2.5


class BlockingSession:
    """Looks, from another connection, at whom the transactions of ``watched`` wait for."""

    def __init__(self, watched: Database) -> None:
        self._watched = watched
        self._blocker: int | None = None
        self._since_s = 0.0

    def look(self, tx: Cursor, now_s: float) -> None:
        """End the session that has blocked the transaction since some looks ago.

        Parameters
        ----------
        now_s : float
            Monotonic seconds.
        """
        blocker = self._find(tx, now_s)
        if blocker != self._blocker:
            self._blocker, self._since_s = blocker, now_s
        elif blocker is not None and now_s - self._since_s >= PATIENCE_SECONDS:
            tx.execute("SELECT pg_terminate_backend(%s)", (blocker,))
            log.warning("blocking_session_ended pid=%d", blocker)
            self._blocker = None

    def leave(self, tx: Cursor) -> None:
        """Do nothing: there is nobody to wait for any more."""

    def _find(self, tx: Cursor, now_s: float) -> int | None:
        pid, began_s = self._watched.open_transaction
        if pid is None or now_s - began_s < SLOW_AFTER_SECONDS:
            return None
        tx.execute(SQL["blocker"], {"pid": pid})
        row = tx.fetchone()
        return row and row[0]
