"""Recordings: what is missing comes from options, a broken line costs itself only."""

import io
import json

import pytest

from pipeline.encoding import Sensor
from simulator.feeds import CHUNK, RateSchedule, ReplayFeed
from simulator.replay import NoRecording, Recording

DEFAULT = Sensor("file", "unknown", "nowhere", "")


def recording(text):
    return Recording(io.StringIO(text), DEFAULT)


def replay(text, speed=0.0, keep_timestamps=True):
    broken = []
    return ReplayFeed(recording(text), speed, keep_timestamps, broken.append), broken


def decoded(messages):
    return [json.loads(payload) for payload in messages.payloads]


def test_two_columns_are_enough():
    feed, _ = replay("timestamp,value\n2013-07-04 00:00:00,69.88\n")
    [reading] = decoded(feed.take(feed.due(0.0), 0))
    assert reading == {
        "sensor_id": "file",
        "sensor_type": "unknown",
        "location": "nowhere",
        "value": 69.88,
        "timestamp": reading["timestamp"],
        "anomaly": False,
        "unit": "",
    }
    assert reading["timestamp"].startswith("2013-07-04T00:00:00")


def test_recorded_columns_win_over_options_in_any_order_and_case():
    text = "Value,unit,ANOMALY,location,sensor_type,sensor_id,Timestamp,extra\n"
    text += '1,g,true,"Lab, 2",vibration,s-1,2020-03-09 10:14:33,x\n'
    feed, _ = replay(text)
    [reading] = decoded(feed.take(feed.due(0.0), 0))
    assert (reading["location"], reading["sensor_type"], reading["anomaly"]) == (
        "Lab, 2",
        "vibration",
        True,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("\n", "first line is empty"),
        ("time,value\n", "no column timestamp"),
        ("timestamp;value\n", "separated by commas"),
        ("timestamp,value,value\n", "twice"),
    ],
)
def test_a_file_without_the_columns_is_no_recording(text, says):
    with pytest.raises(NoRecording, match=says):
        recording(text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2020-01-01,abc", 'must be a number, not "abc"'),
        ("2020-01-01,", 'must be a number, not ""'),
        ("2020-01-01,nan", "NaN is not a number"),
        ("2020-01-01,1e9", "outside"),
        ("2020-01-01,1_000", 'must be a number, not "1_000"'),
        ("never,1", "never"),
        ("2020-01-01", "1 columns"),
        ("2020-01-01,1,2", "3 columns"),
        ('2020-01-01,"1', "not CSV"),
    ],
)
def test_a_broken_line_is_reported_with_its_number_and_the_rest_is_sent(line, says):
    feed, broken = replay(f"timestamp,value\n2020-01-01,1\n{line}\n\n2020-01-02,2\n")
    assert [r["value"] for r in decoded(feed.take(feed.due(0.0), 0))] == [1, 2]
    assert feed.is_over and feed.skipped == 1
    [one] = broken
    assert one.line_number == 3 and says in one.reason


def test_a_line_that_is_not_utf8_or_has_no_flag_is_refused_as_such_a_message_is():
    text = b"timestamp,value,location,anomaly\n2020-01-01,1,\xff,0\n2020-01-01,1,Lab,maybe\n"
    _, broken = replay(text.decode(errors="surrogateescape"))
    assert [line.reason for line in broken] == [
        "byte 0xff at 56 is not UTF-8",
        'anomaly must be true, false, 0, 1 or null, not "maybe"',
    ]


def test_gaps_are_divided_by_the_speed():
    lines = "".join(f"2020-01-01 00:00:{s:02d},{s}\n" for s in (0, 10, 20))
    feed, _ = replay("timestamp,value\n" + lines, speed=10)
    assert [feed.due(100.0), feed.wait_s(100.0)] == [1, 0.0]
    feed.take(1, 0)
    assert feed.due(100.9) == 0
    assert feed.wait_s(100.9) == pytest.approx(0.1)
    assert feed.due(102.0) == 2


def test_readings_carry_the_time_of_sending_unless_told_otherwise():
    feed, _ = replay("timestamp,value\n2020-01-01,1\n", keep_timestamps=False)
    [reading] = decoded(feed.take(feed.due(0.0), 1_767_225_600_000_000))
    assert reading["timestamp"].startswith("2026-01-01T00:00:00")


def test_a_long_file_is_read_in_pieces():
    lines = "".join(f"2020-01-01,{i}\n" for i in range(CHUNK + 5))
    feed, _ = replay("timestamp,value\n" + lines)
    sent = 0
    while not feed.is_over:
        count = feed.due(0.0)
        feed.take(count, 0)
        sent += count
    assert sent == CHUNK + 5


def test_a_rate_is_exact_whatever_one_is_late():
    schedule = RateSchedule(10.0)
    taken = 0
    for now in (0.0, 0.33, 0.34, 1.0, 2.71, 3.0):
        due = schedule.due(now)
        schedule.take(due)
        taken += due
        assert taken == int(now * 10 + 1e-9) + 1


def test_what_a_suspended_machine_missed_is_not_made_up():
    schedule = RateSchedule(10.0)
    schedule.take(schedule.due(0.0))
    assert schedule.due(3600.0) == 1
