"""Faults of the world around the services: topic, log, database, clock, messages, processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos.attack import Attack
from benchmarks.chaos.system import SERVICES

READERS = ("consumer", "stream_processor")
MADE_UP_TYPES = 2_000
# The allowed lateness is a minute of it.
FINAL_DEADLINE_SECONDS = 130.0
# A twentieth of a core.
STOPPED_SECONDS, RUNNING_SECONDS = 0.95, 0.05
STARVED_SECONDS = 30.0
# PostgreSQL's clock against ours, as libfaketime wants it; it looks for a new one every second.
CLOCKS = ("+1d", "-2d", "+400d")
ONE_HOUR_SECONDS = 3600.0
FAKETIME = "libfaketime.so.1"


def partitions_added(a: Attack) -> None:
    """Add partitions to the topic while it is written and read."""
    for _ in a.moments(4.0):
        a.system.add_partitions(2)
        a.recover(*SERVICES)


def database_anew(a: Attack) -> None:
    """Drop the database under the services and make an empty one of its name."""
    for _ in a.moments(4.0):
        a.system.make_database_anew()
        a.recover(*SERVICES)


def records_deleted(a: Attack) -> None:
    """Delete messages from the log that the services, killed before, have not read."""
    for _ in a.moments(2.0):
        with a.traffic.paused():
            a.recover()  # both have read the same, so both lose the same
            for service in READERS:
                a.system.kill(a.system.instances[service][0])
        time.sleep(a.chance.uniform(1, 3))
        a.system.delete_unread_records(a.chance)
        for service in READERS:
            a.system.start(service)
        a.recover(*READERS)


def clock_set(a: Attack) -> None:
    """Set PostgreSQL's clock forth and back by days."""
    with _clock(a) as file:
        a.recover(*SERVICES)
        for _ in a.moments(2.0):
            file.write_text(CLOCKS[a.blows % len(CLOCKS)] + "\n", encoding="ascii")
            while abs(a.progress.clock_ahead_s()) < ONE_HOUR_SECONDS:  # it looks once a second
                time.sleep(0.1)
            a.recover(*SERVICES)
    a.recover(*SERVICES)


@contextmanager
def _clock(a: Attack) -> Iterator[Path]:
    """Run PostgreSQL under libfaketime; yield the file that says how far its clock is off."""
    postgres = a.system.servers.postgres
    file = postgres.home / "clock"
    file.write_text("+0\n", encoding="ascii")
    environment = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    for settings in (environment, {}):
        postgres.stop()
        postgres.environment = settings
        postgres.start()
        if settings:
            yield file


def faketime_library() -> str:
    """Return the path of libfaketime; end with a line that says how to get it."""
    for found in Path("/usr/lib").glob(f"**/{FAKETIME}"):
        return str(found)
    raise SystemExit(f"error: {FAKETIME} is missing: apt-get install libfaketime")


def types_in_bulk(a: Attack) -> None:
    """Send readings of two thousand made-up types at one place; wait for their windows to end."""
    for _ in a.moments(2.0):
        a.traffic.made_up_types = MADE_UP_TYPES
        time.sleep(a.chance.uniform(10, 20))
        a.traffic.made_up_types = 0
        a.recover(*SERVICES)
        end_s = time.monotonic() + FINAL_DEADLINE_SECONDS
        while a.progress.open_made_up_windows() and time.monotonic() < end_s:
            time.sleep(0.5)
        if number := a.progress.open_made_up_windows():
            a.system.unclean.append(f"{number} windows of made-up types never became final")


def starved(a: Attack) -> None:
    """Leave the services a twentieth of a core: stopped for 950 ms of each second."""
    for _ in a.moments(2.0):
        before = a.progress.read() or {}
        end_s = time.monotonic() + STARVED_SECONDS
        processes = [p for each in a.system.instances.values() for p in each]
        while time.monotonic() < end_s:
            for process in processes:
                a.system.freeze(process)
            time.sleep(STOPPED_SECONDS)
            for process in processes:
                a.system.thaw(process)
            time.sleep(RUNNING_SECONDS)
        after = a.progress.read() or {}
        for service in SERVICES:
            if after.get(service, 0) <= before.get(service, 0):
                a.system.unclean.append(f"{service} did nothing while starved")
        a.recover(*SERVICES)
