"""Tables to figures over time, and to distributions. Pure: no database, no Streamlit, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import sqrt

import numpy as np
import pandas as pd

from dashboard_tabs import theme
from dashboard_tabs.figure import (
    HEIGHT,
    NAMES,
    Figure,
    Span,
    Trace,
    areas,
    course,
    figure,
    legend,
    milliseconds,
    moments,
    over_time,
    packed,
    spread,
)

# Names at the ends of lines; more lines than this tell theirs to the pointer only.
MAX_LABELS = 8
# Height of a line of text in those names, pixels.
LABEL_GAP = 13
# Fewer points than this are drawn as points too.
FEW_POINTS = 25
_CROSS = {"symbol": "x-thin-open", "size": 6, "line": {"width": 1.6}, "color": theme.ANOMALY}


def lines(
    series: pd.DataFrame,
    anomalies: pd.DataFrame,
    sensor_type: str,
    title: str,
    places: Sequence[str],
    span: Span | None = None,
) -> Figure:
    """Return one line a location, in shades of the type's colour; anomalies are red crosses.

    Parameters
    ----------
    series : DataFrame
        Columns location, time, mean; of one sensor type, in order of location and time.
    anomalies : DataFrame
        Columns timestamp, value, location, sensor_id, reason; may be empty.
    sensor_type, title : str
        The type, and what to write above.
    places : sequence of str
        All locations there are: a location has the same shade in every figure.
    span : tuple or None
        The range that was asked for.
    """
    shade = theme.shades_of(sensor_type, sorted({*places, *series["location"]}))
    series = series.dropna(subset=["mean"])
    traces: list[Trace] = []
    last: dict[str, float] = {}
    for place, one in series.groupby("location", sort=True):
        last[str(place)] = float(one["mean"].iloc[-1])
        traces.append(
            _line(one["time"], one["mean"], shade[str(place)])
            | {"name": theme.text(theme.cut(str(place), 40)), "hovertemplate": "%{y:,.2f}"}
        )
    traces.append(_crosses(anomalies))
    labels = _labels(last, _reach(series["mean"], anomalies), shade)
    return over_time(
        traces,
        title,
        _insight_of_lines(last, len(anomalies)),
        span,
        annotations=labels,
        margin={"l": 44, "r": 96 if labels else 8, "t": 8, "b": 24},
    )


def _line(times: pd.Series, values: pd.Series, colour: str, dash: str = "solid") -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(times) < FEW_POINTS else "lines",
        "line": {"width": 1.6, "color": colour, "dash": dash},
        "marker": {"size": 4, "color": colour},
        **course(times, values),
    }


def _reach(values: pd.Series, anomalies: pd.DataFrame) -> float:
    seen = pd.concat([values, anomalies["value"]]) if len(anomalies) else values
    return max(float(seen.max() - seen.min()), 1e-9) if len(seen) else 1.0


def _labels(last: dict[str, float], reach: float, shade: dict[str, str]) -> list[Trace]:
    """Return the name of each line, beside its end and clear of the others."""
    if not 1 < len(last) <= MAX_LABELS:
        return []
    heights = spread(list(last.values()), LABEL_GAP * reach / (0.75 * HEIGHT))
    return [
        {
            **{"xref": "paper", "x": 1, "xanchor": "left", "xshift": 4, "yref": "y", "y": height},
            **{"showarrow": False, "text": theme.text(theme.cut(place, 15))},
            "font": {"size": 11, "color": shade[place]},
        }
        for place, height in zip(last, heights, strict=True)
    ]


def _insight_of_lines(last: dict[str, float], anomalies: int) -> str:
    marked = f"; {anomalies:,} marked" if anomalies else ""
    if len(last) < 2:
        return "".join(f"Now {value:,.2f}" for value in last.values()) + marked
    low, high = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    return (
        f"Now from {last[low]:,.1f} ({theme.cut(low, 16)}) to {last[high]:,.1f}"
        f" ({theme.cut(high, 16)}){marked}"
    )


def _crosses(anomalies: pd.DataFrame) -> Trace:
    """Return anomalies as red crosses: told by their form too."""
    trace: Trace = {
        **{"type": "scatter", "mode": "markers", "name": "Anomaly", "marker": _CROSS},
        **{"x": [], "y": [], "hovertemplate": "%{y:,.2f} %{customdata}<extra>Anomaly</extra>"},
    }
    if len(anomalies):
        where = anomalies["location"] if "location" in anomalies else anomalies["sensor_id"]
        trace |= {
            "x": moments(anomalies["timestamp"].to_list()),
            "y": packed(anomalies["value"]),
            "customdata": [
                theme.text(f"{place}: {reason or 'flagged'}")
                for place, reason in zip(where, anomalies["reason"], strict=True)
            ],
        }
    return trace


def ranges(windows: pd.DataFrame, sensor_type: str, title: str, span: Span | None = None) -> Figure:
    """Return the windows' mean, ±1 standard deviation and min-max; what is still open is dotted.

    Parameters
    ----------
    windows : DataFrame
        Columns time, mean, stddev, low, high, readings, is_closed; of one sensor type, in order of
        time.
    sensor_type, title : str
        The type, and what to write above.
    span : tuple or None
        The range that was asked for.
    """
    colour = theme.colour(sensor_type)
    at, mean, stddev = windows["time"], windows["mean"], windows["stddev"]
    closed = int(windows["is_closed"].sum())
    # The dotted part begins where the solid one ends.
    provisional = windows.iloc[max(0, closed - 1) :] if closed < len(windows) else windows[:0]
    traces = [
        _area(at, windows["low"], windows["high"], colour, 0.13),
        _area(at, mean - stddev, mean + stddev, colour, 0.26),
        _line(at[:closed], mean[:closed], colour) | {"hoverinfo": "skip"},
        _line(provisional["time"], provisional["mean"], colour, "dot") | {"hoverinfo": "skip"},
        {
            **{"type": "scatter", "mode": "markers", "name": "Mean", "marker": {"opacity": 0}},
            **{"x": moments(at), "y": packed(mean)},
            "customdata": packed(windows[["stddev", "low", "high", "readings"]]),
            "hovertemplate": "%{y:,.2f} ± %{customdata[0]:,.2f}, from %{customdata[1]:,.2f}"
            " to %{customdata[2]:,.2f}, %{customdata[3]:,d} readings<extra></extra>",
        },
    ]
    ground = []
    if len(provisional):
        begin, end = milliseconds(provisional["time"].iloc[[0, -1]].to_list()).tolist()
        ground = [
            {
                **{"type": "rect", "xref": "x", "x0": begin, "x1": end, "yref": "paper", "y0": 0},
                **{"y1": 1, "line": {"width": 0}, "fillcolor": "rgba(138,141,145,.12)"},
                "layer": "below",
            }
        ]
    insight = (
        f"Between {windows['low'].min():,.1f} and {windows['high'].max():,.1f},"
        f" ±{stddev.median():,.2f} within a window"
    )
    return over_time(traces, title, insight, span, shapes=ground)


def _area(at: pd.Series, low: pd.Series, high: pd.Series, colour: str, opacity: float) -> Trace:
    return {
        **{"type": "scatter", "mode": "none", "fill": "toself", "hoverinfo": "skip"},
        "fillcolor": theme.faded(colour, opacity),
        **areas(at, low, high),
    }


def bars(
    table: pd.DataFrame,
    columns: dict[str, tuple[str, str]],
    title: str,
    step_s: float,
    span: Span | None = None,
) -> Figure:
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
    span : tuple or None
        The range that was asked for.
    """
    closed = table["is_closed"] if "is_closed" in table else pd.Series(True, table.index)
    traces = [
        {
            **{"type": "bar", "name": label, "x": moments(table["time"]), "offset": 0},
            # A little air between the bars.
            **{"y": packed(table[column]), "width": 880 * step_s},
            "marker": {"color": colour, "opacity": np.where(closed, 1.0, 0.4).tolist()},
            "hovertemplate": "%{y:,d}",
        }
        for column, (label, colour) in columns.items()
    ]
    totals = {label: float(table[column].sum()) for column, (label, _) in columns.items()}
    if len(columns) > 1:
        insight = ", ".join(f"{theme.short(count)} {label}" for label, count in totals.items())
    else:
        (total,) = totals.values()
        insight = f"{theme.short(total)} in this range"
        if total:
            most = table.loc[table[next(iter(columns))].idxmax()]
            insight += f"; most at {most['time']:%H:%M}: {theme.short(most[next(iter(columns))])}"
    layout = legend() if len(columns) > 1 else {}
    drawn = over_time(traces, title, insight, span, barmode="stack", **layout)
    if not any(totals.values()):
        drawn["layout"]["yaxis"] = drawn["layout"]["yaxis"] | {"range": [0, 1], "nticks": 2}
    return drawn


def agreement(table: pd.DataFrame, span: Span | None = None) -> Figure:
    """Return agreement and Cohen's kappa of detector and rule over time (columns time, ...)."""
    traces = [
        _line(rows["time"], rows[column].astype(float), colour, dash)
        | {"name": name, "hovertemplate": "%{y:.2f}"}
        for column, name, colour, dash in (
            ("agreement", "agreement", theme.QUIET, "dash"),
            ("kappa", "Cohen's κ", theme.NEUTRAL, "solid"),
        )
        if len(rows := table.dropna(subset=[column]))
    ]
    known = table["kappa"].dropna().astype(float)
    insight = (
        f"κ {known.iloc[-1]:.2f} in the last step, {known.median():.2f} in the middle one"
        if len(known)
        else "Nothing flagged: chance alone explains that they agree"
    )
    drawn = over_time(traces, "Agreement and Cohen's κ over time", insight, span, **legend())
    drawn["layout"]["yaxis"] = drawn["layout"]["yaxis"] | {"range": [-0.2, 1.05]}
    return drawn


def surroundings(history: pd.DataFrame, around: datetime, sensor_type: str, title: str) -> Figure:
    """Return one sensor's readings around a time, and the band that each was judged by.

    Parameters
    ----------
    history : DataFrame
        Columns timestamp, value, lower, upper, is_anomaly, reason.
    """
    flagged = history[history["is_anomaly"].fillna(False).astype(bool)]
    judged = history.dropna(subset=["lower", "upper"])
    line = _line(history["timestamp"], history["value"], theme.colour(sensor_type))
    here = milliseconds([around])[0]
    return over_time(
        [
            _area(judged["timestamp"], judged["lower"], judged["upper"], theme.QUIET, 0.2)
            | {"name": "Usual"},
            line | {"name": "Value", "hovertemplate": "%{y:,.2f}"},
            _crosses(flagged.assign(location=title)),
        ],
        title,
        f"{len(flagged)} of {len(history)} readings flagged",
        shapes=[
            {
                **{"type": "line", "x0": here, "x1": here, "yref": "paper", "y0": 0, "y1": 1},
                "line": {"width": 1, "dash": "dash", "color": theme.QUIET},
            }
        ],
    )


def histogram(scores: pd.DataFrame, threshold: float | None, sensor_type: str) -> Figure:
    """Return how many readings have which score; what lies below the threshold in red.

    The height is the root of the number: the few readings of the tail are what this is about.

    Parameters
    ----------
    scores : DataFrame
        Columns score, readings; of one sensor type.
    threshold : float or None
        The present model's.
    sensor_type : str
        The type.
    """
    beyond = scores["score"] < (-2.0 if threshold is None else threshold)
    bar = {
        **{"type": "bar", "x": packed(scores["score"]), "y": packed(np.sqrt(scores["readings"]))},
        **{"width": 0.009, "customdata": packed(scores["readings"])},
        "marker": {
            "color": np.where(beyond, theme.ANOMALY, theme.colour(sensor_type)).tolist(),
            "line": {"width": 0},
        },
        "hovertemplate": "score %{x:.2f}: %{customdata:,d} readings<extra></extra>",
    }
    most, readings = float(scores["readings"].max()), scores["readings"].sum()
    ticks = [most * share**2 for share in (0, 0.5, 1)]
    drawn = figure(
        [bar],
        theme.name(sensor_type),
        f"{theme.short(scores['readings'][beyond].sum())} of {theme.short(readings)}"
        " below the threshold",
        height=130,
        shapes=[
            {
                **{"type": "line", "x0": threshold, "x1": threshold, "yref": "paper", "y0": 0},
                **{"y1": 1, "line": {"width": 1.5, "dash": "dash", "color": theme.ANOMALY}},
            }
        ]
        if threshold is not None
        else [],
    )
    axes = drawn["layout"]
    axes["xaxis"] = axes["xaxis"] | {"showgrid": False, "nticks": 4, "tickformat": ".1f"}
    axes["yaxis"] = axes["yaxis"] | {
        "tickvals": [sqrt(each) for each in ticks],
        "ticktext": [theme.short(round(each)) for each in ticks],
    }
    return drawn


def boxes(table: pd.DataFrame, sensor_type: str, title: str) -> Figure:
    """Return a box a location: quartiles, and whiskers to the 5th and 95th percentile.

    Parameters
    ----------
    table : DataFrame
        Columns location, quantiles (5, 25, 50, 75, 95 %); of one sensor type.
    sensor_type, title : str
        The type, and what to write above.
    """
    low, first, middle, third, high = np.array(table["quantiles"].tolist(), dtype=float).T
    colour = theme.colour(sensor_type)
    box = {
        **{"type": "box", "orientation": "h", "y": [theme.text(p) for p in table["location"]]},
        **{"lowerfence": packed(low), "q1": packed(first), "median": packed(middle)},
        **{"q3": packed(third), "upperfence": packed(high), "width": 0.55, "whiskerwidth": 0},
        "line": {"color": colour, "width": 1.5},
        "fillcolor": theme.faded(colour, 0.35),
        "hoverinfo": "x",
    }
    places = table["location"].to_list()
    insight = (
        f"Typically highest in {theme.cut(places[int(middle.argmax())], 20)},"
        f" steadiest in {theme.cut(places[int((third - first).argmin())], 20)}"
        if len(places) > 1
        else f"Half of the means between {first[0]:,.2f} and {third[0]:,.2f}"
    )
    drawn = figure([box], title, insight, height=40 + 30 * max(3, len(table)))
    axes = drawn["layout"]
    axes["yaxis"] = NAMES | {"autorange": "reversed"}
    axes["margin"] = {"l": 104, "r": 8, "t": 4, "b": 24}
    return drawn
