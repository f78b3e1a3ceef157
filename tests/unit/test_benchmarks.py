"""The benchmark's own arithmetic: a wrong ruler measures nothing."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.detection_methods import Found
from benchmarks.detection_scores import quality
from benchmarks.labelled_streams import (
    CALM,
    KINDS,
    LabelledStream,
    calm,
    plant,
    read_stream,
    write_stream,
)
from benchmarks.live_quality import evaluate
from benchmarks.nab import debounced, nab_score, read_nab


def alerts(*rows, length=1000):
    found = np.zeros(length, dtype=np.bool_)
    found[list(rows)] = True
    return found


def test_nab_gives_nothing_for_silence_and_nearly_all_for_the_left_edge():
    window = [(400, 500)]
    assert nab_score([(alerts(), window)]) == 0
    assert nab_score([(alerts(400), window)]) == pytest.approx(100)
    assert nab_score([(alerts(500), window)]) == pytest.approx(50, abs=2)


def test_nab_takes_a_false_alarm_off_and_ignores_the_first_rows():
    window = [(400, 500)]
    assert nab_score([(alerts(400, 300), window)]) == pytest.approx(100 - 5.5)
    assert nab_score([(alerts(400, 149), window)]) == pytest.approx(100)
    assert nab_score([(alerts(400, 501), window)]) > 99


def test_nab_in_its_own_layout_scores_as_computed_by_hand(tmp_path):
    (tmp_path / "data" / "made").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    times = [begin + timedelta(minutes=5 * row) for row in range(1000)]
    lines = "".join(f"{time:%Y-%m-%d %H:%M:%S},{row % 7}\n" for row, time in enumerate(times))
    for name in ("windowed.csv", "quiet.csv"):
        (tmp_path / "data" / "made" / name).write_text("timestamp,value\n" + lines)
    window = [f"{times[row]:%Y-%m-%d %H:%M:%S.%f}" for row in (400, 500)]
    labels = {"made/windowed.csv": [window], "made/quiet.csv": [], "made/missing.csv": [window]}
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    quiet, windowed = read_nab(tmp_path)
    assert (windowed.windows, quiet.windows) == ([(400, 500)], [])
    # Found at row 450: s(-51/101) / s(-1) with s(x) = 2 / (1 + exp(5 x)) - 1, 0.85173 / 0.98661 =
    # 0.86329. A false alarm one width behind: 0.11 s(1) = -0.10853. One in the quiet file: -0.11.
    # Together 0.64476 of 1, where silence has -1: 100 (0.64476 + 1) / 2 = 82.24.
    found = [(alerts(450, 600), windowed.windows), (alerts(900), quiet.windows)]
    assert nab_score(found) == pytest.approx(82.24, abs=0.01)


def test_an_episode_is_one_alert():
    assert np.flatnonzero(debounced(alerts(10, 12, 60, 200), 100)).tolist() == [10, 200]


def test_quality_counts_readings_and_events_after_the_warm_up():
    kind = ["", "spike", "", "spike", "spike", "", "drop"]
    stream = LabelledStream(
        "s", ["Lab"] * 7, ["t"] * 7, ["a"] * 7, np.zeros(7), np.arange(7) * 60_000_000, kind,
        ["", "1", "", "2", "2", "", "3"],
    )  # fmt: skip
    flagged = np.array([0, 0, 1, 1, 0, 0, 0], dtype=np.bool_)
    found = quality("m", stream, Found(flagged, flagged * 1.0), 2.0)
    assert (found.precision, found.recall) == (0.5, 1 / 3)
    assert found.recall_by_kind == {"spike": 0.5, "drop": 0.0}
    assert found.event_recall_by_kind == {"spike": 1.0, "drop": 0.0}


def test_the_other_generator_puts_in_six_kinds_at_five_per_cent():
    stream = plant(4, minutes=40, interval_s=1.0)
    assert {kind for kind in stream.kind if kind} == {kind for kind in KINDS if kind}
    assert 0.03 < stream.label.mean() < 0.08
    assert (np.diff(stream.timestamp_us) >= 0).all()


@pytest.mark.parametrize("shape", CALM)
def test_calm_streams_have_no_anomalies(shape):
    assert not calm(shape, 1, minutes=5).label.any()


def test_a_stream_survives_its_files(tmp_path):
    stream = plant(4, minutes=2, interval_s=5.0, anomaly_rate=0.2)
    write_stream(stream, tmp_path / "s.jsonl", tmp_path / "l.jsonl")
    again = read_stream(tmp_path / "s.jsonl", tmp_path / "l.jsonl")
    assert again.values.tolist() == stream.values.tolist()
    assert again.timestamp_us.tolist() == stream.timestamp_us.tolist()
    assert (again.kind, again.sensor_ids) == (stream.kind, stream.sensor_ids)


def test_live_quality_counts_both_methods():
    scored = [("spike", "spike:1", (True, False)), (None, None, (True, False))]
    detector, rule = evaluate(scored)
    assert (detector["precision"], detector["recall"]) == (0.5, 1.0)
    assert (rule["precision"], rule["recall"], rule["flagged"]) == (None, 0.0, 0.0)
