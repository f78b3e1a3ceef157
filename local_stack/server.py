"""What Kafka and PostgreSQL have in common as local servers: start, stop, kill, pid and log."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from local_stack.leftovers import end_leftovers, mark_children
from local_stack.processes import (
    Say,
    StartFailed,
    free_port,
    kill_tree,
    open_log,
    require_free,
    tail,
    wait_until,
)

# Both take 2 to 6 s on two cores; a machine busy with other work needs longer.
START_DEADLINE_SECONDS = 90.0
# A clean end syncs what was written and takes about 1 s.
STOP_DEADLINE_SECONDS = 30.0


class LocalServer(ABC):
    """A server on 127.0.0.1; a context manager that starts and stops it.

    Parameters
    ----------
    directory : Path
        Place of its data and log; found again at the next start.
    port : int
        Port to listen on; 0 takes a free one and keeps it over ``stop`` and ``start``.
    log_path : Path, optional
        Log file; default: in the directory.
    say : callable
        Takes progress, a line at a time.
    """

    name: str
    """As users know it."""
    stop_signal: signal.Signals
    """What makes it end in order at once."""

    def __init__(self, directory: Path, port: int, log_path: Path | None, say: Say) -> None:
        self.directory = Path(directory).resolve()
        self.port = port or free_port()
        self.log_path = log_path or self.directory / f"{self.name.lower()}.log"
        self.say = say
        self.environment: dict[str, str] = {}
        """Variables that the server gets besides ours."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the running process."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start on the data and port of before; return when it serves.

        Raises
        ------
        StartFailed
            When it does not come up; ``PortTaken`` when the port is another program's.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        end_leftovers(self.say)
        mark_children()
        require_free(self.port)
        self._fetch()
        open_log(self.log_path)
        try:
            self._initialise()
            self._process = self._run(self._command())
            wait_until(self._is_ready, self._process, START_DEADLINE_SECONDS, self.name)
            self._complete()
        except StartFailed as problem:
            self.kill()
            raise StartFailed(
                f"{problem}; the end of {self.log_path}:{tail(self.log_path)}"
            ) from None
        except BaseException:
            self.kill()  # Ctrl-C while waiting leaves no process either
            raise

    def stop(self) -> None:
        """End it in order; kill it if that takes too long."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(STOP_DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self.say(f"{self.name} did not end within {STOP_DEADLINE_SECONDS:g} s: killing it")
        self.kill()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL to the server and all its workers."""
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()
            self._process = None

    @property
    def home(self) -> Path:
        """Directory that the server's user can enter."""
        return self.directory

    def _user(self) -> dict[str, Any]:
        """Return whom to run it as (arguments of ``Popen``); nothing: us."""
        return {}

    @abstractmethod
    def _fetch(self) -> None:
        """Get the program, where it is not there yet."""

    @abstractmethod
    def _initialise(self) -> None:
        """Make settings, and the data directory where it is not there yet."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's command line."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the started process serves."""

    @abstractmethod
    def _complete(self) -> None:
        """Make what can only be made in the running server."""

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=os.environ | self.environment,
                start_new_session=True,  # Ctrl-C in the terminal is for us: we stop it, and last
                **self._user(),
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
