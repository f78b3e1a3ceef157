import contextlib
import json
import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import decoding
from pipeline.decoding import decode_batch, to_hundredths
from pipeline.encoding import Reading, encode_reading, reading_key
from pipeline.reading import MAX_HUNDREDTHS, InvalidReading, parse_timestamp_us
from tests.messages import ARBITRARY, BAD, FORMS, GOOD, NEARLY_VALID, STRANGE, message

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW_MS = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp() * 1000)


def decode(*payloads):
    return decode_batch(payloads, np.full(len(payloads), NOW_MS, dtype=np.int64))


@pytest.mark.parametrize(("payload", "code"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_message_is_rejected_with_its_reason(payload, code):
    readings, rejected = decode(payload)
    assert len(readings) == 0
    assert [(r.position, r.reason_code) for r in rejected] == [(0, code)]
    assert rejected[0].reason.isprintable()


@pytest.mark.parametrize("payload", [s[1] for s in STRANGE], ids=[s[0] for s in STRANGE])
def test_a_strange_message_is_a_reading(payload):
    readings, rejected = decode(payload)
    assert rejected == []
    assert readings.sensor_id.to_pylist() == [json.loads(payload)["sensor_id"]]


@pytest.mark.parametrize("payload", [f[1] for f in FORMS], ids=[f[0] for f in FORMS])
def test_every_form_of_a_reading_decodes_alike_alone_and_among_others(payload):
    for payloads in ([payload], [payload] * 3, [message(), payload], [message(), payload, b"x"]):
        readings, rejected = decode(*payloads)
        assert len(rejected) == (payloads[-1] == b"x")
        assert set(readings.timestamp_us) == {1769860800000000}
        assert set(readings.hundredths) == {2150}
        assert not readings.anomaly.any()
        assert set(readings.unit.to_pylist()) <= {"", "°C"}
        assert ("" in readings.unit.to_pylist()) == (b"unit" not in payload or b"null}" in payload)


_number_texts = st.floats(-1e7, 1e7).map(repr) | st.integers(-(10**7), 10**7).map(str)


@given(st.lists(st.tuples(_number_texts, st.integers(10**14, 1769 * 10**12)), min_size=1))
def test_plain_and_odd_forms_of_one_reading_decode_alike(numbers_and_times):
    plain, odd = [], []
    for number, since_us in numbers_and_times:
        time = datetime.fromtimestamp(since_us // 10**6, UTC).replace(microsecond=since_us % 10**6)
        text = time.strftime("%Y-%m-%d %H:%M:%S.%f UTC")
        plain.append(message(value=json.loads(number), timestamp=time.isoformat(), unit=""))
        framed = message(value=number, timestamp=since_us, anomaly=..., unit=None)
        odd.append(b"\0\0\0\0\1" + framed)
        odd.append(message(value=number, timestamp=text, anomaly=0, unit=...))
    expected, _ = decode(*plain)
    found, rejected = decode(*odd)
    assert rejected == []
    assert found.timestamp_us.tolist() == np.repeat(expected.timestamp_us, 2).tolist()
    assert found.hundredths.tolist() == np.repeat(expected.hundredths, 2).tolist()


def test_messages_without_anomaly_and_unit_are_parsed_together():
    payloads = [message(anomaly=..., unit=...), message(anomaly=None, unit=None)]
    assert decoding._parse_together(payloads) == decoding._parse_in_chunks(payloads)[0]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[" + message() + b"," + message() + b"]", "an array of 2"),
        (json.dumps(message().decode()).encode(), "encoded twice"),
        (b'{"ts": 1769860800000, "values": {"temperature": 21.5}}', 'inside "values"'),
        (b'{"before": null, "after": ' + message() + b"}", 'inside "after"'),
        (message(sensor_id=..., sensorId="s1"), 'there is "sensorId"'),
        (message(timestamp=..., measured_at="2026-01-31"), 'there is "measured_at"'),
        (message(value="21,5"), "a decimal comma"),
        (message().replace(b"21.5", b"21,5"), "a decimal comma"),
        (message().replace(b"21.5", b"+21.5"), "no +"),
        (message().replace(b"21.5", b".5"), "both sides"),
        (message().replace(b"21.5", b"21."), "both sides"),
        (message().replace(b"false", b"False"), "true, false and null"),
        (str(GOOD).encode(), "double quotes"),
        (message() + message(), "one object a message"),
        (message()[:50], "ends in the middle"),
        (b"\0\0\0\0\7\x0cs1\x0ctemp", "Avro or Protobuf"),
        (message().decode().encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (message(timestamp=1e30), "nanoseconds since 1970"),
        (message(timestamp="1769860800"), "without quotes"),
        (message(timestamp="31.01.2026 12:00"), "year-month-day"),
        (message(timestamp="2026-01-31T12:00:00Z[UTC]"), "brackets"),
        (message(timestamp="2026-02-01T01:00:00"), "is it local time?"),
    ],
)
def test_the_reason_helps_with_usual_mistakes(payload, says):
    _, [rejected] = decode(payload)
    assert says in rejected.reason


def test_a_type_whose_values_two_decimals_change_is_named_with_an_example():
    values = [0.0042, 0.123, 0.5, 0.0, 0.01, 0.005001]
    payloads = [message(sensor_type=f"t{i}", value=v) for i, v in enumerate(values)]
    assert decode(*payloads)[0].coarse == {"t0": 0.0042, "t1": 0.123, "t5": 0.005001}


def test_bad_messages_cost_only_themselves():
    payloads = [p for bad in BAD for p in (message(), bad[1])] + [message()]
    readings, rejected = decode(*payloads)
    assert readings.position.tolist() == list(range(0, len(payloads), 2))
    assert [r.position for r in rejected] == list(range(1, len(payloads), 2))


def test_an_encoded_reading_decodes_to_itself():
    reading = Reading(**{**GOOD, "timestamp": NOON.replace(microsecond=123456)})
    readings, rejected = decode(encode_reading(reading))
    assert rejected == []
    assert readings.hundredths.tolist() == [2150]
    assert readings.timestamp_us.tolist() == [1769860800123456]
    assert readings.sensor_id.to_pylist() == [reading.sensor_id]
    assert readings.unit.to_pylist() == ["°C"]


def test_the_key_is_location_and_sensor_type():
    assert reading_key("Büro", "co2") == "Büro/co2".encode()


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00:00",
        "2026-01-31T13:00:00+01:00",
        "20260131T120000Z",
    ],
)
def test_times_are_converted_to_utc_and_taken_as_utc_without_an_offset(text):
    assert decode(message(timestamp=text))[0].timestamp_us.tolist() == [1769860800000000]


@pytest.mark.parametrize("text", ["2026-01-31x12:00:00", "2026-01-31T12:00:00+25:00", "12:00", ""])
def test_what_is_not_iso_8601_is_no_time(text):
    assert decode(message(timestamp=text))[1][0].reason_code == "bad_timestamp"


def test_a_reading_may_be_five_minutes_ahead_of_its_arrival_and_no_more():
    just = datetime.fromtimestamp(NOW_MS / 1000 + 300, UTC).isoformat()
    over = datetime.fromtimestamp(NOW_MS / 1000 + 300.001, UTC).isoformat()
    _, rejected = decode(message(timestamp=just), message(timestamp=over))
    assert [(r.position, r.reason_code) for r in rejected] == [(1, "future_timestamp")]


def test_without_an_arrival_time_the_future_is_not_checked():
    readings, _ = decode_batch([message(timestamp="2999-01-01")], np.array([-1]))
    assert len(readings) == 1


@pytest.mark.parametrize(
    ("value", "hundredths"),
    [
        (0.125, 12),
        (0.135, 14),
        (1.145, 114),
        (2.675, 268),
        (85.835, 8584),
        (-1.145, -114),
        (-0.0, 0),
    ],
)
def test_ties_are_rounded_half_even_as_the_decimal_text_says(value, hundredths):
    assert decode(message(value=value))[0].hundredths.tolist() == [hundredths]


@given(st.floats(min_value=-99999999.99, max_value=99999999.99))
def test_rounding_is_that_of_decimal_arithmetic(value):
    exact = Decimal(repr(value)).quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN)
    hundredths, fits = to_hundredths(np.array([value]))
    assert fits.all()
    assert hundredths.tolist() == [int(exact.scaleb(2))]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_value_fits_only_if_it_rounds_into_the_column(value):
    _, fits = to_hundredths(np.array([value]))
    inside = math.isfinite(value) and abs(
        Decimal(repr(value)).quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN)
        if abs(value) < 1e20
        else Decimal("Infinity")
    ) <= Decimal(MAX_HUNDREDTHS).scaleb(-2)
    assert fits.tolist() == [inside]


@given(st.lists(ARBITRARY, max_size=20))
def test_arbitrary_bytes_never_break_decoding_and_none_is_lost(payloads):
    readings, rejected = decode(*payloads)
    positions = sorted(readings.position.tolist() + [r.position for r in rejected])
    assert positions == list(range(len(payloads)))


@given(NEARLY_VALID)
def test_nearly_valid_messages_are_decoded_or_rejected_with_a_printable_reason(payload):
    readings, rejected = decode(payload, message())
    assert len(readings) + len(rejected) == 2
    assert readings.position[-1] == 1
    for each in rejected:
        assert each.reason.isprintable()
        each.reason.encode()
    texts = (readings.sensor_id, readings.sensor_type, readings.location, readings.unit)
    for text in (text for column in texts for text in column.to_pylist()):
        assert "\0" not in text
        text.encode()


@st.composite
def times_of_one_form(draw):
    """Times as one kind of sensor writes them, some with one character changed."""
    digits = draw(st.integers(-1, 6))
    zone = draw(st.sampled_from(["Z", "+00:00", "+05:30", "-00:00", ""]))
    texts = []
    for time in draw(st.lists(st.datetimes(), min_size=1, max_size=5)):
        text = time.strftime("%m-%dT%H:%M:%S.%f")[: 15 + digits]
        texts.append(f"{time.year:04}-{text}{zone}")
    if draw(st.booleans()):
        text, at = texts[-1], draw(st.integers(0, len(texts[-1]) - 1))
        changed = draw(st.sampled_from("0123456789:-+.TtZz WdÀ٣"))
        texts[-1] = text[:at] + changed + text[at + 1 :]
    return texts


@given(times_of_one_form())
def test_times_read_together_are_the_times_read_one_by_one(texts):
    expected = {}
    for i, text in enumerate(texts):
        with contextlib.suppress(InvalidReading):
            expected[i] = parse_timestamp_us(text)
    payloads = [message(timestamp=text) for text in texts]
    readings, rejected = decode_batch(payloads, np.full(len(texts), -1, dtype=np.int64))
    got = zip(readings.position.tolist(), readings.timestamp_us.tolist(), strict=True)
    assert dict(got) == expected
    assert {r.reason_code for r in rejected} <= {"bad_timestamp"}


_PIECES = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b" ",
        b"\n",
        b"\t",
        b"\0",
        b"\x01",
        b"\xff",
        b"\xc2",
    ),
    *(
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"/**/",
        b"NaN",
        b"-Infinity",
        b"null",
        b"true",
        b"1e400",
        b"1e-400",
    ),
    *(
        b"-0",
        b"0",
        b"01",
        b".5",
        b"5.",
        b"+1",
        b"E5",
        b"21.5",
        b'"21.5"',
        b"0.1e1",
        b"\\u00b0",
        b"\\",
        b"x" * 101,
    ),
    *(
        b'"unit":"g",',
        b',"unit":"g"',
        b',"note":1',
        b',"unit":null',
        b',"anomaly":null',
        b'"anomaly":1,',
        "°".encode(),
        "€".encode() * 21,
        b"}{",
        b"}\n{",
    ),
]


@st.composite
def messages_together(draw):
    """Messages as services write them, some with pieces put in, cut out, or moved to the next."""
    payloads = []
    for _ in range(draw(st.integers(1, 4))):
        names = draw(st.permutations(list(GOOD)))
        separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", " : ")]))
        fields = {**GOOD, "value": draw(st.floats() | st.integers() | st.just(21.5))}
        ordered = {name: fields[name] for name in names}
        text = json.dumps(ordered, ensure_ascii=False, separators=separators).encode()
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(text)))
            cut = draw(st.sampled_from([0, 0, 1, 5]))
            text = text[:at] + draw(st.sampled_from(_PIECES)) + text[at + cut :]
        payloads.append(text)
    if len(payloads) > 1 and draw(st.booleans()):
        both = payloads[0] + draw(st.sampled_from([b"", b"\n"])) + payloads[1]
        at = draw(st.integers(0, len(both)))
        payloads[:2] = [both[:at], both[at:]]
    return payloads


@given(messages_together())
def test_messages_parsed_together_are_the_messages_parsed_one_by_one(payloads):
    together = decoding._parse_together(payloads)
    assert together is None or together == decoding._parse_in_chunks(payloads)[0]


@given(st.lists(st.floats(-99999999.99, 99999999.99), min_size=1))
def test_good_plain_messages_are_parsed_together(values):
    payloads = [encode_reading(Reading(**{**GOOD, "timestamp": NOON, "value": v})) for v in values]
    together = decoding._parse_together(payloads)
    assert together is not None
    assert together == decoding._parse_in_chunks(payloads)[0]
