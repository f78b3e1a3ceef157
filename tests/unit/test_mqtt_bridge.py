"""The MQTT bridge's messages: what topic, payload and arrival make of a reading."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from bridges.mqtt import Template, to_message
from pipeline.reading import MAX_PAYLOAD_BYTES
from tests.conftest import CHECKOUT

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
GIVEN = {"location": "hall", "sensor_type": "temperature", "sensor_id": "t1"}


def test_levels_of_the_topic_are_fields():
    template = Template("site/{location}/+/{sensor_type}/{sensor_id}")
    assert template.filter == "site/+/+/+/+"
    assert template.fields("site/hall/x/temperature/t1") == GIVEN


def test_all_below_a_level_is_read():
    template = Template("{location}/#")
    assert template.filter == "+/#"
    assert template.fields("hall/a/b") == {"location": "hall"}


def test_a_bare_number_is_a_value_measured_now():
    key, payload = to_message(b" 21.5\n", GIVEN, NOW)
    assert key == b"hall/temperature"
    assert json.loads(payload) == {**GIVEN, "value": 21.5, "timestamp": NOW.isoformat()}


def test_a_payload_s_fields_win():
    said = {"value": 1, "timestamp": "2026-01-01T00:00:00Z", "location": "attic", "unit": "°C"}
    key, payload = to_message(b"\xef\xbb\xbf" + json.dumps(said).encode(), GIVEN, NOW)
    assert key == b"attic/temperature"
    assert json.loads(payload) == {**GIVEN, **said}


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"on", b"true", b"null", b"[21.5]", b'"21.5"', b"\xff\xfe1\0"),
        *(b"[" * 100_000, b"1" * 5000, b'{"location": "\\ud800"}'),
    ],
)
def test_what_is_no_reading_goes_as_it_is(payload):
    assert to_message(payload, GIVEN, NOW) == (b"hall/temperature", payload)


def test_a_payload_that_is_too_large_is_cut_where_it_is_still_too_large():
    _, sent = to_message(b'{"note": "' + b"x" * 2_000_000 + b'"}', GIVEN, NOW)
    assert len(sent) == MAX_PAYLOAD_BYTES + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--topic"),
        (["--topic", ""], "level ''"),
        (["--topic", "a/{place}"], "level '{place}' of 'a/{place}'"),
        (["--topic", "#/a"], "level '#'"),
        (["--topic", "a/b+"], "level 'b+'"),
        (["--topic", "a", "--set", "place=x"], "'place=x' is not FIELD=VALUE"),
        (["--topic", "a", "--set", "location="], "'location=' is not FIELD=VALUE"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(arguments, said):
    ended = subprocess.run(
        [sys.executable, "-m", "bridges.mqtt", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ") and said in line
