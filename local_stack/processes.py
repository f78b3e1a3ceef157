"""What every local process needs: a port, a log file, an end."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

Say = Callable[[str], None]
"""Takes progress for people to read, a line at a time."""
CHECKOUT = Path(__file__).resolve().parent.parent

LOG_TAIL_LINES = 15
# The kernel ends a killed process at once, unless it hangs in the disk.
KILL_DEADLINE_SECONDS = 10.0
# A log of an earlier run is kept under another name when it has grown to this.
MAX_LOG_BYTES = 10_000_000


class StartFailed(Exception):
    """A server did not come up; the text ends with the last lines of its log."""


class PortTaken(StartFailed):
    """The port is another program's."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether anybody answers on this port of localhost, by IPv4 or IPv6."""
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
    return False


def require_free(port: int) -> None:
    """Raise ``PortTaken`` unless a server can listen on this port of 127.0.0.1."""
    if is_listening(port):
        raise PortTaken(f"port {port} is taken by another program")
    with socket.socket() as probe:
        # What servers do: connections of an earlier run that still linger are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise PortTaken(f"port {port} cannot be used ({problem.strerror})") from problem


def open_log(path: Path) -> Path:
    """Return ``path`` with its directory made; a log grown large is moved aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old"))
    return path


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log file, indented; empty if there is none."""
    if not path.exists():
        return ""
    last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "".join(f"\n  {line}" for line in last)


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], deadline_s: float, what: str
) -> None:
    """Poll ``ready`` until it is true.

    Raises
    ------
    StartFailed
        When the process ends first, or the deadline passes.
    """
    end_s = time.monotonic() + deadline_s
    while not ready():
        if process.poll() is not None:
            raise StartFailed(f"{what} ended while starting, status {process.returncode}")
        if time.monotonic() > end_s:
            raise StartFailed(f"{what} did not answer within {deadline_s:g} s")
        time.sleep(0.05)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything it started.

    Not by its process group: PostgreSQL's workers have groups of their own.
    """
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    end_s = time.monotonic() + KILL_DEADLINE_SECONDS
    while any(is_alive(each) for each in family) and time.monotonic() < end_s:
        time.sleep(0.01)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; one that ended but was not waited for (a zombie) does not.

    While its other threads end, a zombie may still hold its ports.
    """
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def is_running(pid: int, created_s: float) -> bool:
    """Return whether a process noted earlier still runs: ids are used again, births are not."""
    try:
        process = psutil.Process(pid)
        # The clock that creation times are derived from may be corrected by a little.
        return abs(process.create_time() - created_s) < 2 and is_alive(process)
    except psutil.NoSuchProcess:
        return False


class PidFile:
    """Remembers a process across our own death."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, pid: int) -> None:
        """Note a process that runs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        created = psutil.Process(pid).create_time()
        self.path.write_text(json.dumps({"pid": pid, "created": created}), encoding="utf-8")

    def running(self) -> int | None:
        """Return the process's id if it still runs."""
        try:
            noted = json.loads(self.path.read_text(encoding="utf-8"))
            return noted["pid"] if is_running(noted["pid"], noted["created"]) else None
        except (OSError, ValueError, KeyError):
            return None

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
