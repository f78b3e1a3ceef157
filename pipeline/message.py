"""One message: the reading that it is, or why it is none, in words that help who sent it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from pipeline.reading import (
    MAX_PAYLOAD_BYTES,
    TEXT_LENGTHS,
    InvalidReading,
    Message,
    SentMessage,
    shown,
)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Schema-registry serialisers put a zero and the number of the schema before what they write.
_REGISTRY_BYTES = 5

# What else programs call a field, without case and separators; the likelier first.
USUAL_NAMES: Mapping[str, Sequence[str]] = {
    "sensor_id": (
        "sensorid sensorsid deviceid nodeid entityid stationid moteid sensorname devicename sensor"
        " device node station mote mac uuid id"
    ).split(),
    "sensor_type": "sensortype type parameter quantity measurement metric kind".split(),
    "location": "location locationname loc place room site area zone".split(),
    "value": "value val state reading result measuredvalue".split(),
    "timestamp": (
        "timestamp timestamputc datetime datetimeutc timeutc utctime time ts utc lastchanged"
        " lastupdated measuredat capturedat recordedat createdat eventtime isotime unixtime epoch"
        " date datum zeitstempel zeit"
    ).split(),
    "anomaly": "anomaly isanomaly anomalous".split(),
    "unit": "unit units uom unitofmeasurement einheit".split(),
}

_parse = msgspec.json.Decoder(SentMessage).decode


def decode_message(payload: bytes | None) -> Message:
    """Return the object of one message, in its plain form.

    Raises
    ------
    InvalidReading
        With the reason. Time and size of the value are looked at later.
    """
    payload = _json_of(payload)
    try:
        payload.decode()  # the parser skips unknown fields without looking at their encoding
        message = _parse(payload)
    except RecursionError:
        message = _decode_nested(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise _diagnose(payload, problem) from None
    message.make_plain()
    # In JSON a NUL can only stand as an escape, so most messages need no closer look.
    if b"\\u0000" in payload:
        for name in TEXT_LENGTHS:
            if "\0" in getattr(message, name):
                raise InvalidReading("bad_character", f"{name} contains a NUL character")
    return message


def _json_of(payload: bytes | None) -> bytes:
    """Return the payload without what some programs put before JSON."""
    if not payload:
        raise InvalidReading("empty", "tombstone" if payload is None else "payload of 0 bytes")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidReading(
            "too_large", f"payload of {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    if payload[0] == 0:
        framed = payload[_REGISTRY_BYTES:].removeprefix(_BYTE_ORDER_MARK)
        return framed if framed.lstrip()[:1] == b"{" else payload
    if payload == _BYTE_ORDER_MARK:
        raise InvalidReading("empty", "a byte order mark and nothing behind it")
    return payload.removeprefix(_BYTE_ORDER_MARK)


def _decode_nested(payload: bytes) -> SentMessage:
    # How deep the first parser goes depends on the caller's stack; this one's limit is fixed.
    try:
        return msgspec.convert(orjson.loads(payload), SentMessage)
    except orjson.JSONDecodeError:
        raise InvalidReading("not_json", "not JSON, or nested too deep") from None
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidReading(
            "wrong_type", "nested too deep, and its fields are not as they must be"
        ) from None


def _diagnose(payload: bytes, problem: Exception) -> InvalidReading:
    """Say in a user's words why a message was refused; slow, and only for those."""
    if container := _container(payload):
        return container
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
    except json.JSONDecodeError as bad:
        return _not_json(text, bad)
    except (ValueError, RecursionError):
        return InvalidReading("not_json", "not JSON, or nested too deep")
    if not isinstance(message, dict):
        return _not_object(message)
    return next(_faults(message), InvalidReading("not_json", f"not JSON: {problem}"))


def _container(payload: bytes) -> InvalidReading | None:
    """Recognise by its first bytes what is no text of one byte a character."""
    start = payload[:40]
    # Of ASCII in UTF-16 every second byte is zero, of binary formats hardly ever.
    is_wide = len(start) > 1 and not (any(start[1::2]) and any(start[::2]))
    if is_wide or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return InvalidReading("not_utf8", "UTF-16 or UTF-32: send UTF-8")
    if payload[0] == 0:
        code = "the five bytes of a schema registry, and no JSON object behind them"
        return InvalidReading("not_json", f"{code}: Avro or Protobuf? Send JSON")
    for magic, name in ((b"\x1f\x8b", "gzip"), (b"Obj\x01", "Avro"), (b"PAR1", "Parquet")):
        if payload.startswith(magic):
            return InvalidReading("not_json", f"{name}: send JSON")
    return None


def _no_constant(name: str) -> Any:
    raise InvalidReading("not_finite", f"{name} is not a number")


def _not_json(text: str, bad: json.JSONDecodeError) -> InvalidReading:
    rest = text[bad.pos :]
    if bad.msg == "Extra data":
        return InvalidReading(
            "not_json", f"text behind the JSON, {shown(rest[:20])}: one object a message"
        )
    before = text[: bad.pos].rstrip()
    if not rest or bad.msg.startswith("Unterminated"):
        hint = "; it ends in the middle"
    elif rest.startswith("'"):
        hint = "; JSON has double quotes"
    elif rest[0].isdigit() and re.search(r"\d,$", before):
        hint = "; a decimal comma? JSON has a point"
    elif re.match(r"[+.]", rest) or re.search(r"-$", before):
        hint = "; a number has no + and digits on both sides of its point"
    elif re.match(r"True|False|None", rest):
        hint = "; JSON has true, false and null"
    else:
        hint = ""
    return InvalidReading("not_json", f"not JSON at character {bad.pos}, {shown(rest[:20])}{hint}")


def _not_object(value: Any) -> InvalidReading:
    if isinstance(value, list):
        said = f"an array of {len(value)}, not an object: send each reading as a message"
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        said = "a JSON string that holds JSON: it was encoded twice"
    else:
        said = f"{shown(value)}, not a JSON object"
    return InvalidReading("not_object", said)


# What a field may hold, in Python and in words.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "value": ((int, float), "a number"),
    "timestamp": ((str, int, float), "an ISO 8601 string or a number since 1970"),
    "anomaly": ((bool, type(None)), "true, false, 0, 1 or null"),
    "unit": ((str, type(None)), "a string or null"),
}


def _faults(message: dict[str, Any]) -> Iterator[InvalidReading]:
    for field in msgspec.structs.fields(Message):
        name = field.name
        if name in message:
            yield from _faults_of(name, message[name])
        elif field.default is msgspec.NODEFAULT:
            yield InvalidReading("missing_field", f"field {name} is missing{_found(name, message)}")


def _faults_of(name: str, value: Any) -> Iterator[InvalidReading]:
    types, expected = _TYPES.get(name, ((str,), "a string"))
    is_truth_of_number = name != "anomaly" and isinstance(value, bool)
    is_number_of_truth = name == "anomaly" and type(value) is int and value in (0, 1)
    if (not isinstance(value, types) or is_truth_of_number) and not is_number_of_truth:
        said = f"{name} must be {expected}, not {shown(value)}{_hint(name, value)}"
        yield InvalidReading("wrong_type", said)
    elif name == "value" and not abs(value) < 1e300:
        yield InvalidReading("out_of_range", f"{name} does not fit -99999999.99..99999999.99")
    elif isinstance(value, str):
        yield from _faults_of_text(name, value)


def _faults_of_text(name: str, text: str) -> Iterator[InvalidReading]:
    if any("\ud800" <= c <= "\udfff" for c in text):
        yield InvalidReading("bad_character", f"{name} contains a lone surrogate")
    low, high = TEXT_LENGTHS.get(name, (0, MAX_PAYLOAD_BYTES))
    if not low <= len(text) <= high:
        yield InvalidReading(
            "text_length", f"{name} has {len(text)} characters, allowed are {low}..{high}"
        )


def _hint(name: str, value: Any) -> str:
    if name != "value" or not isinstance(value, str):
        return ""
    if re.fullmatch(r"\s*[+-]?[0-9.]*,[0-9]+\s*", value):
        return ": a decimal comma? JSON has a point"
    return ": a string must hold a JSON number and nothing else"


def _found(name: str, message: dict[str, Any]) -> str:
    """Say where else what is missing seems to be: under another name, or further in."""
    for key, value in message.items():
        if plain_name(key) in USUAL_NAMES.get(name, ()):
            return f"; there is {shown(key)}: rename it"
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and (name in inner or _has_value(inner)):
            return f"; the reading seems to be inside {shown(key)}: unwrap it"
    return ""


def _has_value(inner: dict[str, Any]) -> bool:
    return any(isinstance(value, int | float) for value in inner.values())


def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]", "", name.lower())
