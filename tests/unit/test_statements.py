"""SQL files beside their modules: named statements."""

import re

import pytest

from db.statements import statements
from tests.conftest import CHECKOUT


def beside(tmp_path, text):
    (tmp_path / "some.sql").write_text(text)
    return str(tmp_path / "some.py")


def test_each_name_gives_the_statement_below_it(tmp_path):
    module = beside(
        tmp_path, "-- about\n\n-- name: first\n-- why\nSELECT 1;\n\n-- name: second\nSELECT 2\n"
    )
    assert statements(module) == {"first": "-- why\nSELECT 1;", "second": "SELECT 2"}


def test_a_name_used_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"some\.sql: a name stands above two"):
        statements(beside(tmp_path, "-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n"))


def test_every_statement_is_used_by_its_module_and_none_is_missing():
    for path in {*(CHECKOUT / "db").glob("*.sql")} - {CHECKOUT / "db" / "schema.sql"}:
        if path.with_suffix(".py").exists():
            code = path.with_suffix(".py").read_text("utf-8")
            assert set(re.findall(r"SQL\[\"(\w+)\"\]", code)) == set(statements(str(path))), path
