"""The message: what a reading is, how it is written, and which messages are none.

One function decodes for all services (``decode_batch``), so that what is aggregated and scored is
what is stored, and every service comes to the same verdict on a message at any later time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

# A reading is some 200 bytes; whoever sends a quarter of a megabyte is not sending one.
MAX_PAYLOAD_BYTES = 262_144
# NUMERIC(10,2) holds up to 99,999,999.99.
MAX_HUNDREDTHS = 9_999_999_999
# How far a sensor's clock may be ahead of the broker's; more would close everyone's windows.
MAX_AHEAD_US = 5 * 60 * 1_000_000

# Messages decoded together. A bad one sends only its chunk the slower way.
_CHUNK = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A year of room at both ends of what a datetime holds: windows and watermarks lie around a reading.
_MIN_US = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX_US = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND

TEXT_LENGTHS = {
    "sensor_id": (1, 100),
    "sensor_type": (1, 50),
    "location": (1, 100),
    "unit": (0, 20),
}


@dataclass(frozen=True)
class Reading:
    """One measured value of one sensor at one event time (``timestamp``, aware, UTC)."""

    sensor_id: str
    sensor_type: str
    location: str
    value: float
    timestamp: datetime
    anomaly: bool
    unit: str


@dataclass(frozen=True)
class Readings:
    """Readings as columns, in the order of their messages.

    Attributes
    ----------
    position : array of int
        Index of each reading's message in the batch it was decoded from.
    hundredths : array of int64
        Values in hundredths of their unit, exact.
    timestamp_us : array of int64
        Event times, microseconds since the epoch, UTC.
    """

    position: npt.NDArray[np.int64]
    sensor_id: list[str]
    sensor_type: list[str]
    location: list[str]
    hundredths: npt.NDArray[np.int64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: npt.NDArray[np.bool_]
    unit: list[str]

    def __len__(self) -> int:
        return len(self.sensor_id)

    def take(self, rows: npt.NDArray[np.intp]) -> Readings:
        """Return the readings at ``rows``, in that order."""
        picked = rows.tolist()
        return Readings(
            self.position[rows],
            [self.sensor_id[i] for i in picked],
            [self.sensor_type[i] for i in picked],
            [self.location[i] for i in picked],
            self.hundredths[rows],
            self.timestamp_us[rows],
            self.anomaly[rows],
            [self.unit[i] for i in picked],
        )


@dataclass(frozen=True)
class Rejected:
    """A message that is no reading: its index in the batch, the fault as a word and a sentence."""

    position: int
    reason_code: str
    reason: str


class InvalidReading(ValueError):
    """A message is no reading; ``code`` is the kind of fault in one word."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Message(msgspec.Struct, gc=False):
    """The JSON object as it must be; msgspec checks fields, types and lengths while it parses."""

    sensor_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sensor_type: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    location: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    value: float
    timestamp: str
    anomaly: bool
    unit: Annotated[str, msgspec.Meta(max_length=20)]


class _PlainMessage(_Message, gc=False, forbid_unknown_fields=True):
    """A message of these fields only: then the parser looks at every byte of it."""


_FIELDS = {name: attrgetter(name) for name in _Message.__struct_fields__}
_parse = msgspec.json.Decoder(_Message).decode
_parse_plain = msgspec.json.Decoder(_PlainMessage).decode


def reading_key(location: str, sensor_type: str) -> bytes:
    """Return the message key: it keeps the readings of one window in order in one partition."""
    return f"{location}/{sensor_type}".encode()


def encode_reading(reading: Reading) -> bytes:
    """Return the message of a reading, UTF-8 JSON."""
    return orjson.dumps(
        {
            "sensor_id": reading.sensor_id,
            "sensor_type": reading.sensor_type,
            "location": reading.location,
            "value": reading.value,
            "timestamp": reading.timestamp.isoformat(),
            "anomaly": reading.anomaly,
            "unit": reading.unit,
        }
    )


def decode_batch(
    payloads: Sequence[bytes | None], kafka_timestamp_ms: npt.NDArray[np.int64]
) -> tuple[Readings, list[Rejected]]:
    """Decode messages to columns; whatever is no reading comes back with its reason.

    Parameters
    ----------
    payloads : sequence of bytes or None
        Message values; None is a tombstone.
    kafka_timestamp_ms : array of int64
        When the broker appended each message, milliseconds since the epoch; negative = unknown,
        and then the reading's own time is not checked.
    """
    position: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    rejected: list[Rejected] = []
    for begin in range(0, len(payloads), _CHUNK):
        chunk = payloads[begin : begin + _CHUNK]
        messages = _decode_plain(chunk)
        if messages is not None:
            position += range(begin, begin + len(chunk))
        else:
            messages = []
            for i, payload in enumerate(chunk, begin):
                try:
                    messages.append(_decode(payload))
                    position.append(i)
                except InvalidReading as problem:
                    rejected.append(Rejected(i, problem.code, str(problem)))
        # While they are in the processor's cache.
        for name, get in _FIELDS.items():
            columns[name] += map(get, messages)

    times, wrong_times = _to_microseconds(columns["timestamp"])
    hundredths, fits = to_hundredths(np.array(columns["value"], dtype=np.float64))
    readings = Readings(
        np.array(position, dtype=np.int64),
        columns["sensor_id"],
        columns["sensor_type"],
        columns["location"],
        hundredths,
        times,
        np.array(columns["anomaly"], dtype=np.bool_),
        columns["unit"],
    )
    appended_us = kafka_timestamp_ms[readings.position] * 1000
    ahead = (appended_us >= 0) & (readings.timestamp_us > appended_us + MAX_AHEAD_US)
    good = fits & ~ahead
    good[list(wrong_times)] = False
    if not good.all():
        for row in np.flatnonzero(~good).tolist():
            fault = wrong_times.get(row) or _problem_of_row(
                columns["value"][row], columns["timestamp"][row], bool(fits[row])
            )
            rejected.append(Rejected(position[row], fault.code, str(fault)))
        readings = readings.take(np.flatnonzero(good))
        rejected.sort(key=lambda r: r.position)
    return readings, rejected


def _decode_plain(payloads: Sequence[bytes | None]) -> list[_Message] | None:
    """Decode messages that are all good and plain, in half the time; None when one is not."""
    try:
        joined = b"".join(payloads)  # type: ignore[arg-type]  # a tombstone is a TypeError
        # One byte is found ten times as fast as six.
        if b"\\" in joined and b"\\u0000" in joined:
            return None
        if len(joined) > MAX_PAYLOAD_BYTES < max(map(len, payloads)):  # type: ignore[arg-type]
            return None
        return list(map(_parse_plain, payloads))  # type: ignore[arg-type]
    except (TypeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _decode(payload: bytes | None) -> _Message:
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


def _decode_nested(payload: bytes) -> _Message:
    # How deep the first parser goes depends on the caller's stack; this one's limit is fixed.
    try:
        return msgspec.convert(orjson.loads(payload), _Message)
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
    if not _MIN_US <= microseconds < _MAX_US:
        raise InvalidReading(
            "bad_timestamp", f"timestamp {_shown(text)} is outside the years 2..9998"
        )
    return microseconds


# Without separators (20260131T120000Z), or by week (2026W051T...): the T is not at index 10.
_BASIC_FORMAT = re.compile(r"\d{4}(\d{4}|W\d{2}\d?|-W\d{2})(T[\d:.,Z+-]*)?")


def _to_microseconds(
    texts: list[str],
) -> tuple[npt.NDArray[np.int64], dict[int, InvalidReading]]:
    """Return ``parse_timestamp_us`` of each, and what it refuses, by index (its time is 0)."""
    if (times := _plain_times(texts)) is not None:
        return times, {}
    times = np.zeros(len(texts), dtype=np.int64)
    wrong = {}
    for i, text in enumerate(texts):
        try:
            times[i] = parse_timestamp_us(text)
        except InvalidReading as problem:
            wrong[i] = problem
    return times, wrong


_PLAIN_TIME = "dddd-dd-ddTdd:dd:dd.dddddd"
_SECONDS_LENGTH = 19


def _plain_times(texts: list[str]) -> npt.NDArray[np.int64] | None:
    """Parse times of one length that end in Z or +00:00, as a table of characters; else None.

    A third of the time of one by one. What a plain time is, is checked here; numpy would take more.
    """
    zone = "Z" if texts and texts[0].endswith("Z") else "+00:00"
    length = len(texts[0]) - len(zone) if texts else 0
    if not _SECONDS_LENGTH <= length <= len(_PLAIN_TIME) or length == _SECONDS_LENGTH + 1:
        return None
    if set(map(len, texts)) != {length + len(zone)}:
        return None
    pattern = np.frombuffer((_PLAIN_TIME[:length] + zone).encode(), dtype=np.uint8)
    is_digit = pattern == ord("d")
    try:
        characters = np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(len(texts), -1)
        # Below "0" the difference wraps around.
        if (characters[:, is_digit] - ord("0") > 9).any():
            return None
        if (characters[:, ~is_digit] != pattern[~is_digit]).any():
            return None
        plain = np.ascontiguousarray(characters[:, :length]).view(f"S{length}")[:, 0]
        times = plain.astype("datetime64[us]").astype(np.int64)
    except ValueError:  # not ASCII; the 30th of February
        return None
    return times if _MIN_US <= times.min() and times.max() < _MAX_US else None


def to_hundredths(
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Round values half even to hundredths, as the decimal numbers that their text says.

    Binary doubles blur ties: 1.145 is a tie, the double nearest to it is not. Near a tie the
    shortest decimal that reads back as the double decides.

    Returns
    -------
    hundredths : array of int64
        0 where the value does not fit.
    fits : array of bool
        Whether the rounded value fits NUMERIC(10,2).
    """
    possible = np.abs(values) <= MAX_HUNDREDTHS / 100 + 1  # False for NaN
    scaled = np.where(possible, values, 0.0) * 100.0
    hundredths = np.rint(scaled).astype(np.int64)
    # 1e10 hundredths have an ulp of 2e-6, so a tie that was blurred is well within 1e-4.
    near_tie = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-4
    for i in np.flatnonzero(near_tie).tolist():
        exact = Decimal(repr(float(values[i]))).scaleb(2)
        hundredths[i] = int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))
    return hundredths, possible & (np.abs(hundredths) <= MAX_HUNDREDTHS)


def _problem_of_row(value: float, timestamp: str, fits: bool) -> InvalidReading:
    if not fits:
        return InvalidReading(
            "out_of_range", f"value {value!r} is outside -99999999.99..99999999.99"
        )
    ahead_s = MAX_AHEAD_US // 1_000_000
    return InvalidReading(
        "future_timestamp",
        f"timestamp {_shown(timestamp)} is over {ahead_s} s after its arrival",
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


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
    for name in _Message.__struct_fields__:
        if name not in message:
            return InvalidReading("missing_field", f"field {name} is missing")
        value = message[name]
        expected = {"value": "a number", "anomaly": "true or false"}.get(name, "a string")
        kinds = {"value": (int, float), "anomaly": (bool,)}.get(name, (str,))
        if not isinstance(value, kinds) or (name == "value" and isinstance(value, bool)):
            return InvalidReading(
                "wrong_type", f"{name} must be {expected}, not {_shown(repr(value))}"
            )
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
