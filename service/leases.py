"""Who is alive: judged by counters that move, each observer by its own monotonic clock.

A process that may hold leases moves a counter of its own every 2 s, from the thread of its
heartbeats. Another that has seen the counter unmoved for 8 s takes over what it held. No time is
stored and none is compared between machines; that two may believe to hold the same is made harmless
by the version of what they hold, which every write checks.
"""

from __future__ import annotations

from collections.abc import Mapping

from db import leases
from db.connection import Cursor
from service.lifecycle import instance_name

# An owner moves its counter so often ...
MOVE_SECONDS = 2.0
# ... and is taken for dead when others have seen it unmoved for so long.
DEAD_AFTER_SECONDS = 8.0
# What one look counts at most: who was frozen itself looks four times before it judges.
MAX_LOOK_SECONDS = 2.0


class Observer:
    """Judges whether owners are alive from what their counters did between looks; pure."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._unmoved_s: dict[str, float] = {}
        self._looked_s: float | None = None
        self.moving: frozenset[str] = frozenset()
        self.alive: frozenset[str] = frozenset()

    def look(self, counters: Mapping[str, int], now_s: float) -> None:
        """Take in the counters as they stand.

        Parameters
        ----------
        counters : mapping
            Counter of every owner; one that is missing has ended.
        now_s : float
            Seconds of the observer's own monotonic clock.
        """
        passed_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        passed_s = min(max(passed_s, 0.0), MAX_LOOK_SECONDS)
        moved = {o for o, c in counters.items() if self._counters.get(o, c) != c}
        self._unmoved_s = {
            owner: 0.0 if owner in moved else self._unmoved_s.get(owner, -passed_s) + passed_s
            for owner in counters
        }
        self._counters, self._looked_s = dict(counters), now_s
        alive = {o for o, unmoved_s in self._unmoved_s.items() if unmoved_s < DEAD_AFTER_SECONDS}
        self.moving = frozenset(moved | (self.moving & alive))
        self.alive = frozenset(alive)


class Presence:
    """Moves the counter of this process, and looks at those of its service's others.

    ``look`` is for one thread, everything else for any.

    Parameters
    ----------
    service : str
        Name of the service.

    Attributes
    ----------
    owner : str
        Name of this process, as no other one ever had it.
    """

    def __init__(self, service: str) -> None:
        self.owner = instance_name()
        self._service = service
        self._observer = Observer()
        self._move_at_s = 0.0

    def look(self, tx: Cursor, now_s: float) -> None:
        """Move the counter if it is time, and look at the others'; forget the dead."""
        if now_s >= self._move_at_s:
            leases.move_counter(tx, self._service, self.owner)
            self._move_at_s = now_s + MOVE_SECONDS
        counters = leases.counters(tx, self._service)
        self._observer.look(counters, now_s)
        for dead in counters.keys() - self._observer.alive - {self.owner}:
            leases.forget(tx, self._service, dead)

    def leave(self, tx: Cursor) -> None:
        """Let others have at once what this process holds."""
        leases.forget(tx, self._service, self.owner)

    @property
    def has_begun(self) -> bool:
        """Whether the others can see this process."""
        return self.owner in self.alive

    @property
    def alive(self) -> frozenset[str]:
        """Owners that are not known to be dead."""
        return self._observer.alive

    @property
    def moving(self) -> frozenset[str]:
        """Owners whose counters were seen to move."""
        return self._observer.moving
