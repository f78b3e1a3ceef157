"""The life of a service process: stop signals, waiting out an outage, heartbeats."""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

import pyarrow as pa

log = logging.getLogger(__name__)

# The loops look at the stop flag at least this often; a person who pressed Ctrl-C waits no longer.
MAX_WAIT_SECONDS = 0.2
# A service that was told to stop and hangs in a client library is ended after this.
STOP_DEADLINE_SECONDS = 20.0
# A sleeping service notices the request this late.
STOP_POLL_SECONDS = 0.05
HEARTBEAT_SECONDS = 5.0
# Before the first retry, and at most; it doubles in between. A server is back within seconds.
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 2.0

# Writes one heartbeat, of a state and details; may raise nothing.
HeartbeatWriter = Callable[[str, dict[str, Any]], None]


class UserError(Exception):
    """Only the user can mend it; says what, which value, what is allowed, what to do."""


def refuse_set_back(what: str, problem: Exception, refused_before: str) -> None:
    """Raise UserError when the same existing row is met again: ``what`` was set back.

    Whoever stored the row moved the offset past it in the same transaction, so after loading the
    offsets again the same row cannot be met again.
    """
    if str(problem) == refused_before:
        raise UserError(
            f"{problem} The {what} was set back to before rows that exist."
            " Nothing was changed. Delete them or move it forward: docs/operations.md"
        ) from problem


class StopSignal:
    """Set by SIGINT and SIGTERM; a service commits the work in hand and exits with 0.

    A plain flag: ``threading.Event`` has a lock, and a handler that runs while the main thread is
    just leaving ``Event.wait`` waits for that lock for ever (seen).
    """

    def __init__(self) -> None:
        self._requested = False

    def install(self) -> StopSignal:
        """Handle SIGINT and SIGTERM from now on.

        Arrow has handlers of its own while it reads: one told to stop just then would die of it.
        """
        pa.enable_signal_handlers(False)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self.requested:
            log.info("stopping signal=%s", signal.Signals(signum).name)
            watchdog = threading.Timer(STOP_DEADLINE_SECONDS, _exit_hung)
            watchdog.daemon = True
            watchdog.start()
        self.request()

    def request(self) -> None:
        """Ask the service to stop, as a signal would."""
        self._requested = True

    @property
    def requested(self) -> bool:
        """Whether the service has been asked to stop."""
        return self._requested

    def wait(self, seconds: float) -> bool:
        """Sleep for ``seconds`` or until a stop is requested; return whether it is."""
        end_s = time.monotonic() + seconds
        while not self._requested and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, STOP_POLL_SECONDS))
        return self._requested


def _exit_hung() -> None:
    # Committed work is safe; what hangs is a client library saying goodbye to a dead server.
    log.error("stop_deadline_passed seconds=%g exiting_anyway=1", STOP_DEADLINE_SECONDS)
    os._exit(1)


class Outage:
    """Waits out what is not there: a log line when it goes, one when it is back, jittered back-off.

    Parameters
    ----------
    what : str
        Name for the log, e.g. ``postgresql``.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.what = what
        self.clock = clock
        self.attempts = 0
        self.since_s = 0.0
        self.retry_at_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether it is too early for the next attempt."""
        return self.attempts > 0 and self.clock() < self.retry_at_s

    def failed(self, reason: object) -> float:
        """Note a failed attempt; return the seconds to wait before the next."""
        now = self.clock()
        if not self.attempts:
            self.since_s = now
            log.warning("%s_unavailable waiting=1 reason=%s", self.what, one_line(reason))
        delay = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**self.attempts)
        delay *= random.uniform(0.5, 1.0)  # jitter: five services must not retry in step
        self.attempts += 1
        self.retry_at_s = now + delay
        return delay

    def over(self) -> None:
        """Note a successful attempt."""
        if self.attempts:
            seconds = self.clock() - self.since_s
            log.info("%s_available after_s=%.1f attempts=%d", self.what, seconds, self.attempts + 1)
            self.attempts = 0


def wait_for(
    what: str,
    attempt: Callable[[], Any],
    unavailable: type[Exception] | tuple[type[Exception], ...],
    stop: StopSignal,
) -> Any:
    """Call ``attempt`` until it does not raise ``unavailable``; return its result.

    Raises
    ------
    SystemExit
        With status 0, when a stop is requested while waiting.
    """
    outage = Outage(what)
    while not stop.requested:
        try:
            result = attempt()
        except unavailable as problem:
            stop.wait(outage.failed(problem))
        else:
            outage.over()
            return result
    raise SystemExit(0)


def one_line(reason: object) -> str:
    """Return a reason as one line for the log."""
    return " ".join(str(reason).split())


@cache
def instance_name() -> str:
    """Return a name for this process that no other ever had: host, process id, a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Heartbeat:
    """Tells the log, ``service_status`` and Prometheus how a service is doing, when it is ``due``.

    ``count`` counts the readings handled; gauges are handed to ``beat``. Rates are over the last
    interval.
    """

    def __init__(
        self,
        report: HeartbeatWriter,
        interval_s: float = HEARTBEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = report
        self.interval_s = interval_s
        self.clock = clock
        self.total = 0
        self._last_total = 0
        self._last_s = clock()
        self._due_s = clock()  # the first beat at once: the dashboard shows a service as it starts

    def count(self, readings: int) -> None:
        """Add to the number of readings handled since the start."""
        self.total += readings

    @property
    def due(self) -> bool:
        """Whether the interval has passed."""
        return self.clock() >= self._due_s

    def beat(self, state: str = "running", force: bool = False, **gauges: Any) -> None:
        """Report if due (or ``force``); gauges go into the details as they are."""
        if not (self.due or force):
            return
        now = self.clock()
        elapsed = now - self._last_s
        rate = (self.total - self._last_total) / elapsed if elapsed > 0 else 0.0
        details = {"readings": self.total, "readings_per_s": round(rate, 1), **gauges}
        log.info("heartbeat state=%s %s", state, " ".join(f"{k}={v}" for k, v in details.items()))
        self.report(state, details)
        self._last_total, self._last_s, self._due_s = self.total, now, now + self.interval_s
