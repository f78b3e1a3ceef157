"""Runs the services as processes: one prefixed log, restarts, an end in order.

honcho runs each process, reads its lines and prints them with prefix and colour. What is ours is
what happens at an exit: honcho ends everything when one process ends, we start that one again, so
that a service killed on purpose comes back and shows what it lost: nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

from honcho.colour import get_colours
from honcho.printer import Message, Printer
from honcho.process import Process

RESTART_DELAY_SECONDS = 1.0
# A service that dies this often within this time is broken, not unlucky.
MAX_DEATHS = 5
DEATHS_WITHIN_SECONDS = 30.0
# The services end themselves after at most 20 s (service/lifecycle.py).
STOP_DEADLINE_SECONDS = 25.0
# Exit status of a service for a user's mistake: starting it again would only repeat it.
USER_ERROR_STATUS = 2
SYSTEM = "system"
# A service's line opens with time, level and name (service/logs.py); honcho's prefix has the first
# and the last already.
OWN_TIME_AND_NAME = re.compile(rb"^[\dT:.-]+Z ([A-Z]+) \w+ ")


@dataclass(frozen=True)
class Service:
    """A process to keep running: its name in the log and its command line."""

    name: str
    command: Sequence[str]


@dataclass
class _Kept:
    service: Service
    colour: str
    pid: int | None = None
    runs: bool = False
    is_wanted: bool = True
    restart_at_s: float | None = None
    deaths_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_DEATHS))


class Supervisor:
    """Keeps services running until told to stop; a context manager that stops what runs.

    Parameters
    ----------
    services : sequence of Service
        What to run.
    output : file, optional
        Where the log goes; coloured if it is a terminal.
    """

    def __init__(
        self,
        services: Sequence[Service],
        output: TextIO | None = None,
    ) -> None:
        colours = get_colours()
        self._kept = {s.name: _Kept(s, next(colours)) for s in services}
        self._environment: dict[str, str] = {}
        width = max(len(name) for name in [SYSTEM, *self._kept])
        self._printer = Printer(output or sys.stdout, width=width)
        self._print_lock = threading.Lock()
        self._events: queue.Queue[Message] = queue.Queue()
        # 0 as long as all goes well: nothing given up, everything ended in order when told to.
        self.exit_status = 0
        # A service is beyond starting again.
        self.has_given_up = False
        # How often a service ended without being told to.
        self.deaths = 0

    def pid(self, name: str) -> int | None:
        """Return the process id of a running service."""
        return self._kept[name].pid

    def say(self, line: str) -> None:
        """Print a line of our own in the log; for any thread, and before ``start`` too."""
        now = datetime.now()  # noqa: DTZ005 - shown to the person at this clock
        self._print(Message("line", line, now, SYSTEM, None))

    def start(self, environment: Mapping[str, str]) -> None:
        """Start all services in this environment."""
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        for kept in self._kept.values():
            self._launch(kept)

    def pump(self, seconds: float) -> None:
        """Print what comes and start again what died, for about ``seconds``."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._handle(self._events.get(timeout=min(left_s, 0.1)))
            self._restart_due()

    def stop(self, *names: str) -> None:
        """Stop these services (all, if none is named) and wait for their end.

        One that does not end is killed, and ``exit_status`` says that not all went well.
        """
        stopping = [self._kept[name] for name in names or self._kept]
        for kept in stopping:
            kept.is_wanted, kept.restart_at_s = False, None
        signalled: set[int] = set()
        deadline_s = time.monotonic() + STOP_DEADLINE_SECONDS
        while any(kept.runs for kept in stopping):
            is_late = time.monotonic() > deadline_s
            for kept in stopping:
                if kept.runs and kept.pid is not None and (is_late or kept.pid not in signalled):
                    signalled.add(kept.pid)
                    self._end(kept, is_late)
            if is_late:
                self.exit_status = self.exit_status or 1
            self.pump(0.1)
        self.pump(0.1)  # the last lines

    def _print(self, message: Message) -> None:
        # If nobody reads any more (the terminal was closed), that is no reason to stop in disorder.
        with self._print_lock, contextlib.suppress(OSError):
            self._printer.write(message)

    def _end(self, kept: _Kept, is_late: bool) -> None:
        assert kept.pid is not None
        if is_late:
            self.say(f"{kept.service.name} does not end: killing it")
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                os.kill(kept.pid, signal.SIGTERM)
            else:  # honcho gives each a session, so the group is the service and all it started
                os.killpg(kept.pid, signal.SIGKILL if is_late else signal.SIGTERM)

    def _launch(self, kept: _Kept) -> None:
        kept.runs, kept.restart_at_s = True, None
        process = Process(
            _command_line(kept.service.command),
            name=kept.service.name,
            colour=kept.colour,
            env=self._environment,
        )
        # Reads the process's output until its end, so it needs a thread of its own.
        threading.Thread(target=process.run, args=(self._events,), daemon=True).start()

    def _handle(self, message: Message) -> None:
        if message.type == "line":
            self._print(message._replace(data=OWN_TIME_AND_NAME.sub(rb"\1 ", message.data)))
        elif message.type == "start":
            self._kept[message.name].pid = message.data["pid"]
        elif message.type == "stop":
            self._on_end(self._kept[message.name], message.data["returncode"])

    def _on_end(self, kept: _Kept, status: int) -> None:
        kept.runs, kept.pid = False, None
        name, how = kept.service.name, describe_status(status)
        if not kept.is_wanted:
            # By the signal itself if it had not come to handling it: still starting.
            in_order = status in (0, -signal.SIGTERM)
            self.say(f"{name} stopped" if in_order else f"{name} ended with {how}")
            self.exit_status = self.exit_status or int(not in_order)
            return
        self.deaths += 1
        kept.deaths_s.append(time.monotonic())
        if status == USER_ERROR_STATUS:
            self.say(f"{name} ended with {how}: see its error above")
            self._give_up(status)
        elif self._is_broken(kept):
            self.say(f"{name} ended with {how}, {MAX_DEATHS} times in a row: giving up")
            self._give_up(1)
        else:
            self.say(f"{name} ended with {how}: starting it again")
            kept.restart_at_s = time.monotonic() + RESTART_DELAY_SECONDS

    def _give_up(self, status: int) -> None:
        self.has_given_up = True
        self.exit_status = status

    def _is_broken(self, kept: _Kept) -> bool:
        deaths_s = kept.deaths_s
        return len(deaths_s) == MAX_DEATHS and deaths_s[-1] - deaths_s[0] < DEATHS_WITHIN_SECONDS

    def _restart_due(self) -> None:
        for kept in self._kept.values():
            if kept.restart_at_s is not None and time.monotonic() >= kept.restart_at_s:
                self._launch(kept)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def describe_status(status: int) -> str:
    """Return an exit status in words: ``status 1``, or ``signal SIGKILL``."""
    if status >= 0:
        return f"status {status}"
    return f"signal {signal.Signals(-status).name}"


def _command_line(command: Sequence[str]) -> str:
    # honcho runs a line of shell; "exec": the process is the service, not a shell around it.
    if sys.platform == "win32":
        return subprocess.list2cmdline(command)
    return f"exec {shlex.join(command)}"
