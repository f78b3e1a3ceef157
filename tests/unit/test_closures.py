"""What a reader must open to follow one script: all that it imports, with the SQL beside it.

A ceiling is what was reached. A commit that raises one says for what. db/schema.sql is not counted:
it is looked up, table by table, not read through.
"""

import ast

import pytest

from tests.conftest import CHECKOUT

CEILINGS = {
    "producer": 4_509,
    "consumer": 4_638,
    "stream_processor": 4_982,
    "ml_detector": 3_843,
    "dashboard": 4_016,
}


def modules():
    """Return the files of the checkout's modules by the name they are imported by."""
    outside = {".venv", ".local", "tests", "benchmarks"}
    found = {}
    for path in CHECKOUT.rglob("*.py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        if parts[0] not in outside:
            found[".".join(parts)] = path
    return found


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def closure(script):
    """Return the lines of each file that following a script leads to."""
    known = modules()
    seen, to_read = {script}, [script]
    while to_read:
        for name in imported(known[to_read.pop()]):
            if name in known and name not in seen:
                seen.add(name)
                to_read.append(name)
    files = {known[name] for name in seen}
    beside = {f.with_suffix(".sql") for f in files} - {CHECKOUT / "db" / "schema.sql"}
    files |= {f for f in beside if f.exists()}
    return {f.relative_to(CHECKOUT): len(f.read_text("utf-8").splitlines()) for f in files}


@pytest.mark.parametrize("script", CEILINGS)
def test_following_a_script_takes_no_more_reading_than_it_did(script):
    assert sum(closure(script).values()) <= CEILINGS[script]
