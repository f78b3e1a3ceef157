"""The local stack's decisions that need no process: versions, requirements, verdicts."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from local_stack import bootstrap, smoke
from local_stack.kafka import POM, java_major
from local_stack.leftovers import end_leftovers
from local_stack.processes import PidFile, is_alive
from local_stack.smoke import Check, Counts, checks_of, verdict
from local_stack.supervisor import OWN_TIME_AND_NAME, describe_status

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_402"', 8),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_says(text: str, major: int | None) -> None:
    assert java_major(text) == major


def test_every_dependency_of_the_broker_is_pinned() -> None:
    versions = re.findall(r"<version>(.*)</version>", POM.read_text("utf-8"))
    properties = dict(re.findall(r"<(\S+\.version)>(.*)</", POM.read_text("utf-8")))
    pinned = [properties.get(v.strip("${}"), v) for v in versions]
    assert all(re.fullmatch(r"[\d.]+", v) for v in pinned)


def test_the_bootstrap_imports_nothing_that_must_be_installed() -> None:
    tree = ast.parse((CHECKOUT / "local_stack" / "bootstrap.py").read_text("utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {
        (n.module or "") if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports
    }
    stdlib = "__future__ ast ensurepip hashlib os pathlib shutil subprocess sys"
    assert names == {*stdlib.split()}
    assert (CHECKOUT / "local_stack" / "__init__.py").read_text("utf-8").count("import") == 0


def test_every_target_of_the_makefile_is_a_command_of_the_bootstrap() -> None:
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    found = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert found is not None
    assert set(found[1].split()) == {*bootstrap.COMMANDS, "help", "clean"}


def test_pips_index_and_certificates_are_uvs_too_the_nearest_setting_first() -> None:
    settings = bootstrap.pip_settings(
        "global.index-url='https://far/simple'\nglobal.cert='/ca.pem'\nfreeze.timeout='10'\n"
        "install.find-links='/a\\n/b'\n:env:.index-url='https://near/simple'\n"
    )
    assert bootstrap.uv_environment(settings) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://near/simple",
        "UV_FIND_LINKS": "/a,/b",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_a_changed_included_requirements_file_changes_the_digest(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer.txt", tmp_path / "inner.txt"
    outer.write_text("-r inner.txt\nx==1\n")
    inner.write_text("y==1\n")
    before = bootstrap.digest(outer)
    assert before == hashlib.sha256(b"-r inner.txt\nx==1\ny==1\n").hexdigest()
    inner.write_text("y==2\n")
    assert bootstrap.digest(outer) != before


def test_a_process_is_found_again_by_its_pid_file(tmp_path: Path) -> None:
    pid_file = PidFile(tmp_path / "a.pid")
    assert pid_file.running() is None
    pid_file.write(os.getpid())
    assert pid_file.running() == os.getpid()


def test_a_process_id_that_was_used_again_is_not_taken_for_the_old_process(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    created = psutil.Process().create_time() - 60
    path.write_text(json.dumps({"pid": os.getpid(), "created": created}))
    assert PidFile(path).running() is None


def start_and_leave(owner_ends: bool) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Start an owner and its child; return both. Leaves the child behind if the owner ends."""
    code = (
        "import os, subprocess, sys, time\nfrom local_stack.leftovers import mark_children\n"
        "mark_children()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        f"{'os._exit(0)' if owner_ends else 'time.sleep(60)'}"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.stdout.close()
    if owner_ends:
        owner.wait()
    return owner, child


def test_what_has_lost_its_owner_is_ended_and_what_has_not_is_left_alone() -> None:
    _, left = start_and_leave(owner_ends=True)
    owner, owned = start_and_leave(owner_ends=False)
    said: list[str] = []
    try:
        end_leftovers(said.append)
        assert not is_alive(left)
        assert is_alive(owned)
        assert [str(left.pid) in line and str(owned.pid) not in line for line in said] == [True]
    finally:
        for process in (owned, owner):
            process.kill()
        owner.wait()


def test_a_mutilated_pid_file_is_no_process(tmp_path: Path) -> None:
    path = tmp_path / "a.pid"
    path.write_text("{")
    assert PidFile(path).running() is None


@pytest.mark.parametrize(
    ("status", "words"), [(1, "status 1"), (-signal.SIGKILL, "signal SIGKILL")]
)
def test_an_exit_status_is_said_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


def test_a_service_s_line_is_shown_without_its_own_time_and_name() -> None:
    line = b"2026-01-31T12:00:00.000Z INFO consumer batch_stored rows=2"
    assert OWN_TIME_AND_NAME.sub(rb"\1 ", line) == b"INFO batch_stored rows=2"
    other = b"Traceback (most recent call last):"
    assert OWN_TIME_AND_NAME.sub(rb"\1 ", other) == other


GOOD = Counts(readings=9, aggregates=2, predictions=9, rejected=1, in_windows=8, late=1, sent=10)


def test_all_is_well_when_nothing_is_missing() -> None:
    assert all(check.passed for check in checks_of(GOOD, end_offset=10))


@pytest.mark.parametrize(
    "loss",
    [
        {"readings": 8},
        {"readings": 10},
        {"predictions": 8},
        {"aggregates": 0},
        {"rejected": 0},
        {"in_windows": 7},
        {"late": 0},
        {"sent": 11},
    ],
)
def test_one_reading_too_few_or_too_many_is_noticed(loss: dict[str, int]) -> None:
    assert not all(check.passed for check in checks_of(replace(GOOD, **loss), end_offset=10))


def test_the_verdict_counts_what_failed() -> None:
    lines = verdict([Check(True, "a"), Check(False, "b")])
    assert lines[-1] == "1 of 2 checks failed"
    assert verdict([Check(True, "a")])[-1] == "all is well"
    assert "no verdict" in verdict([])[0]


def test_the_figures_are_a_table() -> None:
    line = smoke.TableFigures("consumer", "sensor_readings", 9, 0.9, "sent -> stored", 12, None)
    head, rule, row = smoke.table([line])
    assert head.split()[:3] == ["service", "table", "rows"]
    assert set(rule) == {"-"}
    assert row.split()[-2:] == ["12", "-"]
