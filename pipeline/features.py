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
# A residual is the distance from the mean of so many usable readings before, or from the last
# reading, whichever is nearer: a spike is far once, not on its way back too.
NEIGHBOURS = 3
# Rolling mean: exponentially weighted (Roberts 1959), each deviation cut at LEVEL_CAP so that one
# spike is no shift; it counts only as far as the last two readings bear it out, so that it ends
# with the event. LEVEL_WINDOW plain readings vary about as much.
LEVEL_GAIN, LEVEL_CAP, LEVEL_WINDOW = 0.12, 3.0, 8
# Rolling standard deviation: a one-sided cumulative sum (Page 1954) of squared residuals. GAIN r²
# - LEAK is, up to a factor, the log likelihood ratio of noise grown some twofold. CAP keeps one
# residual, such as a spike's, from deciding alone; with CONFIRM of the sum so far a second one
# does. TOP lets the alarm end soon after the burst.
SPREAD_GAIN, SPREAD_LEAK, SPREAD_CAP, SPREAD_CONFIRM, SPREAD_TOP = 0.36, 0.916, 1.5, 0.5, 6.5
# Rolling range: minus the surprise of a run of equal readings, -log of the usual share of
# equal neighbours for each reading; scaled so that eight such nats are a feature of 4.
SURPRISE_UNIT = 0.5
# A sensor that hardly ever changes is not stuck when it does not.
MOSTLY_STILL = 0.9
# A reading enters the history unless value, rolling mean or deviation are beyond these: a drift
# must not become its own baseline.
ACCEPT_VALUE, ACCEPT_MEAN, ACCEPT_STD = 3.5, 3.5, 4.0
# The baseline leaves out the latest accepted readings, once there are DELAY_FROM: the beginning of
# a drift must not become what the rest of it is compared with.
DELAY, DELAY_FROM = 20, 60
# Heavy-tailed noise is measured by outer quantiles too (share, normal deviate), up to so many times
# what its median says.
TAILS = ((0.9, 1.645), (0.97, 2.17))
TAIL_LIMIT = 2.0
# Slow waves, a thermostat's cycle and the day's are wander. A deviation counts by how far off its
# baseline the sensor usually is, events or not: WANDER_SHARE of the distances of its last
# WANDER_BLOCKS blocks (their medians) are below WANDER_NORMAL standard deviations. Only what is
# more than WANDER_DOUBT times what its noise explains is wander, and of that WANDER_WEIGHT: all of
# it would hide shifts in it.
WANDER_BLOCKS, WANDER_SHARE, WANDER_NORMAL = 64, 0.6, 0.8416
WANDER_DOUBT, WANDER_WEIGHT = 1.3, 0.6
# Accepted readings a sensor needs before it has a baseline of its own.
MIN_HISTORY = BLOCK
# A reading whose feature is beyond this is kept out of the rolling statistics.
EXCLUDE_BEYOND = 3.5
# So many more readings not accepted than accepted: what the sensor does now is its new normal.
REBASELINE_AFTER = 100
# What a new baseline is taken from: the last readings, whatever they were.
RECENT = 32
# Values are stored in hundredths: no deviation below one step can be told from rounding.
RESOLUTION = 0.01
# Makes a median absolute deviation estimate a standard deviation (of normal noise).
MAD_TO_SIGMA = 1.4826
# Vectors are cut here, far beyond every band: 1e6 sigma says no more than 50 do.
LIMIT = 50.0

# The columns of a sensor's baseline: not known before its first.
_BASELINE = (
    *("median", "scale", "step_scale", "mean_scale", "residual_scale"),
    "still_surprise",
)

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
    trail : array (sensors, NEIGHBOURS)
        Last readings that were no outliers by themselves, likewise.
    astray : array (sensors, WANDER_BLOCKS)
        How far the median of each of the last blocks was off the baseline, likewise.
    seen : array of int
        Readings seen.
    last : array of int
        Number of its last reading among those of its type; kept by the detector.
    excluded : array of int
        Readings not accepted less those accepted since, not below 0.
    median, scale, step_scale, mean_scale, residual_scale, still_surprise : array
        The baseline: centre and robust deviation of values, of steps between neighbours, of short
        means around the centre, of residuals; surprise of a reading that equals the one before.
        NaN before the first.
    spread, level : array
        Running values of the rolling standard deviation and of the rolling mean.
    still : array of int
        Length of the run of equal readings so far.
    """

    history: Floats
    recent: Floats
    trail: Floats
    astray: Floats
    seen: Ints
    last: Ints
    excluded: Ints
    median: Floats
    scale: Floats
    step_scale: Floats
    mean_scale: Floats
    residual_scale: Floats
    still_surprise: Floats
    spread: Floats
    level: Floats
    still: Ints

    @classmethod
    def empty(cls, sensors: int, history_size: int) -> SensorStates:
        """Return states of sensors never seen."""
        unknown = {name: np.full(sensors, np.nan) for name in _BASELINE}
        return cls(
            history=np.full((sensors, history_size), np.nan),
            recent=np.full((sensors, RECENT), np.nan),
            trail=np.full((sensors, NEIGHBOURS), np.nan),
            astray=np.full((sensors, WANDER_BLOCKS), np.nan),
            seen=np.zeros(sensors, dtype=np.int64),
            last=np.zeros(sensors, dtype=np.int64),
            excluded=np.zeros(sensors, dtype=np.int64),
            **unknown,
            spread=np.zeros(sensors),
            level=np.zeros(sensors),
            still=np.zeros(sensors, dtype=np.int64),
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

    def grow(self, sensors: int) -> None:
        """Make room for so many sensors more."""
        more = SensorStates.empty(sensors, self.history.shape[1])
        # One after the other, and by name: not all of it twice in memory.
        for name in list(self.arrays()):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(more, name)]))


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
    entering = accepted.sum(axis=1)
    _append(states.history, _picked_first(block, accepted), entering)
    states.excluded[...] = np.maximum(states.excluded + lengths - 2 * entering, 0)
    states.seen += lengths
    due = np.flatnonzero(states.seen % BLOCK == 0)
    if len(due):
        part = states if len(due) == len(states) else states.take(due)
        _rebaseline(part)
        if part is not states:
            states.put(due, part)
    return vectors, accepted


def _vectors(states: SensorStates, block: Floats, present: Bools) -> tuple[Floats, Bools, Bools]:
    """Return vectors, and which readings are usable, which accepted."""
    median, scale = states.median[:, None], states.scale[:, None]
    deviation = (block - median) / scale
    still = _stillness(states, block, present)
    usable = present & ~((np.abs(deviation) > EXCLUDE_BEYOND) | (still > EXCLUDE_BEYOND))
    # The usable readings of the block, moved together behind those before it.
    trail = np.concatenate([states.trail, _picked_first(block, usable)], axis=1)
    start: Ints = np.cumsum(usable, axis=1) - usable
    previous = [np.take_along_axis(trail, start + i, axis=1) for i in range(NEIGHBOURS)]
    total = np.zeros_like(block)
    for earlier in previous:
        total += earlier
    shifted = np.concatenate([states.recent[:, -1:], block[:, :-1]], axis=1)
    apart = np.minimum(np.abs(block - total / NEIGHBOURS), np.abs(block - shifted))

    vectors = np.zeros((*block.shape, len(FEATURE_NAMES)))
    vectors[..., VALUE] = deviation
    vectors[..., RATE] = (block - previous[-1]) / states.step_scale[:, None]
    before = (shifted - median) / scale
    vectors[..., MEAN] = _level(states, deviation, before, present)
    vectors[..., STD] = _spread(states, apart / states.residual_scale[:, None], present)
    vectors[..., RANGE] = -still
    known = ~np.isnan(deviation)
    # A window not filled yet says nothing.
    vectors[np.isnan(vectors) & known[..., None]] = 0.0
    np.clip(vectors, -LIMIT, LIMIT, out=vectors)
    limits = [ACCEPT_VALUE, ACCEPT_MEAN, ACCEPT_STD]
    beyond = (np.abs(vectors[..., [VALUE, MEAN, STD]]) > limits).any(axis=2)
    beyond |= vectors[..., RANGE] < -EXCLUDE_BEYOND
    accepted = present & ~(beyond & known)
    return vectors, usable, accepted


def _stillness(states: SensorStates, block: Floats, present: Bools) -> Floats:
    """Return how surprising it is that the value has not changed for so long."""
    run = states.still
    last = states.recent[:, -1]
    runs = np.zeros(block.shape)
    for column in range(block.shape[1]):
        same = np.abs(block[:, column] - last) < RESOLUTION / 2
        here = present[:, column]
        run = np.where(here, np.where(same, run + 1, 0), run)
        last = np.where(here, block[:, column], last)
        runs[:, column] = run
    states.still[...] = run
    still = runs * states.still_surprise[:, None]
    still[np.isnan(still)] = 0.0
    return still


def _level(states: SensorStates, deviation: Floats, before: Floats, present: Bools) -> Floats:
    """Return the rolling mean deviation, as far as the last two readings bear it out."""
    level = states.level
    levels = np.zeros(deviation.shape)
    capped = np.minimum(np.maximum(deviation, -LEVEL_CAP), LEVEL_CAP)
    for column in range(deviation.shape[1]):
        moved = level + LEVEL_GAIN * (capped[:, column] - level)
        level = np.where(present[:, column] & ~np.isnan(moved), moved, level)
        levels[:, column] = level
    states.level[...] = level
    side = np.where(levels < 0, -1.0, 1.0)
    borne_out = np.maximum((deviation + before) / 2 * side, 0.0)
    return side * np.minimum(np.abs(levels), borne_out) / states.mean_scale[:, None]


def _spread(states: SensorStates, residual: Floats, present: Bools) -> Floats:
    """Return how much the residuals have grown, 0 to ``SPREAD_TOP``."""
    spread = states.spread
    spreads = np.zeros(residual.shape)
    gain = SPREAD_GAIN * residual * residual - SPREAD_LEAK
    for column in range(residual.shape[1]):
        most = SPREAD_CAP + SPREAD_CONFIRM * spread
        grown = np.maximum(spread + np.minimum(gain[:, column], most), 0.0)
        grown = np.minimum(grown, SPREAD_TOP)
        spread = np.where(present[:, column] & ~np.isnan(grown), grown, spread)
        spreads[:, column] = spread
    states.spread[...] = spread
    return spreads


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
    off = np.abs(_quantile(states.recent[:, -BLOCK:], 0.5) - states.median)
    _append(states.astray, off[:, None], (~np.isnan(off)).astype(np.int64))
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
    history[(~np.isnan(history)).sum(axis=1) >= DELAY_FROM, -DELAY:] = np.nan
    median = _quantile(history, 0.5)
    steps = np.abs(history[:, 1:] - history[:, :-1])
    floor = np.maximum(_instrument_step(states.recent[enough]) / 2, RESOLUTION)
    # Nothing is known better than a hundred-thousandth of its size.
    floor = np.maximum(floor, np.abs(median) * 1e-5)
    scale = _robust_scale(np.abs(history - median[:, None]), floor)
    means = _short_means(history, LEVEL_WINDOW)
    mean_scale = _robust_scale(np.abs(means - median[:, None]), scale * LEVEL_WINDOW**-0.5)
    wander = _wander(states.astray[enough], mean_scale)
    scale = np.hypot(scale, wander)
    residuals = np.abs(history[:, NEIGHBOURS:] - _short_means(history, NEIGHBOURS)[:, :-1])
    pairs = (~np.isnan(steps)).sum(axis=1)
    same = (steps <= RESOLUTION / 2).sum(axis=1)
    states.median[enough] = median
    states.scale[enough] = scale
    states.step_scale[enough] = _robust_scale(steps, floor)
    states.mean_scale[enough] = np.hypot(mean_scale, wander) / scale
    states.residual_scale[enough] = _robust_scale(residuals, floor)
    surprise = SURPRISE_UNIT * -np.log((same + 0.5) / (pairs + 1.0))
    states.still_surprise[enough] = np.where(same < MOSTLY_STILL * pairs, surprise, 0.0)


def _wander(astray: Floats, mean_scale: Floats) -> Floats:
    """Return how far sensors usually are off their baseline beyond what their noise explains."""
    off = np.nan_to_num(_quantile(astray, WANDER_SHARE)) / WANDER_NORMAL
    square = np.maximum(off**2 - (WANDER_DOUBT * mean_scale) ** 2, 0.0)
    return np.asarray(WANDER_WEIGHT * np.sqrt(square))


def _instrument_step(recent: Floats) -> Floats:
    """Return the smallest change between neighbours: coarse instruments move in steps."""
    jumps = np.abs(recent[:, 1:] - recent[:, :-1])
    smallest = np.sort(np.where(jumps > RESOLUTION / 2, jumps, np.nan), axis=1)[:, 0]
    return np.where(np.isnan(smallest), 0.0, smallest)


def _robust_scale(deviations: Floats, floor: Floats | float) -> Floats:
    """Return the usual size of absolute deviations, as a standard deviation of normal noise."""
    inner = _quantile(deviations, 0.5) * MAD_TO_SIGMA
    outer = np.max([_quantile(deviations, share) / z for share, z in TAILS], axis=0)
    return np.maximum(np.clip(outer, inner, TAIL_LIMIT * inner), floor)


def _short_means(history: Floats, window: int) -> Floats:
    """Return the means of every ``window`` neighbours of each row."""
    width = history.shape[1] - window + 1
    total = np.zeros((len(history), width))
    for i in range(window):
        total += history[:, i : i + width]
    return total / window


def _quantile(rows: Floats, share: float) -> Floats:
    """Return a quantile of each row without its NaN (the lower neighbour); NaN of an empty row."""
    ordered = np.sort(rows, axis=1)  # NaN last
    count = (~np.isnan(rows)).sum(axis=1)
    place = (np.maximum(count - 1, 0) * share).astype(np.intp)
    return ordered[np.arange(len(rows)), place]


def hour_weight(timestamp_us: Ints) -> float:
    """Return how much the hour of day may count in a training: 0 below a day, 1 from two on.

    Minutes of readings know one hour only; to a forest every later one would be an anomaly.
    """
    days = float(timestamp_us.max() - timestamp_us.min()) / 86_400e6 if len(timestamp_us) else 0.0
    return min(1.0, max(0.0, days - 1.0))


def as_slots(slots: Sequence[int]) -> npt.NDArray[np.intp]:
    """Return slots as the index array that ``compute_features`` takes."""
    return np.asarray(slots, dtype=np.intp)
