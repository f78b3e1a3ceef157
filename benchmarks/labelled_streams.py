"""Streams of readings whose anomalies are known: from two generators, without any, and from files.

``fleet`` is the project's own simulator. ``plant`` shares no code or figure with it: other levels,
units, noises, intervals, event lengths and sizes, drawn anew for each seed. What is tuned on one
must hold on the other. ``calm`` streams have no anomalies but all that looks like some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.decoding import decode_batch
from simulator.fleet import AnomalyKind, SensorSimulator

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS = ("", "spike", "drop", "level_shift", "drift", "stuck", "noise_burst")
START_US = 1_767_312_000_000_000  # 2 January 2026, 0:00 UTC
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class LabelledStream:
    """Readings in their order, as columns, with the truth.

    Attributes
    ----------
    values : array
        As stored: rounded to hundredths.
    timestamp_us : array of int
        Event times, microseconds since the epoch.
    kind : list of str
        Kind of the anomaly, empty for an ordinary reading.
    event : list of str
        The event an anomaly belongs to, empty for an ordinary reading.
    cumulative : str
        Types of counters (CUMULATIVE_TYPES).
    """

    name: str
    locations: list[str]
    sensor_types: list[str]
    sensor_ids: list[str]
    values: Floats
    timestamp_us: Ints
    kind: list[str]
    event: list[str]
    cumulative: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def series(self) -> Iterator[tuple[str, str, str]]:
        """Return which series each reading belongs to."""
        return zip(self.locations, self.sensor_types, self.sensor_ids, strict=True)

    @property
    def label(self) -> npt.NDArray[np.bool_]:
        """Whether each reading is an anomaly."""
        return np.array([bool(kind) for kind in self.kind], dtype=np.bool_)


def fleet(seed: int, minutes: float, interval_s: float = 1.0) -> LabelledStream:
    """Return the project's simulated fleet of 25 sensors."""
    simulator = SensorSimulator(seed)
    count = int(minutes * 60 / interval_s) * len(simulator.sensors)
    step_us = interval_s * 1e6 / len(simulator.sensors)
    read = simulator.read(START_US + (np.arange(count) * step_us).astype(np.int64))
    names = {int(k): "drift" if k.name == "RAMP" else k.name.lower() for k in AnomalyKind if k}
    sensors = [simulator.sensors[i] for i in read.sensor.tolist()]
    return LabelledStream(
        f"fleet seed {seed}",
        [sensor.location for sensor in sensors],
        [sensor.sensor_type for sensor in sensors],
        [sensor.sensor_id for sensor in sensors],
        read.hundredths / 100,
        read.timestamp_us,
        [names.get(kind, "") for kind in read.kind.tolist()],
        [str(event) if event >= 0 else "" for event in read.event_id.tolist()],
    )


# ------------------------------------------------------------------------------ the other generator

# Per kind: shortest and longest event, readings; smallest and largest size, noise deviations.
_EVENTS = {
    "spike": (1, 3, 5.0, 12.0),
    "drop": (1, 3, 5.0, 12.0),
    "level_shift": (15, 60, 4.0, 8.0),
    "drift": (20, 100, 5.0, 10.0),
    "stuck": (10, 50, 0.0, 0.0),
    "noise_burst": (15, 60, 3.0, 5.0),
}

# Of one sensor: type, id, values, times, kinds, events.
_Column = tuple[str, str, Floats, Ints, list[str], list[str]]


def plant(
    seed: int, minutes: float, interval_s: float | None = None, anomaly_rate: float = 0.05
) -> LabelledStream:
    """Return five types of five sensors each, with everything about them drawn from the seed.

    Even seeds give each kind an equal share of the anomalous readings, odd ones of the events.
    """
    rng = np.random.default_rng([seed, 0x504C])
    interval_s = interval_s or float(rng.choice([1.0, 2.0, 5.0, 10.0]))
    length = int(minutes * 60 / interval_s)
    columns: list[_Column] = []
    for number in range(5):
        sensor_type = f"type-{number}"
        level, noise = 10 ** rng.uniform(0.5, 3), rng.choice(["white", "ar", "ar", "tails"])
        sigma_share, correlation = 10 ** rng.uniform(-2.5, -1.5), rng.uniform(0.3, 0.8)
        resolution = float(rng.choice([0.01, 0.01, 0.1]))
        daily, wander = rng.uniform(0, 10), rng.uniform(0, 0.02)
        for which in range(5):
            sensor_id = f"{sensor_type}-{which}"
            sigma = max(level * sigma_share * 10 ** rng.uniform(-0.2, 0.2), 2 * resolution)
            own = level * rng.uniform(0.7, 1.3)
            seconds = np.arange(length) * interval_s + rng.uniform(0, interval_s)
            seconds += rng.uniform(-0.05, 0.05, length) * interval_s
            unit = _noise(rng, noise, correlation, length)
            smooth = daily * np.sin(2 * np.pi * (seconds / 86_400 + rng.uniform()))
            smooth += np.cumsum(wander * rng.standard_normal(length))
            kind, event, values = _inject(rng, unit, smooth, anomaly_rate, seed % 2 == 1)
            values = np.round(np.round((own + sigma * values) / resolution) * resolution, 2)
            names = [f"{sensor_id}/{e}" if e else "" for e in event]
            times = START_US + (seconds * 1e6).astype(np.int64)
            columns.append((sensor_type, sensor_id, values, times, kind, names))
    return merged(f"plant seed {seed} ({interval_s:g} s)", columns)


def _noise(rng: np.random.Generator, noise: str, correlation: float, length: int) -> Floats:
    """Return noise of unit deviation."""
    if noise == "tails":
        return rng.standard_t(5, length) / np.sqrt(5 / 3)
    white = rng.standard_normal(length)
    return _autoregressive(white, correlation) if noise == "ar" else white


def _autoregressive(white: Floats, correlation: float) -> Floats:
    result = white.copy()
    innovation = np.sqrt(1 - correlation**2)
    for i in range(1, len(white)):
        result[i] = correlation * result[i - 1] + innovation * white[i]
    return result


def _inject(
    rng: np.random.Generator, noise: Floats, smooth: Floats, rate: float, per_event: bool
) -> tuple[list[str], list[int], Floats]:
    """Return kinds, event numbers and values with events put in, in noise deviations."""
    values = noise + smooth
    kinds, events = [""] * len(values), [0] * len(values)
    lengths = np.array([(low + high) / 2 for low, high, *_ in _EVENTS.values()])
    chance = np.ones(len(lengths)) if per_event else 1 / lengths
    chance /= chance.sum()
    mean_gap = float(chance @ lengths) * (1 - rate) / rate if rate else np.inf
    at, number = (int(rng.exponential(mean_gap)) + 1 if rate else len(values)), 0
    while at < len(values):
        number += 1
        kind = list(_EVENTS)[int(rng.choice(len(lengths), p=chance))]
        shortest, longest, smallest, largest = _EVENTS[kind]
        rows = slice(at, min(at + int(rng.integers(shortest, longest + 1)), len(values)))
        count = rows.stop - rows.start
        size = rng.uniform(smallest, largest)
        signed = size * rng.choice([-1, 1])
        match kind:
            case "spike":
                values[rows] += size
            case "drop":
                values[rows] -= size
            case "level_shift":
                values[rows] += signed
            case "drift":
                values[rows] += signed * np.arange(1, count + 1) / count
            case "stuck":
                values[rows] = values[at - 1]
            case _:
                values[rows] = smooth[rows] + size * rng.standard_normal(count)
        kinds[rows] = [kind] * count
        events[rows] = [number] * count
        at = rows.stop + int(rng.exponential(mean_gap)) + 1
    return kinds, events, values


def merged(name: str, columns: list[_Column]) -> LabelledStream:
    """Return the readings of several sensors in the order of their times."""
    times = np.concatenate([column[3] for column in columns])
    order = np.argsort(times, kind="stable")
    picked = order.tolist()
    types = [column[0] for column in columns for _ in column[3]]
    ids = [column[1] for column in columns for _ in column[3]]
    kinds = [kind for column in columns for kind in column[4]]
    events = [event for column in columns for event in column[5]]
    return LabelledStream(
        name,
        ["Plant"] * len(picked),
        [types[i] for i in picked],
        [ids[i] for i in picked],
        np.concatenate([column[2] for column in columns])[order],
        times[order],
        [kinds[i] for i in picked],
        [events[i] for i in picked],
    )


# ---------------------------------------------------------------------------- nothing to be found


def calm(shape: str, seed: int, minutes: float, interval_s: float = 5.0) -> LabelledStream:
    """Return five sensors without anomalies, of a shape of ``CALM``."""
    rng = np.random.default_rng([seed, 0xCA])
    length = int(minutes * 60 / interval_s)
    columns: list[_Column] = []
    for which in range(5):
        seconds: Floats = np.arange(length, dtype=np.float64) * interval_s
        values = np.round(20 + 5 * which + 0.5 * CALM[shape](rng, seconds), 2)
        times = START_US + ((seconds + which) * 1e6).astype(np.int64)
        columns.append((shape, f"{shape}-{which}", values, times, [""] * length, [""] * length))
    return merged(f"calm: {shape} seed {seed}", columns)


def _daily(rng: np.random.Generator, seconds: Floats) -> Floats:
    turn = seconds / 86_400 + rng.uniform()
    return 10 * np.sin(2 * np.pi * turn) + rng.standard_normal(len(seconds))


def _sawtooth(rng: np.random.Generator, seconds: Floats) -> Floats:
    """A thermostat: up while it heats, down while it does not."""
    turn = (seconds / rng.uniform(400, 900) + rng.uniform()) % 1
    tooth = np.where(turn < 0.3, turn / 0.3, (1 - turn) / 0.7)
    return 8 * tooth + 0.5 * rng.standard_normal(len(seconds))


def _wander(rng: np.random.Generator, seconds: Floats) -> Floats:
    n = len(seconds)
    return np.cumsum(0.1 * rng.standard_normal(n)) + rng.standard_normal(n)


def _tails(rng: np.random.Generator, seconds: Floats) -> Floats:
    return rng.standard_t(3, len(seconds)) / np.sqrt(3)


def _correlated(rng: np.random.Generator, seconds: Floats) -> Floats:
    return _autoregressive(rng.standard_normal(len(seconds)), 0.9)


CALM: dict[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "white noise": lambda rng, seconds: rng.standard_normal(len(seconds)),
    "daily cycle": _daily,
    "duty-cycle sawtooth": _sawtooth,
    "slow wander": _wander,
    "heavy tails": _tails,
    "correlated noise": _correlated,
}

# --------------------------------------------------------------------------------------- from files


def read_stream(stream: Path, labels: Path) -> LabelledStream:
    """Return a stream of messages (JSON lines, in order) with its labels (same order)."""
    messages = [line for line in stream.read_bytes().splitlines() if line.strip()]
    readings, rejected = decode_batch(messages, np.full(len(messages), -1))
    if rejected:
        raise ValueError(f"{stream}, reading {rejected[0].position + 1}: {rejected[0].reason}")
    truth = [json.loads(line) for line in labels.read_text().splitlines() if line.strip()]
    if len(truth) != len(readings):
        raise ValueError(f"{labels} has {len(truth)} labels for {len(readings)} readings")
    kinds = [str(t.get("kind") or "anomaly") if t.get("label") else "" for t in truth]
    return LabelledStream(
        stream.name,
        readings.location.to_pylist(),
        readings.sensor_type.to_pylist(),
        readings.sensor_id.to_pylist(),
        readings.hundredths / 100,
        readings.timestamp_us,
        kinds,
        [str(t.get("event_id", "")) if kind else "" for t, kind in zip(truth, kinds, strict=True)],
    )


def write_stream(readings: LabelledStream, stream: Path, labels: Path) -> None:
    """Write a stream as ``read_stream`` reads it."""
    with stream.open("w") as out, labels.open("w") as truth:
        for row in range(len(readings)):
            at = datetime.fromtimestamp(readings.timestamp_us[row] / 1e6, UTC)
            message = {
                "sensor_id": readings.sensor_ids[row],
                "sensor_type": readings.sensor_types[row],
                "location": readings.locations[row],
                "value": float(readings.values[row]),
                "timestamp": at.isoformat(),
                "anomaly": False,
                "unit": "",
            }
            out.write(json.dumps(message) + "\n")
            label = {
                "label": int(bool(readings.kind[row])),
                "kind": readings.kind[row] or None,
                "event_id": readings.event[row] or None,
            }
            truth.write(json.dumps(label) + "\n")
