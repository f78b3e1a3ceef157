"""Features of the detector: each reading becomes a vector once, for training and scoring alike.

A vector says how far a reading is from what its own sensor usually does, in units of that sensor's
usual deviation, so that sensors of one type with different levels and noise can share a forest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEATURE_NAMES = (
    "value",
    "hour_sin",
    "hour_cos",
    "rate_of_change",
    "rolling_mean",
    "rolling_std",
    "rolling_range",
)
VALUE, HOUR_SIN, HOUR_COS, RATE, MEAN, STD, RANGE = range(len(FEATURE_NAMES))

# A sensor's baseline (median, scales) is taken anew after this many of its readings and frozen
# between: the readings of a block do not depend on each other, and a median costs a tenth.
BLOCK = 10
# Readings in the short windows: of rolling mean and range (no outliers), of rolling std (all).
MEAN_WINDOW = 8
STD_WINDOW = 6
RANGE_WINDOW = 3
# Accepted readings a sensor needs before it has a baseline of its own.
MIN_HISTORY = BLOCK
# A reading whose feature is beyond this is kept out of the rolling statistics.
EXCLUDE_BEYOND = 4.0
# So many more readings excluded than accepted, and what the sensor does now is its new normal.
REBASELINE_AFTER = 100
# What a new baseline is taken from: the last readings, whatever they were.
RECENT = 32
# Values are stored in hundredths: no deviation below one step can be told from rounding.
RESOLUTION = 0.01
# Makes a median absolute deviation estimate a standard deviation (of normal noise).
MAD_TO_SIGMA = 1.4826
# Vectors are cut here, far beyond every band: 1e6 sigma says no more than 50 do.
LIMIT = 50.0

_MINUTES = 1440
_ANGLE = np.arange(_MINUTES) * (2 * np.pi / _MINUTES)
# Tables, not functions: the same reading must give the same bits in a batch of any size.
_SIN, _COS = np.sin(_ANGLE), np.cos(_ANGLE)
_MINUTE_US = 60_000_000


@dataclass
class SensorStates:
    """What is remembered of sensors, one row each; all arrays share their first dimension.

    Attributes
    ----------
    history : array (sensors, history_size)
        Accepted readings, oldest first, right-aligned, NaN where there are none yet.
    recent : array (sensors, RECENT)
        Last readings, accepted or not, likewise.
    trail : array (sensors, MEAN_WINDOW - 1)
        Last readings that were no outliers by themselves, likewise.
    seen : array of int
        Readings seen.
    excluded : array of int
        Readings excluded less readings accepted since, not below 0.
    median, scale, step_scale, mean_scale, std_usual, range_usual : array
        The baseline: centre and robust deviation of values, of steps between neighbours, of short
        means around the centre; usual short deviation and range. NaN before the first.
    """

    history: Floats
    recent: Floats
    trail: Floats
    seen: Ints
    excluded: Ints
    median: Floats
    scale: Floats
    step_scale: Floats
    mean_scale: Floats
    std_usual: Floats
    range_usual: Floats

    @classmethod
    def empty(cls, sensors: int, history_size: int) -> SensorStates:
        """Return states of sensors never seen."""
        nan = np.full((6, sensors), np.nan)
        return cls(
            np.full((sensors, history_size), np.nan),
            np.full((sensors, RECENT), np.nan),
            np.full((sensors, MEAN_WINDOW - 1), np.nan),
            np.zeros(sensors, dtype=np.int64),
            np.zeros(sensors, dtype=np.int64),
            *nan,
        )

    def __len__(self) -> int:
        return len(self.seen)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take(self, rows: npt.NDArray[np.intp]) -> SensorStates:
        """Return a copy of some rows."""
        return SensorStates(*(array[rows] for array in self.arrays().values()))

    def put(self, rows: npt.NDArray[np.intp], states: SensorStates) -> None:
        """Overwrite some rows."""
        for name, array in self.arrays().items():
            array[rows] = getattr(states, name)

    def grown(self, sensors: int) -> SensorStates:
        """Return a copy with room for so many sensors."""
        larger = SensorStates.empty(sensors, self.history.shape[1])
        larger.put(np.arange(len(self)), self)
        return larger


@dataclass(frozen=True)
class Features:
    """Vectors of readings.

    Attributes
    ----------
    vectors : array (readings, 7)
        In the order of FEATURE_NAMES; 0 = as usual, ±1 = one usual deviation.
    accepted : array of bool
        Whether the reading entered its sensor's rolling statistics.
    cold : array of bool
        Whether the sensor had no baseline yet: only the hour says something then.
    """

    vectors: Floats
    accepted: Bools
    cold: Bools


def compute_features(
    states: SensorStates, slots: npt.NDArray[np.intp], values: Floats, timestamp_us: Ints
) -> Features:
    """Return the vectors of readings in their order and move the states of their sensors on.

    All sensors advance together, a block of readings each per round, so the cost is that of the
    rounds (readings of the busiest sensor / BLOCK), not of the readings. The result does not depend
    on how a stream is cut into calls.

    Parameters
    ----------
    states : SensorStates
        Changed in place.
    slots : array of int
        Row of each reading's sensor in ``states``.
    values : array
        Measured values, finite.
    timestamp_us : array of int
        Event times, microseconds since the epoch.
    """
    n = len(values)
    vectors = np.zeros((n, len(FEATURE_NAMES)))
    accepted = np.ones(n, dtype=np.bool_)
    cold = np.ones(n, dtype=np.bool_)
    minute = timestamp_us // _MINUTE_US % _MINUTES
    vectors[:, HOUR_SIN] = _SIN[minute]
    vectors[:, HOUR_COS] = _COS[minute]
    if not n:
        return Features(vectors, accepted, cold)

    order = np.argsort(slots, kind="stable")
    sensors, starts, counts = np.unique(slots[order], return_index=True, return_counts=True)
    work = states.take(sensors)
    row = np.repeat(np.arange(len(sensors)), counts)
    index = np.arange(n) - starts[row]
    phase = work.seen % BLOCK
    block = (phase[row] + index) // BLOCK
    column = np.where(block == 0, index, (phase[row] + index) % BLOCK)
    by_round = np.argsort(block, kind="stable")
    bounds = np.searchsorted(block[by_round], np.arange(block.max() + 2))
    for first, last in pairwise(bounds.tolist()):
        picked = by_round[first:last]
        readings = order[picked]
        rows = np.unique(row[picked])
        line = np.searchsorted(rows, row[picked])
        cells = (line, column[picked])
        block_values = np.full((len(rows), int(column[picked].max()) + 1), np.nan)
        block_values[cells] = values[readings]
        part = work if len(rows) == len(work) else work.take(rows)
        block_vectors, block_accepted = _advance(part, block_values)
        if part is not work:
            work.put(rows, part)
        cold[readings] = np.isnan(block_vectors[cells][:, VALUE])
        known = readings[~cold[readings]]
        known_cells = tuple(axis[~cold[readings]] for axis in cells)
        for feature in (VALUE, RATE, MEAN, STD, RANGE):
            vectors[known, feature] = block_vectors[(*known_cells, feature)]
        accepted[readings] = block_accepted[cells]
    states.put(sensors, work)
    return Features(vectors, accepted, cold)


def _advance(states: SensorStates, block: Floats) -> tuple[Floats, Bools]:
    """Return vectors and acceptance of one block a sensor; NaN pads shorter blocks on the right."""
    present = ~np.isnan(block)
    lengths = present.sum(axis=1)
    vectors, usable, accepted = _vectors(states, block, present)
    _append(states.recent, block, lengths)
    _append(states.trail, _picked_first(block, usable), usable.sum(axis=1))
    kept = accepted.sum(axis=1)
    _append(states.history, _picked_first(block, accepted), kept)
    states.excluded[...] = np.maximum(states.excluded + lengths - 2 * kept, 0)
    states.seen += lengths
    due = np.flatnonzero(states.seen % BLOCK == 0)
    if len(due):
        part = states if len(due) == len(states) else states.take(due)
        _rebaseline(part)
        if part is not states:
            states.put(due, part)
    return vectors, accepted


def _vectors(states: SensorStates, block: Floats, present: Bools) -> tuple[Floats, Bools, Bools]:
    width = block.shape[1]
    scale = states.scale[:, None]
    deviation = (block - states.median[:, None]) / scale
    raw = np.concatenate([states.recent[:, -(STD_WINDOW - 1) :], block], axis=1)

    # Burst: deviations around their neighbours, the largest left out so that one spike is no burst.
    steps = np.abs(raw[:, 1:] - raw[:, :-1])
    spread = _trimmed_spread([steps[:, i : i + width] for i in range(STD_WINDOW - 1)])
    std = _ratio(spread, states.std_usual[:, None])
    # Stuck: the last readings do not move at all.
    last = [raw[:, STD_WINDOW - 1 - i : STD_WINDOW - 1 - i + width] for i in range(RANGE_WINDOW)]
    raw_range = np.maximum.reduce(last) - np.minimum.reduce(last)
    raw_still = _ratio(raw_range, states.range_usual[:, None])

    known = ~np.isnan(deviation)
    usable = present & ~(
        (np.abs(deviation) > EXCLUDE_BEYOND)
        | (np.abs(std) > EXCLUDE_BEYOND)
        | (raw_still < -EXCLUDE_BEYOND)
    )
    # The usable readings of the block, moved together behind those before it.
    before = MEAN_WINDOW - 1
    trail = np.concatenate([states.trail, _picked_first(block, usable)], axis=1)
    start: Ints = np.cumsum(usable, axis=1) - usable
    previous = [np.take_along_axis(trail, start + i, axis=1) for i in range(before)]

    rate = (block - previous[-1]) / states.step_scale[:, None]
    total = block.copy()
    for earlier in previous:
        total += earlier
    mean = (total / MEAN_WINDOW - states.median[:, None]) / states.mean_scale[:, None]
    low, high = np.minimum(previous[-1], previous[-2]), np.maximum(previous[-1], previous[-2])
    spanned = np.maximum(high, block) - np.minimum(low, block)
    still = _ratio(spanned, states.range_usual[:, None])

    vectors = np.zeros((*block.shape, len(FEATURE_NAMES)))
    vectors[..., VALUE] = deviation
    vectors[..., RATE] = rate
    vectors[..., MEAN] = mean
    vectors[..., STD] = std
    vectors[..., RANGE] = still
    # A window not filled yet says nothing.
    missing = np.isnan(vectors) & known[..., None]
    vectors[missing] = 0.0
    np.clip(vectors, -LIMIT, LIMIT, out=vectors)
    beyond = (np.abs(vectors[..., [VALUE, MEAN, STD]]) > EXCLUDE_BEYOND).any(axis=2)
    beyond |= vectors[..., RANGE] < -EXCLUDE_BEYOND
    return vectors, usable, present & ~(beyond & known)


def _trimmed_spread(steps: list[Floats]) -> Floats:
    """Return the mean absolute step without the two largest: one spike makes two."""
    largest = np.zeros_like(steps[0])
    second = np.zeros_like(steps[0])
    total = np.zeros_like(steps[0])
    for step in steps:
        total = total + step
        second = np.maximum(second, np.minimum(step, largest))
        largest = np.maximum(largest, step)
    return np.maximum(total - largest - second, 0.0) / (len(steps) - 2)


def _ratio(observed: Floats, usual: Floats) -> Floats:
    """Return a size against its usual as a signed number: 0 = usual, 3 = 3.3×, -3 = a 3.3th."""
    ratio = observed / usual
    return ratio - 1.0 / np.maximum(ratio, 1.0 / LIMIT)


def _picked_first(block: Floats, picked: Bools) -> Floats:
    """Return each row with its picked cells moved to the front, in their order."""
    return np.take_along_axis(block, np.argsort(~picked, axis=1, kind="stable"), axis=1)


def _append(window: Floats, block: Floats, counts: Ints) -> None:
    """Shift the first ``counts`` cells of each row of ``block`` into ``window`` from the right."""
    longer = np.concatenate([window, block], axis=1)
    columns = counts[:, None] + np.arange(window.shape[1])
    window[...] = np.take_along_axis(longer, columns, axis=1)


def _rebaseline(states: SensorStates) -> None:
    """Take the baseline anew: of accepted readings, or of the last ones after a long exclusion."""
    moved = states.excluded >= REBASELINE_AFTER
    if moved.any():
        states.history[moved] = np.nan
        states.history[moved, -RECENT:] = states.recent[moved]
        states.excluded[moved] = 0
    history = states.history
    enough = ~np.isnan(history[:, -MIN_HISTORY])
    history = history[enough]
    if not len(history):
        return
    median = _median(history)
    deviations = np.abs(history - median[:, None])
    steps = np.abs(history[:, 1:] - history[:, :-1])
    moving = np.where(steps > RESOLUTION / 2, steps, np.nan)
    step = np.sort(moving, axis=1)[:, 0]
    floor = np.maximum(np.where(np.isnan(step), 0.0, step) / 2, RESOLUTION)
    floor = np.maximum(floor, np.abs(median) * 1e-5)
    scale = np.maximum(MAD_TO_SIGMA * _median(deviations), floor)
    step_scale = np.maximum(MAD_TO_SIGMA * _median(steps), floor)
    mean_scale = np.maximum(
        MAD_TO_SIGMA * _median(np.abs(_short_means(history) - median[:, None])),
        scale / MEAN_WINDOW**0.5,
    )
    width = history.shape[1] - STD_WINDOW + 1
    spread = _trimmed_spread([steps[:, i : i + width] for i in range(STD_WINDOW - 1)])
    lows = np.minimum(np.minimum(history[:, 2:], history[:, 1:-1]), history[:, :-2])
    highs = np.maximum(np.maximum(history[:, 2:], history[:, 1:-1]), history[:, :-2])
    states.median[enough] = median
    states.scale[enough] = scale
    states.step_scale[enough] = step_scale
    states.mean_scale[enough] = mean_scale
    states.std_usual[enough] = np.maximum(_median(spread), floor)
    states.range_usual[enough] = np.maximum(_median(highs - lows), floor)


def _short_means(history: Floats) -> Floats:
    width = history.shape[1] - MEAN_WINDOW + 1
    total = np.zeros((len(history), width))
    for i in range(MEAN_WINDOW):
        total += history[:, i : i + width]
    return total / MEAN_WINDOW


def _median(rows: Floats) -> Floats:
    """Return the median of each row without its NaN (the lower one of two); NaN of an empty row."""
    ordered = np.sort(rows, axis=1)  # NaN last
    count = (~np.isnan(rows)).sum(axis=1)
    middle = np.maximum(count - 1, 0) // 2
    return ordered[np.arange(len(rows)), middle]


def hour_weight(timestamp_us: Ints) -> float:
    """Return how much the hour of day may count in a training: 0 below a day, 1 from two on.

    Minutes of readings know one hour only; to a forest every later one would be an anomaly.
    """
    days = float(timestamp_us.max() - timestamp_us.min()) / 86_400e6 if len(timestamp_us) else 0.0
    return min(1.0, max(0.0, days - 1.0))


def as_slots(slots: Sequence[int]) -> npt.NDArray[np.intp]:
    """Return slots as the index array that ``compute_features`` takes."""
    return np.asarray(slots, dtype=np.intp)
