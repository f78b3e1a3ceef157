"""What the log says of messages that are no readings."""

import pytest

from service.rejections import RejectionLog


@pytest.fixture
def said(caplog):
    return lambda: [record.getMessage() for record in caplog.records]


def test_each_reason_is_said_once_a_minute_with_an_example_and_how_many(said):
    now = 0.0
    rejections = RejectionLog(lambda: now)
    rejections.add({"not_json": 2, "empty": 1}, {"not_json": "not JSON: <x>", "empty": "empty"})
    rejections.add({"not_json": 5}, {"not_json": "not JSON: <y>"})
    assert len(said()) == 2
    assert "reason_code=not_json messages=2 table=dead_letters example=not JSON: <x>" in said()[0]
    now = 60.0
    rejections.add({"not_json": 1}, {"not_json": "not JSON: <z>"})
    assert "messages=6 table=dead_letters example=not JSON: <z>" in said()[2]


def test_what_is_only_counted_is_said_too(said):
    RejectionLog(lambda: 0.0).add({"not_json": 3}, {})
    assert "messages=3" in said()[0]
