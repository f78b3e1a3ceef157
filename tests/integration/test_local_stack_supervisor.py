"""The supervisor with stand-in services: what is shown, what is started again, how it ends."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from local_stack import supervisor as module
from local_stack.supervisor import Service, Supervisor

RUNS = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0)); "
RUNS += "print('up', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_DELAY_SECONDS", 0.05)


def pump_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        supervisor.pump(0.05)


def test_lines_are_shown_under_the_service_s_name() -> None:
    output = io.StringIO()
    with Supervisor([Service("one", python(RUNS)), Service("other", python(RUNS))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: output.getvalue().count("| up") == 2)
    assert "one    | up" in output.getvalue()
    assert "other  | up" in output.getvalue()
    assert s.exit_status == 0


def test_a_killed_service_is_started_again_and_said_so() -> None:
    output = io.StringIO()
    with Supervisor([Service("one", python(RUNS))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: "| up" in output.getvalue())
        first = s.pid("one")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        pump_until(s, lambda: output.getvalue().count("| up") == 2)
        assert s.pid("one") not in (None, first)
    assert "one ended with signal SIGKILL: starting it again" in output.getvalue()
    assert (s.deaths, s.exit_status) == (1, 0)


def test_a_service_that_ends_for_a_user_s_mistake_is_given_up_with_its_status() -> None:
    output = io.StringIO()
    with Supervisor([Service("one", python("raise SystemExit(2)"))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: s.has_given_up)
    assert s.exit_status == 2


def test_a_service_that_dies_again_and_again_is_given_up() -> None:
    output = io.StringIO()
    with Supervisor([Service("one", python("raise SystemExit(1)"))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: s.has_given_up)
    assert s.deaths == module.MAX_DEATHS
    assert s.exit_status == 1


def test_one_service_can_be_stopped_alone() -> None:
    output = io.StringIO()
    with Supervisor([Service("one", python(RUNS)), Service("other", python(RUNS))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: output.getvalue().count("| up") == 2)
        s.stop("one")
        s.pump(0.2)
        assert s.pid("one") is None
        assert s.pid("other") is not None
    assert output.getvalue().count("| up") == 2


def test_a_service_that_does_not_end_is_killed_with_all_it_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_DEADLINE_SECONDS", 0.2)
    output = io.StringIO()
    ignores = RUNS.replace("lambda *a: sys.exit(0)", "signal.SIG_IGN")
    with Supervisor([Service("one", python(ignores))], output) as s:
        s.start(os.environ)
        pump_until(s, lambda: "| up" in output.getvalue())
    assert "one does not end: killing it" in output.getvalue()
    assert s.exit_status == 1


def test_what_comes_before_the_services_is_shown_in_the_same_form() -> None:
    output = io.StringIO()
    Supervisor([Service("consumer", [])], output).say("starting Kafka ...")
    assert output.getvalue().endswith("system   | starting Kafka ...\n")
