"""Recordings: CSV text, one reading a line, read a chunk at a time.

The first line names the columns, in any order: ``timestamp`` and ``value`` must be there,
``sensor_id``, ``sensor_type``, ``location``, ``unit`` and ``anomaly`` may be; others are ignored.
Where an optional column is missing, or empty in a line, a default stands in. A line becomes the
message that a sensor would have sent, and what is a reading is decided where it is for all messages
(pipeline/decoding.py). One that is none costs that line only: each is split on its own, so an
unclosed quote does not swallow the lines below.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from pipeline.decoding import decode_batch
from pipeline.encoding import Sensor

REQUIRED_COLUMNS = ("timestamp", "value")
# A longer line is no reading, and a file may be anything.
MAX_LINE_CHARACTERS = 65_536
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0", ""), False),
}
# Leaves bytes that are not UTF-8 as they are, for the decoder to refuse.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
        In the sensor's unit, rounded to hundredths as every reading is.
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
        self._default_texts = tuple(default._asdict().items())
        self._line_number = 1
        self.is_over = False
        header = file.readline(MAX_LINE_CHARACTERS)
        if not header.strip():
            raise NoRecording("empty" if not header else "the first line is empty")
        try:
            self._columns = [name.strip().lower() for name in _split(header)]
        except _BrokenLineError as problem:
            raise NoRecording(f"its first line is {problem}") from None
        missing = [name for name in REQUIRED_COLUMNS if name not in self._columns]
        if missing:
            raise NoRecording(
                f"no column {' and no column '.join(missing)} in its first line"
                f" {header.strip()[:60]!r}; names are separated by commas"
            )
        for name in (*REQUIRED_COLUMNS, *Sensor._fields, "anomaly"):
            if self._columns.count(name) > 1:
                raise NoRecording(f"column {name} is there twice")

    def read(self, max_lines: int) -> RecordedReadings:
        """Return the readings of the next lines; sets ``is_over`` at the end of the file."""
        messages: list[bytes] = []
        line_numbers: list[int] = []
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
                messages.append(self._message(line))
                line_numbers.append(self._line_number)
            except _BrokenLineError as problem:
                broken.append(BrokenLine(self._line_number, str(problem)))
        # Nothing has been appended anywhere yet, so a time of the future is no fault.
        readings, rejected = decode_batch(messages, np.full(len(messages), -1))
        broken += [BrokenLine(line_numbers[each.position], each.reason) for each in rejected]
        texts = (getattr(readings, name).to_pylist() for name in Sensor._fields)
        return RecordedReadings(
            list(map(Sensor, *texts)),
            readings.hundredths / 100,
            readings.timestamp_us,
            readings.anomaly.tolist(),
            sorted(broken),
        )

    def _message(self, line: str) -> bytes:
        """Return what a sensor would have sent."""
        if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
            self._skip_line()
            raise _BrokenLineError(f"longer than {MAX_LINE_CHARACTERS} characters")
        fields = _split(line)
        if len(fields) != len(self._columns):
            raise _BrokenLineError(
                f"{len(fields)} columns, the first line has {len(self._columns)}"
            )
        given = {name: text.strip() for name, text in zip(self._columns, fields, strict=True)}
        flag = given.get("anomaly", "").lower()
        message = {
            **{name: given.get(name) or default for name, default in self._default_texts},
            "value": _number(given["value"]),
            "timestamp": given["timestamp"],
            "anomaly": _BOOLEANS.get(flag, flag),
        }
        return _to_json(message).encode("utf-8", "surrogateescape")

    def _skip_line(self) -> None:
        while (rest := self._file.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
            pass


class _BrokenLineError(ValueError):
    """A line cannot even become a message; the text says why."""


def _split(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as problem:
        raise _BrokenLineError(f"not CSV: {problem}") from None


def _number(text: str) -> float | str:
    """Return the number that a text says, or the text, for the decoder to refuse."""
    try:
        return text if "_" in text else float(text)  # Python takes 1_000
    except ValueError:
        return text
