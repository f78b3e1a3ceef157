"""Messages for the tests: good ones and every kind of bad one."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Producer
from hypothesis import strategies as st

GOOD = {
    "sensor_id": "temperature-laboratory-1",
    "sensor_type": "temperature",
    "location": "Laboratory",
    "value": 21.5,
    "timestamp": "2026-01-31T12:00:00Z",
    "anomaly": False,
    "unit": "°C",
}

REQUIRED = ("sensor_id", "sensor_type", "location", "value", "timestamp")


def message(**changes: Any) -> bytes:
    """Return a good message with some fields changed; ``...`` (Ellipsis) removes one."""
    fields = {k: v for k, v in {**GOOD, **changes}.items() if v is not ...}
    return json.dumps(fields).encode()


_good = message()

# One reading in every form that is accepted: all say what ``GOOD`` says, but for the unit where
# there is none.
FORMS: list[tuple[str, bytes]] = [
    ("a byte order mark", b"\xef\xbb\xbf" + _good),
    ("a schema registry's bytes", b"\0\0\0\0\7" + _good),
    ("both, and a line feed", b"\0\0\0\0\7\xef\xbb\xbf\n" + _good),
    ("value as text", message(value="21.5")),
    ("value as text with an exponent", message(value="2.15e1")),
    *(
        (f"timestamp {time!r}", message(timestamp=time))
        for time in (
            1769860800,
            1769860800.0,
            1769860800000,
            1769860800000000,
            1769860800000000000,
            "2026-01-31T12:00:00z",
            "2026-01-31t12:00:00z",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T12:00:00+0000",
            "2026-01-31T13:00:00+0100",
            "2026-01-31 12:00:00 UTC",
            "2026-01-31 12:00:00.000000 UTC",
            "2026-01-31 12:00:00 +0000",
        )
    ),
    ("anomaly 0", message(anomaly=0)),
    ("anomaly null", message(anomaly=None)),
    ("no anomaly", message(anomaly=...)),
    ("unit null", message(unit=None)),
    ("no unit", message(unit=...)),
]

# Every kind of message that DESIGN names as rejected, and the reason it must get.
BAD: list[tuple[str, bytes | None, str]] = [
    ("tombstone", None, "empty"),
    ("empty payload", b"", "empty"),
    ("a byte order mark alone", b"\xef\xbb\xbf", "empty"),
    ("a zero alone", b"\0", "not_json"),
    ("not UTF-8", b"\xff\xfe\x00", "not_utf8"),
    ("not UTF-8 in an unknown field", _good[:-1] + b', "note": "\xff"}', "not_utf8"),
    ("not JSON", b"temperature 21.5", "not_json"),
    ("JSON cut short", _good[:-10], "not_json"),
    ("text behind the JSON", _good + b" x", "not_json"),
    ("nested beyond reason", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "not_json"),
    ("an array", b"[]", "not_object"),
    ("a number", b"5", "not_object"),
    ("null", b"null", "not_object"),
    ("a string", b'"offline"', "not_object"),
    *((f"{field} missing", message(**{field: ...}), "missing_field") for field in REQUIRED),
    *((f"{field} null", message(**{field: None}), "wrong_type") for field in REQUIRED),
    ("value as other text", message(value="21,5"), "wrong_type"),
    ("value as text with blanks", message(value=" 21.5"), "wrong_type"),
    ("value true", message(value=True), "wrong_type"),
    ("anomaly 2", message(anomaly=2), "wrong_type"),
    ("anomaly as text", message(anomaly="false"), "wrong_type"),
    ("unit a number", message(unit=5), "wrong_type"),
    ("UTF-16", _good.decode().encode("utf-16"), "not_utf8"),
    ("UTF-16 without its mark", _good.decode().encode("utf-16-le"), "not_utf8"),
    ("Avro", b"\0\0\0\0\7\x0cs1\x0ctemp", "not_json"),
    ("sensor_id a number", message(sensor_id=7), "wrong_type"),
    ("NaN", message(value=float("nan")), "not_finite"),
    ("Infinity", message(value=float("inf")), "not_finite"),
    ("1e999", _good.replace(b"21.5", b"1e999"), "out_of_range"),
    ("a hundred million", message(value=1e8), "out_of_range"),
    ("rounds to a hundred million", message(value=99999999.995), "out_of_range"),
    ("an integer of 400 digits", _good.replace(b"21.5", b"1" * 400), "out_of_range"),
    ("sensor_id empty", message(sensor_id=""), "text_length"),
    ("sensor_id of 101 characters", message(sensor_id="x" * 101), "text_length"),
    ("sensor_type of 51 characters", message(sensor_type="x" * 51), "text_length"),
    ("location of 101 characters", message(location="x" * 101), "text_length"),
    ("unit of 21 characters", message(unit="x" * 21), "text_length"),
    ("NUL character", message(sensor_id="a\0b"), "bad_character"),
    ("lone surrogate", message(location="\ud800"), "bad_character"),
    ("timestamp not ISO 8601", message(timestamp="31.01.2026 12:00"), "bad_timestamp"),
    ("timestamp of February 30", message(timestamp="2026-02-30T12:00:00Z"), "bad_timestamp"),
    ("timestamp a number of no year", message(timestamp=1e30), "bad_timestamp"),
    ("timestamp a number before all years", message(timestamp=-1e14), "bad_timestamp"),
    ("timestamp true", message(timestamp=True), "wrong_type"),
    ("timestamp a number in quotes", message(timestamp="1769860800"), "bad_timestamp"),
    ("1e999 as text", message(value="1e999"), "out_of_range"),
    ("timestamp in the future", message(timestamp="2999-01-01T00:00:00Z"), "future_timestamp"),
    ("nearly a megabyte", message(note="x" * 990_000), "too_large"),
]

# As strange as these look, each is a reading.
STRANGE = [
    ("unknown extra fields", message(note={"a": [1, 2, {"b": None}]})),
    ("an integer value", message(value=21)),
    ("an unknown type", message(sensor_type="vibration", unit="g")),
    ("no unit", message(unit="")),
    ("text of the full length", message(sensor_id="€" * 100, location="😀" * 100)),
    ("COPY's special characters", message(sensor_id="a\tb\\N\n\r\\.", location="\\N")),
    ("an offset", message(timestamp="2026-01-31T13:00:00+01:00")),
    ("no offset", message(timestamp="2026-01-31 12:00:00.5")),
    ("the largest value", message(value=99999999.99)),
    ("the smallest value", message(value=-99999999.99)),
]

_json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=120),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
# Some fields as they should be, some anything that JSON can say (and some that it cannot: NaN).
NEARLY_VALID = st.builds(
    lambda good_fields, changes: json.dumps(
        {**{name: GOOD[name] for name in sorted(good_fields)}, **changes}
    ).encode("utf-8", "surrogatepass"),
    st.sets(st.sampled_from(list(GOOD))),
    st.dictionaries(st.sampled_from([*GOOD, "extra"]), _json_values),
)
ARBITRARY = st.none() | st.binary(max_size=300)


def send(servers: str, topic: str, payloads: list[bytes | None], partition: int = -1) -> None:
    """Send payloads as they are, in order; to one partition, or to any."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "log_level": 0})
    failed: list[str] = []
    for payload in payloads:
        producer.produce(
            topic,
            payload,
            partition=partition,
            on_delivery=lambda error, _: error and failed.append(error.str()),
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed, failed[0]
