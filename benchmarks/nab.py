"""Files of the Numenta Anomaly Benchmark, scored as it scores them (standard profile).

After Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly
Benchmark" (ICMLA 2015, arXiv:1510.03336), and the wiki page "NAB scoring": each labelled window
earns the weight of its earliest detection, nearly 1 at its left edge and 0 at its right one; a
window without any costs 1; a detection elsewhere costs up to 0.11, little just behind a window.
The first 15 % of a file, at most 750 rows, count for nothing. 100 is perfect, 0 is silence.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.labelled_streams import LabelledStream

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

FALSE_ALARM_WEIGHT = 0.11
PROBATION_SHARE, PROBATION_ROWS = 0.15, 750
STEEPNESS = 5.0
# Beyond so many widths behind the last window a false alarm costs its full weight.
FAR_BEHIND = 3.0


@dataclass(frozen=True)
class NabFile:
    """One file: its rows as a stream of one sensor, and its windows as first and last row."""

    stream: LabelledStream
    windows: list[tuple[int, int]]


def read_nab(directory: Path) -> list[NabFile]:
    """Return what is there of a copy of NAB: the files of ``data/`` that its windows name.

    Those without a window count too: for their false alarms.
    """
    labels = json.loads((directory / "labels" / "combined_windows.json").read_text())
    paths = {name: directory / "data" / name for name in sorted(labels)}
    return [_read_file(path, labels[name]) for name, path in paths.items() if path.exists()]


def _read_file(path: Path, limits: list[list[str]]) -> NabFile:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = np.array([_microseconds(row["timestamp"]) for row in rows], dtype=np.int64)
    values = np.round([float(row["value"]) for row in rows], 2)
    kind, event, windows = [""] * len(rows), [""] * len(rows), []
    for number, (begin, end) in enumerate(limits):
        inside = np.flatnonzero((times >= _microseconds(begin)) & (times <= _microseconds(end)))
        if len(inside):
            windows.append((int(inside[0]), int(inside[-1])))
        for row in inside.tolist():
            kind[row], event[row] = "window", str(number)
    names = [path.stem] * len(rows)
    stream = LabelledStream(path.stem, names, names, names, values, times, kind, event)
    return NabFile(stream, windows)


def _microseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def debounced(flagged: Bools, quiet_rows: int) -> Bools:
    """Return one alert per episode: flags fewer than ``quiet_rows`` after another one are no news.

    An operator who was called is not called again while the trouble lasts.
    """
    alerts = np.zeros(len(flagged), dtype=np.bool_)
    last = -quiet_rows
    for row in np.flatnonzero(flagged).tolist():
        alerts[row] = row - last >= quiet_rows
        last = row
    return alerts


def nab_score(files: list[tuple[Bools, list[tuple[int, int]]]]) -> float:
    """Return the normalised score of detections on several files, 100 at most; NaN: no windows."""
    raw = sum(_raw_score(detections, windows) for detections, windows in files)
    windows = sum(len(windows) for _, windows in files)
    return 100 * (raw + windows) / (2 * windows) if windows else math.nan


def _raw_score(detections: Bools, windows: list[tuple[int, int]]) -> float:
    probation = min(int(PROBATION_SHARE * len(detections)), PROBATION_ROWS)
    rows = np.flatnonzero(detections)
    rows = rows[rows >= probation]
    score, outside = 0.0, np.ones(len(rows), dtype=np.bool_)
    for first, last in windows:
        inside = (rows >= first) & (rows <= last)
        outside &= ~inside
        if inside.any():
            position = -(last - rows[inside][0] + 1) / (last - first + 1)
            score += _sigmoid(position) / _sigmoid(-1.0)
        else:
            score -= 1.0
    for row in rows[outside].tolist():
        behind = [(last, last - first) for first, last in windows if last < row]
        position = (row - behind[-1][0]) / behind[-1][1] if behind else FAR_BEHIND
        worst = -1.0 if position >= FAR_BEHIND else _sigmoid(position)
        score += FALSE_ALARM_WEIGHT * worst
    return score


def _sigmoid(position: float) -> float:
    return float(2 / (1 + np.exp(STEEPNESS * position)) - 1)
