"""Lists reach PostgreSQL as they were, whatever is in them."""

from datetime import UTC, datetime

import pytest

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
    ],
)
def test_a_list_comes_back_as_it_was(query, kind, elements):
    assert query(f"SELECT %s::{kind}[]", elements) == [(elements,)]
