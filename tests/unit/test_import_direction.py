"""Who may import whom: data flow one way, Kafka and PostgreSQL stand in one room each."""

import ast
import re

import pytest

from tests.conftest import CHECKOUT

SCRIPTS = ("producer", "consumer", "stream_processor", "ml_detector", "dashboard")
ROOMS = ("pipeline", "broker", "db", "service", "simulator", "dashboard_tabs", "bridges")
ALLOWED = {
    "pipeline": set(),
    "broker": {"pipeline"},
    "db": {"pipeline"},
    "service": {"broker", "db", "pipeline"},  # the shared exactly-once loop: docs/decisions/0006
    "simulator": {"pipeline"},  # a corner: only the producer needs it
    "dashboard_tabs": {"db", "pipeline"},
    "bridges": {"broker", "pipeline", "service"},  # a corner: no room needs one
}
# Also commands of their own: ``python -m db.schema``.
COMMANDS = {
    "bridges/mqtt.py": {"config"},
    "db/schema.py": {"config"},
    "service/backfill.py": {"config"},
    "service/dead_letters.py": {"config"},
}
OURS = {*ROOMS, *SCRIPTS, "config", "local_stack", "tests", "benchmarks"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def modules(room):
    return sorted((CHECKOUT / room).glob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room):
    for path in modules(room):
        found = {name for name in imports(path) if name in OURS} - {room}
        command = COMMANDS.get(path.relative_to(CHECKOUT).as_posix(), set())
        assert found <= ALLOWED[room] | command, path


def test_nothing_but_the_consumer_knows_of_the_upkeep():
    known_to = {
        path.name
        for path in {*CHECKOUT.glob("*.py"), *(p for room in ROOMS for p in modules(room))}
        if re.search(r"service(\.| import )upkeep", path.read_text("utf-8"))
    }
    assert known_to == {"consumer.py"}


@pytest.mark.parametrize(("library", "room"), [("confluent_kafka", "broker"), ("psycopg2", "db")])
def test_only_one_room_speaks_to_each_server(library, room):
    for other in {*ROOMS} - {room}:
        for path in modules(other):
            assert library not in imports(path), path
    for script in SCRIPTS:
        assert library not in imports(CHECKOUT / f"{script}.py"), script


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_imports_a_script(script):
    assert not set(imports(CHECKOUT / f"{script}.py")) & {*SCRIPTS, "local_stack", "tests"}


@pytest.mark.parametrize("room", ["pipeline", "simulator"])
def test_pure_logic_imports_nothing_that_touches_the_world(room):
    world = {"os", "socket", "subprocess", "threading", "random", "logging", "requests"}
    for path in modules(room):
        assert not set(imports(path)) & world, path
