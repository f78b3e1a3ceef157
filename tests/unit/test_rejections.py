"""What the log says of messages that are no readings."""

import pytest

from service.rejections import MAX_COARSE_TYPES, CoarseLog, RejectionLog


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


def test_a_type_that_loses_digits_is_said_once_and_made_up_types_are_not_all(said):
    coarse = CoarseLog()
    coarse.add({"voltage": 0.0042})
    coarse.add({"voltage": 0.0043})
    assert len(said()) == 1
    assert "sensor_type=voltage example=0.0042 stored_as=0.00" in said()[0]
    coarse.add({f"made-up-{i}": 0.001 for i in range(1000)})
    assert len(said()) == MAX_COARSE_TYPES
