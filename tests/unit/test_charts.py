"""Tables to figures: what is drawn is what the table says, and text stays text."""

from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest

from dashboard_tabs import charts, comparisons, theme
from dashboard_tabs.anomalies import cohens_kappa, with_kappa
from dashboard_tabs.health import readable
from dashboard_tabs.monitoring import change, grid, rate
from dashboard_tabs.status_strip import verdict
from dashboard_tabs.vega import spread

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


def kinds(chart):
    """How many rows of each kind a chart draws."""
    return chart.data["kind"].value_counts().to_dict()


def test_a_type_has_one_colour_and_places_are_shades_of_it():
    assert theme.colour("co2") == theme.colour("co2") != theme.colour("temperature")
    assert theme.colour("something new") in theme.OTHER_COLOURS
    assert theme.shades("#3B7DD8", 1) == ["#3B7DD8"]
    assert len(set(theme.shades("#3B7DD8", 5))) == 5


def test_no_type_has_the_colour_of_anomalies():
    assert theme.ANOMALY not in {*theme.COLOURS.values(), *theme.OTHER_COLOURS, theme.NEUTRAL}


def test_windows_that_are_still_open_are_dotted_from_the_last_closed_one_on():
    chart = charts.bands(windows([True, True, False]), "co2", "x")
    assert kinds(chart) == {"closed": 2, "open": 1, "provisional": 2}
    dashes = [layer["mark"].get("strokeDash") for layer in chart.spec["layer"]]
    assert [2, 3] in dashes


@pytest.mark.parametrize(("closed", "provisional"), [([False], 1), ([True], 0)])
def test_bands_of_one_window_are_drawn(closed, provisional):
    assert kinds(charts.bands(windows(closed), "co2", "x")).get("provisional", 0) == provisional


def series(*places):
    return pd.DataFrame({"location": places, "time": START, "mean": 1.0})


def anomaly(**changes):
    return pd.DataFrame(
        {
            "timestamp": [START],
            "value": [9.0],
            "location": ["Lab"],
            "sensor_id": [HOSTILE],
            "reason": ["spike"],
        }
        | changes
    )


def test_lines_carry_the_names_of_places_and_anomalies_their_reason():
    chart = charts.lines(series("Hall", "Lab"), anomaly(), "co2", "x")
    assert kinds(chart) == {"line": 2, "label": 2, "anomaly": 1}
    marked = chart.data[chart.data["kind"] == "anomaly"].iloc[0]
    assert (marked["value"], marked["sensor"], marked["reason"]) == (9.0, HOSTILE, "spike")
    assert str(chart.data["time"].dt.tz) == "UTC"


def test_a_single_line_and_a_crowd_of_lines_go_without_names():
    for places in (["Lab"], [f"place {i}" for i in range(charts.MAX_LABELS + 1)]):
        assert "label" not in kinds(charts.lines(series(*places), pd.DataFrame(), "co2", "x"))


def test_new_data_leave_the_specification_as_it_is():
    # Else the browser draws a new chart: it flickers, and forgets what was zoomed into.
    one = charts.lines(series("Hall", "Lab"), pd.DataFrame(), "co2", "x")
    more = pd.concat([series("Hall", "Lab").assign(mean=5.0), series("Hall", "Lab")])
    other = charts.lines(more, anomaly(), "co2", "x")
    assert one.spec == other.spec and one.alt == other.alt
    bands = [charts.bands(windows([True] * n + [False]), "co2", "x") for n in (30, 31)]
    assert bands[0].spec == bands[1].spec and bands[0].alt == bands[1].alt
    assert one.can_zoom and bands[0].can_zoom


def test_labels_keep_their_distance():
    assert spread([1.0, 1.0, 5.0], 2.0) == [0.0, 2.0, 5.0]
    places = spread([3.0, 1.0, 1.1, 1.2], 1.0)
    assert places[0] == max(places)
    assert min(b - a for a, b in pairwise(sorted(places))) >= 0.999


def test_bars_stand_on_each_other_and_open_windows_are_pale():
    table = pd.DataFrame({"time": [START], "a": [2], "b": [3], "is_closed": [False]})
    chart = charts.bars(table, {"a": ("A", "#000"), "b": ("B", "#fff")}, "x", 60)
    assert chart.data[["low", "high"]].values.tolist() == [[0, 2], [2, 5]]
    assert "is_closed" in chart.spec["layer"][0]["encoding"]["opacity"]["condition"]["test"]


def test_a_correlation_is_drawn_in_both_directions_and_a_missing_one_is_blank():
    table = pd.DataFrame(
        {
            "sensor_type_a": ["a", "a"],
            "sensor_type_b": ["b", "c"],
            "correlation": [0.5, None],
            "window_count": [20, 20],
        }
    )
    chart = comparisons.correlation(table, "x")
    cells = chart.data.set_index(["a", "b"])
    assert cells.loc[("A", "B"), "text"] == cells.loc[("B", "A"), "text"] == "+0.50"
    assert cells.loc[("A", "C"), "text"] == cells.loc[("A", "A"), "text"] == ""
    assert "strongest: A with B, +0.50" in chart.alt


def test_scores_below_the_threshold_are_marked_and_the_threshold_is_drawn():
    scores = pd.DataFrame({"score": [-0.7, -0.4], "readings": [1, 9]})
    chart = comparisons.histogram(scores, -0.5, "co2")
    assert chart.data["beyond"].tolist()[:2] == [True, False]
    assert kinds(chart) == {"bar": 2, "threshold": 1}
    assert kinds(comparisons.histogram(scores, None, "co2")) == {"bar": 2}


def test_hours_without_data_stay_blank_and_one_hour_is_enough():
    chart = comparisons.hours(
        pd.DataFrame({"sensor_type": ["co2"], "hour": [5], "mean": [400.0]}), {"co2": "CO₂"}
    )
    assert [text for text in chart.data["text"] if text] == ["400"]
    assert chart.data["signed"].notna().sum() == 1


def test_boxes_and_counts_have_a_row_a_place():
    table = pd.DataFrame({"location": ["Lab"], "quantiles": [[1, 2, 3, 4, 5]]})
    assert comparisons.boxes(table, "co2", "x").data["q50"].tolist() == [3.0]
    counts = pd.DataFrame({"location": ["A", "B"], "sensor_type": "co2", "anomalies": [0, 4]})
    assert comparisons.counts(counts, "anomalies", "x").data["share"].tolist() == [0.0, 1.0]


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
    assert readable(b"") == "(empty)"


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
