"""What is remembered of a series, and the seven features: a vector for each reading, once.

A vector says how far a reading is from what its own series usually does, in units of its usual
deviation, so that series of one type with different levels and noise can share a forest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
States = npt.NDArray[np.void]

FEATURE_NAMES = (
    *("value", "hour_sin", "hour_cos", "rate_of_change"),
    *("rolling_mean", "rolling_std", "rolling_range"),
)
VALUE, HOUR_SIN, HOUR_COS, RATE, MEAN, STD, RANGE = range(len(FEATURE_NAMES))
# Beside the features, for words and pictures: the middle of the usual band and its usual deviation,
# unit; the last step and the usual one, unit; how many times the usual the last readings swing; for
# how long the value has not changed, seconds.
CENTRE, SCALE, STEP, STEP_SCALE, SWING, STILL = range(len(FEATURE_NAMES), len(FEATURE_NAMES) + 6)

# Limit of the usual, in normal deviates: beyond it a reading is kept out of what is remembered, and
# by as much no single one counts (Iglewicz and Hoaglin 1993). The verdict's is wider (bands.GATE).
ACCEPT = 3.5
# A baseline is taken anew after so many readings and frozen between: a median is costly.
BLOCK = 10
# A scale is known from so many moves on, neighbours that differ: one that is stuck when it is first
# seen must not pass for one that hardly ever moves. One that never moved in so many histories does.
MOVES, MOTIONLESS_HISTORIES = 20, 10
# The baseline leaves out the latest accepted readings, once there are three times as many: the
# beginning of a drift must not become what the rest of it is compared with.
DELAY = 20
# So many more readings kept out than accepted: what the series does now is its new normal, taken
# from its last readings, whatever they were.
RENEW_AFTER, RECENT = 100, 32
# Residuals are from the mean of so many usable readings before, or from the last reading, whichever
# is nearer: a spike is far once, not on its way back too.
NEIGHBOURS = 3
# Rolling mean: weight of the newest reading (Roberts 1959); so many plain readings vary as much.
LEVEL_GAIN, LEVEL_WINDOW = 0.2, 8
# Rolling deviation: a one-sided cumulative sum (Page 1954), GAIN r² - LEAK being, up to a factor,
# the log likelihood ratio of noise grown some twofold. One residual, such as a spike's, adds no
# more than CAP and the sum so far; TOP lets the alarm end soon after the burst.
SPREAD_GAIN, SPREAD_LEAK, SPREAD_CAP, SPREAD_TOP = 0.36, 0.916, 1.5, 6.5
# How far the medians of the last so many blocks are off the baseline is wander (slow waves, duty
# cycles) beyond what noise explains; so much of it counts as noise: all would hide shifts.
WANDER_BLOCKS, WANDER_WEIGHT = 64, 0.7
# Memory of the daily profile, days.
PROFILE_DAYS = 3.0
# Values are stored in hundredths.
RESOLUTION = 0.01
# Vectors are cut here, far beyond every band: 1e6 deviations say no more than 50 do.
LIMIT = 50.0

# Such quantiles of a normal deviate's size; the second is beyond half of an on-off cycle's blocks.
_HALF, _MOST, _TAIL = (0.5, 0.6745), (0.6, 0.8416), (0.9, 1.645)
_MINUTE_US, _DAY_US = 60_000_000, 86_400_000_000
_ANGLE = np.arange(1440) * (2 * np.pi / 1440)
# A table, not functions: the same reading must give the same bits in a batch of any size.
_HOUR = np.stack([np.ones(1440), np.sin(_ANGLE), np.cos(_ANGLE)], axis=1)


def state_dtype(history_size: int) -> np.dtype[np.void]:
    """Return what is remembered of one series; numbers are NaN, counts and times 0, at first.

    Values are in the reading's unit, of a counter in units per second, less the daily profile.
    """
    return np.dtype(
        [
            ("history", "f8", history_size),  # accepted readings, oldest first, right-aligned
            ("recent", "f8", RECENT),  # last readings, accepted or not, likewise
            ("trail", "f8", NEIGHBOURS),  # last readings that were usable, likewise
            ("astray", "f8", WANDER_BLOCKS),  # |median of a block - median|, likewise
            ("seen", "i8"),  # readings
            ("number", "i8"),  # of its last reading among those of its type; the detector's
            ("excluded", "i8"),  # readings kept out less those accepted since, not below 0
            ("median", "f8"),  # of the history: the baseline
            ("scale", "f8"),  # usual deviation from it, wander included
            ("step_scale", "f8"),  # usual step between neighbours
            ("mean_scale", "f8"),  # usual deviation of short means, in ``scale``
            ("residual_scale", "f8"),  # usual residual
            ("still_nats", "f8"),  # surprise of a reading that equals the one before, nats
            ("swing", "f8"),  # mean |step| of late
            ("level", "f8"),  # rolling mean, in ``scale``
            ("spread", "f8"),  # rolling deviation's cumulative sum
            ("last", "f8"),  # last reading as it came
            ("run", "i8"),  # readings since it changed
            ("changed_us", "i8"),  # when it did
            ("resolution", "f8"),  # smallest difference that can be told
            ("tick", "f8"),  # smallest change so far: coarse instruments move in steps
            ("began_us", "i8"),  # since when the daily profile is learnt
            ("profile_us", "i8"),  # until when
            ("origin", "f8"),  # what it is counted from
            ("profile", "f8", 3),  # level, sine and cosine of the hour
            ("normal", "f8", (3, 4)),  # its normal equations, right side last
            ("error", "f8"),  # usual |residual| of the profile
            ("error_sum", "f8"),  # of the block so far
            ("count", "f8"),  # last reading of a counter
            ("count_us", "i8"),  # its time
        ]
    )


def new_state(history_size: int) -> States:
    """Return the state of a series never seen, an array of one."""
    state: States = np.zeros(1, dtype=state_dtype(history_size))
    for name in state.dtype.names or ():
        if state.dtype[name].base == np.float64:
            state[name] = np.nan
    for name in ("swing", "level", "spread", "profile", "normal", "error_sum"):
        state[name] = 0.0
    state["resolution"] = RESOLUTION
    return state


@dataclass(frozen=True)
class Features:
    """Vectors of readings.

    Attributes
    ----------
    usual : array (readings, 13)
        The features in the order of FEATURE_NAMES, 0 = as usual, ±1 = one usual deviation; then the
        columns from CENTRE on.
    accepted : array of bool
        Whether the reading entered its series' history.
    cold : array of bool
        Whether the series had no baseline yet: only the hour says something then.
    """

    usual: Floats
    accepted: Bools
    cold: Bools

    @property
    def vectors(self) -> Floats:
        """The features alone."""
        return self.usual[:, : len(FEATURE_NAMES)]


def increase(
    states: States, slots: npt.NDArray[np.intp], counts: Floats, timestamp_us: Ints
) -> tuple[Floats, Floats]:
    """Return by how much counters rise, per second, and since how many seconds.

    NaN for a series' first reading, and for one that is less than before: a reset.
    """
    order = np.argsort(slots, kind="stable")
    own, count, count_us = slots[order], counts[order], timestamp_us[order]
    before, before_us = states["count"][own], states["count_us"][own]
    again = np.flatnonzero(own[1:] == own[:-1])
    before[again + 1], before_us[again + 1] = count[again], count_us[again]
    states["count"][own], states["count_us"][own] = count, count_us  # the last one stays
    rates, seconds = np.zeros(len(slots)), np.zeros(len(slots))
    rates[order], seconds[order] = count - before, (count_us - before_us) / 1e6
    known = (rates >= 0) & (seconds > 0)
    rates[~known], rates[known] = np.nan, rates[known] / seconds[known]
    # Of a series' first increase: a later one, assigned before, gives way to it.
    new = np.flatnonzero(known & (states["seen"][slots] == 0))[::-1]
    states["resolution"][slots[new]] = RESOLUTION / seconds[new]
    return rates, seconds


def compute_features(
    states: States, slots: npt.NDArray[np.intp], values: Floats, timestamp_us: Ints
) -> Features:
    """Return the vectors of readings in their order and move the states of their series on.

    Series advance together, a reading each per round. The result does not depend on how a stream is
    cut into calls.

    Parameters
    ----------
    states : array of ``state_dtype``
        Changed in place.
    slots : array of int
        Row of each reading's series in ``states``.
    values : array
        Measured values, finite; NaN: none, the reading has no features.
    timestamp_us : array of int
        Event times, microseconds since the epoch.
    """
    usual = np.full((len(values), STILL + 1), np.nan)
    accepted = np.zeros(len(values), dtype=np.bool_)
    taken = np.flatnonzero(~np.isnan(values))
    series, row, counts = np.unique(slots[taken], return_inverse=True, return_counts=True)
    # The busiest series first: those of a round are the first so many.
    busiest = np.argsort(-counts, kind="stable")
    work = states[series[busiest]]
    order = np.argsort(np.argsort(busiest)[row], kind="stable")
    each = counts[busiest]
    turn = np.arange(len(taken)) - np.repeat(np.cumsum(each) - each, each)
    by_turn = taken[order[np.argsort(turn, kind="stable")]]
    for first, last in pairwise([0, *np.cumsum(np.bincount(turn)).tolist()]):
        now = by_turn[first:last]
        part = work[: len(now)]
        usual[now], accepted[now] = _advance(part, values[now], timestamp_us[now])
        due = np.flatnonzero(part["seen"] % BLOCK == 0)
        if len(due):
            part[due] = _baseline(part[due], timestamp_us[now[due]])
    states[series[busiest]] = work
    cold = np.isnan(usual[:, VALUE])
    # What is not known yet says nothing.
    usual[cold[:, None] | np.isnan(usual)] = 0.0
    np.clip(usual[:, :CENTRE], -LIMIT, LIMIT, out=usual[:, :CENTRE])
    usual[:, [HOUR_SIN, HOUR_COS]] = _HOUR[timestamp_us // _MINUTE_US % 1440, 1:]
    return Features(usual, accepted, cold)


def _advance(s: States, raw: Floats, times: Ints) -> tuple[Floats, Bools]:
    """Return features and acceptance of a reading of each series."""
    jump = np.abs(raw - s["last"])
    same = jump < s["resolution"] / 2
    s["tick"] = np.fmin(s["tick"], np.where(same, np.nan, jump))
    s["run"] = np.where(same, s["run"] + 1, 0)
    s["changed_us"] = np.where(same, s["changed_us"], times)
    s["last"] = raw
    still = np.sqrt(2 * s["run"] * s["still_nats"])

    profile = _profile(s, raw, times)
    median, scale, trail = s["median"], s["scale"], s["trail"]
    value, before = raw - profile, s["recent"][:, -1].copy()
    deviation = (value - median) / scale
    usable = ~((np.abs(deviation) > ACCEPT) | (still > ACCEPT))
    residual = np.abs(value - (trail[:, 0] + trail[:, 1] + trail[:, 2]) / NEIGHBOURS)
    residual = np.minimum(residual, np.abs(value - before)) / s["residual_scale"]
    step = value - trail[:, -1]
    swing = s["swing"] + (np.abs(value - before) - s["swing"]) / LEVEL_WINDOW
    s["swing"] = np.fmax(swing, 0.0)

    capped = np.minimum(np.maximum(deviation, -ACCEPT), ACCEPT)
    level = s["level"] + LEVEL_GAIN * (capped - s["level"])
    s["level"] = level = np.where(np.isnan(level), s["level"], level)
    side = np.where(level < 0, -1.0, 1.0)
    borne_out = np.maximum(((value + before) / 2 - median) / scale * side, 0.0)
    level = side * np.minimum(np.abs(level), borne_out) / s["mean_scale"]

    gain = SPREAD_GAIN * residual * residual - SPREAD_LEAK
    gain = np.minimum(gain, SPREAD_CAP + s["spread"])
    spread = np.minimum(np.maximum(s["spread"] + gain, 0.0), SPREAD_TOP)
    s["spread"] = spread = np.where(np.isnan(spread), s["spread"], spread)

    beyond = np.fmax(np.fmax(np.abs(deviation), np.abs(level)), np.fmax(spread, still)) > ACCEPT
    cold = np.isnan(median)
    accepted = cold | ~beyond
    found = np.stack(
        [
            *(deviation, cold, cold, step / s["step_scale"], level, spread, -still),
            *(median + profile, scale, step, s["step_scale"], s["swing"] / s["step_scale"]),
            (times - s["changed_us"]) / 1e6,
        ],
        axis=1,
    )
    _push(s["recent"], value)
    _push(trail, value, usable)
    # A cold history holds no repeats: a sensor that is stuck at first would seem to be calm.
    _push(s["history"], value, accepted & ~(same & cold))
    s["excluded"] = np.maximum(s["excluded"] + np.where(accepted, -1, 1), 0)
    s["seen"] += 1
    return found, accepted


def _profile(s: States, raw: Floats, times: Ints) -> Floats:
    """Return what the hour of day explains of readings, and add them to what it is fitted to.

    A harmonic of the day, by recursive least squares: nothing in the first day, all of it from
    the second on.
    """
    new = s["seen"] == 0
    if new.any():
        for name, first in (("origin", raw), ("began_us", times), ("profile_us", times)):
            s[name][new] = first[new]
    hour = _HOUR[times // _MINUTE_US % 1440]
    parts = s["profile"] * hour
    daily = parts[:, 1] + parts[:, 2]
    error = raw - s["origin"] - parts[:, 0] - daily
    most = ACCEPT * s["error"]
    error = np.fmax(np.fmin(error, most), -most)
    normal, known = s["normal"], parts[:, 0] + daily + error
    normal[:, :, :3] += hour[:, :, None] * hour[:, None, :]
    normal[:, :, 3] += hour * known[:, None]
    s["error_sum"] += np.abs(error)
    days = (times - s["began_us"]) / _DAY_US
    return np.minimum(np.maximum(days - 1.0, 0.0), 1.0) * daily


def _baseline(s: States, times: Ints) -> States:
    """Return states with profile and baseline taken anew, at the end of a block."""
    _fit_profile(s, times)
    off = np.abs(_quantile(np.sort(s["recent"][:, -BLOCK:], axis=1)) - s["median"])
    _push(s["astray"], off, ~np.isnan(off))
    renewed, kept = s["excluded"] >= RENEW_AFTER, min(RECENT, s["history"].shape[1])
    s["history"][renewed] = np.nan
    s["history"][renewed, -kept:] = s["recent"][renewed, -kept:]
    s["excluded"][renewed] = 0
    cold = np.isnan(s["median"])
    history = s["history"].copy()
    history[(~np.isnan(history)).sum(axis=1) >= 3 * DELAY, -DELAY:] = np.nan

    steps = np.abs(np.diff(history, axis=1))
    pairs = (~np.isnan(steps)).sum(axis=1)
    moves = (steps >= s["resolution"][:, None] / 2).sum(axis=1)
    few = moves < min(MOVES, history.shape[1] - 1)
    known = ~(cold & few) | (s["seen"] >= MOTIONLESS_HISTORIES * history.shape[1])
    median = _quantile(np.sort(history, axis=1))
    # Nothing is known better than a hundred-thousandth of its size.
    floor = np.maximum(np.fmax(s["resolution"], s["tick"] / 2), np.abs(median) * 1e-5)
    away = np.abs(history - median[:, None])
    noise = _sigma(away, floor)
    means = np.abs(_means(history, LEVEL_WINDOW) - median[:, None])
    mean_scale = _sigma(means, noise * LEVEL_WINDOW**-0.5)
    # Wander: how far it usually is off its baseline beyond what noise explains.
    share, normal = _MOST
    off = np.nan_to_num(_quantile(np.sort(s["astray"], axis=1), share)) / normal
    wander = WANDER_WEIGHT * np.sqrt(np.maximum(off**2 - mean_scale**2, 0.0))
    scale = np.hypot(noise, wander)
    residuals = np.abs(history[:, NEIGHBOURS:] - _means(history, NEIGHBOURS)[:, :-1])
    for name, taken in (
        ("scale", scale),
        ("step_scale", _sigma(steps, floor)),
        ("mean_scale", np.hypot(mean_scale, wander) / scale),
        ("residual_scale", _sigma(residuals, floor)),
    ):
        # Of few moves a scale may only have grown.
        s[name] = np.where(known, np.where(few, np.fmax(taken, s[name]), taken), s[name])
    s["median"] = np.where(known, median, s["median"])
    surprise = -np.log((pairs - moves + 0.5) / (pairs + 1.0))
    s["still_nats"] = np.where(few, 0.0, surprise)
    return s


def _fit_profile(s: States, times: Ints) -> None:
    """Fit the daily profile; after a silence longer than its memory it begins anew."""
    days = np.maximum(times - s["profile_us"], 0) / _DAY_US
    forgotten = days > PROFILE_DAYS
    s["began_us"] = np.where(forgotten, times, s["began_us"])
    s["profile_us"] = np.maximum(times, s["profile_us"])
    mean = s["error_sum"] / BLOCK
    slowly = s["error"] + (np.minimum(mean, 2 * s["error"]) - s["error"]) / BLOCK
    s["error"], s["error_sum"] = np.where(np.isnan(slowly), mean, slowly), 0.0
    s["normal"] *= np.where(forgotten, 0.0, np.exp(-days / PROFILE_DAYS))[:, None, None]
    # The ridge keeps what little is known small.
    equations, sums = s["normal"][:, :, :3] + 1e-3 * np.eye(3), s["normal"][:, :, 3:]
    s["profile"] = np.linalg.solve(equations, sums)[:, :, 0]


def _sigma(deviations: Floats, floor: Floats) -> Floats:
    """Return the standard deviation of noise, normal or with heavier tails, from its sizes."""
    ordered = np.sort(deviations, axis=1)
    sigmas = [_quantile(ordered, share) / normal for share, normal in (_HALF, _TAIL)]
    return np.asarray(np.fmax(np.fmax(*sigmas), floor))


def _quantile(ordered: Floats, share: float = 0.5) -> Floats:
    """Return a quantile of each row, NaN behind (the lower neighbour); NaN of an empty row."""
    last = np.maximum((~np.isnan(ordered)).sum(axis=1) - 1, 0)
    return ordered[np.arange(len(ordered)), (last * share).astype(np.intp)]


def _means(rows: Floats, window: int) -> Floats:
    """Return the means of every ``window`` neighbours of each row."""
    width = rows.shape[1] - window + 1
    return np.asarray(sum(rows[:, i : i + width] for i in range(window)) / window)


def _push(windows: Floats, values: Floats, which: Bools | None = None) -> None:
    """Move windows on by a value, all or some."""
    if which is None or which.all():
        windows[:, :-1] = windows[:, 1:]
        windows[:, -1] = values
    else:
        moved = np.concatenate([windows[:, 1:], values[:, None]], axis=1)
        windows[which] = moved[which]


def hour_weight(timestamp_us: Ints) -> float:
    """Return how much the hour of day may count in a training: 0 below a day, 1 from two on.

    Minutes of readings know one hour only; to a forest every later one would be an anomaly.
    """
    days = float(timestamp_us.max() - timestamp_us.min()) / _DAY_US if len(timestamp_us) else 0.0
    return min(1.0, max(0.0, days - 1.0))
