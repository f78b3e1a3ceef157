"""Recordings: CSV text, one reading a line, read a chunk at a time.

The first line names the columns, in any order: ``timestamp`` and ``value`` must be there,
``sensor_id``, ``sensor_type``, ``location``, ``unit`` and ``anomaly`` may be; others are ignored.
Where an optional column is missing, or empty in a line, a default stands in. A line that is no
reading costs that line only, whatever is wrong with it: each line is parsed on its own, so an
unclosed quote does not swallow the lines below.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from pipeline.decoding import to_hundredths
from pipeline.reading import TEXT_LENGTHS, InvalidReading, parse_timestamp_us
from pipeline.sensor_types import Sensor

REQUIRED_COLUMNS = ("timestamp", "value")
# A longer line is no reading, and a file may be anything.
MAX_LINE_CHARACTERS = 65_536
# Only a value this large can round to one that does not fit.
_LARGE_VALUE = 99_999_999.0
# Beyond this many sensors somebody numbers the readings; they are checked again, not remembered.
_MAX_KNOWN_SENSORS = 100_000
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


class NoRecording(ValueError):
    """The text cannot be read as a recording at all."""


class BrokenLine(NamedTuple):
    """A line that is no reading: its number in the file, counted from 1, and what is wrong."""

    line_number: int
    reason: str


@dataclass(frozen=True)
class RecordedReadings:
    """Some readings of a recording as columns, and the broken lines among them.

    Attributes
    ----------
    sensors : list of Sensor
        Whose reading it is.
    values : array of float64
        As recorded, in the sensor's unit.
    timestamp_us : array of int64
        Event times as recorded, microseconds since the epoch, UTC.
    anomaly : list of bool
        The flags.
    """

    sensors: list[Sensor]
    values: npt.NDArray[np.float64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: list[bool]
    broken: list[BrokenLine]

    def __len__(self) -> int:
        return len(self.sensors)


class Recording:
    """A recording being read.

    Parameters
    ----------
    file : text file
        At its beginning. Bytes that are not UTF-8 must have been decoded by ``surrogateescape``.
    default : Sensor
        What is not recorded.

    Raises
    ------
    NoRecording
        When the first line does not name the columns.
    """

    def __init__(self, file: TextIO, default: Sensor) -> None:
        self._file = file
        self._default = default
        self._line_number = 1
        self._known: set[Sensor] = set()
        self.is_over = False
        header = file.readline(MAX_LINE_CHARACTERS)
        if not header.strip():
            raise NoRecording("empty" if not header else "the first line is empty")
        try:
            names = [name.strip().lower() for name in _split(header)]
        except InvalidReading as problem:
            raise NoRecording(f"its first line is {problem}") from None
        missing = [name for name in REQUIRED_COLUMNS if name not in names]
        if missing:
            raise NoRecording(
                f"no column {' and no column '.join(missing)} in its first line {_shown(header)};"
                " names are separated by commas"
            )
        known = {*REQUIRED_COLUMNS, *Sensor._fields, "anomaly"}
        if repeated := sorted(name for name in known if names.count(name) > 1):
            raise NoRecording(f"column {repeated[0]} is there twice")
        self._width = len(names)
        self._at = {name: names.index(name) for name in known if name in names}

    def read(self, max_lines: int) -> RecordedReadings:
        """Return the readings of the next lines; sets ``is_over`` at the end of the file."""
        sensors: list[Sensor] = []
        values: list[float] = []
        times: list[int] = []
        flags: list[bool] = []
        broken: list[BrokenLine] = []
        for _ in range(max_lines):
            line = self._file.readline(MAX_LINE_CHARACTERS)
            if not line:
                self.is_over = True
                break
            self._line_number += 1
            if line.isspace():
                continue
            try:
                sensor, value, timestamp_us, flag = self._parse(line)
            except InvalidReading as problem:
                broken.append(BrokenLine(self._line_number, str(problem)))
                continue
            sensors.append(sensor)
            values.append(value)
            times.append(timestamp_us)
            flags.append(flag)
        return RecordedReadings(
            sensors,
            np.array(values, dtype=np.float64),
            np.array(times, dtype=np.int64),
            flags,
            broken,
        )

    def _parse(self, line: str) -> tuple[Sensor, float, int, bool]:
        if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
            self._skip_line()
            raise InvalidReading("too_large", f"longer than {MAX_LINE_CHARACTERS} characters")
        fields = _split(line)
        if len(fields) != self._width:
            raise InvalidReading(
                "columns", f"{len(fields)} columns, the first line has {self._width}"
            )
        timestamp_us = parse_timestamp_us(fields[self._at["timestamp"]].strip())
        value = _parse_value(fields[self._at["value"]].strip())
        sensor = Sensor._make(
            (name in self._at and fields[self._at[name]].strip()) or default
            for name, default in zip(Sensor._fields, self._default, strict=True)
        )
        self._check(sensor, line)
        flag = fields[self._at["anomaly"]].strip().lower() if "anomaly" in self._at else ""
        if flag and flag not in _BOOLEANS:
            raise InvalidReading("wrong_type", f"anomaly {_shown(flag)} is not true or false")
        return sensor, value, timestamp_us, _BOOLEANS.get(flag, False)

    def _skip_line(self) -> None:
        while (rest := self._file.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
            pass

    def _check(self, sensor: Sensor, line: str) -> None:
        if sensor in self._known:
            return
        for name, text in zip(Sensor._fields, sensor, strict=True):
            low, high = TEXT_LENGTHS[name]
            if not low <= len(text) <= high:
                raise InvalidReading(
                    "text_length", f"{name} has {len(text)} characters, allowed are {low}..{high}"
                )
            if "\0" in text:
                raise InvalidReading("bad_character", f"{name} contains a NUL character")
            if any("\ud800" <= c <= "\udfff" for c in text):
                raise InvalidReading("not_utf8", f"{name} {_shown(text)} is not UTF-8")
        if len(self._known) >= _MAX_KNOWN_SENSORS:
            self._known.clear()
        self._known.add(sensor)


def _split(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as problem:
        raise InvalidReading("columns", f"not CSV: {problem}") from None


def _parse_value(text: str) -> float:
    try:
        if "_" in text:  # Python takes 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise InvalidReading("wrong_type", f"value {_shown(text)} is not a number") from None
    if not math.isfinite(value):
        raise InvalidReading("not_finite", f"value {_shown(text)} is not finite")
    if abs(value) > _LARGE_VALUE and not to_hundredths(np.array([value]))[1][0]:
        raise InvalidReading(
            "out_of_range", f"value {_shown(text)} is outside -99999999.99..99999999.99"
        )
    return value


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
