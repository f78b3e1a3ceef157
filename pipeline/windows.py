"""Tumbling event-time windows of one partition: exact sums, late readings, 3-sigma verdicts.

Windows are half-open, ``[start, start + window)``, aligned to the epoch. All sums are whole numbers
of hundredths, so no order, batching or merging of readings changes a digit.

The watermark of a partition is the largest event time seen, but none later than when the broker
had it, minus an allowance for disorder: a clock that runs ahead makes nobody else late. It never
falls. A reading is late when the watermark before it had passed its window's end + allowed
lateness, or when its window is final: ``common_watermark`` had passed that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isqrt, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.decoding import Readings, distinct
from pipeline.settings import WindowRules

Ints = npt.NDArray[np.int64]

# A z-score needs a spread worth the name; with fewer readings there is no verdict.
BASELINE_MIN_READINGS = 30
# Fewer than one reading in 370 of a normal series lies beyond 3 sigma.
SIGMAS = 3.0
# A series that never moved has spread 0; a hundredth is the resolution its values are stored with.
MIN_STDDEV_HUNDREDTHS = 1.0
# Baselines do not reach further back than this, so that groups long silent can be let go.
BASELINE_MAX_AGE_US = 7 * 86_400 * 1_000_000

# One that goes on sending so far behind the furthest, and is read to its end, has a wrong clock.
MAX_BEHIND_US = 3_600 * 1_000_000

# Earlier than any time: before the first reading nothing is late.
BEFORE_ALL = -(2**62)


@dataclass(frozen=True)
class Progress:
    """How far one partition is.

    Attributes
    ----------
    watermark_us : int or None
        None before its first reading.
    is_idle : bool
        It was silent for a while, and there is nothing in it to be read.
    is_at_end : bool
        What was in it a moment ago is read.
    """

    watermark_us: int | None
    is_idle: bool
    is_at_end: bool


def common_watermark(partitions: Sequence[Progress]) -> int | None:
    """Return up to when all partitions are believed complete; None while that is unknown.

    The least watermark of those that hold windows open. An idle partition does not, whatever its
    watermark says; nor does one with nothing left to read that is far behind the furthest (a clock
    at 1970), or without any reading. If none does, the furthest counts.
    """
    marks = [p.watermark_us for p in partitions if p.watermark_us is not None]
    if not marks or any(p.watermark_us is None and not p.is_at_end for p in partitions):
        return None
    furthest = max(marks)
    holding = [
        p.watermark_us
        for p in partitions
        if p.watermark_us is not None
        and not p.is_idle
        and not (p.is_at_end and p.watermark_us < furthest - MAX_BEHIND_US)
    ]
    return min(holding, default=furthest)


def leader_of_idle(partitions: Sequence[Progress]) -> int | None:
    """Return which partition's watermark goes on with the time that passes: if all are idle."""
    marks = [BEFORE_ALL if p.watermark_us is None else p.watermark_us for p in partitions]
    silent = all(p.is_idle or (p.watermark_us is None and p.is_at_end) for p in partitions)
    furthest = max(marks, default=BEFORE_ALL)
    return marks.index(furthest) if silent and furthest > BEFORE_ALL else None


class WindowKey(NamedTuple):
    """One window of one group."""

    start_us: int
    location: str
    sensor_type: str


# A location and a sensor type there.
Group = tuple[str, str]


@dataclass(slots=True)
class Sums:
    """Number, sum (hundredths) and sum of squares (hundredths squared) of some readings; exact."""

    readings: int = 0
    total: int = 0
    squares: int = 0

    def add(self, other: Sums) -> None:
        """Take in another."""
        self.readings += other.readings
        self.total += other.total
        self.squares += other.squares

    def mean(self) -> int:
        """Return the mean in hundredths, rounded half even."""
        return _round_half_even(self.total, self.readings)

    def stddev(self) -> int:
        """Return the population standard deviation in hundredths, correctly rounded (half even)."""
        n = self.readings
        variance = n * self.squares - self.total**2  # times n squared
        floor = isqrt(variance) // n
        # sqrt(variance) / n against floor + 1/2, without leaving whole numbers
        beyond_half = 4 * variance - (2 * floor + 1) ** 2 * n**2
        return floor + (beyond_half > 0 or (beyond_half == 0 and floor % 2 == 1))


def _round_half_even(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


@dataclass(slots=True)
class Partial:
    """What one partition contributes to one window of one group.

    ``usual`` are the readings that neither the sensor's rule nor the z-score flagged: they feed the
    baselines of later windows. ``baseline`` was frozen when the window opened. ``units`` are the
    first and the last in alphabetical order: two where units are mixed.
    """

    all: Sums = field(default_factory=Sums)
    minimum: int = 2**62
    maximum: int = -(2**62)
    anomalies: int = 0
    statistical_anomalies: int = 0
    usual: Sums = field(default_factory=Sums)
    baseline: Sums = field(default_factory=Sums)
    units: tuple[str, str] | None = None


def usual_band(baseline: Sums) -> tuple[float, float]:
    """Return the middle of what is usual and how far it reaches: 3 sigma, infinite where unknown.

    The baseline must not hold the values that it judges: among n readings |z| cannot exceed
    (n - 1) / sqrt(n), so a small window could never flag anything (Shiffler 1988, Maximum Z scores
    and outliers, The American Statistician 42).
    """
    n = baseline.readings
    if n < BASELINE_MIN_READINGS:
        return 0.0, inf
    stddev = sqrt(max(0, n * baseline.squares - baseline.total**2)) / n
    return baseline.total / n, SIGMAS * max(stddev, MIN_STDDEV_HUNDREDTHS)


def sums_of(hundredths: Ints, begins: npt.NDArray[np.intp], counted: Ints) -> list[Sums]:
    """Return the sums of consecutive pieces of an array, of the values that count (1, else 0).

    Squares reach 1e20 and overflow 64 bits, so a value is split: v = high * 2^17 + low.
    """
    values = hundredths * counted
    high, low = values >> 17, values & 0x1FFFF
    columns = (counted, values, high * high, high * low, low * low)
    added = (np.add.reduceat(each, begins).tolist() for each in columns)
    return [
        Sums(n, total, (squares << 34) + (mixed << 18) + rest)
        for n, total, squares, mixed, rest in zip(*added, strict=True)
    ]


@dataclass(frozen=True)
class Late:
    """Readings that missed their window: rows of the batch, and the watermark each one met."""

    rows: npt.NDArray[np.intp]
    window_start_us: Ints
    watermark_us: Ints


def _groups(readings: Readings) -> tuple[list[Group], npt.NDArray[np.intp]]:
    """Return the groups that occur, and for each reading the number of its group among them."""
    places, place = distinct(readings.location)
    types, sensor_type = distinct(readings.sensor_type)
    pairs, group_of_row = np.unique(place * len(types) + sensor_type, return_inverse=True)
    groups = [(places[pair // len(types)], types[pair % len(types)]) for pair in pairs.tolist()]
    return groups, group_of_row


def _openings_before(group_of_row: Ints, opening_rows: npt.NDArray[np.intp]) -> Ints:
    """Return for each row how many windows its group has opened by then, it included."""
    is_opening = np.zeros(len(group_of_row), dtype=np.int64)
    is_opening[opening_rows] = 1
    by_group = np.argsort(group_of_row, kind="stable")
    opened = np.cumsum(is_opening[by_group])
    begins = np.flatnonzero(np.diff(group_of_row[by_group], prepend=-1))
    before = (opened - is_opening[by_group])[begins]
    lengths = np.diff(begins, append=len(group_of_row))
    counts = np.empty_like(opened)
    counts[by_group] = opened - np.repeat(before, lengths)
    return counts


def _runs(numbers: Ints) -> tuple[list[int], npt.NDArray[np.intp]]:
    """Return the numbers of a sorted array, and where the run of each begins."""
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    return numbers[begins].tolist(), begins


def _add_to_windows(
    partials: Sequence[Partial],
    begins: npt.NDArray[np.intp],
    hundredths: Ints,
    flags: npt.NDArray[np.bool_],
) -> None:
    """Add consecutive readings to the windows they belong to, whose baselines are frozen."""
    lengths = np.diff(begins, append=len(hundredths))
    middle, reach = (
        np.repeat(np.array(each), lengths)
        for each in zip(*(usual_band(partial.baseline) for partial in partials), strict=True)
    )
    unusual = np.abs(hundredths - middle) > reach
    usual = ~(unusual | flags)
    everything = sums_of(hundredths, begins, np.ones_like(hundredths))
    columns = (
        everything,
        sums_of(hundredths, begins, usual.astype(np.int64)) if not usual.all() else everything,
        np.minimum.reduceat(hundredths, begins).tolist(),
        np.maximum.reduceat(hundredths, begins).tolist(),
        np.add.reduceat(flags.astype(np.int64), begins).tolist(),
        np.add.reduceat(unusual.astype(np.int64), begins).tolist(),
    )
    for partial, sums, usual_sums, low, high, flagged, beyond in zip(
        partials, *columns, strict=True
    ):
        partial.all.add(sums)
        partial.usual.add(usual_sums)
        partial.minimum = min(partial.minimum, low)
        partial.maximum = max(partial.maximum, high)
        partial.anomalies += flagged
        partial.statistical_anomalies += beyond


def _add_units(
    partials: Sequence[Partial],
    begins: npt.NDArray[np.intp],
    names: Sequence[str],
    units: Ints,
) -> None:
    """Note the units of consecutive readings, given as numbers of names."""
    ordered = sorted(names)
    rank = np.array([ordered.index(each) for each in names])[units]
    first, last = (edge.reduceat(rank, begins).tolist() for edge in (np.minimum, np.maximum))
    for partial, low, high in zip(partials, first, last, strict=True):
        known = partial.units or (ordered[low], ordered[high])
        partial.units = min(known[0], ordered[low]), max(known[1], ordered[high])


def _nothing_stored(_: Sequence[Group]) -> Iterable[tuple[WindowKey, Partial]]:
    return ()


class PartitionWindows:
    """The windows of one partition that are open, and the recent ones that baselines are made of.

    Parameters
    ----------
    rules : WindowRules
        Lengths.
    watermark_us : int or None
        Where the partition stands; None before its first reading.
    fetch : callable
        Returns what is stored of some groups; asked at the first reading of a group not held.
    """

    def __init__(
        self,
        rules: WindowRules,
        watermark_us: int | None = None,
        fetch: Callable[[Sequence[Group]], Iterable[tuple[WindowKey, Partial]]] = _nothing_stored,
    ) -> None:
        self.rules = rules
        self.watermark_us = watermark_us
        self._fetch = fetch
        # The group that has had no reading for longest comes first.
        self._groups: dict[Group, dict[int, Partial]] = {}
        self._passed: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Return the number of windows held."""
        return sum(map(len, self._groups.values()))

    def let_go(self, keep: int) -> None:
        """Hold at most so many windows: drop the groups longest without a reading, all stored."""
        surplus = len(self) - keep
        while surplus > 0:
            surplus -= len(self._groups.pop(next(iter(self._groups))))

    def _hold(self, groups: Sequence[Group]) -> None:
        """See that the windows of these groups are held, as the latest used."""
        missing = [group for group in groups if group not in self._groups]
        for group in groups:
            self._groups[group] = self._groups.pop(group, {})
        for key, partial in self._fetch(missing) if missing else ():
            self._groups[key[1:]][key.start_us] = partial

    def add(
        self,
        readings: Readings,
        final_until_us: int = BEFORE_ALL,
        appended_us: Ints | None = None,
    ) -> tuple[dict[WindowKey, Partial], Late]:
        """Take in readings in log order.

        Parameters
        ----------
        final_until_us : int
            Windows that end by then are final, whatever this partition's watermark is.
        appended_us : array of int64, optional
            When the broker had each reading, microseconds since the epoch; negative = unknown.

        Returns
        -------
        changed : dict
            The partials that changed; the same objects that this keeps.
        late : Late
            Readings that were not taken in.
        """
        times = readings.timestamp_us
        starts = times - times % self.rules.window_us
        before = self._watermarks_before(times, appended_us)
        closes = starts + self.rules.window_us + self.rules.allowed_lateness_us
        is_late = (before >= closes) | (starts + self.rules.window_us <= final_until_us)
        late = np.flatnonzero(is_late)
        if len(late):
            taken = np.flatnonzero(~is_late)
            readings, starts_taken = readings.take(taken), starts[taken]
        else:
            starts_taken = starts
        changed = self._take_in(readings, starts_taken) if len(readings) else {}
        return changed, Late(late, starts[late], before[late])

    def _take_in(self, readings: Readings, starts: Ints) -> dict[WindowKey, Partial]:
        """Add readings to their windows; return those."""
        groups, group_of_row = _groups(readings)
        distinct_starts, start_of_row = np.unique(starts, return_inverse=True)
        windows, first_rows, window_of_row = np.unique(
            group_of_row * len(distinct_starts) + start_of_row,
            return_index=True,
            return_inverse=True,
        )
        keys = [
            WindowKey(start, *groups[code])
            for start, code in zip(
                distinct_starts[windows % len(distinct_starts)].tolist(),
                (windows // len(distinct_starts)).tolist(),
                strict=True,
            )
        ]
        self._hold(groups)
        held = [self._groups[key[1:]] for key in keys]
        opening = np.array(
            [key.start_us not in mine for key, mine in zip(keys, held, strict=True)], dtype=np.bool_
        )
        # A window's baseline is frozen by its first reading, from what the log held before that.
        # So the readings of a group between two openings go together, and no batching changes a
        # verdict; groups do not touch each other, so all go in step.
        unit_names, unit_of_row = distinct(readings.unit)
        rounds = _openings_before(group_of_row, first_rows[opening])
        order = np.argsort(rounds * len(windows) + window_of_row, kind="stable")
        bounds = np.searchsorted(rounds[order], np.arange(int(rounds.max()) + 2)).tolist()
        opens_in = rounds[first_rows]
        for step, (begin, end) in enumerate(pairwise(bounds)):
            for each in np.flatnonzero(opening & (opens_in == step)).tolist():
                start, mine = keys[each].start_us, held[each]
                mine[start] = Partial(baseline=self._baseline(mine, start))
            if begin < end:
                rows = order[begin:end]
                numbers, begins = _runs(window_of_row[rows])
                partials = [held[each][keys[each].start_us] for each in numbers]
                _add_to_windows(partials, begins, readings.hundredths[rows], readings.anomaly[rows])
                _add_units(partials, begins, unit_names, unit_of_row[rows])
        return {key: mine[key.start_us] for key, mine in zip(keys, held, strict=True)}

    def _watermarks_before(self, times: Ints, appended_us: Ints | None) -> Ints:
        """Return the watermark each reading meets; move on to the one after the last."""
        if appended_us is not None:
            times = np.where(appended_us < 0, times, np.minimum(times, appended_us))
        first = BEFORE_ALL if self.watermark_us is None else self.watermark_us
        marks = np.concatenate(([first], times - self.rules.out_of_orderness_us))
        marks = np.maximum.accumulate(marks)
        if len(times):
            self.watermark_us = int(marks[-1])
        return marks[:-1]

    def _baseline(self, windows: dict[int, Partial], start: int) -> Sums:
        baseline = Sums()
        for earlier in self._preceding(windows, start):
            if earlier >= start - BASELINE_MAX_AGE_US:
                baseline.add(windows[earlier].usual)
        return baseline

    def _preceding(self, windows: Iterable[int], start: int) -> list[int]:
        """Return the starts of the windows before ``start`` that its baseline is made of."""
        return sorted(s for s in windows if s < start)[-self.rules.baseline_windows :]

    def advance_idle(self, elapsed_us: int) -> None:
        """Move the watermark on by the time that passes while all partitions are idle."""
        if self.watermark_us is not None:
            self.watermark_us += elapsed_us

    def forget(self, final_until_us: int) -> list[WindowKey]:
        """Drop what is held and nothing needs any more, and return its keys.

        A window is needed until it is final, which all that end by ``final_until_us`` are, and as
        long as the baseline of a window that may still open can reach back to it.
        """
        if self.watermark_us is None:
            return []
        window_us = self.rules.window_us
        # An earlier start would be late.
        can_open_us = self.watermark_us - window_us - self.rules.allowed_lateness_us + 1
        limit_us = min(final_until_us - window_us + 1, can_open_us)
        # What has opened since the last time starts later, so nothing goes until a start is passed.
        passed = tuple(
            -(-us // window_us) for us in (limit_us, can_open_us, can_open_us - BASELINE_MAX_AGE_US)
        )
        if passed == self._passed:
            return []
        self._passed = passed
        forgotten = []
        for group, windows in list(self._groups.items()):
            keep = {
                start
                for start in self._preceding(windows, can_open_us)
                if start >= can_open_us - BASELINE_MAX_AGE_US
            }
            dropped = [start for start in windows if start < limit_us and start not in keep]
            for start in dropped:
                del windows[start]
            forgotten += [WindowKey(start, *group) for start in dropped]
            if not windows:
                del self._groups[group]
        return forgotten
