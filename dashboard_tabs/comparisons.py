"""Tables to charts that compare: heatmaps, distributions. Pure: no database, no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping
from math import atanh, sqrt

import pandas as pd

from dashboard_tabs import theme
from dashboard_tabs.vega import ABOVE, BELOW, Chart, Spec, chart, number, only, plain, tip

# Of a row of cells, and of what stands above and below the rows, pixels.
_CELL = 30
_AROUND = 56


def _cells(
    x: tuple[str, list[str]],
    y: tuple[str, list[str]],
    colour: Spec,
    strength: Spec,
    tooltip: list[Spec],
    font: int = 11,
) -> list[Spec]:
    """Return a grid of cells with text, the more opaque the stronger; text on strong ones is white.

    Parameters
    ----------
    x, y : tuple
        Field, and its values in order.
    colour, strength : dict
        Encoding of the colour; field of the strength with its domain.
    tooltip : list of dict
        Lines of the tooltip.
    font : int
        Size of the text, pixels.
    """
    places: Spec = {
        channel: {
            "field": field,
            "type": "nominal",
            "scale": {"domain": values, "paddingInner": 0.08, "paddingOuter": 0},
            "axis": {
                "title": None,
                "domain": False,
                "ticks": False,
                "grid": False,
                "labelAngle": 0,
                "labelOverlap": False,
                "labelFlush": False,
                "labelLimit": 115,
                "labelFontSize": 10.5,
            },
        }
        for channel, (field, values) in (("x", x), ("y", y))
    }
    field = strength["field"]
    low, high = strength["domain"]
    is_strong = f"abs(datum.{field}) > {low + 0.6 * (high - low)}"
    has_value = [{"filter": f"isValid(datum.{field})"}]
    rect: Spec = {
        "transform": [*has_value, {"calculate": f"abs(datum.{field})", "as": "strength"}],
        "mark": {"type": "rect", "cornerRadius": 3, "stroke": None},
        "encoding": {
            **places,
            "color": colour,
            "opacity": {
                "field": "strength",
                "type": "quantitative",
                "scale": {"domain": [low, high], "range": [0.06, 0.95], "clamp": True},
                "legend": None,
            },
            "tooltip": tooltip,
        },
    }
    text: Spec = {"encoding": {**places, "text": {"field": "text"}}}
    return [
        rect,
        text
        | {
            "transform": [*has_value, {"filter": f"!({is_strong})"}],
            "mark": {"type": "text", "fontSize": font},
        },
        text
        | {
            "transform": [*has_value, {"filter": is_strong}],
            "mark": {"type": "text", "fontSize": font, "color": "white", "fontWeight": 600},
        },
    ]


_SIGNED = {"condition": {"test": "datum.signed < 0", "value": BELOW}, "value": ABOVE}


def counts(table: pd.DataFrame, value: str, title: str) -> Chart:
    """Return a heatmap location × type of numbers of anomalies, each written in its cell."""
    grid = table.pivot_table(
        index="location", columns="sensor_type", values=value, fill_value=0, aggfunc="sum"
    )
    rows = grid.stack().rename("count").reset_index()
    most = max(1.0, float(rows["count"].max()))
    data = rows.assign(
        type=rows["sensor_type"].map(theme.name),
        text=rows["count"].map(theme.short),
        share=rows["count"] / most,
    )
    tooltip = [tip("location", "Location"), tip("type", "Type"), tip("count", "Anomalies", ",d")]
    layers = _cells(
        ("type", [theme.name(each) for each in grid.columns]),
        ("location", list(grid.index)),
        {"value": theme.ANOMALY},
        {"field": "share", "domain": [0, 1]},
        tooltip,
    )
    return chart(data, title, layers, title, height=_AROUND + _CELL * max(3, len(grid)))


def correlation(table: pd.DataFrame, title: str) -> Chart:
    """Return the symmetric heatmap of one location.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type_a, sensor_type_b, correlation (may be missing), perhaps window_count.
    title : str
        Title.
    """
    table = table.assign(n=table["window_count"] if "window_count" in table else None)
    other = table.rename(
        columns={"sensor_type_a": "sensor_type_b", "sensor_type_b": "sensor_type_a"}
    )
    both = pd.concat([table, other], ignore_index=True)
    types = sorted(both["sensor_type_a"].unique())
    same = pd.DataFrame({"sensor_type_a": types, "sensor_type_b": types, "correlation": None})
    both = pd.concat([both, same], ignore_index=True).sort_values(
        ["sensor_type_a", "sensor_type_b"]
    )
    r, n = both["correlation"].astype(float), both["n"].astype(float)
    beyond = pd.Series([is_beyond_chance(*each) for each in zip(r, n, strict=True)], r.index)
    data = pd.DataFrame(
        {
            "a": both["sensor_type_a"].map(theme.name),
            "b": both["sensor_type_b"].map(theme.name),
            "signed": r,
            "coloured": r.where(beyond | r.isna(), 0),
            "n": n,
            "text": ["" if each != each else f"{each:+.2f}" for each in r],
        }
    )
    names = [theme.name(each) for each in types]
    tooltip = [tip("a", "One"), tip("b", "Other"), tip("signed", "r", "+.3f"), tip("n", "n", ",d")]
    layers = _cells(
        ("b", names), ("a", names), _SIGNED, {"field": "coloured", "domain": [0, 1]}, tooltip
    )
    strongest = data.loc[data["signed"].abs().idxmax()] if data["signed"].notna().any() else None
    alt = f"Correlations, {title}" + (
        f"; strongest: {strongest['a']} with {strongest['b']}, {strongest['signed']:+.2f}"
        if strongest is not None
        else ""
    )
    return chart(data, title, layers, alt, height=_AROUND + _CELL * max(3, len(types)))


def is_beyond_chance(r: float, n: float) -> bool:
    """Return whether 95 of 100 correlations that are chance would be weaker (Fisher, 1921).

    >>> is_beyond_chance(0.9, 4), is_beyond_chance(0.9, 10)
    (False, True)
    """
    return n > 3 and (abs(r) >= 1 or abs(atanh(r)) * sqrt(n - 3) > 1.96)


def hours(table: pd.DataFrame, headings: Mapping[str, str]) -> Chart:
    """Return hour of day × type, coloured by the distance from the type's mean.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type, hour (0..23, UTC), mean.
    headings : mapping
        Sensor type -> what to write beside its row.
    """
    grid = table.pivot_table(index="sensor_type", columns="hour", values="mean").reindex(
        columns=range(24)
    )
    spread = grid.std(axis=1).replace(0, pd.NA).astype(float)
    distance = grid.sub(grid.mean(axis=1), axis=0).div(spread, axis=0).clip(-2, 2)
    rows = grid.stack(future_stack=True).rename("mean").reset_index()
    rows["distance"] = distance.stack(future_stack=True).to_numpy()
    data = rows.assign(
        # A type seen in one hour only is at its mean.
        signed=rows["distance"].mask(rows["mean"].notna() & rows["distance"].isna(), 0.0),
        type=rows["sensor_type"].map(headings),
        hour=rows["hour"].map(lambda hour: f"{hour:02d}"),
        text=[theme.short(each) if each == each else "" for each in rows["mean"]],
    )
    tooltip = [tip("type", "Type"), tip("hour", "Hour (UTC)"), tip("mean", "Mean", ",.2f")]
    cells = _cells(
        ("hour", [f"{hour:02d}" for hour in range(24)]),
        ("type", [headings[each] for each in grid.index]),
        _SIGNED,
        {"field": "signed", "domain": [0, 2]},
        tooltip,
        font=10,
    )
    # An hour that has not been seen is an empty cell, not a hole in the page.
    absent = cells[0] | {
        "transform": [{"filter": "!isValid(datum.signed)"}],
        "encoding": {each: cells[0]["encoding"][each] for each in ("x", "y")}
        | {"color": {"value": theme.QUIET}, "opacity": {"value": 0.08}},
    }
    layers = [absent, *cells]
    title = "Mean by hour of the day (UTC), last 7 days"
    return chart(data, title, layers, title, height=_AROUND + _CELL * max(3, len(grid)))


def histogram(scores: pd.DataFrame, threshold: float | None, sensor_type: str) -> Chart:
    """Return how many readings have which score; what lies below the threshold in red.

    Parameters
    ----------
    scores : DataFrame
        Columns score, readings; of one sensor type.
    threshold : float or None
        The present model's.
    sensor_type : str
        The type.
    """
    cut = -2.0 if threshold is None else threshold
    data = scores.assign(
        kind="bar",
        zero=0,
        begin=scores["score"] - 0.0045,
        end=scores["score"] + 0.0045,
        beyond=scores["score"] < cut,
    )
    if threshold is not None:
        data = pd.concat(
            [data, pd.DataFrame({"begin": [threshold], "kind": ["threshold"]})], ignore_index=True
        )
    colour = {
        "condition": {"test": "datum.beyond", "value": theme.ANOMALY},
        "value": theme.colour(sensor_type),
    }
    axis = {"title": None, "grid": False, "tickCount": 4, "format": ".1f"}
    x: Spec = {
        "field": "begin",
        "type": "quantitative",
        "scale": {"zero": False, "nice": False},
        "axis": axis,
    }
    layers: list[Spec] = [
        {
            "transform": only("bar"),
            "mark": {"type": "rect"},
            "encoding": {
                "x": x,
                "x2": {"field": "end"},
                # The few readings of the tail are what this is about.
                "y": number("zero", True, plain(data["readings"]))
                | {"scale": {"type": "sqrt", "nice": True}},
                "y2": {"field": "readings"},
                "color": colour,
                "tooltip": [tip("score", "Score", ".2f"), tip("readings", "Readings", ",d")],
            },
        },
        {
            "transform": only("threshold"),
            "mark": {"type": "rule", "strokeDash": [5, 4], "color": theme.ANOMALY},
            "encoding": {"x": x, "tooltip": [tip("begin", "Threshold", ".3f")]},
        },
    ]
    title = theme.name(sensor_type)
    return chart(data, title, layers, f"Scores of {title}; threshold {threshold}", height=170)


def boxes(table: pd.DataFrame, sensor_type: str, title: str) -> Chart:
    """Return a box a location: quartiles, and whiskers to the 5th and 95th percentile.

    Parameters
    ----------
    table : DataFrame
        Columns location, quantiles (5, 25, 50, 75, 95 %); of one sensor type.
    sensor_type, title : str
        The type, and what to write above.
    """
    names = ["q05", "q25", "q50", "q75", "q95"]
    quantiles = pd.DataFrame(table["quantiles"].tolist(), columns=names, dtype=float)
    data = quantiles.assign(location=table["location"].to_list())
    colour = theme.colour(sensor_type)
    y: Spec = {
        "field": "location",
        "type": "nominal",
        "axis": {
            "title": None,
            "domain": False,
            "ticks": False,
            "grid": False,
            "labelLimit": 115,
            "labelOverlap": False,
        },
    }
    x = number("q05", number_format=plain_range(quantiles))
    tooltip = [tip("location", "Location")] + [
        tip(name, f"{int(name[1:])} %", ",.2f") for name in names
    ]
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "color": colour, "strokeWidth": 1.5},
            "encoding": {"y": y, "x": x, "x2": {"field": "q95"}, "tooltip": tooltip},
        },
        {
            "mark": {
                "type": "bar",
                "color": colour,
                "size": 13,
                "opacity": 0.55,
                "cornerRadius": 2,
            },
            "encoding": {"y": y, "x": number("q25"), "x2": {"field": "q75"}, "tooltip": tooltip},
        },
        {
            "mark": {"type": "tick", "color": colour, "thickness": 3, "size": 15},
            "encoding": {"y": y, "x": number("q50"), "tooltip": tooltip},
        },
    ]
    alt = f"{title}: distribution of the window means of {len(table)} locations"
    return chart(data, title, layers, alt, height=_AROUND + _CELL * max(3, len(table)))


def plain_range(values: pd.DataFrame) -> str:
    """Return the format of an axis: decimals only where the values lie close together."""
    low, high = values.min().min(), values.max().max()
    if high - low < 3:
        return ",.1f" if high - low > 0.3 else ",.2f"
    return "~s" if abs(high) >= 20_000 else ",~f"
