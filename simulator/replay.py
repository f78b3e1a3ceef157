"""Recordings: tables of text as people have them, read a chunk at a time.

What the columns are is found in the first lines (simulator/layout.py). A value becomes the message
that a sensor would have sent, and what is a reading is decided where it is for all messages
(pipeline/decoding.py). What is none costs its line only.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TextIO
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.decoding import decode_batch
from pipeline.encoding import Sensor
from simulator.cells import BOOLEANS, LocalTimes, is_missing, to_number, to_time
from simulator.files import NoRecording
from simulator.layout import Layout, Wanted, find_layout

# A longer line is no reading, and a file may be anything.
MAX_LINE_CHARACTERS = 65_536
# Lines in which the header is looked for, and by which delimiter and decimal sign are guessed.
PROBE_LINES = 200
# Leaves bytes that are not UTF-8 as they are, for the decoder to refuse.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


GUESS = Wanted()
_Line = tuple[int, str]


class BrokenLine(NamedTuple):
    """A line that is no reading: its number in the file, counted from 1, and what is wrong."""

    line_number: int
    reason: str
    code: str


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
    anomaly : array of bool
        The flags.
    """

    sensors: list[Sensor]
    values: npt.NDArray[np.float64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: npt.NDArray[np.bool_]
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
        What is not recorded; an empty ``sensor_type`` is the name of the column of values.
    wanted : Wanted
        What is known of the columns.
    zone : ZoneInfo or None
        Of times without an offset; None = UTC.
    patience : callable
        Makes of the iterator of lines one that raises ``BlockingIOError`` when none comes for now.

    Raises
    ------
    NoRecording
        When its first lines do not show what its columns are.
    """

    def __init__(
        self,
        file: TextIO,
        default: Sensor,
        wanted: Wanted = GUESS,
        zone: ZoneInfo | None = None,
        patience: Callable[[Iterator[_Line]], Iterator[_Line]] = iter,
    ) -> None:
        self._lines = patience(_numbered(file))
        probe, self.layout = self._probe(wanted)
        self._default = default
        self._local = LocalTimes(zone) if zone else None
        self._pending = [each for each in probe if each[0] > self.layout.header_line]
        self.is_over = False
        self.is_paused = False

    def _probe(self, wanted: Wanted) -> tuple[list[_Line], Layout]:
        """Return the first lines and what they show; before a pause they need not show it."""
        probe: list[_Line] = []
        while True:
            is_paused = False
            try:
                probe += islice(self._lines, PROBE_LINES - len(probe))
            except BlockingIOError:
                is_paused = True
            try:
                if not is_paused or len(probe) > 1:  # a header alone shows no values
                    return probe, find_layout([line for _, line in probe], wanted)
            except NoRecording:
                if not is_paused:
                    raise

    def read(self, max_lines: int) -> RecordedReadings:
        """Return the readings of the next lines; sets ``is_over`` at the end of the file.

        Sets ``is_paused`` where it returns fewer because none comes for now.
        """
        lines, self._pending = self._pending[:max_lines], self._pending[max_lines:]
        broken: list[BrokenLine] = []
        try:
            lines += islice(self._lines, max_lines - len(lines))
            self.is_paused, self.is_over = False, len(lines) < max_lines
        except BlockingIOError:
            self.is_paused = True
        except (EOFError, OSError, zlib.error) as problem:  # a compressed file that was cut
            at = lines[-1][0] if lines else self.layout.header_line
            broken.append(BrokenLine(at, f"the file breaks off behind it: {problem}", "cut_off"))
            self.is_over = True
        messages: list[bytes] = []
        line_numbers: list[int] = []
        for line_number, cells in self._rows(lines, broken):
            found = list(self._messages(cells))
            messages += found
            line_numbers += [line_number] * len(found)
            if not found and any(cells):
                said = cells[self.layout.values[0]]
                reason = f"no value in it{f': {said[:40]!r}' if said else ''}"
                broken.append(BrokenLine(line_number, reason, "missing_value"))
        # Nothing has been appended anywhere yet, so a time of the future is no fault.
        readings, rejected = decode_batch(messages, np.full(len(messages), -1))
        broken += [BrokenLine(line_numbers[r.position], r.reason, r.reason_code) for r in rejected]
        texts = (getattr(readings, name).to_pylist() for name in Sensor._fields)
        return RecordedReadings(
            list(map(Sensor, *texts)),
            readings.hundredths / 100,
            readings.timestamp_us,
            readings.anomaly,
            sorted(broken),
        )

    def _rows(
        self, lines: Sequence[tuple[int, str]], broken: list[BrokenLine]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the cells of each line; what cannot be split together is halved until it can."""
        lines = [(number, line) for number, line in lines if line.strip() and line[0] != "#"]
        if not lines:
            return
        rows = self._split("".join(line for _, line in lines))
        if rows is not None and len(rows) == len(lines):
            yield from zip((number for number, _ in lines), rows, strict=True)
        elif len(lines) == 1:
            reason = f"not {len(self.layout.names)} columns, or a quote that is not closed"
            broken.append(BrokenLine(lines[0][0], reason, "not_a_row"))
        else:
            yield from self._rows(lines[: len(lines) // 2], broken)
            yield from self._rows(lines[len(lines) // 2 :], broken)

    def _split(self, text: str) -> list[list[str]] | None:
        width = len(self.layout.names)
        try:
            table = pd.read_csv(
                io.BytesIO(text.encode("utf-8", "surrogateescape")),
                sep=self.layout.delimiter,
                header=None,
                names=range(width + 1),  # one more, to see what is too long
                index_col=False,
                dtype=object,  # text; pandas' own takes no surrogates
                na_filter=False,
                skipinitialspace=True,
                encoding_errors="surrogateescape",
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError):
            return None
        if table[width].any():
            return None
        return table.iloc[:, :width].to_numpy().tolist()

    def _messages(self, cells: list[str]) -> Iterator[bytes]:
        """Yield what sensors would have sent."""
        layout = self.layout
        given = {field: cells[i].strip() for field, i in layout.roles.items()}
        time = to_time(" ".join(cells[i].strip() for i in layout.time), layout.day_first)
        flag = given.get("anomaly", "").lower()
        for i in layout.values:
            text = cells[i].strip()
            if is_missing(text):
                continue
            name = layout.names[i]
            sensor_type = given.get("sensor_type") or self._default.sensor_type
            message = {
                "sensor_id": given.get("sensor_id")
                or (name if layout.is_wide else self._default.sensor_id),
                "sensor_type": sensor_type or (name if layout.is_wide else "unknown"),
                "location": given.get("location") or self._default.location,
                "unit": given.get("unit") or layout.units[i] or self._default.unit,
                "value": to_number(text, layout.decimal),
                "timestamp": time,
                "anomaly": BOOLEANS.get(flag, flag),
            }
            if self._local and isinstance(time, str):
                series = (message["location"], message["sensor_type"], message["sensor_id"])
                message["timestamp"] = self._local.to_utc(time, series)
            yield _to_json(message).encode("utf-8", "surrogateescape")


def _numbered(file: TextIO) -> Iterator[_Line]:
    """Yield lines with their numbers; one that is too long comes cut, which is no row."""
    number = 0
    while line := file.readline(MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
            while (rest := file.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
                pass
            line = '"\n'
        yield number, line if line.endswith("\n") else line + "\n"
