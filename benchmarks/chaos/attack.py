"""One fault in progress: the system it hits, the time it may take, what has been measured."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.chaos.system import Progress, System
from benchmarks.chaos.traffic import Traffic

# A service that has not come back after this never will.
RECOVERY_DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass
class Attack:
    """One fault in progress: the system, the time it may take, and what has been measured.

    Attributes
    ----------
    first_write_s, zero_lag_s : list of float
        Per blow, from its end: until all services it hit have written; until all that had been
        acknowledged by then was stored, aggregated and scored.
    blows : int
        Kills, cuts, freezes ... so far.
    """

    system: System
    traffic: Traffic
    progress: Progress
    chance: random.Random
    seconds: float
    max_blows: int
    first_write_s: list[float] = field(default_factory=list)
    zero_lag_s: list[float] = field(default_factory=list)
    blows: int = 0

    def moments(self, longest_pause_s: float) -> Iterator[None]:
        """Yield at random moments until the time or the number of blows is used up."""
        end_s = time.monotonic() + self.seconds
        while time.monotonic() < end_s and self.blows < self.max_blows:
            time.sleep(self.chance.uniform(0, longest_pause_s))
            yield
            self.blows += 1

    def recover(self, *services: str) -> None:
        """Measure how long these services take from now on."""
        began_s = time.monotonic()
        goal = len(self.traffic.acknowledged)
        before: dict[str, int] | None = None
        waiting = set(services)
        while time.monotonic() < began_s + RECOVERY_DEADLINE_SECONDS:
            now = self.progress.read()
            if now and before is None:
                before = now
            elif now and before:
                waiting = {s for s in waiting if now[s] <= before[s]}
                if services and not waiting:
                    self.first_write_s.append(time.monotonic() - began_s)
                    services = ()
                if not waiting and min(now.values()) >= goal:
                    self.zero_lag_s.append(time.monotonic() - began_s)
                    return
            time.sleep(POLL_SECONDS)
        self.system.unclean.append(f"no recovery within {RECOVERY_DEADLINE_SECONDS:g} s: {waiting}")


@dataclass(frozen=True)
class Fault:
    """A fault, and how long it goes on in a full run: seconds, or a number of blows."""

    attack: Callable[[Attack], None]
    seconds: float
    max_blows: int = 1_000_000
