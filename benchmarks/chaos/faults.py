"""The faults: what is done to the running system, and when it may be expected to write again."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.chaos.system import SERVICES, Progress, System
from benchmarks.chaos.traffic import Traffic

# A service that has not come back after this never will.
RECOVERY_DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.05
# How much longer than its session a process is frozen.
LONGER_SECONDS = 4.0


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


def kill(service: str) -> Callable[[Attack], None]:
    """Return the fault: kill -9 of the only instance of a service, started again at once."""

    def attack(a: Attack) -> None:
        for _ in a.moments(2.0):
            a.system.kill(a.system.instances[service][0])
            a.system.start(service)
            a.recover(service)

    attack.__doc__ = f"Kill -9 the only {service} and start it again."
    return attack


def kill_postgres(a: Attack) -> None:
    """Kill -9 PostgreSQL with all its workers, and start it again."""
    for _ in a.moments(4.0):
        a.system.servers.postgres.kill()
        a.system.servers.postgres.start()
        a.recover(*SERVICES)


def kill_broker(a: Attack) -> None:
    """Kill -9 Kafka and start it again."""
    for _ in a.moments(4.0):
        a.system.servers.kafka.kill()
        a.system.servers.kafka.start()
        a.recover(*SERVICES)


def freeze(a: Attack) -> None:
    """SIGSTOP an instance of each service past its session; another takes over; it wakes up."""
    for service in SERVICES:
        a.system.start(service)
    time.sleep(3)
    for _ in a.moments(2.0):
        with frozen(a, [a.chance.choice(a.system.instances[s]) for s in SERVICES]):
            a.recover(*SERVICES)  # the others have taken over
            time.sleep(a.chance.uniform(0, LONGER_SECONDS))
        a.recover(*SERVICES)


@contextmanager
def frozen(a: Attack, processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Keep processes stopped."""
    for process in processes:
        a.system.freeze(process)
    yield
    for process in processes:
        a.system.thaw(process)


def rebalance_storm(a: Attack) -> None:
    """Start and stop or kill instances every second."""
    for _ in a.moments(1.0):
        service = a.chance.choice(SERVICES)
        instances = a.system.instances[service]
        if len(instances) < 3 and (len(instances) < 2 or a.chance.random() < 0.5):
            a.system.start(service)
        elif a.chance.random() < 0.5:
            a.system.kill(instances[0])
        else:
            a.system.stop(instances[0])
    a.recover(*SERVICES)


def cut_connections(a: Attack) -> None:
    """Cut all connections to Kafka or PostgreSQL; sometimes the network is gone for a while too."""
    for _ in a.moments(2.0):
        proxy = a.chance.choice(a.system.servers.proxies)
        if a.chance.random() < 0.3:
            proxy.is_black_hole = True
            time.sleep(a.chance.uniform(1, 5))
            proxy.is_black_hole = False
        proxy.cut()
        a.recover(*SERVICES)


def slow_network(a: Attack) -> None:
    """Hold everything that goes over the network for up to a third of a second, either way."""
    for _ in a.moments(1.0):
        for proxy in a.system.servers.proxies:
            proxy.delay_s = a.chance.uniform(0.02, 0.3)
        time.sleep(a.chance.uniform(2, 6))
        for proxy in a.system.servers.proxies:
            proxy.delay_s = 0.0
        a.recover(*SERVICES)


Asleep = list[subprocess.Popen[bytes]]


def _kill_any(a: Attack, asleep: Asleep) -> None:
    process = a.system.any_instance(a.chance)
    if process in asleep:
        asleep.remove(process)
    a.system.start(a.system.kill(process))


def _kill_postgres(a: Attack, asleep: Asleep) -> None:
    a.system.servers.postgres.kill()
    a.system.servers.postgres.start()


def _kill_kafka(a: Attack, asleep: Asleep) -> None:
    a.system.servers.kafka.kill()
    a.system.servers.kafka.start()


def _freeze_any(a: Attack, asleep: Asleep) -> None:
    asleep.append(a.system.any_instance(a.chance))
    a.system.freeze(asleep[-1])


def _cut(a: Attack, asleep: Asleep) -> None:
    a.chance.choice(a.system.servers.proxies).cut()


def _slow_or_hasten(a: Attack, asleep: Asleep) -> None:
    proxy = a.chance.choice(a.system.servers.proxies)
    proxy.delay_s = 0.0 if proxy.delay_s else a.chance.uniform(0.02, 0.2)


# Equally likely; a service is killed as often as a server.
BLOWS: tuple[Callable[[Attack, Asleep], None], ...] = (
    *(_kill_any, _kill_any, _kill_postgres, _kill_kafka),
    *(_freeze_any, _cut, _slow_or_hasten),
)


def everything(a: Attack) -> None:
    """Do all of the above at random, one on top of the other."""
    for service in SERVICES:
        a.system.start(service)
    asleep: Asleep = []
    for _ in a.moments(2.0):
        a.chance.choice(BLOWS)(a, asleep)
        if len(asleep) > 2:
            a.system.thaw(asleep.pop(0))
    for process in asleep:
        a.system.thaw(process)
    for proxy in a.system.servers.proxies:
        proxy.delay_s = 0.0
    a.recover(*SERVICES)


@dataclass(frozen=True)
class Fault:
    """A fault, and how long it goes on in a full run: seconds, or a number of blows."""

    attack: Callable[[Attack], None]
    seconds: float
    max_blows: int = 1_000_000


FAULTS = {
    "kill_consumer": Fault(kill("consumer"), 240, 20),
    "kill_stream_processor": Fault(kill("stream_processor"), 240, 20),
    "kill_ml_detector": Fault(kill("ml_detector"), 240, 20),
    "kill_postgres": Fault(kill_postgres, 60),
    "kill_broker": Fault(kill_broker, 60),
    "freeze": Fault(freeze, 60),
    "rebalance_storm": Fault(rebalance_storm, 45),
    "cut_connections": Fault(cut_connections, 60),
    "slow_network": Fault(slow_network, 45),
    "everything": Fault(everything, 60),
}
# CHAOS=short: three minutes in all.
SHORT = {
    "kill_consumer": Fault(kill("consumer"), 12, 2),
    "kill_stream_processor": Fault(kill("stream_processor"), 12, 2),
    "kill_ml_detector": Fault(kill("ml_detector"), 12, 2),
    "freeze": Fault(freeze, 10, 1),
    "everything": Fault(everything, 25),
}
