"""Lists reach PostgreSQL as they were, whatever is in them."""

from datetime import UTC, datetime

import psycopg2
import pytest

from db.arrays import ArrayLiteral

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("text", ["", " ", "NULL", "null", '"', "\\", "'", "{a,b}", "a,b", "°C", "\n", "%s", None]),
        ("bigint", [0, -1, 2**62, None]),
        ("numeric", [10**30]),
        ("float8", [0.1, 1e300, float("inf"), None]),
        ("boolean", [True, False, None]),
        ("timestamptz", [datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC), None]),
        ("int", []),
        ("bytea", [b"", b"on", b"\0\xff\\'", None]),
    ],
)
def test_a_list_comes_back_as_it_was(query, kind, elements):
    ((stored,),) = query(f"SELECT %s::{kind}[]", elements)
    assert [bytes(each) if isinstance(each, memoryview) else each for each in stored] == elements


def test_a_list_of_what_is_sql_already_is_refused():
    with pytest.raises(TypeError, match="must not hold Binary"):
        ArrayLiteral([psycopg2.Binary(b"on")])
