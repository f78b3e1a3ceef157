"""Tables to figures: what is drawn is what the table says, and text stays text."""

from base64 import b64decode
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import orjson
import pandas as pd
import plotly.graph_objects as go
import pytest

from dashboard_tabs import cells, charts, plot, theme
from dashboard_tabs.anomalies import cohens_kappa, with_kappa
from dashboard_tabs.figure import course, milliseconds, packed, spread
from dashboard_tabs.health import readable
from dashboard_tabs.monitoring import change, grid, rate, whole_places
from dashboard_tabs.status_strip import verdict
from tests.conftest import CHECKOUT

START = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - naive UTC, as in the tables
HOSTILE = "<script>alert(1)</script>"
SPAN = START - timedelta(hours=24), START
PAGES = "#FBFBFC", "#12161C"


def numbers(array):
    """What plotly.js makes of packed numbers."""
    flat = np.frombuffer(b64decode(array["bdata"]), dtype=array["dtype"])
    shape = [int(each) for each in array.get("shape", str(len(flat))).split(",")]
    return flat.astype(float).reshape(shape).tolist()


def drawn(figure):
    """Return a figure's traces by name, once plotly has accepted all of it."""
    sent = orjson.loads(orjson.dumps(figure, option=orjson.OPT_SERIALIZE_NUMPY))
    go.Figure(sent["data"], sent["layout"])
    return {trace.get("name", place): trace for place, trace in enumerate(sent["data"])}


def insight(figure):
    return figure["layout"]["meta"]["insight"]


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


def luminance(colour):
    return theme.luminance_of([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_type_has_one_hue_and_places_are_shades_of_it():
    assert theme.colour("co2") == theme.colour("co2") != theme.colour("temperature")
    places = ["Hall", "Lab", "Store"]
    shades = theme.shades_of("humidity", places)
    assert len(set(shades.values())) == 3
    assert theme.shades_of("humidity", places[::-1]) == shades
    assert theme.shades_of("humidity", ["Hall"]) == {"Hall": theme.colour("humidity")}


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_stands_out_from_a_light_and_a_dark_page(page):
    types = [*theme.HUES, *(f"made up {i}" for i in range(40))]
    colours = [theme.colour(each) for each in types]
    colours += theme.shades_of("pressure", [f"place {i}" for i in range(30)]).values()
    colours += [theme.ANOMALY, theme.PALE_ANOMALY, theme.NEUTRAL, theme.QUIET, theme.WARNING]
    colours += [cells.ABOVE, cells.BELOW, theme.GOOD]
    assert min(contrast(each, page) for each in colours) >= 3


def test_no_type_has_the_hue_of_anomalies():
    for kind in [*theme.HUES, *(f"made up {i}" for i in range(1000))]:
        assert 30 <= theme.hue(kind) <= 330


def test_the_script_that_draws_is_the_one_that_plotly_checks_with():
    import plotly

    wheel = (plotly.__path__[0], "package_data", "plotly.min.js")
    with open("/".join(wheel), "rb") as bundle:
        assert f"plotly.js v{plot.PLOTLY_JS}".encode() in bundle.read(200)
    ours = (CHECKOUT / "dashboard_tabs" / "plotlyjs" / "plotly-cartesian.min.js").read_bytes()
    assert f"v{plot.PLOTLY_JS}".encode() in ours[:200]


def test_windows_that_are_still_open_are_dotted_from_the_last_closed_one_on():
    figure = charts.ranges(windows([True, True, False]), "co2", "x", SPAN)
    traces = list(drawn(figure).values())
    assert [trace["line"]["dash"] for trace in traces[2:4]] == ["solid", "dot"]
    assert len(numbers(traces[2]["y"])) == len(numbers(traces[3]["y"])) == 2
    assert len(figure["layout"]["shapes"]) == 1


@pytest.mark.parametrize(("closed", "open_grounds"), [([False], 1), ([True], 0)])
def test_ranges_of_one_window_are_drawn(closed, open_grounds):
    figure = charts.ranges(windows(closed), "co2", "x")
    assert drawn(figure) and len(figure["layout"]["shapes"]) == open_grounds


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
    figure = charts.lines(series("Hall", "Lab"), anomaly(), "co2", "x", ["Hall", "Lab"], SPAN)
    traces = drawn(figure)
    assert {"Hall", "Lab", "Anomaly"} == set(traces)
    assert [each["text"] for each in figure["layout"]["annotations"]] == ["Hall", "Lab"]
    assert numbers(traces["Anomaly"]["y"]) == [9.0]
    assert traces["Anomaly"]["customdata"] == ["Lab: spike"]


def test_a_single_line_and_a_crowd_of_lines_go_without_names_at_their_ends():
    for places in (["Lab"], [f"place {i}" for i in range(charts.MAX_LABELS + 1)]):
        figure = charts.lines(series(*places), pd.DataFrame(), "co2", "x", places)
        assert drawn(figure) and figure["layout"]["annotations"] == []


def test_an_axis_of_time_shows_all_that_was_asked_for():
    figure = charts.lines(series("Lab"), pd.DataFrame(), "co2", "x", ["Lab"], SPAN)
    axis = figure["layout"]["xaxis"]
    assert axis["autorangeoptions"]["include"] == milliseconds(list(SPAN)).tolist()


def test_a_line_ends_before_an_outage_and_begins_anew_behind_it():
    minutes = [0, 1, 2, 3, 30, 31, 32]
    times = [START + timedelta(minutes=each) for each in minutes]
    sent = course(times, np.arange(7.0))
    values = numbers(sent["y"])
    assert [each for each in values if each == each] == list(range(7))
    assert np.isnan(values[4])


def test_one_reading_that_is_missing_is_no_outage():
    times = [START + timedelta(minutes=each) for each in (0, 1, 2, 4, 5)]
    assert numbers(course(times, np.arange(5.0))["y"]) == list(range(5))


def test_regular_times_travel_as_first_and_step():
    sent = course([START + timedelta(seconds=6 * i) for i in range(100)], np.arange(100.0))
    assert (sent["dx"], "x" in sent) == (6000, False)


@pytest.mark.parametrize("value", [21.37, 99_999.99, 12_345_678.91])
def test_numbers_keep_their_two_decimals(value):
    assert round(numbers(packed([value]))[0], 2) == value


def test_labels_keep_their_distance():
    assert spread([1.0, 1.0, 5.0], 2.0) == [0.0, 2.0, 5.0]
    places = spread([3.0, 1.0, 1.1, 1.2], 1.0)
    assert places[0] == max(places)
    assert min(b - a for a, b in pairwise(sorted(places))) >= 0.999


def test_bars_stand_on_each_other_and_open_windows_are_pale():
    table = pd.DataFrame({"time": [START], "a": [2], "b": [3], "is_closed": [False]})
    columns = {"a": ("A", "#000000"), "b": ("B", "#ffffff")}
    figure = charts.bars(table, columns, "x", 60, SPAN)
    assert figure["layout"]["barmode"] == "stack"
    assert [numbers(t["y"]) for t in drawn(figure).values()] == [[2], [3]]
    assert [t["marker"]["opacity"] for t in drawn(figure).values()] == [[0.4], [0.4]]
    assert insight(figure) == "2 A, 3 B"


def test_nothing_counted_is_said_and_not_drawn_below_zero():
    figure = charts.bars(windows([True]).assign(a=0), {"a": ("A", "#000000")}, "x", 60)
    assert insight(figure) == "0 in this range"
    assert figure["layout"]["yaxis"]["range"] == [0, 1]


def test_agreement_is_drawn_where_kappa_is_undefined():
    table = pd.DataFrame({"time": [START], "agreement": [1.0], "kappa": [None]})
    assert set(drawn(charts.agreement(table))) == {"agreement"}


def test_surroundings_show_what_was_flagged_and_why():
    history = pd.DataFrame(
        {
            "timestamp": [START, START + timedelta(seconds=1)],
            "value": [1.0, 9.0],
            "lower": [None, 0.5],
            "upper": [None, 1.5],
            "is_anomaly": [None, True],
            "reason": [None, HOSTILE],
            "score": [None, -0.7],
        }
    )
    figure = charts.surroundings(history, START, "co2", "s-1")
    assert drawn(figure)["Anomaly"]["customdata"] == [f"s-1: {theme.text(HOSTILE)}"]
    assert numbers(drawn(figure)["Usual"]["y"]) == [0.5, 1.5]
    assert insight(figure) == "1 of 2 readings flagged"


def correlations(*values):
    return pd.DataFrame(
        {
            "sensor_type_a": ["a", "a"],
            "sensor_type_b": ["b", "c"],
            "correlation": values,
            "window_count": [20, 20],
        }
    )


def test_a_correlation_is_drawn_in_both_directions_and_a_missing_one_is_blank():
    figure = cells.correlation(correlations(0.5, None), "x")
    text = drawn(figure)[1]["text"]
    assert text == [["", "+0.50", ""], ["+0.50", "", ""], ["", "", ""]]
    assert insight(figure) == "Strongest: A with B, +0.50"


def test_what_chance_may_have_made_has_no_colour():
    strength = numbers(drawn(cells.correlation(correlations(0.75, 0.1), "x"))[1]["z"])
    assert strength[0][1:] == [0.75, 0.0]


def test_the_more_pairs_there_are_the_stronger_one_must_be():
    assert cells.is_beyond_chance(0.5, 20, pairs=1)
    assert not cells.is_beyond_chance(0.5, 20, pairs=10)
    assert cells.is_beyond_chance(np.array([1.0, -1.0]), np.array([20, 20]), pairs=10).all()


def test_a_correlation_of_fewer_than_twenty_windows_is_not_shown():
    few = correlations(0.99, 0.99).assign(window_count=19)
    assert insight(cells.correlation(few, "x")) == "Nothing to compare yet"


def test_a_place_without_a_correlation_is_drawn():
    assert insight(cells.correlation(correlations(None, None), "x")) == "Nothing to compare yet"


def test_scores_below_the_threshold_are_red_and_the_threshold_is_drawn():
    scores = pd.DataFrame({"score": [-0.7, -0.4], "readings": [1, 9]})
    figure = charts.histogram(scores, -0.5, "co2")
    assert drawn(figure)[0]["marker"]["color"] == [theme.ANOMALY, theme.colour("co2")]
    assert numbers(drawn(figure)[0]["customdata"]) == [1, 9]
    assert len(figure["layout"]["shapes"]) == 1
    assert charts.histogram(scores, None, "co2")["layout"]["shapes"] == []


def test_hours_without_data_stay_blank_and_one_hour_is_enough():
    figure = cells.hours(
        pd.DataFrame({"sensor_type": ["co2"], "hour": [5], "mean": [400.0], "stddev": [1.0]}),
        {"co2": "CO₂"},
    )
    (row,) = drawn(figure)[1]["text"]
    assert [text for text in row if text] == ["400"]
    assert np.isfinite(numbers(drawn(figure)[1]["z"])).sum() == 1


def test_hours_that_differ_by_less_than_their_readings_do_stay_pale():
    table = pd.DataFrame(
        {"sensor_type": "co2", "hour": [1, 2], "mean": [400.0, 402.0], "stddev": [100.0, 100.0]}
    )
    pale = numbers(drawn(cells.hours(table, {"co2": "CO₂"}))[1]["z"])
    strong = numbers(drawn(cells.hours(table.assign(stddev=1.0), {"co2": "CO₂"}))[1]["z"])
    assert np.nanmax(np.abs(pale)) < 0.02 < 0.9 < np.nanmax(np.abs(strong))


def test_a_type_that_is_the_same_at_all_hours_is_drawn():
    table = pd.DataFrame(
        {"sensor_type": "battery", "hour": [1, 2], "mean": [3.0, 3.0], "stddev": [0.0, 0.0]}
    )
    figure = cells.hours(table, {"battery": "Battery"})
    assert np.nansum(np.abs(numbers(drawn(figure)[1]["z"]))) == 0


def test_boxes_and_counts_have_a_row_a_place():
    table = pd.DataFrame({"location": ["Lab"], "quantiles": [[1, 2, 3, 4, 5]]})
    assert numbers(drawn(charts.boxes(table, "co2", "x"))[0]["median"]) == [3.0]
    counts = pd.DataFrame({"location": ["A", "B"], "sensor_type": "co2", "anomalies": [0, 4]})
    figure = cells.counts(counts, "anomalies", "x")
    assert numbers(drawn(figure)[1]["z"]) == [[0.0], [1.0]]
    assert insight(figure) == "4 in all; most: CO₂, B (4)"


def test_hostile_names_are_text_in_figures():
    figure = charts.lines(series(HOSTILE, "Lab"), anomaly(location=HOSTILE), "co2", "x", [HOSTILE])
    assert b"<script" not in orjson.dumps(drawn(figure), option=orjson.OPT_NON_STR_KEYS)


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
        "sensors": 1,
        "active": 1,
        "is_active": True,
    } | changes


@pytest.mark.parametrize(
    ("rows", "flagged", "expected"),
    [
        ([sensor()], {}, 'class=""'),
        ([sensor(anomaly=True)], {}, 'class="anomalous"'),
        ([sensor()], {("Lab", "co2"): START}, 'class="anomalous"'),
        ([sensor()], {("Lab", "co2"): START - timedelta(minutes=5)}, 'class=""'),
        ([sensor(is_active=False)], {}, 'class="silent"'),
        ([sensor(sensors=2)], {}, "2 sensors"),
        ([sensor(), sensor(location="Hall", sensor_type="x")], {}, 'class="absent"'),
    ],
)
def test_a_cell_of_the_grid_shows_the_state_of_its_sensor(rows, flagged, expected):
    assert expected in grid(rows, flagged, START - timedelta(seconds=15))


def test_the_grid_shows_whole_locations_only():
    rows = [sensor(location=place, sensor_type=kind) for place in "ABC" for kind in ("co2", "x")]
    shown, places = whole_places(rows, 5)
    assert ([each["location"] for each in shown], places) == (["A", "A", "B", "B"], 2)
    assert whole_places(rows, 1)[1] == 1


def test_types_keep_their_capitals():
    names = [theme.name(each) for each in ("CO", "co", "PM10", "NO2", "air_quality", "wind_speed")]
    assert names == ["CO", "Co", "PM10", "NO2", "Air quality", "Wind speed"]


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
