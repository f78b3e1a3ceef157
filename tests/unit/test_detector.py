"""The detector as a library: same verdicts for any batching, honest before it knows anything."""

from dataclasses import replace
from itertools import pairwise
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from pipeline.bands import exceedance, reason
from pipeline.detector import AnomalyDetector
from pipeline.features import (
    CENTRE,
    FEATURE_NAMES,
    HOUR_SIN,
    MEAN,
    RANGE,
    RATE,
    SCALE,
    STD,
    STEP,
    STEP_SCALE,
    STILL,
    SWING,
    VALUE,
    compute_features,
    new_state,
)
from pipeline.forest import Forest
from pipeline.settings import DetectorSettings

START_US = 1_767_225_600_000_000
SMALL = DetectorSettings(training_size=200, retrain_seconds=60)


def stream(readings, sensors=4, seed=1, level=20.0, noise=0.3):
    """Readings of some sensors of one type in turn, one a second each: ids, values, times."""
    rng = np.random.default_rng(seed)
    which = np.arange(readings) % sensors
    values = np.round(level + 5 * which + noise * rng.standard_normal(readings), 2)
    times = START_US + np.arange(readings) * (1_000_000 // sensors)
    return [f"s{i}" for i in which.tolist()], values, times


def judge(detector, ids, values, times, sensor_type="t"):
    return detector.process(["Lab"] * len(ids), [sensor_type] * len(ids), ids, values, times)


def whole(verdicts):
    return [
        verdicts.known.tolist(),
        verdicts.is_anomaly.tolist(),
        np.nan_to_num(verdicts.score, nan=9).tolist(),
        verdicts.reason,
        np.nan_to_num(verdicts.lower, nan=-9).tolist(),
        np.nan_to_num(verdicts.upper, nan=-9).tolist(),
    ]


def test_there_is_no_verdict_before_the_first_model():
    verdicts = judge(AnomalyDetector(), *stream(300))
    first = verdicts.known.argmax()
    assert 50 <= first <= 200
    assert np.isnan(verdicts.score[~verdicts.known]).all()
    assert not verdicts.is_anomaly[~verdicts.known].any()
    assert not np.isnan(verdicts.score[verdicts.known]).any()


@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, 599), max_size=6, unique=True))
def test_any_batching_gives_the_same_verdicts(cuts):
    ids, values, times = stream(600)
    values[300::40] += 8
    expected = whole(judge(AnomalyDetector(SMALL), ids, values, times))
    detector, parts = AnomalyDetector(SMALL), []
    bounds = [0, *sorted(cuts), 600]
    for first, last in pairwise(bounds):
        cut = slice(first, last)
        parts.append(whole(judge(detector, ids[cut], values[cut], times[cut])))
    assert [[v for part in parts for v in part[i]] for i in range(6)] == expected


def test_a_restored_detector_goes_on_with_the_same_verdicts():
    ids, values, times = stream(900)
    values[500::50] -= 9
    expected = whole(judge(AnomalyDetector(SMALL), ids, values, times))
    before = AnomalyDetector(SMALL)
    judge(before, ids[:437], values[:437], times[:437])
    after = AnomalyDetector(SMALL)
    assert after.restore("t", before.save("t"))
    rest = whole(judge(after, ids[437:], values[437:], times[437:]))
    assert rest == [column[437:] for column in expected]


def allowed_settings():
    """Any settings of the detector that a user may choose."""
    whole = {"ge": "min_value", "le": "max_value"}
    chosen = {}
    for name, hint in get_type_hints(DetectorSettings, include_extras=True).items():
        kind, limits = get_args(hint)
        if kind is str:
            chosen[name] = st.sampled_from(["", "t", "a,t"])
            continue
        bounds = {new: getattr(limits, old) for old, new in whole.items()}
        chosen[name] = st.integers(**bounds) if kind is int else st.floats(**bounds)
    return st.builds(DetectorSettings, **chosen)


@settings(max_examples=15, deadline=None)
@given(allowed=allowed_settings())
@example(allowed=DetectorSettings(history_size=10))
@example(allowed=DetectorSettings(history_size=59))
def test_it_works_with_any_settings_that_are_allowed(allowed):
    ids, values, times = stream(700, sensors=2)
    values[600::20] += 9
    detector = AnomalyDetector(allowed)
    verdicts = judge(detector, ids, values, times)
    assert verdicts.known.any() and np.isfinite(verdicts.score[verdicts.known]).all()
    assert AnomalyDetector(allowed).restore("t", detector.save("t"))


def test_restored_at_every_reading_it_gives_the_same_verdicts():
    ids, values, times = stream(340)
    values[250::9] -= 9
    expected = whole(judge(AnomalyDetector(SMALL), ids, values, times))
    detector, parts = AnomalyDetector(SMALL), [[] for _ in expected]
    for row in range(340):
        one = slice(row, row + 1)
        found = whole(judge(detector, ids[one], values[one], times[one]))
        parts = [part + column for part, column in zip(parts, found, strict=True)]
        detector, before = AnomalyDetector(SMALL), detector
        assert detector.restore("t", before.save("t"))
    assert parts == expected


def test_a_state_of_another_kind_is_refused():
    detector = AnomalyDetector(SMALL)
    judge(detector, *stream(100))
    other = AnomalyDetector(DetectorSettings(history_size=50))
    counting = AnomalyDetector(replace(SMALL, cumulative_types="t"))
    for state in (detector.save("t"), b"PK of numpy"):
        assert not other.restore("t", state)
        assert not counting.restore("t", state)


@pytest.mark.parametrize("far", [6, 50, 1e6, -1e6])
def test_a_value_far_out_is_an_anomaly_however_far(far):
    ids, values, times = stream(1200)
    values[-1] += 0.3 * far
    verdicts = judge(AnomalyDetector(), ids, values, times)
    assert verdicts.is_anomaly[-1]
    assert "usually" in verdicts.reason[-1]
    assert not verdicts.lower[-1] < values[-1] < verdicts.upper[-1]


def test_few_clean_readings_are_flagged():
    verdicts = judge(AnomalyDetector(), *stream(8000, sensors=5))
    assert verdicts.is_anomaly[2000:].mean() < 0.02


def test_a_sensor_that_never_changes_is_not_an_anomaly_until_it_does():
    ids, values, times = stream(1500, sensors=1, noise=0.0)
    verdicts = judge(AnomalyDetector(), ids, values, times)
    assert not verdicts.is_anomaly.any()
    values[-1] += 5
    assert judge(AnomalyDetector(), ids, values, times).is_anomaly[-1]


def test_a_stuck_sensor_is_found_and_named():
    ids, values, times = stream(2000, sensors=4)
    stuck = np.flatnonzero(np.arange(2000) % 4 == 0)[-30:]
    values[stuck] = values[stuck[0]]
    verdicts = judge(AnomalyDetector(), ids, values, times)
    assert verdicts.is_anomaly[stuck[5:]].mean() > 0.9
    assert verdicts.reason[stuck[-1]] == "has not changed for 29 s"


def test_a_new_level_becomes_normal_after_a_while():
    ids, values, times = stream(6000, sensors=4)
    shifted = (np.arange(6000) % 4 == 1) & (np.arange(6000) > 2000)
    values[shifted] += 10
    verdicts = judge(AnomalyDetector(), ids, values, times)
    rows = np.flatnonzero(shifted)
    assert verdicts.is_anomaly[rows[:20]].mean() > 0.9
    assert verdicts.is_anomaly[rows[-200:]].mean() < 0.1


def far_out(change, sensors=20):
    """Readings of white noise around a level that changes so: which are far out."""
    readings = len(change)
    noise = np.random.default_rng(5).standard_normal((readings, sensors))
    values = np.round(200 + change[:, None] + noise, 2).ravel()
    slots = np.tile(np.arange(sensors), readings)
    states = np.repeat(new_state(100), sensors)
    found = compute_features(states, slots, values, np.full(len(values), START_US))
    return (exceedance(found.vectors) > 3.5).reshape(readings, sensors)


def test_a_sensor_that_always_wanders_is_not_out_of_its_bands():
    wave = 8 * np.sin(np.arange(3000) * 2 * np.pi / 500)
    assert far_out(wave)[500:].mean() < 0.02


def test_a_drift_does_not_become_its_own_baseline():
    drift = np.arange(1, 121) * 6 / 120
    out = far_out(np.concatenate([np.zeros(1080), drift]))
    assert out[-120:].mean() > 0.6 and out[-60:].mean() > 0.95


def test_one_event_does_not_make_a_sensor_a_wanderer():
    shift, calm = np.full(60, 6.0), np.zeros(600)
    out = far_out(np.concatenate([calm, shift, calm, shift]))
    assert out[-60:].mean() > 0.95


def test_types_do_not_influence_each_other():
    ids, values, times = stream(1200)
    alone = judge(AnomalyDetector(SMALL), ids, values, times)
    both = AnomalyDetector(SMALL).process(
        ["Lab"] * 2 * len(ids),
        [t for _ in ids for t in ("t", "u")],
        [i for i in ids for _ in range(2)],
        np.repeat(values, 2) * np.tile([1.0, 100.0], len(values)),
        np.repeat(times, 2),
    )
    assert both.is_anomaly[::2].tolist() == alone.is_anomaly.tolist()
    assert np.array_equal(both.score[::2], alone.score, equal_nan=True)


def test_the_hour_of_day_means_nothing_until_days_are_known():
    ids, values, times = stream(1200)
    elsewhen = times + 6 * 3_600_000_000
    one = judge(AnomalyDetector(SMALL), ids, values, times)
    other = judge(AnomalyDetector(SMALL), ids, values, elsewhen)
    assert one.is_anomaly.tolist() == other.is_anomaly.tolist()


def test_trainings_follow_event_time_and_are_reported():
    ids, values, times = stream(2400)  # ten minutes
    trainings = judge(AnomalyDetector(), ids, values, times).trainings
    full = [t for t in trainings if t.rows == 1000]
    assert trainings[0].rows == 50
    assert len(full) >= 2
    gaps = np.diff([t.fitted_at_us for t in full]) / 1e6
    assert gaps[-1] == pytest.approx(300, abs=1)
    assert trainings[0].drift is None and trainings[-1].drift < 0.25


def passers_by():
    """Two sensors for ever; a third comes back after long; a hundred others pass once."""
    ids = ["a", "b", "c"] * 40 + [f"{'ab'[i % 2]}" if i % 5 else f"p{i}" for i in range(500)]
    ids += ["a", "b", "c"] * 40
    rng = np.random.default_rng(3)
    return ids, 20 + 0.3 * rng.standard_normal(len(ids)), START_US + np.arange(len(ids)) * 1_000_000


@pytest.mark.parametrize("cut", [1, 7, 200, 740])
def test_sensors_long_unseen_are_let_go_and_that_does_not_depend_on_batching(cut):
    ids, values, times = passers_by()
    few = DetectorSettings(training_size=200, retrain_seconds=60, forget_readings=100)
    expected = whole(judge(AnomalyDetector(few), ids, values, times))
    detector, parts = AnomalyDetector(few), []
    for first in range(0, len(ids), cut):
        each = slice(first, first + cut)
        parts.append(whole(judge(detector, ids[each], values[each], times[each])))
    assert [[v for part in parts for v in part[i]] for i in range(6)] == expected


def test_memory_is_bounded_whatever_passes_by():
    few = DetectorSettings(training_size=200, retrain_seconds=3600, forget_readings=400)
    detector = AnomalyDetector(few)
    for first in range(0, 20_000, 500):
        ids = [f"s{first + i}" for i in range(500)]
        judge(detector, ids, np.full(500, 20.0), START_US + np.arange(first, first + 500))
    assert len(detector.series("t")) <= 1024
    saved = detector.save("t")
    assert len(detector.series("t")) <= 900  # only those that would not start anew
    assert len(saved) < 100_000


@given(
    values=st.lists(
        st.floats(-99_999_999.99, 99_999_999.99).map(lambda x: round(x, 2)), min_size=1, max_size=80
    )
)
def test_vectors_are_finite_for_any_values(values):
    states = new_state(100)
    times = START_US + np.arange(len(values)) * 1_000_000
    found = compute_features(states, np.zeros(len(values), np.intp), np.array(values), times)
    assert found.vectors.shape == (len(values), len(FEATURE_NAMES) == 7 and 7)
    assert np.isfinite(found.vectors).all()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ({VALUE: 41.0, CENTRE: 21.35, SCALE: 0.2778}, "41.2 °C, usually 20.1 to 22.6"),
        ({RANGE: -8.0, STILL: 840.0}, "has not changed for 14 min"),
        ({STD: 5.0, SWING: 4.2}, "swings 4 times as much as usual"),
        ({MEAN: 5.0, CENTRE: 20.0, SCALE: 0.5}, "41.2 °C, stays above its usual 20.0"),
        (
            {RATE: -9.0, STEP: -5.3, STEP_SCALE: 0.2, SCALE: 0.5},
            "went down by 5.3 °C at once, usually by at most 0.9",
        ),
    ],
)
def test_the_reason_says_what_is_furthest_out_in_an_operators_words(out, said):
    usual = np.zeros(len(FEATURE_NAMES) + 6)
    usual[HOUR_SIN] = 99.0  # the hour is no reason
    for column, value in out.items():
        usual[column] = value
    assert reason(usual, 41.2, "°C") == said


def test_one_id_at_two_places_is_two_series():
    ids, values, times = stream(1140, sensors=2)
    places = ["Lab" if i == "s0" else "Hall" for i in ids]
    same = AnomalyDetector().process(places, ["t"] * 1140, ["s"] * 1140, values, times)
    different = judge(AnomalyDetector(), ids, values, times)
    assert whole(same) == whole(different)


@pytest.mark.parametrize("stuck", [100, 300])
def test_a_sensor_that_is_stuck_at_first_is_not_flagged_when_it_begins_to_move(stuck):
    ids, values, times = stream(4 * (stuck + 500))
    first = np.flatnonzero(np.arange(len(ids)) % 4 == 0)
    values[first[:stuck]] = values[0]
    verdicts = judge(AnomalyDetector(), ids, values, times)
    assert verdicts.is_anomaly[first[stuck:]].sum() <= 2


def days(count, interval_s=60, swing=8.0):
    """Readings of a sensor with a daily cycle."""
    n = round(count * 86_400 / interval_s)
    seconds = np.arange(n) * interval_s
    noise = np.random.default_rng(4).standard_normal(n)
    cycle = swing * np.sin(2 * np.pi * seconds / 86_400 + 1)
    return np.round(100 + cycle + noise, 2), START_US + seconds * 1_000_000


def test_what_the_hour_of_day_explains_is_no_deviation_from_the_second_day_on():
    values, times = days(4)
    found = compute_features(new_state(100), np.zeros(len(values), np.intp), values, times)
    first, last = found.usual[400:1400, SCALE], found.usual[2880:, SCALE]
    assert last.mean() < 1.5 < first.mean()


def counter(n=4000, wraps_at=10_000.0):
    rng = np.random.default_rng(8)
    count = 9_500 + np.cumsum(5 + 0.5 * rng.standard_normal(n))
    return np.round(count % wraps_at, 2), START_US + np.arange(n) * 1_000_000


def test_a_counter_is_judged_on_its_increase_and_a_fall_is_none():
    values, times = counter()
    values[3000:] += 40.0
    detector = AnomalyDetector(DetectorSettings(cumulative_types="energy,water"))
    verdicts = judge(detector, ["m"] * 4000, values, times, "energy")
    assert verdicts.is_anomaly[3000]
    assert verdicts.lower[2999] < values[2999] < verdicts.upper[2999] < values[2999] + 6
    assert verdicts.reason[3000].startswith("44.9 /s") and ", usually" in verdicts.reason[3000]
    assert verdicts.is_anomaly.mean() < 0.01


@pytest.mark.parametrize("rows", [60, 250, 1200])
def test_the_forest_is_scikit_learns(rows):
    vectors = np.random.default_rng(rows).standard_normal((rows, 7)).astype(np.float32)
    vectors[:, 1] = 0.0
    theirs = IsolationForest(random_state=5).fit(vectors).score_samples(vectors)
    assert np.abs(Forest(vectors, 5).scores(vectors) - theirs).max() < 1e-12
