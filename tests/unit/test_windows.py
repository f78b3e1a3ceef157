import statistics
from copy import deepcopy
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding import Readings
from pipeline.windows import (
    BASELINE_MIN_READINGS,
    MAX_BEHIND_US,
    Partial,
    PartitionWindows,
    Progress,
    Sums,
    WindowKey,
    WindowRules,
    common_watermark,
    leader_of_idle,
    sums_of,
    usual_band,
)

SECOND = 1_000_000
RULES = WindowRules(60, 300, 5, baseline_windows=3)


def readings(*rows, group=("Laboratory", "co2")):
    """Return readings of (second, hundredths[, flag[, group]])."""
    full = [(*row, *(False, group)[len(row) - 2 :]) for row in rows]
    seconds, values, flags, groups = zip(*full, strict=True) if full else ((), (), (), ())
    return Readings(
        np.arange(len(full), dtype=np.int64),
        pa.array(["s"] * len(full), pa.string()),
        pa.array([g[1] for g in groups], pa.string()),
        pa.array([g[0] for g in groups], pa.string()),
        np.array(values, dtype=np.int64),
        np.array([round(s * SECOND) for s in seconds], dtype=np.int64),
        np.array(flags, dtype=np.bool_),
        pa.array([""] * len(full), pa.string()),
    )


def key(second, group=("Laboratory", "co2")):
    return WindowKey(second * SECOND, *group)


def test_a_window_holds_its_start_and_not_its_end():
    changed, _ = PartitionWindows(RULES).add(readings((0, 1), (59.999999, 1), (60, 1)))
    assert {k.start_us: p.all.readings for k, p in changed.items()} == {0: 2, 60 * SECOND: 1}


def test_windows_before_the_epoch_are_aligned_to_it():
    changed, _ = PartitionWindows(RULES).add(readings((-1, 1)))
    assert list(changed) == [key(-60)]


@pytest.mark.parametrize("window_s", [1, 7, 86_400])
def test_windows_of_any_length_are_aligned_to_the_epoch(window_s):
    rules = WindowRules(window_s, 0, 0, 3)
    changed, _ = PartitionWindows(rules).add(readings((1_000_000, 1)))
    assert [k.start_us for k in changed] == [1_000_000 // window_s * window_s * SECOND]


def test_the_watermark_stays_behind_the_latest_event_time():
    windows = PartitionWindows(RULES)
    windows.add(readings((100, 1), (90, 1)))
    assert windows.watermark_us == 95 * SECOND


def test_a_clock_that_runs_ahead_makes_nobody_else_late():
    rules, now = WindowRules(60, 60, 5, baseline_windows=3), 1_000_020 * SECOND
    windows = PartitionWindows(rules)
    ahead, usual = readings((1_000_020 + 299, 1)), readings((1_000_020 - 80, 1), (1_000_020, 1))
    windows.add(ahead, appended_us=np.array([now]))
    assert windows.watermark_us == now - 5 * SECOND
    assert not len(windows.add(usual, appended_us=np.array([now, now]))[1].rows)


def test_where_the_broker_gives_no_time_the_event_time_counts():
    windows = PartitionWindows(RULES)
    windows.add(readings((100, 1)), appended_us=np.array([-1_000]))
    assert windows.watermark_us == 95 * SECOND


def test_the_watermark_never_falls():
    windows = PartitionWindows(RULES, watermark_us=1000 * SECOND)
    windows.add(readings((900, 1)))
    assert windows.watermark_us == 1000 * SECOND


def test_an_idle_partition_moves_on_but_never_before_its_first_reading():
    windows = PartitionWindows(RULES)
    windows.advance_idle(10 * SECOND)
    assert windows.watermark_us is None
    windows.add(readings((100, 1)))
    windows.advance_idle(10 * SECOND)
    assert windows.watermark_us == 105 * SECOND


NOW, LONG_AGO = 50 * 365 * 86_400 * SECOND, 0


def at(watermark_us, idle=False, at_end=False):
    return Progress(watermark_us, idle, at_end)


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        ([], None),
        ([at(NOW), at(NOW - 5)], NOW - 5),
        ([at(NOW), at(NOW - 5, idle=True, at_end=True)], NOW),
        ([at(NOW), at(LONG_AGO, idle=True, at_end=True)], NOW),
        ([at(NOW), at(LONG_AGO, at_end=True)], NOW),  # goes on sending, and thinks it is 1970
        ([at(NOW), at(LONG_AGO)], LONG_AGO),  # there is more of it to be read
        ([at(NOW), at(NOW - MAX_BEHIND_US, at_end=True)], NOW - MAX_BEHIND_US),
        ([at(NOW), at(None)], None),  # its first readings may be of any time
        ([at(NOW), at(None, at_end=True)], NOW),
        ([at(None, at_end=True)], None),
        ([at(NOW - 7, idle=True), at(NOW - 9, idle=True)], NOW - 7),
    ],
)
def test_who_holds_windows_open(partitions, expected):
    assert common_watermark(partitions) == expected


@pytest.mark.parametrize(
    ("partitions", "leader"),
    [
        ([], None),
        ([at(NOW, idle=True), at(NOW + 1, idle=True)], 1),
        ([at(None, at_end=True), at(NOW, idle=True)], 1),
        ([at(NOW, idle=True), at(NOW + 1, at_end=True)], None),
        ([at(None, at_end=True)], None),
    ],
)
def test_while_all_are_idle_time_passes_for_the_furthest(partitions, leader):
    assert leader_of_idle(partitions) == leader


def test_a_reading_is_late_when_the_watermark_has_passed_end_and_allowance():
    last_moment = 60 + 300 + 5  # event time that brings the watermark to the end of the allowance
    _, late = PartitionWindows(RULES).add(readings((last_moment - 0.000001, 1), (59, 1)))
    assert late.rows.tolist() == []
    _, late = PartitionWindows(RULES).add(readings((last_moment, 1), (59, 1)))
    assert late.rows.tolist() == [1]
    assert late.watermark_us.tolist() == [360 * SECOND]
    assert late.window_start_us.tolist() == [0]


def test_a_late_reading_changes_no_window():
    changed, _ = PartitionWindows(RULES).add(readings((1000, 1), (0, 1)))
    assert list(changed) == [key(960)]


def test_a_reading_of_a_window_known_to_be_final_is_late():
    changed, late = PartitionWindows(RULES).add(readings((0, 1), (60, 1)), 60 * SECOND)
    assert (list(changed), late.rows.tolist()) == ([key(60)], [0])


def test_groups_are_apart():
    other = ("Warehouse", "co2")
    changed, _ = PartitionWindows(RULES).add(readings((0, 1), (0, 5, True, other)))
    assert changed[key(0)].maximum == 1
    assert (changed[key(0, other)].minimum, changed[key(0, other)].anomalies) == (5, 1)


def test_flagged_readings_are_counted():
    changed, _ = PartitionWindows(RULES).add(readings((0, 1, True), (1, 1), (2, 1, True)))
    assert changed[key(0)].anomalies == 2


def rounded(exact):
    return int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))


hundredths_lists = st.lists(st.integers(-9_999_999_999, 9_999_999_999), min_size=1, max_size=60)


def sums(values):
    hundredths = np.array(values, dtype=np.int64)
    return sums_of(hundredths, np.array([0]), np.ones_like(hundredths))[0]


def is_unusual(values, baseline):
    middle, reach = usual_band(baseline)
    return [abs(value - middle) > reach for value in values]


@given(hundredths_lists)
def test_mean_and_deviation_are_the_correctly_rounded_ones(values):
    found = sums(values)
    with localcontext(prec=80):
        mean = Decimal(sum(values)) / len(values)
        variance = sum((Decimal(v) - mean) ** 2 for v in values) / len(values)
        assert found.mean() == rounded(mean)
        assert found.stddev() == rounded(variance.sqrt())


def test_the_deviation_of_a_constant_series_of_the_largest_value_is_zero():
    found = sums([9_999_999_999] * 50_000)
    assert (found.mean(), found.stddev()) == (9_999_999_999, 0)


def test_ties_of_mean_and_deviation_go_to_the_even_hundredth():
    assert (sums([0, 1]).mean(), sums([0, 1]).stddev()) == (0, 0)
    assert (sums([1, 2]).mean(), sums([0, 3]).stddev()) == (2, 2)


def test_one_reading_is_its_own_mean_with_deviation_zero():
    found = sums([-4711])
    assert (found.mean(), found.stddev()) == (-4711, 0)


def test_a_value_is_unusual_beyond_three_sigma_of_the_baseline():
    values = [900, 1100] * BASELINE_MIN_READINGS
    assert statistics.pstdev(values) == 100
    assert is_unusual([700, 699, 1300, 1301], sums(values)) == [*(False, True, False, True)]


def test_there_is_no_verdict_before_the_baseline_is_long_enough():
    short = sums([5] * (BASELINE_MIN_READINGS - 1))
    assert is_unusual([10**9], short) == [False]


def test_a_series_that_never_moved_allows_for_its_resolution():
    assert is_unusual([97, 96], sums([100] * 50)) == [False, True]


def steady(window, n=40, start=900, spread=200):
    """Return n readings of one minute that alternate between two values."""
    return [(window * 60 + i, start + spread * (i % 2)) for i in range(n)]


def test_readings_are_judged_by_the_preceding_windows_not_by_their_own():
    windows = PartitionWindows(RULES)
    changed, _ = windows.add(readings(*steady(0), (50, 10**6)))
    assert changed[key(0)].statistical_anomalies == 0
    changed, _ = windows.add(readings(*steady(2), (170, 10**7)))
    assert changed[key(120)].baseline.readings == 41  # the spike came when there was no verdict
    changed, _ = windows.add(readings(*steady(3), (230, 10**7)))
    assert changed[key(180)].statistical_anomalies >= 1


def test_a_flagged_reading_does_not_enter_the_baseline():
    windows = PartitionWindows(RULES)
    windows.add(readings(*steady(0), (50, 10**6, True)))
    changed, _ = windows.add(readings(*steady(1), (110, 10**6)))
    assert changed[key(60)].baseline.readings == 40
    assert changed[key(60)].statistical_anomalies == 1
    changed, _ = windows.add(readings(*steady(2)))
    assert changed[key(120)].baseline.readings == 80


def test_the_baseline_is_the_last_windows_that_had_readings():
    windows = PartitionWindows(RULES)
    for window in (0, 1, 2, 50, 51):
        windows.add(readings(*steady(window)))
    changed, _ = windows.add(readings((52 * 60, 900)))
    assert changed[key(52 * 60)].baseline.readings == 3 * 40  # windows 2, 50 and 51


def test_refining_an_earlier_window_revises_no_verdict():
    windows = PartitionWindows(RULES)
    windows.add(readings(*steady(0)))
    changed, _ = windows.add(readings((60, 900)))
    frozen = changed[key(60)].baseline.readings
    windows.add(readings(*steady(0)))
    changed, _ = windows.add(readings((61, 900)))
    assert changed[key(60)].baseline.readings == frozen == 40


def test_a_window_is_forgotten_when_it_is_final_and_no_baseline_needs_it():
    windows = PartitionWindows(RULES)
    for window in range(20):
        windows.add(readings(*steady(window, n=1)))
    # Watermark 1135 s: windows from 780 s on may still open; the three before them are baseline.
    assert windows.forget(10**9 * SECOND) == [key(s) for s in range(0, 600, 60)]
    assert windows.forget(10**9 * SECOND) == []


def test_a_window_that_is_not_final_is_not_forgotten():
    windows = PartitionWindows(RULES)
    for window in range(20):
        windows.add(readings(*steady(window, n=1)))
    assert windows.forget(120 * SECOND) == [key(0), key(60)]


def test_a_group_that_has_been_silent_for_a_week_is_let_go():
    windows = PartitionWindows(RULES)
    windows.add(readings((0, 1), group=("Warehouse", "co2")))
    windows.add(readings((8 * 86_400, 1)))
    assert windows.forget(10**9 * SECOND) == [key(0, ("Warehouse", "co2"))]
    assert len(windows) == 1


# --- properties: any batching, any crash point, any partitioning ------------------------------

rows = st.tuples(
    st.integers(0, 900),  # second
    st.integers(-500, 500),  # hundredths
    st.booleans(),
    st.sampled_from([("A", "x"), ("A", "y"), ("B", "x")]),
)
logs = st.lists(rows, max_size=80)
cuts = st.lists(st.integers(0, 80), max_size=6)


def run(log, cuts=(), restore=False, keep=None):
    """Process a log in the given batches; return all partials, the late rows and the watermark."""
    partials, late = {}, []

    def stored(groups):
        return [(key, deepcopy(each)) for key, each in partials.items() if key[1:] in groups]

    windows = PartitionWindows(RULES, None, stored)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        changed, missed = windows.add(readings(*log[begin:end]))
        partials |= changed
        late += [begin + row for row in missed.rows.tolist()]
        if restore:  # as after a crash: nothing is left but what was stored
            windows = PartitionWindows(RULES, windows.watermark_us, stored)
        if keep is not None:
            windows.let_go(keep)
            assert len(windows) <= keep
    return partials, late, windows.watermark_us


@given(logs, cuts)
def test_no_batching_changes_anything(log, cuts):
    assert run(log, cuts) == run(log)


@given(logs, cuts)
def test_no_crash_between_batches_changes_anything(log, cuts):
    assert run(log, cuts, restore=True) == run(log)


@given(logs, cuts, st.integers(0, 20))
def test_what_is_let_go_of_comes_back_as_it_was(log, cuts, keep):
    assert run(log, cuts, keep=keep) == run(log)


@given(logs, cuts)
def test_forgetting_changes_no_later_window(log, cuts):
    windows, partials = PartitionWindows(RULES), {}
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        partials |= windows.add(readings(*log[begin:end]))[0]
        windows.forget(10**9 * SECOND)
    assert partials == run(log)[0]


@given(logs, st.lists(st.integers(0, 3), min_size=80, max_size=80))
def test_partials_of_any_partitioning_merge_to_the_same_sums(log, partition_of):
    generous = WindowRules(60, 10_000, 0, 3)  # nothing late: order is then free
    merged: dict[WindowKey, Sums] = {}
    for partition in range(4):
        share = [row for row, p in zip(log, partition_of, strict=False) if p == partition]
        for k, partial in PartitionWindows(generous).add(readings(*share))[0].items():
            merged.setdefault(k, Sums()).add(partial.all)
    whole, _ = PartitionWindows(generous).add(readings(*log))
    assert merged == {k: partial.all for k, partial in whole.items()}


@given(logs)
def test_every_reading_is_in_its_window_or_late(log):
    partials, late, _ = run(log)
    assert sum(p.all.readings for p in partials.values()) + len(late) == len(log)
    for k, partial in partials.items():
        expected = [
            row
            for i, row in enumerate(log)
            if i not in late
            and row[3] == (k.location, k.sensor_type)
            and k.start_us <= row[0] * SECOND < k.start_us + RULES.window_us
        ]
        assert partial.all == sums([row[1] for row in expected])
        assert partial.minimum == min(row[1] for row in expected)
        assert partial.anomalies == sum(row[2] for row in expected)


def test_a_window_knows_the_first_and_the_last_of_its_units():
    windows = PartitionWindows(RULES)
    batch = readings((0, 1), (1, 1), (70, 1))
    changed, _ = windows.add(replace(batch, unit=pa.array(["°F", "°C", "K"], pa.string())))
    assert changed[key(0)].units == ("°C", "°F")
    assert changed[key(60)].units == ("K", "K")
    changed, _ = windows.add(replace(batch, unit=pa.array(["°C", "°C", "°C"], pa.string())))
    assert changed[key(0)].units == ("°C", "°F")
    assert changed[key(60)].units == ("K", "°C")


def test_a_partial_starts_empty():
    assert Partial().all.readings == 0
