"""Tables to figures: what is drawn is what the table says, and text stays text."""

from datetime import datetime, timedelta

import pandas as pd
import pytest

from dashboard_tabs import charts, theme
from dashboard_tabs.anomalies import cohens_kappa, with_kappa
from dashboard_tabs.health import readable
from dashboard_tabs.monitoring import change, grid, rate
from dashboard_tabs.status_strip import verdict

START = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - naive UTC, as in the tables
HOSTILE = "<script>alert(1)</script>"


def windows(closed):
    return pd.DataFrame(
        {
            "time": [START + timedelta(minutes=i) for i in range(len(closed))],
            "mean": 20.0,
            "stddev": 1.0,
            "low": 15.0,
            "high": 25.0,
            "readings": 60,
            "is_closed": closed,
        }
    )


def test_a_location_keeps_its_colour_whatever_the_order():
    assert charts.colours(["b", "a", "b"]) == charts.colours(["a", "b"])


def test_windows_that_are_still_open_are_dotted():
    figure = charts.bands(windows([True, True, False]), "x")
    dotted = [trace for trace in figure.data if trace.line.dash == "dot"]
    assert [len(trace.x) for trace in dotted] == [2]  # from the last closed one on


def test_bands_of_open_windows_only_are_drawn():
    figure = charts.bands(windows([False]), "x")
    assert len(figure.data[-1].x) == 1


def test_anomalies_lie_over_the_lines_and_hostile_text_is_escaped():
    series = pd.DataFrame({"location": [HOSTILE], "time": [START], "mean": [1.0]})
    anomalies = pd.DataFrame(
        {"timestamp": [START], "value": [9.0], "sensor_id": [HOSTILE], "reason": ["spike"]}
    )
    figure = charts.lines(series, anomalies, "x", {})
    assert figure.data[-1].y[0] == 9.0
    assert "<script" not in figure.to_json().replace("\\u003c", "<")


def test_a_correlation_is_drawn_in_both_directions_and_a_missing_one_is_blank():
    table = pd.DataFrame(
        {
            "sensor_type_a": ["a", "a"],
            "sensor_type_b": ["b", "c"],
            "correlation": [0.5, None],
        }
    )
    heat = charts.correlation(table, "x").data[0]
    assert heat.z[0][1] == heat.z[1][0] == 0.5
    assert heat.text[0][1] == "+0.50"
    assert heat.text[0][2] == heat.text[0][0] == ""


def test_scores_below_the_threshold_are_red():
    scores = pd.DataFrame({"score": [-0.7, -0.4], "readings": [1, 9]})
    bars = charts.histogram(scores, -0.5, "x").data[0]
    assert list(bars.marker.color) == [theme.ANOMALY, theme.ACCENT]


def test_hours_without_data_stay_blank_and_one_hour_is_enough():
    heat = charts.hours(pd.DataFrame({"sensor_type": ["co2"], "hour": [5], "mean": [400.0]})).data[
        0
    ]
    assert [text for text in heat.text[0] if text] == ["400"]


def test_cohens_kappa_is_that_of_a_worked_example():
    # Wikipedia, "Cohen's kappa": 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give 0.4.
    counts = {"both": 20, "ml_only": 5, "rule_only": 10, "neither": 15}
    assert cohens_kappa(counts) == pytest.approx(0.4)


@pytest.mark.parametrize("neither", [0, 50])
def test_kappa_is_undefined_where_nobody_flags(neither):
    assert cohens_kappa({"both": 0, "ml_only": 0, "rule_only": 0, "neither": neither}) is None


def test_steps_without_verdicts_have_no_agreement():
    table = pd.DataFrame(
        {"time": [1, 2], "both": [0, 1], "ml_only": 0, "rule_only": 0, "neither": [0, 1]}
    )
    assert with_kappa(table)["agreement"].tolist() == [1.0]


def sensor(**changes):
    return {
        "sensor_id": "s",
        "sensor_type": "co2",
        "location": "Lab",
        "unit": "ppm",
        "timestamp": START,
        "recent": [400.0, 401.0],
        "anomaly": False,
    } | changes


@pytest.mark.parametrize(
    ("rows", "flagged", "expected"),
    [
        ([sensor()], {}, 'class=""'),
        ([sensor(anomaly=True)], {}, 'class="anomalous"'),
        ([sensor()], {"s": START}, 'class="anomalous"'),
        ([sensor()], {"s": START - timedelta(minutes=5)}, 'class=""'),
        ([sensor(timestamp=START - timedelta(minutes=5))], {}, 'class="silent"'),
        ([sensor(), sensor(sensor_id="t")], {}, "2 sensors"),
        ([sensor(), sensor(location="Hall", sensor_type="x")], {}, 'class="absent"'),
    ],
)
def test_a_cell_of_the_grid_shows_the_state_of_its_sensor(rows, flagged, expected):
    assert expected in grid(rows, flagged, START + timedelta(seconds=1))


def test_hostile_names_are_text_in_the_grid():
    html = grid([sensor(sensor_id=HOSTILE, location=HOSTILE, unit='"><u>')], {}, START)
    assert "<script" not in html and '"><u>' not in html


def test_change_and_rate_say_nothing_where_there_is_nothing_to_compare():
    assert rate(None, 5, START) is None
    assert rate({"first_window": START}, 60, START + timedelta(minutes=1)) == 1.0
    assert change(1.0, None) is None
    assert change(1.0, 0.0) is None
    assert change(1.5, 1.0) == "+50%"


@pytest.mark.parametrize(
    ("state", "age_s", "word"),
    [
        (None, 0, "never seen"),
        ("running", 4, "running"),
        ("running", 20, "late"),
        ("running", 90, "down"),
        ("waiting", 4, "waiting"),
        ("stopped", 4, "stopped"),
        ("stopped", 900, "stopped"),
    ],
)
def test_a_service_is_what_its_last_heartbeat_says_and_how_old_it_is(state, age_s, word):
    assert verdict(state, age_s)[1] == word


def test_a_payload_is_shown_whatever_its_bytes():
    assert readable(b"\xff\x00a\n") == "\\xff\\x00a\\n"
    assert readable(None) == "(none: a tombstone)"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(None, "–"), (float("nan"), "–"), (5, "5"), (9.55, "9.6"), (12_345, "12.3 k"), (2e6, "2.0 M")],
)
def test_numbers_are_short(number, expected):
    assert theme.short(number) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1, "0 s"), (59, "59 s"), (600, "10 min"), (10_000, "3 h")]
)
def test_ages_are_said_in_one_unit(seconds, expected):
    assert theme.age(seconds) == expected
