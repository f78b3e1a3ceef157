"""The detector as a library: same verdicts for any batching, honest before it knows anything."""

from itertools import pairwise
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from pipeline.bands import describe, exceedance
from pipeline.detector import AnomalyDetector
from pipeline.features import (
    FEATURE_NAMES,
    RANGE,
    STD,
    VALUE,
    SensorStates,
    compute_features,
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
    return detector.process([sensor_type] * len(ids), ids, values, times)


def whole(verdicts):
    return [
        verdicts.known.tolist(),
        verdicts.is_anomaly.tolist(),
        np.nan_to_num(verdicts.score, nan=9).tolist(),
        verdicts.reason,
    ]


def test_there_is_no_verdict_before_the_first_model():
    verdicts = judge(AnomalyDetector(), *stream(100))
    first = verdicts.known.argmax()
    assert 50 <= first <= 100
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
    assert [[v for part in parts for v in part[i]] for i in range(4)] == expected


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
    assert verdicts.known[-1] and np.isfinite(verdicts.score[verdicts.known]).all()
    assert AnomalyDetector(allowed).restore("t", detector.save("t"))


def test_a_state_of_another_kind_is_refused():
    detector = AnomalyDetector(SMALL)
    judge(detector, *stream(100))
    other = AnomalyDetector(DetectorSettings(history_size=50))
    assert not other.restore("t", detector.save("t"))


@pytest.mark.parametrize("far", [6, 50, 1e6, -1e6])
def test_a_value_far_out_is_an_anomaly_however_far(far):
    ids, values, times = stream(1200)
    values[-1] += 0.3 * far
    verdicts = judge(AnomalyDetector(), ids, values, times)
    assert verdicts.is_anomaly[-1]
    assert "value" in verdicts.reason[-1] or "rate of change" in verdicts.reason[-1]


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
    assert "stuck" in verdicts.reason[stuck[-1]]


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
    states = SensorStates.empty(sensors, 100)
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
    assert [[v for part in parts for v in part[i]] for i in range(4)] == expected


def test_memory_is_bounded_whatever_passes_by():
    few = DetectorSettings(training_size=200, retrain_seconds=3600, forget_readings=400)
    detector = AnomalyDetector(few)
    for first in range(0, 20_000, 500):
        ids = [f"s{first + i}" for i in range(500)]
        judge(detector, ids, np.full(500, 20.0), START_US + np.arange(first, first + 500))
    assert len(detector.sensors("t")) <= 1024
    saved = detector.save("t")
    assert len(detector.sensors("t")) <= 900  # only those that would not start anew
    assert len(saved) < 100_000


@given(
    values=st.lists(
        st.floats(-99_999_999.99, 99_999_999.99).map(lambda x: round(x, 2)), min_size=1, max_size=80
    )
)
def test_vectors_are_finite_for_any_values(values):
    states = SensorStates.empty(1, 100)
    times = START_US + np.arange(len(values)) * 1_000_000
    found = compute_features(states, np.zeros(len(values), np.intp), np.array(values), times)
    assert found.vectors.shape == (len(values), len(FEATURE_NAMES) == 7 and 7)
    assert np.isfinite(found.vectors).all()


def test_the_reason_is_the_feature_furthest_out():
    vectors = np.zeros((3, 7))
    vectors[0, VALUE], vectors[1, STD], vectors[2, RANGE] = -9.1, 5.0, -8.0
    assert describe(vectors, np.zeros(3)) == [
        "value 9.1 usual deviations below normal",
        "rolling std 5.0× normal",
        "stuck: hardly any change between readings",
    ]
    assert exceedance(vectors).tolist() == [9.1, 5.0, 8.0]


@pytest.mark.parametrize("rows", [60, 250, 1200])
def test_the_forest_is_scikit_learns(rows):
    vectors = np.random.default_rng(rows).standard_normal((rows, 7)).astype(np.float32)
    vectors[:, 1] = 0.0
    theirs = IsolationForest(random_state=5).fit(vectors).score_samples(vectors)
    assert np.abs(Forest(vectors, 5).scores(vectors) - theirs).max() < 1e-12
