"""The local stack: Kafka, PostgreSQL and the services on this machine, without Docker."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from config import Settings, load_settings_or_exit, read_environment
from local_stack.demo import run_demo
from local_stack.infrastructure import LOCAL_DIRECTORY, Infrastructure, Ports
from local_stack.interrupts import Interrupts
from local_stack.processes import StartFailed
from local_stack.smoke import run_smoke
from service.cli import service_parser
from service.numbers import number
from service.runner import run_service

CONNECTION_SETTINGS = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("infra", help="Kafka and PostgreSQL, in the foreground")
    commands.add_parser("demo", help="the whole system with one log and the dashboard")
    smoke = commands.add_parser("smoke", help="the whole system for a while, then a verdict")
    smoke.add_argument(
        "--duration",
        type=number(float, 20, 86_400),
        default=150,
        help="seconds of traffic (default 150)",
    )
    smoke.add_argument("--json", action="store_true", help="the figures as one JSON object")
    return parser.parse_args()


def run_infra(settings: Settings, given: dict[str, str], stop: Interrupts) -> int:
    """Run Kafka and PostgreSQL until stopped; return the exit status."""
    ports = Ports(settings.local.kafka_port, settings.local.postgres_port)
    infrastructure = Infrastructure(settings, given, LOCAL_DIRECTORY, ports, _say)
    with infrastructure.started(stop):
        if not infrastructure.starts_something:
            _say("both are set (environment or .env): nothing to start")
            return 0
        _say("ready; for the scripts in other terminals (environment or .env):")
        for name, value in infrastructure.connection_settings.items():
            _say(f"{name}={value}")
        _say("Ctrl-C stops both; the data is kept")
        while not stop.wait(1):
            pass
    return 0


def main() -> None:
    """Run one command and exit with its status."""
    args = parse_args()
    settings = load_settings_or_exit()
    environment = read_environment()
    given = {name: environment[name] for name in CONNECTION_SETTINGS if name in environment}
    stop = Interrupts().install()
    try:
        if args.command == "infra":
            status = run_infra(settings, given, stop)
        elif args.command == "demo":
            status = run_demo(settings, given, stop)
        else:
            status = run_smoke(settings, args.duration, args.json, stop)
    except StartFailed as problem:
        sys.stderr.write(f"error: {problem}\n")
        status = 1
    finally:
        _close_output()
    raise SystemExit(status)


def _say(line: str) -> None:
    # If nobody reads any more (the terminal was closed), that is no reason to stop in disorder.
    with suppress(OSError):
        print(line, flush=True)


def _close_output() -> None:
    # If nobody reads our output any more, the interpreter's own last flush would change the status.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run_service(main)
