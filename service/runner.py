"""What all services' processes have around their work: exit statuses, log, signals, heartbeats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db.blocking import BlockingSession
from db.connection import Database
from service.heartbeat import BackgroundReporter, Watcher
from service.lifecycle import Heartbeat, StopSignal, UserError, instance_name, one_line
from service.logs import setup_logging
from service.metrics import serve_metrics
from service.settings import ServiceSettings


@dataclass(frozen=True)
class Process:
    """What a service works with: where it writes, tells how it is doing, and is told to end."""

    database: Database
    beat: Heartbeat
    stop: StopSignal


@contextmanager
def running(service: str, settings: ServiceSettings, *watchers: Watcher) -> Iterator[Process]:
    """Set the process up as a service; clear up on leaving.

    Parameters
    ----------
    watchers : Watcher
        Look from the heartbeats' thread as long as it runs.
    """
    setup_logging(service, settings)
    stop = StopSignal().install()
    url = settings.database_url
    with (
        Database(url, service) as database,
        BackgroundReporter(
            url, service, instance_name(), (BlockingSession(database), *watchers)
        ) as reporter,
    ):
        beat = Heartbeat(serve_metrics(service, reporter, settings.metrics_port))
        yield Process(database, beat, stop)


def run_service(main: Callable[[], None]) -> None:
    """Run a script's ``main``: exit status 0 when stopped, 2 and one line for a user's mistake."""
    try:
        main()
    except UserError as problem:
        sys.stderr.write(f"error: {one_line(problem)}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # before the handlers were installed
        raise SystemExit(0) from None
