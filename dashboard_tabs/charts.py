"""Tables to charts over time. Pure: no database, no Streamlit, no clock."""

from __future__ import annotations

import pandas as pd

from dashboard_tabs import theme
from dashboard_tabs.vega import (
    HEIGHT,
    TIME_TIP,
    ZOOM,
    Chart,
    Spec,
    chart,
    hover,
    number,
    only,
    plain,
    spread,
    time,
    tip,
    top_legend,
    utc,
)

# Names at the ends of lines; more lines than this tell theirs to the pointer only.
MAX_LABELS = 8
# Height of a line of text in those names, pixels.
LABEL_GAP = 13


def lines(series: pd.DataFrame, anomalies: pd.DataFrame, sensor_type: str, title: str) -> Chart:
    """Return one line a location, in shades of the type's colour; anomalies are red crosses.

    Parameters
    ----------
    series : DataFrame
        Columns location, time, mean; of one sensor type.
    anomalies : DataFrame
        Columns timestamp, value, sensor_id, reason; may be empty.
    sensor_type, title : str
        The type, and what to write above.
    """
    places = sorted(series["location"].unique())
    rows = series.rename(columns={"mean": "value"}).assign(kind="line", reason=None, sensor=None)
    marks = pd.DataFrame(
        {
            "time": anomalies["timestamp"] if len(anomalies) else [],
            "value": anomalies["value"] if len(anomalies) else [],
            "location": anomalies["location"] if len(anomalies) else [],
            "sensor": anomalies["sensor_id"] if len(anomalies) else [],
            "reason": anomalies["reason"] if len(anomalies) else [],
        }
    ).assign(kind="anomaly")
    parts = [rows, marks]
    shown = 1 < len(places) <= MAX_LABELS
    if shown:
        parts.append(_labels(rows, marks))
    data = pd.concat([each for each in parts if len(each)], ignore_index=True)
    data["time"] = utc(data["time"])
    scale = {"domain": places, "range": theme.shades(theme.colour(sensor_type), len(places))}
    colour = {"field": "location", "type": "nominal", "scale": scale, "legend": None}
    y = number("value", number_format=plain(data["value"]))
    layers: list[Spec] = [
        {
            "transform": only("line"),
            "params": [ZOOM],
            "mark": {"type": "line", "strokeWidth": 1.6, "clip": True},
            "encoding": {"x": time(), "y": y, "color": colour},
        },
        _crosses(y),
        hover(y, [TIME_TIP, tip("location", "Location"), tip("value", "Mean", ",.2f")], "line"),
    ]
    if shown:
        layers.append(
            {
                "transform": only("label"),
                "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, "clip": False},
                "encoding": {
                    "x": {"value": "width"},
                    "y": {"field": "at", "type": "quantitative"},
                    "text": {"field": "label"},
                    "color": colour,
                },
            }
        )
    alt = f"{title} over time, a line for each of {len(places)} locations, anomalies marked"
    return chart(data, title, layers, alt, right=6)


def _labels(rows: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Return a row a location: its name, and where beside the end of its line it finds room."""
    last = rows.sort_values("time").groupby("location", as_index=False).last()
    seen = pd.concat([rows["value"], marks["value"]]) if len(marks) else rows["value"]
    gap = LABEL_GAP * max(seen.max() - seen.min(), 1e-9) / (0.7 * HEIGHT)
    return last.assign(
        kind="label",
        at=spread([float(each) for each in last["value"]], gap),
        label=[theme.cut(each, 15) for each in last["location"]],
    )


def _crosses(y: Spec) -> Spec:
    """Return anomalies as red crosses: told by their form too."""
    return {
        "transform": only("anomaly"),
        "mark": {
            "type": "point",
            "shape": "M-1,-1L1,1M1,-1L-1,1",
            "size": 34,
            "strokeWidth": 1.6,
            "color": theme.ANOMALY,
            "clip": True,
        },
        "encoding": {
            "x": time(),
            "y": y,
            "tooltip": [
                TIME_TIP,
                tip("sensor", "Sensor"),
                tip("value", "Value", ",.2f"),
                tip("reason", "Anomaly"),
            ],
        },
    }


def bands(windows: pd.DataFrame, sensor_type: str, title: str) -> Chart:
    """Return the windows' mean, ±1 standard deviation and min-max; what is still open is dotted.

    Parameters
    ----------
    windows : DataFrame
        Columns time, mean, stddev, low, high, readings, is_closed; of one sensor type, in order of
        time.
    sensor_type, title : str
        The type, and what to write above.
    """
    colour = theme.colour(sensor_type)
    data = windows.assign(
        time=utc(windows["time"]),
        below=windows["mean"] - windows["stddev"],
        above=windows["mean"] + windows["stddev"],
        kind=windows["is_closed"].map({True: "closed", False: "open"}),
        state=windows["is_closed"].map({True: "closed", False: "still open"}),
    )
    closed = int(windows["is_closed"].sum())
    # The dotted part begins where the solid one ends.
    provisional = data.iloc[max(0, closed - 1) :].assign(kind="provisional")
    if closed == len(data):
        provisional = provisional.iloc[:0]
    data = pd.concat([data, provisional], ignore_index=True)
    y = number("mean", number_format=plain(windows["high"]))
    all_windows = [{"filter": "datum.kind !== 'provisional'"}]
    layers: list[Spec] = [
        _area(all_windows, y, "low", "high", colour, 0.13) | {"params": [ZOOM]},
        _area(all_windows, y, "below", "above", colour, 0.26),
        _provisional_ground(),
        *(
            {
                "transform": only(kind),
                "mark": {
                    "type": "line",
                    "color": colour,
                    "strokeWidth": 2,
                    "clip": True,
                    "strokeDash": dash,
                    "point": {"color": colour, "size": 22, "filled": kind == "closed"}
                    if len(windows) < 25
                    else False,
                },
                "encoding": {"x": time(), "y": y},
            }
            for kind, dash in (("closed", [1, 0]), ("provisional", [2, 3]))
        ),
        hover(
            y,
            [
                TIME_TIP,
                tip("mean", "Mean", ",.2f"),
                tip("stddev", "Standard deviation", ",.2f"),
                tip("low", "Min", ",.2f"),
                tip("high", "Max", ",.2f"),
                tip("readings", "Readings", ",d"),
                tip("state", "Window"),
            ],
        ),
    ]
    return chart(data, title, layers, f"{title}: mean, standard deviation and range per window")


def _area(transform: list[Spec], y: Spec, low: str, high: str, colour: str, opacity: float) -> Spec:
    return {
        "transform": transform,
        "mark": {"type": "area", "color": colour, "opacity": opacity, "clip": True, "line": False},
        "encoding": {"x": time(), "y": y | {"field": low}, "y2": {"field": high}},
    }


def _provisional_ground() -> Spec:
    """Return a grey ground below the windows that are still open."""
    return {
        "transform": [
            *only("provisional"),
            {
                "aggregate": [
                    {"op": "min", "field": "time", "as": "from"},
                    {"op": "max", "field": "time", "as": "to"},
                ]
            },
        ],
        "mark": {"type": "rect", "color": theme.QUIET, "opacity": 0.10, "clip": True},
        "encoding": {"x": time("from"), "x2": {"field": "to"}},
    }


def bars(
    table: pd.DataFrame, columns: dict[str, tuple[str, str]], title: str, step_s: float
) -> Chart:
    """Return stacked bars over time; paler where the windows are still open.

    Parameters
    ----------
    table : DataFrame
        Column time, perhaps is_closed, and those of ``columns``.
    columns : dict
        Column -> (label, colour).
    title : str
        Title.
    step_s : float
        Seconds that a bar stands for.
    """
    closed = table["is_closed"] if "is_closed" in table else True
    counts = table[list(columns)]
    data = (
        table.assign(is_closed=closed)[["time", "is_closed", *columns]]
        .melt(["time", "is_closed"], var_name="kind", value_name="count")
        .assign(label=lambda rows: rows["kind"].map({k: v[0] for k, v in columns.items()}))
    )
    # One on top of the other.
    data["high"] = counts.cumsum(axis=1).melt()["value"].astype(float)
    data["low"] = data["high"] - data["count"].astype(float)
    data["time"] = utc(data["time"])
    # A little air between the bars.
    data["end"] = data["time"] + pd.to_timedelta(0.88 * step_s, unit="s")
    labels = [label for label, _ in columns.values()]
    layer: Spec = {
        "params": [ZOOM],
        "mark": {"type": "rect", "clip": True},
        "encoding": {
            "x": time(),
            "x2": {"field": "end"},
            "y": number("low", True, plain(data["high"])),
            "y2": {"field": "high"},
            "color": {
                "field": "label",
                "type": "nominal",
                "scale": {"domain": labels, "range": [colour for _, colour in columns.values()]},
                "legend": top_legend() if len(columns) > 1 else None,
            },
            "opacity": {"condition": {"test": "datum.is_closed", "value": 1}, "value": 0.4},
            "tooltip": [TIME_TIP, tip("label", "What"), tip("count", "Number", ",d")],
        },
    }
    return chart(data, title, [layer], f"{title}, over time")


def agreement(table: pd.DataFrame) -> Chart:
    """Return agreement and Cohen's kappa of detector and rule over time (columns time, ...)."""
    data = table[["time", "agreement", "kappa"]].melt("time", var_name="kind", value_name="value")
    data = data.assign(time=utc(data["time"]), value=data["value"].astype(float))
    names = ["agreement", "kappa"]
    y = number("value", number_format=".1f") | {"scale": {"domain": [-0.2, 1.05], "nice": False}}
    kind = {"field": "kind", "type": "nominal", "legend": top_legend() | {"symbolType": "stroke"}}
    layers: list[Spec] = [
        {
            "params": [ZOOM],
            "mark": {"type": "line", "strokeWidth": 2, "clip": True},
            "encoding": {
                "x": time(),
                "y": y,
                "color": kind | {"scale": {"domain": names, "range": [theme.QUIET, theme.NEUTRAL]}},
                "strokeDash": kind | {"scale": {"domain": names, "range": [[4, 3], [1, 0]]}},
            },
        },
        hover(y, [TIME_TIP, tip("kind", "What"), tip("value", "Value", ".2f")]),
    ]
    return chart(
        data, "Agreement and Cohen's κ over time", layers, "Agreement of detector and rule"
    )


def surroundings(
    history: pd.DataFrame, around: pd.Timestamp, sensor_type: str, title: str
) -> Chart:
    """Return one sensor's readings (columns timestamp, value, is_anomaly, reason) around a time."""
    rows = history.rename(columns={"timestamp": "time"}).assign(kind="line")
    flagged = rows[rows["is_anomaly"].fillna(False).astype(bool)].assign(kind="anomaly")
    here = pd.DataFrame({"time": [around], "kind": ["here"]})
    data = pd.concat([each for each in (rows, flagged, here) if len(each)], ignore_index=True)
    data["time"] = utc(data["time"])
    colour = theme.colour(sensor_type)
    y = number("value", number_format=plain(rows["value"]))
    layers: list[Spec] = [
        {
            "transform": only("here"),
            "mark": {"type": "rule", "color": theme.QUIET, "strokeDash": [4, 3]},
            "encoding": {"x": time()},
        },
        {
            "transform": only("line"),
            "params": [ZOOM],
            "mark": {"type": "line", "color": colour, "strokeWidth": 1.5, "clip": True},
            "encoding": {"x": time(), "y": y},
        },
        _crosses(y),
        hover(y, [TIME_TIP, tip("value", "Value", ",.2f"), tip("score", "Score", ".3f")], "line"),
    ]
    return chart(data, title, layers, f"{title}, anomalies marked", height=260)
