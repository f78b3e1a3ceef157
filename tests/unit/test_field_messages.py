"""Messages as devices send them (tests/field/38-device-json), and what becomes of each."""

import ast
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.decoding import decode_batch
from tests.conftest import CHECKOUT

SENT_MS = int(datetime(2026, 11, 25, 22, 54, 22, tzinfo=UTC).timestamp() * 1000)
CUT = "it ends in the middle"  # in the file; test_reading.py has whole ones of their kinds

# What the reason says of those that are not taken. The file's second column is what became of each
# before: 20 were taken.
REASONS = {
    "value string comma": "a decimal comma?",
    "value bool": "value must be a number, not true",
    'anomaly "false"': 'true, false, 0, 1 or null, not "false"',
    "extra fields nested": CUT,
    "camelCase": 'there is "sensorId": rename it',
    "debezium": CUT,
    "telegraf json": 'inside "fields": unwrap it',
    "thingsboard": 'inside "values": unwrap it',
    "array batch": CUT,
    "two objects": "one object a message",
    "pretty printed": CUT,
    "latin1 degree": "byte 0xb0 at 148 is not UTF-8",
    "double encoded json": CUT,
    "single quotes (python repr)": "JSON has double quotes",
    "java zoned": "without the name of the zone in brackets",
    "local naive CET (+1h)": "is it local time?",
    "clock 6 min ahead": "over 300 s after its arrival",
    "big counter": "outside -99999999.99..99999999.99",
    "mqtt topic id >100": CUT,
    "unicode id": CUT,
    "empty location": "location has 0 characters, allowed are 1..100",
    "location missing": "field location is missing",
    "value leading +": "a number has no +",
    "value 21.": "digits on both sides of its point",
    "value .5": "digits on both sides of its point",
    "empty": "payload of 0 bytes",
    "text offline (LWT)": 'not JSON at character 0, "offline"',
}
MESSAGES = {
    line.split("\t")[0]: ast.literal_eval(line.split("\t")[3])
    for line in (CHECKOUT / "tests/field/38-device-json/messages.tsv")
    .read_text("utf-8")
    .splitlines()[1:]
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_the_field_is_taken_or_refused_with_a_reason_that_helps(name):
    readings, rejected = decode_batch([MESSAGES[name]], np.array([SENT_MS]))
    assert len(readings) + len(rejected) == 1
    if name in REASONS:
        assert REASONS[name] in rejected[0].reason
    else:
        assert readings.hundredths.tolist() in ([2150], [2100], [10000], [0])


def test_every_reason_is_of_a_message():
    assert set(REASONS) <= set(MESSAGES)
