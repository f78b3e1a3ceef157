"""Short attacks; `make chaos` has the long ones, and more of them."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.chaos.world import faketime_library
from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def attacked(apache_kafka, tmp_path):
    """Attack a system for some seconds; return how often, after looking at every row."""

    def attack(fault, seconds):
        command = [sys.executable, "-m", "benchmarks.chaos", "--fault", fault, "--rate", "500"]
        command += ["--seconds", str(seconds), "--results", str(tmp_path / "chaos.jsonl")]
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        lines = (tmp_path / "chaos.jsonl").read_text("utf-8").splitlines()
        (outcome,) = map(json.loads, lines)
        assert outcome["acknowledged"] == outcome["stored"] > 0
        wrong = ("lost", "duplicated", "wrong_windows", "stuck_windows", "wrong_predictions")
        assert [outcome[name] for name in wrong] == [0] * len(wrong)
        return outcome["blows"]

    return attack


@pytest.mark.timeout(240)
def test_everything_breaks_at_once_and_nothing_is_lost_doubled_or_wrong(attacked):
    assert attacked("everything", 15) > 0


@pytest.mark.timeout(240)
def test_a_twentieth_of_a_processor_is_enough_for_slow_progress(attacked):
    assert attacked("starved", 5) > 0


@pytest.mark.timeout(240)
def test_no_clock_of_the_database_decides_anything(attacked):
    try:
        faketime_library()
    except SystemExit as problem:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(str(problem))
    assert attacked("clock_set", 10) > 0
