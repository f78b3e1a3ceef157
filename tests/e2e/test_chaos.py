"""A short attack of everything at once; `make chaos` is the long one."""

import json
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.timeout(240)
def test_everything_breaks_at_once_and_nothing_is_lost_doubled_or_wrong(apache_kafka, tmp_path):
    command = [sys.executable, "-m", "benchmarks.chaos", "--fault", "everything"]
    command += ["--seconds", "15", "--rate", "500", "--results", str(tmp_path / "chaos.jsonl")]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (outcome,) = map(json.loads, (tmp_path / "chaos.jsonl").read_text("utf-8").splitlines())
    assert outcome["acknowledged"] == outcome["stored"] > 0
    wrong = ("lost", "duplicated", "wrong_windows", "wrong_predictions")
    assert [outcome[name] for name in wrong] == [0, 0, 0, 0]
    assert outcome["blows"] > 0
