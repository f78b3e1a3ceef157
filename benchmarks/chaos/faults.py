"""The faults: what is done to the running system, and when it may be expected to write again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.chaos import world
from benchmarks.chaos.attack import Attack, Fault
from benchmarks.chaos.system import SERVICES

# How much longer than its session a process is frozen.
LONGER_SECONDS = 4.0


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
    "partitions_added": Fault(world.partitions_added, 60, 3),
    "database_anew": Fault(world.database_anew, 60, 2),
    "records_deleted": Fault(world.records_deleted, 60, 4),
    "clock_set": Fault(world.clock_set, 120, 3),
    "types_in_bulk": Fault(world.types_in_bulk, 60, 1),
    "starved": Fault(world.starved, 60, 1),
}
# CHAOS=short: three minutes in all.
SHORT = {
    "kill_consumer": Fault(kill("consumer"), 12, 2),
    "kill_stream_processor": Fault(kill("stream_processor"), 12, 2),
    "kill_ml_detector": Fault(kill("ml_detector"), 12, 2),
    "freeze": Fault(freeze, 10, 1),
    "everything": Fault(everything, 25),
}
