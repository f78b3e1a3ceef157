"""``python3 -m local_stack.bootstrap COMMAND``: make ``.venv``, install what is pinned, run it.

Standard library only, and no syntax newer than Python 3.7: it runs before anything is installed,
and must be able to say that Python is too old. ``make`` calls nothing but this.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 11)
# Tried, in this order, when the Python that was called is too old.
OTHER_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.14")

CHECKOUT = Path(__file__).resolve().parent.parent
VENV = CHECKOUT / ".venv"
LOCAL = CHECKOUT / ".local"
UV = "uv==0.13.9"
# What pip's settings are called by uv, which does not read pip's own.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
# Whoever set these for pip means what uv could not be told.
PIP_ONLY = {"no-index", "no-binary", "only-binary", "require-hashes"}
CACHES = (".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis")

RUN = "requirements-local.txt"
DEVELOP = "requirements-dev.txt"
# command: what it is for, the requirements it needs, what Python is called with, in turn.
COMMANDS = {
    "demo": (
        "the whole system on this machine, dashboard on http://localhost:8501",
        RUN,
        [["-m", "local_stack", "demo"]],
    ),
    "infra": ("only Kafka and PostgreSQL", RUN, [["-m", "local_stack", "infra"]]),
    "smoke": (
        "the whole system for a while, then a verdict",
        RUN,
        [["-m", "local_stack", "smoke"]],
    ),
    # Three at a time: the tests wait for servers more than they compute.
    "test": ("the test suite", DEVELOP, [["-m", "pytest", "-n3", "--dist=worksteal"]]),
    "test-all": (
        "what make test leaves out, as it takes longer",
        DEVELOP,
        [["-m", "pytest", "-n3", "--dist=worksteal", "-m", "slow"]],
    ),
    "lint": (
        "ruff (lint and format) and mypy",
        DEVELOP,
        [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]],
    ),
    "bench": ("the benchmarks", DEVELOP, [["-m", "benchmarks"]]),
    "bench-peers": (
        "the same work by other libraries",
        DEVELOP,
        [["-m", "benchmarks.peers"]],
    ),
    "chaos": ("exactly once, under every fault", DEVELOP, [["-m", "benchmarks.chaos"]]),
}


def main() -> None:
    """Run the command named first on the command line, with the rest of it."""
    os.chdir(str(CHECKOUT))
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command == "help":
        show_help()
    elif command == "clean":
        clean()
    elif command in COMMANDS:
        require_python()
        _, requirements, calls = COMMANDS[command]
        make_venv()
        install(requirements)
        run(calls, sys.argv[2:])
    else:
        fail("unknown command {!r}: one of {}".format(command, ", ".join([*COMMANDS, "clean"])))


def show_help() -> None:
    """List the commands."""
    for name, (meaning, _, _) in COMMANDS.items():
        print(f"make {name:<12} {meaning}")
    print(f"make {'clean':<12} remove .venv, .local (the local stack's data) and caches")


def require_python() -> None:
    """Go on under a newer Python if this one is too old; explain it if there is none."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for name in OTHER_PYTHONS:
        other = shutil.which(name)
        if other:
            os.execv(other, [other, "-m", "local_stack.bootstrap", *sys.argv[1:]])
    fail(
        "Python {}.{} or newer is needed, and {} is {}.{}: install one, or name it:"
        " make ... PYTHON=/path/to/python3".format(
            *OLDEST_PYTHON, sys.executable, *sys.version_info[:2]
        )
    )


def venv_python() -> str:
    """Return the path of the virtual environment's Python."""
    return str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def make_venv() -> None:
    """Make ``.venv``, unless it is there and works."""
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON!r})"
    try:
        works = subprocess.call([venv_python(), "-c", check], stderr=subprocess.DEVNULL) == 0
    except OSError:
        works = False
    if works:
        return
    try:
        import ensurepip  # noqa: F401 - a package of its own on Debian
    except ImportError:
        fail("Python's venv module is incomplete: apt-get install python3-venv")
    say("making the virtual environment .venv (once)")
    if subprocess.call([sys.executable, "-m", "venv", "--clear", str(VENV)]) != 0:
        fail(f"could not make the virtual environment {VENV}")


def install(requirements: str) -> None:
    """Install a requirements file into ``.venv``, unless it has not changed since it was."""
    files = included(CHECKOUT / requirements)
    stamps = {path: VENV / f"installed-{path.stem}.sha256" for path in files}
    if read(stamps[files[0]]) == digest(files[0]):
        return
    say(f"installing {requirements} into .venv (once)")
    pip = [venv_python(), "-m", "pip", "--disable-pip-version-check"]
    by_uv = install_by_uv(pip, requirements)
    if not by_uv and subprocess.call([*pip, "install", "-r", requirements]) != 0:
        fail(f"pip could not install {requirements}: see above")
    for path, stamp in stamps.items():
        stamp.write_text(digest(path))


def install_by_uv(pip: list[str], requirements: str) -> bool:
    """Install with uv, in a tenth of pip's time; return False where it cannot be had, or fails."""
    config = subprocess.run([*pip, "config", "list"], stdout=subprocess.PIPE, text=True)
    settings = pip_settings(config.stdout)
    if PIP_ONLY & settings.keys():
        return False
    get = [*pip, "install", "--quiet", "--only-binary", "uv", UV]
    use = [venv_python(), "-m", "uv", "pip", "install", "--python", venv_python()]
    for call in (get, [*use, "-r", requirements]):
        ended = subprocess.run(
            call,
            env={**os.environ, **uv_environment(settings)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if ended.returncode != 0:
            say(f"{ended.stderr.strip()}\nnot by uv (see above), so by pip: a minute or two")
            return False
    return True


def pip_settings(config: str) -> dict[str, list[str]]:
    """Return what ``pip config list`` says: the values of each setting that concerns ``install``.

    The environment's come before those of ``[install]``, and these before those of ``[global]``.
    """
    found = {}
    for section in ("global.", "install.", ":env:."):
        for line in config.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section) and value:
                found[name[len(section) :]] = str(ast.literal_eval(value)).split()
    return found


def uv_environment(settings: dict[str, list[str]]) -> dict[str, str]:
    """Return pip's settings as uv takes them."""
    # pip looks for the best version in all indexes, uv stops at the first that has the package.
    environment = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name, values in settings.items():
        if name in UV_NAMES:
            environment[UV_NAMES[name]] = ("," if name == "find-links" else " ").join(values)
    return environment


def included(path: Path) -> list[Path]:
    """Return a requirements file and those it includes (``-r``), outermost first."""
    found = [path]
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found += included(path.parent / line[3:].strip())
    return found


def digest(path: Path) -> str:
    """Return the hash of a requirements file and all that it includes."""
    return hashlib.sha256(b"".join(each.read_bytes() for each in included(path))).hexdigest()


def read(path: Path) -> str:
    """Return a file's text, or nothing if there is none."""
    return path.read_text() if path.exists() else ""


def run(calls: list[list[str]], arguments: list[str]) -> None:
    """Run Python with each call's arguments; the last one replaces this process."""
    for call in calls[:-1]:
        status = subprocess.call([venv_python(), *call])
        if status != 0:
            raise SystemExit(status)
    last = [venv_python(), *calls[-1], *arguments]
    if os.name == "nt":  # there execv would hand the terminal back before the end
        raise SystemExit(subprocess.call(last))
    os.execv(last[0], last)


def clean() -> None:
    """Remove what ``make`` made: environment, data, caches."""
    elsewhere = LOCAL / "postgres" / "elsewhere"  # data that a system user could not reach in here
    for path in (elsewhere.resolve(), VENV, LOCAL, *(CHECKOUT / name for name in CACHES)):
        if path.is_dir() and not path.is_symlink():
            say(f"removing {path}")
            shutil.rmtree(str(path))


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def fail(problem: str) -> None:
    """Print one line and exit with status 2."""
    sys.stderr.write(f"error: {problem}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # pip and venv got it too; what is half done is done again next time
        raise SystemExit(130) from None
