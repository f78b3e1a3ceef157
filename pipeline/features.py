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

# Limit of the usual, in normal deviates: beyond it a reading is kept out of what is remembered
# (Iglewicz and Hoaglin 1993). The verdict's is wider (type_model.GATE).
ACCEPT = 3.5
# A baseline (median, scales) is taken anew after so many readings and frozen between: those of a
# block do not depend on each other, and a median costs a tenth.
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
# How many steps say how much it swings, in words.
SWUNG = 8
# Rolling mean: exponentially weighted (Roberts 1959), a deviation cut at LEVEL_CAP usual ones. So
# many plain readings vary about as much: 2 / gain - 1, halved by their usual correlation.
LEVEL_GAIN, LEVEL_CAP, LEVEL_WINDOW = 0.12, 3.0, 8
# Rolling deviation: a one-sided cumulative sum (Page 1954), GAIN r² - LEAK being, up to a factor,
# the log likelihood ratio of noise grown some twofold. One residual, such as a spike's, adds no
# more than CAP and CONFIRM of the sum so far; TOP lets the alarm end soon after the burst.
SPREAD_GAIN, SPREAD_LEAK, SPREAD_CAP, SPREAD_CONFIRM, SPREAD_TOP = 0.36, 0.916, 1.5, 0.5, 6.5
# How far the median of each of so many blocks was off the baseline is wander (slow waves, duty
# cycles), as far as it is more than WANDER_DOUBT times what noise explains; so much of it counts
# as noise: all of it would hide shifts.
WANDER_BLOCKS, WANDER_DOUBT, WANDER_WEIGHT = 64, 1.3, 0.6
WANDER_SHARE, WANDER_NORMAL = 0.6, 0.8416
# Memory of the daily profile, days; its residuals are cut at so many usual ones.
PROFILE_DAYS, PROFILE_CUT = 3.0, 3.0
TAIL, TAIL_NORMAL, TAIL_LIMIT = 0.9, 1.645, 2.0
# Makes a median absolute deviation a standard deviation, of normal noise.
MAD_TO_SIGMA = 1.4826
# Values are stored in hundredths.
RESOLUTION = 0.01
# Vectors are cut here, far beyond every band: 1e6 deviations say no more than 50 do.
LIMIT = 50.0

_MINUTE_US, _DAY_US = 60_000_000, 86_400_000_000
_ANGLE = np.arange(1440) * (2 * np.pi / 1440)
# Tables, not functions: the same reading must give the same bits in a batch of any size.
_SIN, _COS = np.sin(_ANGLE), np.cos(_ANGLE)


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
    for name in ("level", "spread", "profile", "normal", "error_sum"):
        state[name] = 0.0
    state["resolution"] = RESOLUTION
    return state


@dataclass(frozen=True)
class Features:
    """Vectors of readings.

    Attributes
    ----------
    vectors : array (readings, 7)
        In the order of FEATURE_NAMES; 0 = as usual, ±1 = one usual deviation.
    usual : array (readings, 15)
        The vectors, and the columns from CENTRE on.
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
    own, n = slots[order], len(slots)
    first = np.r_[True, own[1:] != own[:-1]][:n]
    last = np.r_[first[1:], True][:n]
    count, count_us = counts[order], timestamp_us[order]
    before = np.where(first, states["count"][own], np.r_[np.nan, count[:-1]][:n])
    before_us = np.where(first, states["count_us"][own], np.r_[0, count_us[:-1]][:n])
    states["count"][own[last]], states["count_us"][own[last]] = count[last], count_us[last]
    seconds = np.full(n, np.nan)
    seconds[order] = (count_us - before_us) / 1e6
    rates = np.full(n, np.nan)
    rates[order] = count - before
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
    turn = np.arange(len(taken)) - np.repeat(np.cumsum(counts[busiest]), counts[busiest])
    turn += np.repeat(counts[busiest], counts[busiest])
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
    minute = timestamp_us // _MINUTE_US % 1440
    usual[:, HOUR_SIN], usual[:, HOUR_COS] = _SIN[minute], _COS[minute]
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
    value, before = raw - profile, s["recent"][:, -1]
    deviation = (value - s["median"]) / s["scale"]
    usable = ~((np.abs(deviation) > ACCEPT) | (still > ACCEPT))
    residual = np.abs(value - sum(s["trail"].T) / NEIGHBOURS)
    residual = np.minimum(residual, np.abs(value - before)) / s["residual_scale"]
    step = value - s["trail"][:, -1]

    capped = np.clip(deviation, -LEVEL_CAP, LEVEL_CAP)
    level = s["level"] + LEVEL_GAIN * (capped - s["level"])
    s["level"] = np.where(np.isnan(level), s["level"], level)
    side = np.where(s["level"] < 0, -1.0, 1.0)
    borne_out = np.maximum((value + before - 2 * s["median"]) / 2 / s["scale"] * side, 0.0)
    level = side * np.minimum(np.abs(s["level"]), borne_out) / s["mean_scale"]

    gain = SPREAD_GAIN * residual * residual - SPREAD_LEAK
    gain = np.minimum(gain, SPREAD_CAP + SPREAD_CONFIRM * s["spread"])
    s["spread"] = np.clip(s["spread"] + np.nan_to_num(gain), 0.0, SPREAD_TOP)

    every = np.ones(len(s), dtype=np.bool_)
    _push(s["recent"], value, every)
    swing = np.abs(np.diff(s["recent"][:, -SWUNG - 1 :], axis=1)).mean(axis=1) / s["step_scale"]
    found = np.zeros((len(s), STILL + 1))
    found[:, VALUE], found[:, RATE], found[:, MEAN] = deviation, step / s["step_scale"], level
    found[:, STD], found[:, RANGE] = s["spread"], -still
    np.clip(found, -LIMIT, LIMIT, out=found)
    beyond = (np.abs(found[:, [VALUE, MEAN, STD, RANGE]]) > ACCEPT).any(axis=1)
    accepted = ~(beyond & ~np.isnan(deviation))
    found[:, CENTRE], found[:, SCALE] = s["median"] + profile, s["scale"]
    found[:, STEP], found[:, STEP_SCALE], found[:, SWING] = step, s["step_scale"], swing
    found[:, STILL] = (times - s["changed_us"]) / 1e6

    _push(s["trail"], value, usable)
    _push(s["history"], value, accepted)
    s["excluded"] = np.maximum(s["excluded"] + np.where(accepted, -1, 1), 0)
    s["seen"] += 1
    return found, accepted


def _profile(s: States, raw: Floats, times: Ints) -> Floats:
    """Return what the hour of day explains of readings, and add them to what it is fitted to.

    A harmonic of the day, by recursive least squares: nothing in the first day, all of it from
    the second on.
    """
    new = s["seen"] == 0
    for name, first in (("origin", raw), ("began_us", times), ("profile_us", times)):
        s[name] = np.where(new, first, s[name])
    minute = times // _MINUTE_US % 1440
    hour = np.stack([np.ones(len(s)), _SIN[minute], _COS[minute]], axis=1)
    parts = s["profile"] * hour
    daily = parts[:, 1] + parts[:, 2]
    error = raw - s["origin"] - parts[:, 0] - daily
    most = PROFILE_CUT * s["error"]
    error = np.fmax(np.fmin(error, most), -most)
    known = np.column_stack([hour, parts[:, 0] + daily + error])
    s["normal"] += hour[:, :, None] * known[:, None, :]
    s["error_sum"] += np.abs(error)
    days = (times - s["began_us"]) / _DAY_US
    return np.minimum(np.maximum(days - 1.0, 0.0), 1.0) * daily


def _baseline(s: States, times: Ints) -> States:
    """Return states with profile and baseline taken anew, at the end of a block."""
    _fit_profile(s, times)
    off = np.abs(_quantile(s["recent"][:, -BLOCK:], 0.5) - s["median"])
    _push(s["astray"], off, ~np.isnan(off))
    renewed, kept = s["excluded"] >= RENEW_AFTER, min(RECENT, s["history"].shape[1])
    s["history"][renewed] = np.nan
    s["history"][renewed, -kept:] = s["recent"][renewed, -kept:]
    s["excluded"][renewed] = 0
    cold = np.isnan(s["median"])
    s["history"][cold] = _without_repeats(s["history"][cold], s["resolution"][cold])
    history = s["history"].copy()
    history[(~np.isnan(history)).sum(axis=1) >= 3 * DELAY, -DELAY:] = np.nan

    steps = np.abs(np.diff(history, axis=1))
    pairs = (~np.isnan(steps)).sum(axis=1)
    moves = (steps >= s["resolution"][:, None] / 2).sum(axis=1)
    few = moves < min(MOVES, history.shape[1] - 1)
    known = ~(cold & few) | (s["seen"] >= MOTIONLESS_HISTORIES * history.shape[1])
    median = _quantile(history, 0.5)
    # Nothing is known better than a hundred-thousandth of its size.
    floor = np.maximum(np.fmax(s["resolution"], s["tick"] / 2), np.abs(median) * 1e-5)
    away = np.abs(history - median[:, None])
    noise = _sigma(away, floor)
    means = np.abs(_means(history, LEVEL_WINDOW) - median[:, None])
    mean_scale = _sigma(means, noise * LEVEL_WINDOW**-0.5)
    # Wander: how far it usually is off its baseline beyond what noise explains.
    off = np.nan_to_num(_quantile(s["astray"], WANDER_SHARE)) / WANDER_NORMAL
    wander = WANDER_WEIGHT * np.sqrt(np.maximum(off**2 - (WANDER_DOUBT * mean_scale) ** 2, 0.0))
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
    """Return the usual size of absolute deviations, as a standard deviation of normal noise."""
    inner = _quantile(deviations, 0.5) * MAD_TO_SIGMA
    outer = _quantile(deviations, TAIL) / TAIL_NORMAL
    return np.asarray(np.fmax(np.clip(outer, inner, TAIL_LIMIT * inner), floor))


def _quantile(rows: Floats, share: float) -> Floats:
    """Return a quantile of each row without its NaN (the lower neighbour); NaN of an empty row."""
    ordered = np.sort(rows, axis=1)  # NaN last
    count = (~np.isnan(rows)).sum(axis=1)
    place = (np.maximum(count - 1, 0) * share).astype(np.intp)
    return ordered[np.arange(len(rows)), place]


def _means(rows: Floats, window: int) -> Floats:
    """Return the means of every ``window`` neighbours of each row."""
    width = rows.shape[1] - window + 1
    return np.asarray(sum(rows[:, i : i + width] for i in range(window)) / window)


def _without_repeats(rows: Floats, resolution: Floats) -> Floats:
    """Return each row with what equals the reading before taken out, right-aligned."""
    repeats = np.isnan(rows)
    repeats[:, 1:] |= np.abs(np.diff(rows, axis=1)) < resolution[:, None] / 2
    kept = np.where(repeats, np.nan, rows)
    return np.take_along_axis(kept, np.argsort(~repeats, axis=1, kind="stable"), axis=1)


def _push(windows: Floats, values: Floats, which: Bools) -> None:
    """Move windows on by a value, where so."""
    moved = np.concatenate([windows[:, 1:], values[:, None]], axis=1)
    windows[...] = np.where(which[:, None], moved, windows)


def hour_weight(timestamp_us: Ints) -> float:
    """Return how much the hour of day may count in a training: 0 below a day, 1 from two on.

    Minutes of readings know one hour only; to a forest every later one would be an anomaly.
    """
    days = float(timestamp_us.max() - timestamp_us.min()) / _DAY_US if len(timestamp_us) else 0.0
    return min(1.0, max(0.0, days - 1.0))
