"""What the detector is measured on: streams at several intervals, and what misleads a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.detection_methods import detector
from benchmarks.labelled_streams import (
    CALM,
    START_US,
    LabelledStream,
    calm,
    fleet,
    merged,
    plant,
)

Floats = npt.NDArray[np.float64]

FOUR_DAYS = 4 * 1440.0
# A run of more false flags than this is a storm: nobody looks at the next alarm.
STORM_FLAGS = 20


@dataclass(frozen=True)
class Case:
    """A kind of stream, and what of it is not judged.

    Attributes
    ----------
    stream : callable
        Makes one from a seed.
    warmup_minutes : float
        What is not judged at the beginning, minutes of stream.
    """

    name: str
    stream: Callable[[int], LabelledStream]
    warmup_minutes: float = 10.0


def cases(intervals_s: Iterable[float]) -> list[Case]:
    """Return the cases: both generators at some intervals, then those without anomalies."""
    found = []
    for name, make in (("fleet", fleet), ("plant", plant)):
        for each in intervals_s:
            minutes, warmup = _lengths(each)
            stream = partial(make, minutes=minutes, interval_s=each)
            found.append(Case(f"{name}, every {each:g} s", stream, warmup))
    found += [Case(shape, partial(calm, shape, minutes=70.0)) for shape in CALM]
    found.append(Case("machine on and off", machine))
    found.append(Case("counter that wraps", counter))
    found.append(Case("one id at two places", one_id))
    return found


def _lengths(interval_s: float) -> tuple[float, float]:
    """Return minutes of stream and of warm-up: a day of minutes is needed to know the hour."""
    if interval_s >= 60:
        return FOUR_DAYS, FOUR_DAYS / 2
    return 490.0 if interval_s >= 30 else 130.0 if interval_s >= 10 else 70.0, 10.0


def machine(seed: int) -> LabelledStream:
    """Return machines that go on and off, 60 readings each, 20 deviations apart."""
    rng, seconds = np.random.default_rng([seed, 0x0F]), np.arange(4200)
    values = [
        20 + 0.3 * (20 * ((seconds + rng.integers(120)) // 60 % 2) + rng.standard_normal(4200))
        for _ in range(5)
    ]
    return _quiet("machine", values)


def counter(seed: int) -> LabelledStream:
    """Return counters that rise by about 5 a second and wrap at 10,000."""
    rng = np.random.default_rng([seed, 0xC0])
    values = [
        (rng.uniform(0, 10_000) + np.cumsum(5 + 0.5 * rng.standard_normal(4200))) % 10_000
        for _ in range(5)
    ]
    return replace(_quiet("counter", values), cumulative="counter")


def one_id(seed: int) -> LabelledStream:
    """Return two sensors of one type and one name at two places, with levels of their own."""
    rng = np.random.default_rng([seed, 0x1D])
    values = [level + 0.3 * rng.standard_normal(4200) for level in (20.0, 45.0)]
    stream = _quiet("temperature", values)
    return replace(stream, locations=stream.sensor_ids, sensor_ids=["bme280"] * len(stream))


def stuck_at_first(seed: int, readings: int = 100) -> LabelledStream:
    """Return five sensors, one of them stuck for its first readings."""
    rng = np.random.default_rng([seed, 0x5C])
    values = [20 + 5 * i + 0.3 * rng.standard_normal(readings + 500) for i in range(5)]
    values[0][:readings] = values[0][0]
    return _quiet("stuck", values)


def _quiet(sensor_type: str, values: list[Floats]) -> LabelledStream:
    """Return sensors read once a second, without anomalies."""
    columns = []
    for number, column in enumerate(values):
        times = START_US + np.arange(len(column)) * 1_000_000 + 1_000 * number
        nothing = [""] * len(column)
        name = f"{sensor_type}-{number}"
        columns.append((sensor_type, name, np.round(column, 2), times, nothing, nothing))
    return merged(sensor_type, columns)


def longest_false_run(seed: int) -> int:
    """Return the longest run of false flags of one sensor in a fleet's first ten minutes."""
    stream = fleet(seed, 10.0, 1.0)
    false = detector(stream)["detector"].flagged & ~stream.label
    longest, run = 0, dict.fromkeys(stream.sensor_ids, 0)
    for sensor, is_false in zip(stream.sensor_ids, false.tolist(), strict=True):
        run[sensor] = run[sensor] + 1 if is_false else 0
        longest = max(longest, run[sensor])
    return longest


def flags_after_being_stuck(seed: int) -> int:
    """Return how many readings are flagged of a sensor that was stuck for its first hundred."""
    stream = stuck_at_first(seed)
    flagged = detector(stream)["detector"].flagged
    return int(flagged[np.array(stream.sensor_ids) == "stuck-0"].sum())
