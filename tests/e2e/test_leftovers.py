"""A run of the whole system that is killed: the next start leaves nothing of it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from local_stack.leftovers import MARK, end_leftovers
from local_stack.processes import is_alive
from tests.conftest import CHECKOUT
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def started_by(owner_id):
    """Return what runs with the mark of this owner."""
    found = []
    for process in psutil.process_iter():
        try:
            if f", {owner_id}, " in process.environ().get(MARK, ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(240)
def test_services_and_servers_of_a_killed_smoke_run_are_ended_by_the_next_start(tmp_path):
    command = [sys.executable, "-m", "local_stack", "smoke", "--duration", "600"]
    with (tmp_path / "smoke.log").open("wb") as log:
        run = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log)
    until(lambda: "readings," in (tmp_path / "smoke.log").read_text(), seconds=150)
    left = started_by(run.pid)
    names = " ".join(part for process in left for part in process.cmdline())
    for each in ("kafka.Kafka", "postgres", "consumer.py", "ml_detector.py", "dashboard.py"):
        assert each in names
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    end_leftovers(print)
    assert not any(is_alive(process) for process in left)
    assert started_by(run.pid) == []


@pytest.mark.timeout(240)
def test_a_benchmark_that_is_told_to_end_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "consumer"]
    with (tmp_path / "bench.log").open("wb") as log:
        run = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log)
    started = {"kafka.Kafka", "postgres"}

    def are_there():
        names = " ".join(part for process in started_by(run.pid) for part in process.cmdline())
        return all(each in names for each in started)

    until(are_there, seconds=60)
    run.terminate()
    run.wait(60)
    until(lambda: started_by(run.pid) == [])  # what initdb runs ends by itself, a moment later
