"""What the cells of a recording say: numbers and times as programs and countries write them.

What is unclear is left as it is, for the decoder of messages to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

MISSING = frozenset(
    ("", *"na n/a #n/a #na nan -nan null none nil - -- ? unavailable unknown missing".split())
)
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0", ""), False),
}

_GROUPED = {
    ".": re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?"),
    ",": re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?"),
}


def is_missing(text: str) -> bool:
    """Tell whether a cell says that nothing was measured."""
    return text.lower() in MISSING


def to_number(text: str, decimal: str) -> float | str:
    """Return the number that a cell says, or else the text.

    Parameters
    ----------
    decimal : str
        The sign before the decimals, point or comma; the other one may part thousands.
    """
    plain = text
    if _GROUPED[decimal].fullmatch(text):
        plain = text.replace("," if decimal == "." else ".", "")
    if decimal == ",":
        plain = plain.replace(",", ".")
    try:
        return text if "_" in plain else float(plain)  # Python takes 1_000
    except ValueError:
        return text


def guess_decimal(texts: Iterable[str]) -> str | None:
    """Return the decimal sign; None where commas may part thousands or decimals."""
    found = [text for text in texts if re.fullmatch(r"[+-]?[0-9.]*,[0-9,.]+", text)]
    if not found or any(_GROUPED["."].fullmatch(text) and text.count(",") > 1 for text in found):
        return "."
    if any(text.rfind(".") > text.rfind(",") for text in found):
        return "."
    if all(re.fullmatch(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", text) for text in found):
        return None
    return ","


_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:.*)?")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE]\+?[0-9]+)?")
_COMPACT = re.compile(
    r"((?:19|20)[0-9]{2})(0[1-9]|1[0-2])([0-2][0-9]|3[01])(?:([0-9]{2})([0-9]{2})([0-9]{2})?)?"
)
_OTHER = re.compile(
    r"(?:([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})"
    r"|([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4}|[0-9]{2}))"
    r"(?:[Tt ,]+([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2})(?:[.,]([0-9]+))?)?)?"
    r" ?(?:([AaPp])\.?[Mm]\.?)? ?([Zz]|UTC|[+-][0-9]{2}:?[0-9]{2})?"
)
_CENTURY = 2000
_NOON = 12


def guess_day_first(texts: Iterable[str]) -> bool:
    """Tell whether in dates like 1/2/2024 the day is first: yes, unless they say otherwise."""
    for match in filter(None, map(_OTHER.fullmatch, texts)):
        first, second, half = match.group(4, 5, 11)
        if first and (int(second) > _NOON or half):
            return False
    return True


def to_time(text: str, day_first: bool) -> str | int | float:
    """Return what the decoder takes as this time, or else the text."""
    if _ISO.fullmatch(text):
        return text
    if match := _COMPACT.fullmatch(text):
        year, month, day, hour, minute, second = match.groups("00")
        return f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    match = _OTHER.fullmatch(text)
    return _to_iso(match, day_first) if match else text


def _to_iso(match: re.Match[str], day_first: bool) -> str:
    year, month, day, first, second, short, hour, minute, seconds, decimals, half, zone = (
        match.groups("")
    )
    if not year:
        day, month = (first, second) if day_first else (second, first)
        year = short if len(short) > 2 else str(_CENTURY + int(short))
    hours = int(hour or 0)
    if half:
        hours = hours % _NOON + (_NOON if half in "Pp" else 0)
    text = f"{year}-{month:0>2}-{day:0>2}T{hours:02}:{minute or '00'}:{seconds or '00'}"
    return f"{text}.{decimals}{zone}" if decimals else text + zone


class LocalTimes:
    """Local times without an offset to UTC.

    Where autumn repeats an hour, a time of a series that would go back is of the second one.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._latest: dict[Hashable, datetime] = {}

    def to_utc(self, text: str, series: Hashable) -> str:
        """Return the time in UTC; one with an offset, or that is none, as it is."""
        try:
            local = datetime.fromisoformat(text)
        except ValueError:
            return text
        if local.tzinfo is not None:
            return text
        first = local.replace(tzinfo=self._zone)
        second = first.replace(fold=1)
        instant = first.astimezone(UTC)
        latest = self._latest.get(series)
        if latest is not None and instant < latest and first.utcoffset() != second.utcoffset():
            instant = second.astimezone(UTC)
        self._latest[series] = instant
        return instant.isoformat()
