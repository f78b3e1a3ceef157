"""``python -m local_stack demo``: everything, with one log."""

from __future__ import annotations

import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress

from config import Settings
from db.connection import Database, DatabaseUnavailable
from db.versions import SchemaMismatch, apply_schema
from local_stack.infrastructure import LOCAL_DIRECTORY, Infrastructure, Ports
from local_stack.interrupts import Interrupts
from local_stack.leftovers import end_leftovers, mark_children
from local_stack.processes import PortTaken, Say, require_free
from local_stack.supervisor import Service, Supervisor
from service.lifecycle import UserError, one_line

SCRIPTS = ("producer", "consumer", "stream_processor", "ml_detector")
# One try at the dashboard's door; it answers at once when it is there.
DASHBOARD_TIMEOUT_SECONDS = 2.0


def services(dashboard_port: int) -> list[Service]:
    """Return the five services, as the README's five terminals run them."""
    streamlit = [sys.executable, "-m", "streamlit", "run", "dashboard.py"]
    streamlit += ["--server.port", str(dashboard_port), "--server.address", "127.0.0.1"]
    streamlit += ["--server.headless", "true", "--browser.gatherUsageStats", "false"]
    streamlit += [
        "--logger.hideWelcomeMessage",
        "true",
    ]  # the address is ours to say, once it answers
    scripts = [Service(name, [sys.executable, f"{name}.py"]) for name in SCRIPTS]
    return [*scripts, Service("dashboard", streamlit)]


def dashboard_url(port: int) -> str:
    """Return where the dashboard is seen."""
    return f"http://localhost:{port}"


def dashboard_answers(port: int) -> bool:
    """Return whether the dashboard's server says that it is well."""
    health = f"http://127.0.0.1:{port}/_stcore/health"
    with (
        suppress(OSError),
        urllib.request.urlopen(health, timeout=DASHBOARD_TIMEOUT_SECONDS) as answer,
    ):
        return bool(answer.status == 200)
    return False


def announce(port: int, say: Say, is_over: Callable[[float], bool]) -> None:
    """Report the dashboard's address once it answers there, and not before."""
    while not is_over(0.3):
        if dashboard_answers(port):
            say(f"the dashboard is ready: {dashboard_url(port)}  (Ctrl-C stops everything)")
            return


def run_demo(settings: Settings, given: Mapping[str, str], stop: Interrupts) -> int:
    """Run everything until stopped; return the exit status.

    Raises
    ------
    UserError
        For a taken port, a broker that cannot be had, or a database of another version.
    StartFailed
        When Kafka or PostgreSQL does not come up.
    """
    port = settings.dashboard.port
    ports = Ports(settings.local.kafka_port, settings.local.postgres_port)
    with Supervisor(services(port)) as supervisor:
        end_leftovers(supervisor.say)  # the dashboard of an earlier run still has its port
        mark_children()
        require_dashboard_port(port)
        infrastructure = Infrastructure(settings, given, LOCAL_DIRECTORY, ports, supervisor.say)
        with infrastructure.started(stop):
            prepare_database(infrastructure.database_url, supervisor.say)
            supervisor.start({**os.environ, **infrastructure.service_environment})
            threading.Thread(
                target=announce, args=(port, supervisor.say, stop.wait), daemon=True
            ).start()
            while not (stop.requested or supervisor.has_given_up):
                supervisor.pump(0.2)
            supervisor.say("stopping: services first, then Kafka and PostgreSQL")
            supervisor.stop()
    return supervisor.exit_status


def require_dashboard_port(port: int) -> None:
    """Raise ``UserError`` unless the dashboard's port is free."""
    try:
        require_free(port)
    except PortTaken as problem:
        raise UserError(
            f"dashboard: {problem}; end that one, or set DASHBOARD_PORT to a free port"
        ) from problem


def prepare_database(database_url: str, say: Say) -> None:
    """Apply the schema; a database that does not answer yet is left to the services.

    Raises
    ------
    UserError
        For a database of another version.
    """
    try:
        with Database(database_url, "local_stack") as database:
            apply_schema(database)
        say("the schema is applied")
    except SchemaMismatch as problem:
        raise UserError(problem) from problem
    except DatabaseUnavailable as problem:
        say(f"the database does not answer yet, the services will wait: {one_line(problem)}")
