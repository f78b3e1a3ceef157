"""Recordings: what is missing comes from options, a broken line costs itself only."""

import gzip
import io
import json
from zoneinfo import ZoneInfo

import pytest

from pipeline.encoding import Sensor
from simulator.cells import LocalTimes, guess_day_first, guess_decimal, to_number, to_time
from simulator.feeds import CHUNK, RateSchedule, ReplayFeed
from simulator.files import NoRecording, open_text
from simulator.layout import Wanted
from simulator.replay import Recording

TEXT = "timestamp,value,unit\n2020-01-01,1,°C\n"
DEFAULT = Sensor("file", "", "nowhere", "")


def recording(text, zone=None, **wanted):
    return Recording(io.StringIO(text), DEFAULT, Wanted(**wanted), zone)


def replay(text, speed=0.0, keep_timestamps=True, portion=1_000_000, **options):
    broken = []
    feed = ReplayFeed(recording(text, **options), speed, keep_timestamps, broken.append, portion)
    while not feed.due(100.0) and not feed.is_over:
        pass
    return feed, broken


def decoded(messages):
    return [json.loads(payload) for payload in messages.payloads]


def test_two_columns_are_enough():
    feed, _ = replay("timestamp,value\n2013-07-04 00:00:00,69.88\n")
    [reading] = decoded(feed.take(feed.due(100.0), 0))
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
    [reading] = decoded(feed.take(feed.due(100.0), 0))
    assert (reading["location"], reading["sensor_type"], reading["anomaly"]) == (
        "Lab, 2",
        "vibration",
        True,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("a,b\n1,2\n", "no column of times"),
        ("timestamp,a\n2020-01-01,x\n", "no column of numbers among"),
        ("timestamp,value,value\n", "twice"),
        ("timestamp,timestamp,value\n", "twice"),
        ("timestamp;value\n2020-01-01;1,234\n", "say --decimal"),
    ],
)
def test_a_file_without_columns_is_no_recording(text, says):
    with pytest.raises(NoRecording, match=says):
        recording(text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2020-01-01,abc", 'must be a number, not "abc"'),
        ("2020-01-01,", "no value in it"),
        ("2020-01-01,nan", "no value in it: 'nan'"),
        ("2020-01-01,1e9", "outside"),
        ("2020-01-01,1_000", 'must be a number, not "1_000"'),
        ("never,1", "never"),
        ("2020-01-01", "no value in it"),
        ("2020-01-01,1,2", "not 2 columns"),
        ('2020-01-01,"1', "a quote that is not closed"),
        ("x" * 70_000, "not 2 columns"),
    ],
)
def test_a_broken_line_is_reported_with_its_number_and_the_rest_is_sent(line, says):
    feed, broken = replay(f"timestamp,value\n2020-01-01,1\n{line}\n\n2020-01-02,2\n")
    assert [r["value"] for r in decoded(feed.take(feed.due(100.0), 0))] == [1, 2]
    assert feed.is_over and feed.skipped.total() == 1
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
    [reading] = decoded(feed.take(feed.due(100.0), 1_767_225_600_000_000))
    assert reading["timestamp"].startswith("2026-01-01T00:00:00")


def test_a_long_file_is_read_in_pieces():
    lines = "".join(f"2020-01-01,{i}\n" for i in range(CHUNK + 5))
    feed, _ = replay("timestamp,value\n" + lines)
    assert len(taken(feed)) == CHUNK + 5


def taken(feed):
    values = []
    while not feed.is_over:
        values += [r["value"] for r in decoded(feed.take(feed.due(1e9), 0))]
    return values


def test_lines_are_sent_in_order_of_time_as_far_as_a_portion_goes():
    lines = [f"2020-01-{day:02},{day}\n" for day in (3, 1, 2)] + ["\n"] * CHUNK
    later = ["2020-01-01,4\n", "2020-01-05,5\n"]
    feed, _ = replay("timestamp,value\n" + "".join(lines + later))
    assert taken(feed) == [1, 4, 2, 3, 5] and feed.is_sorted
    feed, _ = replay("timestamp,value\n" + "".join(lines + later), portion=3)
    assert taken(feed) == [1, 2, 3, 4, 5] and not feed.is_sorted


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("21.5", ".", 21.5),
        ("21,5", ",", 21.5),
        ("+.5", ".", 0.5),
        ("1,721,990.28", ".", 1721990.28),
        ("1.234,5", ",", 1234.5),
        ("1_000", ".", "1_000"),
        ("n/a", ".", "n/a"),
    ],
)
def test_numbers_are_read_as_countries_write_them(text, decimal, number):
    assert to_number(text, decimal) == number


@pytest.mark.parametrize(
    ("texts", "decimal"),
    [
        (["1.5", "2"], "."),
        (["1,5"], ","),
        (["1,234"], None),
        (["1,234,567"], "."),
        (["0,123"], ","),
    ],
)
def test_the_decimal_sign_is_guessed_where_it_is_clear(texts, decimal):
    assert guess_decimal(texts) == decimal


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-05-01 10:00:00", "2024-05-01 10:00:00"),
        ("2017/09/09 22:12:44", "2017-09-09T22:12:44"),
        ("10/03/2004 18.00.00", "2004-03-10T18:00:00"),
        ("1.5.24 7:05", "2024-05-01T07:05:00"),
        ("31/1/2024, 12:00:01,5", "2024-01-31T12:00:01.5"),
        ("1/2/2024 01:00 PM", "2024-02-01T13:00:00"),
        ("20240501 ", "20240501 "),
        ("20240501", "2024-05-01T00:00:00"),
        ("202405011030", "2024-05-01T10:30:00"),
        ("1548893400000000000", 1548893400000000000),
        ("1.5489e9", 1548900000.0),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_read_as_programs_write_them(text, time):
    assert to_time(text, day_first=True) == time


def test_days_come_first_unless_the_dates_say_otherwise():
    assert guess_day_first(["1/2/2024", "13/2/2024"])
    assert not guess_day_first(["1/2/2024", "1/13/2024"])
    assert not guess_day_first(["1/2/2024 10:00 PM"])


def test_the_hour_that_autumn_repeats_is_told_by_the_order_of_a_series():
    local = LocalTimes(ZoneInfo("Europe/Berlin"))
    texts = ["2024-10-27 01:50", "2024-10-27 02:10", "2024-10-27 02:50", "2024-10-27 02:10"]
    assert [local.to_utc(text, "a")[11:16] for text in texts] == [
        "23:50",
        "00:10",
        "00:50",
        "01:10",
    ]
    assert local.to_utc("2024-10-27 02:10", "b")[11:16] == "00:10"
    assert local.to_utc("2024-10-27T02:10+05:00", "a") == "2024-10-27T02:10+05:00"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("cp1252"),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT.encode("utf-16")),
    ],
    ids=["utf-8", "with its mark", "utf-16", "without its mark", "Windows", "gzip", "both"],
)
def test_a_file_is_read_in_whatever_encoding_it_is(data):
    assert open_text(io.BytesIO(data)).read() == TEXT


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"PK\x03\x04...", "Excel"), (b"PAR1", "Parquet"), (b"\xfd7zXZ", "xzcat")],
    ids=["zip", "Parquet", "xz"],
)
def test_a_file_that_is_no_text_is_named(data, says):
    with pytest.raises(NoRecording, match=says):
        open_text(io.BytesIO(data))


def test_a_compressed_file_that_breaks_off_gives_what_it_has_and_says_so():
    lines = "".join(f"2020-01-01,{i}\n" for i in range(50_000))
    data = gzip.compress(f"timestamp,value\n{lines}".encode())
    file = open_text(io.BytesIO(data[: len(data) // 2]))
    broken = []
    feed = ReplayFeed(Recording(file, DEFAULT), 0.0, True, broken.append)
    assert 1_000 < len(taken(feed)) < 50_000
    assert "breaks off" in broken[0].reason


def test_a_wide_table_is_a_sensor_a_column_and_empty_cells_are_no_readings():
    text = "time,node,Temperature [°C],hum,note,lat\n"
    text += "2020-01-01,n1,20,,x,52.5\n2020-01-02,n1,21,40,y,52.5\n"
    feed, broken = replay(text)
    found = [
        (r["sensor_id"], r["sensor_type"], r["unit"], r["value"]) for r in decoded(feed.take(3, 0))
    ]
    assert found == [
        ("n1", "Temperature", "°C", 20),
        ("n1", "Temperature", "°C", 21),
        ("n1", "hum", "", 40),
    ]
    assert feed.is_over and not broken


@pytest.mark.parametrize(
    "text",
    [
        "# made by\n# a logger\ntimestamp,value\n2020-01-01,1\n",
        "Logger 7\nSerial;12\n\ntimestamp;value\n2020-01-01;1\n",
        "timestamp,value\ns,°C\n2020-01-01,1\n",
        "sep=;\ntimestamp;value\n2020-01-01;1\n",
        "timestamp\tvalue\n2020-01-01\t1\n",
        "#timestamp,value\n2020-01-01,1\n",
        "\n\n Timestamp | Value \n2020-01-01|1\n",
        "Date,Time,Value\n2020-01-01,00:00:00,1\n",
    ],
)
def test_the_header_is_found(text):
    feed, broken = replay(text)
    [reading] = decoded(feed.take(1, 0))
    assert (reading["value"], reading["timestamp"][:10], broken) == (1, "2020-01-01", [])


def test_options_say_what_cannot_be_guessed():
    text = "when;who;what;where;a;b\n1.2.2020 10:00;s;t;l;1,234;2,5\n"
    wanted = Wanted(("when",), ("a",), "who", "what", "where", ";", ",")
    feed, _ = replay(text, zone=ZoneInfo("Europe/Berlin"), **wanted._asdict())
    [reading] = decoded(feed.take(1, 0))
    assert reading["timestamp"].startswith("2020-02-01T09:00:00")
    assert [reading[k] for k in ("sensor_id", "sensor_type", "location")] == ["s", "t", "l"]
    assert reading["value"] == 1.23


@pytest.mark.parametrize("option", ["time_columns", "value_columns"])
def test_an_option_that_names_no_column_says_which_there_are(option):
    with pytest.raises(NoRecording, match="x"):
        recording("time,a\n2020-01-01,1\n", **{option: ("x",)})


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
