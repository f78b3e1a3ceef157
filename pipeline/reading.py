"""The message: what a reading is, and which messages are none.

What is said here of one message holds for all of a batch (pipeline/decoding.py).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import orjson

# A reading is some 200 bytes; whoever sends a quarter of a megabyte is not sending one.
MAX_PAYLOAD_BYTES = 262_144
# NUMERIC(10,2) holds up to 99,999,999.99.
MAX_HUNDREDTHS = 9_999_999_999
# How far a sensor's clock may be ahead of the broker's; more would close everyone's windows.
MAX_AHEAD_US = 5 * 60 * 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A year of room at both ends of what a datetime holds: windows and watermarks lie around a reading.
MIN_US = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
MAX_US = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class InvalidReading(ValueError):
    """A message is no reading; ``code`` is the kind of fault in one word."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Message(msgspec.Struct, gc=False):
    """The JSON object as it must be; msgspec checks fields, types and lengths while it parses."""

    sensor_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sensor_type: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    location: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    value: float
    timestamp: str
    anomaly: bool
    unit: Annotated[str, msgspec.Meta(max_length=20)]


# Shortest and longest, of each text that has limits.
TEXT_LENGTHS = {
    field.name: (field.type.min_length or 0, field.type.max_length)
    for field in msgspec.inspect.type_info(Message).fields  # type: ignore[attr-defined]
    if isinstance(field.type, msgspec.inspect.StrType) and field.type.max_length
}

_parse = msgspec.json.Decoder(Message).decode


def decode_message(payload: bytes | None) -> Message:
    """Return the object of one message.

    Raises
    ------
    InvalidReading
        With the reason. Time and size of the value are looked at later.
    """
    if not payload:
        raise InvalidReading("empty", "tombstone" if payload is None else "payload of 0 bytes")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidReading(
            "too_large", f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    try:
        payload.decode()  # the parser skips unknown fields without looking at their encoding
        message = _parse(payload)
    except RecursionError:
        message = _decode_nested(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise _diagnose(payload, problem) from None
    # In JSON a NUL can only stand as an escape, so most messages need no closer look.
    if b"\\u0000" in payload:
        for name in TEXT_LENGTHS:
            if "\0" in getattr(message, name):
                raise InvalidReading("bad_character", f"{name} contains a NUL character")
    return message


def _decode_nested(payload: bytes) -> Message:
    # How deep the first parser goes depends on the caller's stack; this one's limit is fixed.
    try:
        return msgspec.convert(orjson.loads(payload), Message)
    except orjson.JSONDecodeError as problem:
        raise InvalidReading("not_json", f"not JSON: {problem.msg}") from None
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise InvalidReading("wrong_type", str(problem)) from None


def parse_timestamp_us(text: str) -> int:
    """Return an ISO 8601 time as microseconds since the epoch; without an offset it is UTC.

    Raises
    ------
    InvalidReading
        With code ``bad_timestamp``.
    """
    try:
        # Python takes any character between date and time; the standards know T and a blank.
        if text[10:11] not in ("T", " ", "") and not _BASIC_FORMAT.fullmatch(text):
            raise ValueError
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidReading(
            "bad_timestamp", f"timestamp {_shown(text)} is not ISO 8601, e.g. 2026-01-31T12:00:00Z"
        ) from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    microseconds = (parsed - _EPOCH) // _MICROSECOND
    if not MIN_US <= microseconds < MAX_US:
        raise InvalidReading(
            "bad_timestamp", f"timestamp {_shown(text)} is outside the years 2..9998"
        )
    return microseconds


# Without separators (20260131T120000Z), or by week (2026W051T...): the T is not at index 10.
_BASIC_FORMAT = re.compile(r"\d{4}(\d{4}|W\d{2}\d?|-W\d{2})(T[\d:.,Z+-]*)?")


def problem_of_numbers(value: float, timestamp: str, fits: bool) -> InvalidReading:
    """Say which of the two is wrong: a value that does not fit, or else a time of the future."""
    if not fits:
        return InvalidReading(
            "out_of_range", f"value {value!r} is outside -99999999.99..99999999.99"
        )
    ahead_s = MAX_AHEAD_US // 1_000_000
    return InvalidReading(
        "future_timestamp",
        f"timestamp {_shown(timestamp)} is over {ahead_s} s after its arrival",
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _diagnose(payload: bytes, problem: Exception) -> InvalidReading:
    """Say in a user's words why a message was refused; slow, and only for those."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as bad:
        return InvalidReading(
            "not_utf8", f"byte {payload[bad.start]:#04x} at {bad.start} is not UTF-8"
        )
    try:
        message = json.loads(text, parse_constant=_no_constant)
    except InvalidReading as bad:
        return bad
    except (ValueError, RecursionError) as bad:
        return InvalidReading("not_json", f"not JSON: {bad}")
    if not isinstance(message, dict):
        return InvalidReading("not_object", f"a JSON {type(message).__name__}, not an object")
    return _diagnose_fields(message) or InvalidReading("not_json", f"not JSON: {problem}")


def _no_constant(name: str) -> Any:
    raise InvalidReading("not_finite", f"{name} is not a number")


def _diagnose_fields(message: dict[str, Any]) -> InvalidReading | None:
    for name in Message.__struct_fields__:
        if name not in message:
            return InvalidReading("missing_field", f"field {name} is missing")
        value = message[name]
        expected = {"value": "a number", "anomaly": "true or false"}.get(name, "a string")
        python_types = {"value": (int, float), "anomaly": (bool,)}.get(name, (str,))
        if not isinstance(value, python_types) or (name == "value" and isinstance(value, bool)):
            return InvalidReading("wrong_type", f"{name} must be {expected}, not {_shown(value)}")
        if isinstance(value, float | int) and name == "value" and not abs(value) < 1e300:
            return InvalidReading("out_of_range", f"{name} does not fit -99999999.99..99999999.99")
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return InvalidReading("bad_character", f"{name} contains a lone surrogate")
        low, high = TEXT_LENGTHS.get(name, (0, 1 << 30))
        if isinstance(value, str) and not low <= len(value) <= high:
            return InvalidReading(
                "text_length", f"{name} has {len(value)} characters, allowed are {low}..{high}"
            )
    return None
