"""Tables to grids of cells, the stronger the more opaque. Pure: no database, no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard_tabs import theme
from dashboard_tabs.figure import NAMES, Figure, figure, packed

# Of a row of cells, pixels.
_CELL = 30
# The colours of below and above on both themes.
BELOW = "#C77700"
ABOVE = "#3B6FD0"
# As opaque as text on a cell allows on a light and on a dark page.
_STRONGEST = 0.6
# Over fewer common windows a correlation is not shown: one of ten is anything.
MIN_WINDOWS = 20
# In standard deviations, what is coloured fully.
LARGE_EFFECT = 0.8
# More columns than this have their names turned.
_NARROW = 7


def _grid(
    strength: npt.NDArray[np.float64],
    text: Sequence[Sequence[str]],
    x: Sequence[str],
    y: Sequence[str],
    hover: str,
    colours: tuple[str, str],
    title: str,
    insight: str,
    font_px: int = 11,
    customdata: Any = None,
    every: int = 1,
) -> Figure:
    """Return cells of -1..1 (NaN: none) coloured from the first colour over none to the second.

    One column in ``every`` is named.
    """
    below, above = colours
    cells = {
        **{"type": "heatmap", "x": [theme.text(each) for each in x]},
        **{"y": [theme.text(each) for each in y], "z": packed(strength), "xgap": 3, "ygap": 3},
        **{"zmin": -1, "zmax": 1, "showscale": False, "hoverongaps": False},
        "colorscale": [
            [0, theme.faded(below, _STRONGEST)],
            [0.5, theme.faded(theme.QUIET, 0)],
            [1, theme.faded(above, _STRONGEST)],
        ],
        **{"text": [list(row) for row in text], "texttemplate": "%{text}"},
        **{"textfont": {"size": font_px}, "hovertemplate": f"{hover}<extra></extra>"},
    }
    if customdata is not None:
        cells["customdata"] = packed(customdata)
    # Where nothing is known there is an empty cell, not a hole in the page.
    ground = {each: cells[each] for each in ("type", "x", "y", "xgap", "ygap", "showscale")} | {
        "z": packed(np.zeros_like(strength)),
        "colorscale": [[0, theme.faded(theme.QUIET, 0.08)], [1, theme.faded(theme.QUIET, 0.08)]],
        "hoverinfo": "skip",
    }
    drawn = figure([ground, cells], title, insight, height=34 + _CELL * max(3, len(y)))
    axes = drawn["layout"]
    axes["xaxis"] = NAMES | (
        {"tickangle": 0, "tickfont": {"size": 9.5, "color": theme.QUIET}, "dtick": every}
        if len(x) < _NARROW or every > 1
        else {"automargin": True}
    )
    axes["yaxis"] = NAMES | {"autorange": "reversed"}
    axes["margin"] = {"l": 90, "r": 4, "t": 4, "b": 24}
    return drawn


def counts(table: pd.DataFrame, value: str, title: str) -> Figure:
    """Return location × type of numbers of anomalies, each written in its cell."""
    grid = table.pivot_table(
        index="location", columns="sensor_type", values=value, fill_value=0, aggfunc="sum"
    )
    z = grid.to_numpy(dtype=float)
    place, kind = np.unravel_index(int(z.argmax()), z.shape)
    insight = (
        f"{theme.short(z.sum())} in all; most: {theme.name(str(grid.columns[kind]))},"
        f" {theme.cut(str(grid.index[place]), 20)} ({theme.short(z.max())})"
        if z.any()
        else "None"
    )
    return _grid(
        z / max(1.0, z.max()),
        [[theme.short(each) for each in row] for row in z],
        [theme.name(str(each)) for each in grid.columns],
        [str(each) for each in grid.index],
        "%{y}, %{x}: %{customdata:,d}",
        (theme.ANOMALY, theme.ANOMALY),
        title,
        insight,
        customdata=z,
    )


def correlation(table: pd.DataFrame, title: str) -> Figure:
    """Return the symmetric grid of one location; without colour what chance may have made.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type_a, sensor_type_b, correlation (may be missing), perhaps window_count.
    title : str
        Title.
    """
    types = sorted({*table["sensor_type_a"], *table["sensor_type_b"]})
    at = {each: i for i, each in enumerate(types)}
    r, n = np.full((len(types), len(types)), np.nan), np.zeros((len(types), len(types)))
    sizes = table["window_count"] if "window_count" in table else np.zeros(len(table))
    for a, b, value, size in zip(
        table["sensor_type_a"], table["sensor_type_b"], table["correlation"], sizes, strict=True
    ):
        r[[at[a], at[b]], [at[b], at[a]]] = np.nan if value is None else value
        n[[at[a], at[b]], [at[b], at[a]]] = size
    r[n < MIN_WINDOWS] = np.nan
    is_known = np.isfinite(r)
    shown = np.where(is_known, r, 0.0)
    is_beyond = is_beyond_chance(shown, n, pairs=max(1, int(is_known.sum()) // 2))
    names = [theme.name(each) for each in types]
    insight = "Nothing to compare yet"
    if is_known.any():
        a, b = np.unravel_index(int(np.abs(shown).argmax()), r.shape)
        insight = f"Strongest: {names[a]} with {names[b]}, {r[a, b]:+.2f}"
    return _grid(
        np.where(is_known, np.where(is_beyond, shown, 0.0), np.nan),
        [[f"{each:+.2f}" if each == each else "" for each in row] for row in r],
        names,
        names,
        "%{y} with %{x}: r = %{customdata[0]:+.3f}, n = %{customdata[1]:,d}",
        (BELOW, ABOVE),
        title,
        insight,
        customdata=np.dstack([r, n]),
    )


def is_beyond_chance(r: Any, n: Any, pairs: int) -> Any:
    """Return which correlations are stronger than chance gives to any of so many pairs.

    In 95 of 100 such grids of pure chance none would be (Fisher, 1921; Bonferroni's correction).

    >>> is_beyond_chance(0.5, 20, pairs=1), is_beyond_chance(0.5, 20, pairs=10)
    (np.True_, np.False_)
    """
    limit = NormalDist().inv_cdf(1 - 0.05 / 2 / pairs)
    angle = np.arctanh(np.clip(np.abs(r), 0, 1 - 1e-12))
    return angle * np.sqrt(np.maximum(0, np.asarray(n) - 3)) > limit


def hours(table: pd.DataFrame, headings: Mapping[str, str]) -> Figure:
    """Return hour of day × type, coloured by the distance from the type's mean.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type, hour (0..23, UTC), mean, stddev (of the readings of that hour).
    headings : mapping
        Sensor type -> what to write beside its row.
    """
    grid = table.pivot_table(index="sensor_type", columns="hour", values="mean")
    z, spread = (
        table.pivot_table(index="sensor_type", columns="hour", values=value)
        .reindex(columns=range(24))
        .to_numpy(dtype=float)
        for value in ("mean", "stddev")
    )
    centre = np.nanmean(z, axis=1, keepdims=True)
    within = np.sqrt(np.nanmean(spread**2, axis=1, keepdims=True))
    # How large the effect of the hour is beside what readings of one hour differ by (Cohen, 1988):
    # a type that is nearly the same at all hours stays pale.
    distance = np.divide(z - centre, within, out=np.where(np.isnan(z), z, 0.0), where=within > 0)
    swings = (np.nanmax(z, axis=1) - np.nanmin(z, axis=1)) / np.maximum(np.abs(centre[:, 0]), 1e-9)
    most = int(swings.argmax())
    return _grid(
        np.clip(distance / LARGE_EFFECT, -1, 1),
        [[theme.short(each) if each == each else "" for each in row] for row in z],
        [f"{hour:02d}" for hour in range(24)],
        [headings[str(each)] for each in grid.index],
        "%{y}, %{x}:00 UTC: %{customdata:,.2f}",
        (BELOW, ABOVE),
        "Mean by hour of the day (UTC), last 7 days",
        f"{headings[str(grid.index[most])]} swings most, by {swings[most]:.1%} of its mean"
        if swings[most]
        else "Fills as the hours go by",
        font_px=10,
        customdata=z,
        every=3,
    )
