"""What a reading is: the fields of a message, their limits, and every form that a time may have.

What is said here of one holds for all of a batch (pipeline/decoding.py).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

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
    """A message in its plain form; msgspec checks fields, types and lengths while it parses."""

    sensor_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sensor_type: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    location: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    value: float
    timestamp: str
    anomaly: bool = False
    unit: Annotated[str, msgspec.Meta(max_length=20)] = ""


_JSON_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z"


class SentMessage(Message, gc=False):
    """A message in any form that is accepted; ``make_plain`` makes it a ``Message``."""

    value: float | Annotated[str, msgspec.Meta(pattern=_JSON_NUMBER)]  # type: ignore[assignment]
    timestamp: str | int | float  # type: ignore[assignment]
    anomaly: bool | Literal[0, 1] | None = False  # type: ignore[assignment]
    unit: Annotated[str, msgspec.Meta(max_length=20)] | None = ""  # type: ignore[assignment]

    def make_plain(self) -> None:
        """Give every field the plain form of what it says.

        Raises
        ------
        InvalidReading
            When the time is a number out of range.
        """
        self.value = float(self.value)
        if not isinstance(self.timestamp, str):
            self.timestamp = _time_of_number(self.timestamp)
        self.anomaly = bool(self.anomaly)
        self.unit = self.unit or ""


# Shortest and longest, of each text that has limits.
TEXT_LENGTHS = {
    field.name: (field.type.min_length or 0, field.type.max_length)
    for field in msgspec.inspect.type_info(Message).fields  # type: ignore[attr-defined]
    if isinstance(field.type, msgspec.inspect.StrType) and field.type.max_length
}

# Numbers below it count so many microseconds each since 1970: seconds until the year 5138, then
# milliseconds, microseconds; what is larger counts nanoseconds.
_UNITS_OF_TIME = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))


def _time_of_number(number: float) -> str:
    """Return the ISO 8601 time that a number since 1970 says.

    Raises
    ------
    InvalidReading
        With code ``bad_timestamp``.
    """
    for limit, microseconds in _UNITS_OF_TIME:
        if number < limit:
            # A double holds seconds of today to a quarter of a microsecond.
            since_us = round(number * microseconds)
            break
    else:
        since_us = int(number) // 1_000
    if not MIN_US <= since_us < MAX_US:
        raise InvalidReading(
            "bad_timestamp",
            f"timestamp {shown(number)} is outside the years 2..9998; a number is seconds (below"
            " 1e11), milliseconds (1e14), microseconds (1e17) or nanoseconds since 1970",
        )
    return (_EPOCH + since_us * _MICROSECOND).isoformat()


def parse_timestamp_us(text: str) -> int:
    """Return an ISO 8601 time as microseconds since the epoch; without an offset it is UTC.

    Raises
    ------
    InvalidReading
        With code ``bad_timestamp``.
    """
    parsed = _parse_iso(text) or _parse_iso(_USUAL_FORM.sub(_iso_form, text))
    if parsed is None:
        raise InvalidReading(
            "bad_timestamp",
            f"timestamp {shown(text)} is not ISO 8601, e.g. 2026-01-31T12:00:00Z{_hint(text)}",
        )
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    microseconds = (parsed - _EPOCH) // _MICROSECOND
    if not MIN_US <= microseconds < MAX_US:
        raise InvalidReading(
            "bad_timestamp", f"timestamp {shown(text)} is outside the years 2..9998"
        )
    return microseconds


def _parse_iso(text: str) -> datetime | None:
    # Python takes any character between date and time; the standards know T and a blank.
    if text[10:11] not in ("T", " ", "") and not _BASIC_FORMAT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


# Without separators (20260131T120000Z), or by week (2026W051T...): the T is not at index 10.
_BASIC_FORMAT = re.compile(r"\d{4}(\d{4}|W\d{2}\d?|-W\d{2})(T[\d:.,Z+-]*)?")
# As RFC 3339 also allows it, and as programs print it: t, z, a blank before the offset, UTC.
_USUAL_FORM = re.compile(
    r"\A([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:.,]{5,}) ?(z|Z|UTC|[+-][0-9]{2}:?[0-9]{2}|)\Z"
)


def _iso_form(usual: re.Match[str]) -> str:
    date, time, zone = usual.groups()
    return f"{date}T{time}{'Z' if zone in ('z', 'UTC') else zone}"


def _hint(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return "; a number since 1970 goes without quotes"
    if text.endswith("]"):
        return "; without the name of the zone in brackets"
    if re.search(r"[0-9][./][0-9]+[./][0-9]", text):
        return "; a date is year-month-day"
    return ""


def problem_of_numbers(value: float, timestamp: str, fits: bool) -> InvalidReading:
    """Say which of the two is wrong: a value that does not fit, or else a time of the future."""
    if not fits:
        return InvalidReading(
            "out_of_range", f"value {value!r} is outside -99999999.99..99999999.99"
        )
    ahead_s = MAX_AHEAD_US // 1_000_000
    parsed = _parse_iso(timestamp)
    is_local = parsed is not None and parsed.tzinfo is None
    return InvalidReading(
        "future_timestamp",
        f"timestamp {shown(timestamp)} is over {ahead_s} s after its arrival"
        + ("; without an offset it is UTC: is it local time?" if is_local else ""),
    )


def shown(value: object) -> str:
    """Return a value as a reason shows it: as JSON writes it, printable, not too long."""
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:60])
    return text if len(text) < 60 else text[:57] + "..."
