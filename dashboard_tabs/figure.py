"""What all figures have in common: plain dictionaries as plotly.js reads them. Pure."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard_tabs import theme

Figure = dict[str, Any]
Trace = dict[str, Any]
Span = tuple[datetime, datetime]

# Of a figure without its caption, pixels.
HEIGHT = 210
GRID = "rgba(128,136,150,0.20)"
# A pause this many times as long as usual is one: the line ends before it and begins behind it.
OUTAGE_STEPS = 3
# 32 bits hold seven digits, which is all that two decimals need up to here.
_SHORT_FLOATS = 1e5

_TICKS = {"tickfont": {"size": 11, "color": theme.QUIET}}
_VALUES = _TICKS | {"gridcolor": GRID, "zeroline": False, "nticks": 5, "fixedrange": True}
_TIMES = _TICKS | {
    "type": "date",
    "showgrid": False,
    "zeroline": False,
    "linecolor": theme.QUIET,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": theme.QUIET,
    "nticks": 7,
    "hoverformat": "%Y-%m-%d %H:%M:%S",
    "showspikes": True,
    "spikemode": "across",
    "spikethickness": 1,
    "spikedash": "solid",
    "spikecolor": theme.QUIET,
}
NAMES = _TICKS | {"type": "category", "showgrid": False, "ticks": "", "fixedrange": True}


def figure(
    traces: Sequence[Trace], title: str, insight: str, height: int = HEIGHT, **layout: Any
) -> Figure:
    """Return traces below a title and one sentence that says what is to be seen."""
    return {
        "data": list(traces),
        "layout": {
            "height": height,
            "margin": {"l": 44, "r": 8, "t": 8, "b": 24},
            "showlegend": False,
            "hovermode": "closest",
            "uirevision": "stays",
            "meta": {"title": title, "insight": insight},
            "xaxis": _VALUES,
            "yaxis": _VALUES,
        }
        | layout,
    }


def over_time(
    traces: Sequence[Trace], title: str, insight: str, span: Span | None = None, **layout: Any
) -> Figure:
    """Return a figure that zooms, and whose axis is all the time that was asked for (``span``)."""
    times: Figure = dict(_TIMES)
    if span is not None:
        begin, end = milliseconds(list(span)).tolist()
        # A range that is set explicitly loses one edge when it moves on.
        times["autorangeoptions"] = {"include": [begin, end], "clipmin": begin, "clipmax": end}
    drawn = figure(
        traces,
        title,
        insight,
        **{"hovermode": "x unified", "dragmode": "zoom", "xaxis": times} | layout,
    )
    drawn["layout"]["meta"]["group"] = "time"  # shares its range, and the time pointed to
    return drawn


def legend() -> Figure:
    """Return layout for a legend in one line above the figure, where it hides nothing."""
    return {
        "showlegend": True,
        "margin": {"l": 44, "r": 8, "t": 26, "b": 24},
        "legend": {
            **{"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
            "itemsizing": "constant",
        },
    }


def packed(values: Any) -> Figure:
    """Return numbers as plotly.js reads them without parsing text, 32 bits each where that does."""
    numbers = np.ascontiguousarray(values, dtype="<f8")
    known = np.abs(numbers[np.isfinite(numbers)])
    if not known.size or known.max() < _SHORT_FLOATS:
        numbers = numbers.astype("<f4")
    return _packed(numbers)


def _packed(numbers: npt.NDArray[Any]) -> Figure:
    array = {"dtype": numbers.dtype.str[1:], "bdata": b64encode(numbers.tobytes()).decode()}
    if numbers.ndim > 1:
        array["shape"] = ",".join(map(str, numbers.shape))
    return array


def milliseconds(times: Any) -> npt.NDArray[np.float64]:
    """Return times (naive UTC, as in the tables) as plotly.js counts them, since 1970."""
    counted: npt.NDArray[np.float64] = (
        pd.to_datetime(pd.Series(times)).astype("datetime64[ms]").astype("int64").to_numpy(float)
    )
    return counted


def moments(times: Any) -> Figure:
    """Return times as the values of an axis."""
    return _packed(milliseconds(times))


def course(times: Any, values: Any) -> Figure:
    """Return a line's x and y: regular times as first and step, and a hole where there was a pause.

    Parameters
    ----------
    times, values : columns
        In order of time; no time twice.
    """
    at, numbers = milliseconds(times), np.asarray(values, dtype=float)
    between = np.diff(at)
    if not len(between):
        return {"x": _packed(at), "y": packed(numbers)}
    step = float(np.median(between))
    pauses = np.flatnonzero(between > OUTAGE_STEPS * step)
    place = (at - at[0]) / step
    is_regular = bool((place == place.round()).all())
    if is_regular and (np.delete(between, pauses) == step).all() and place[-1] < 2 * len(at):
        row = np.full(int(place[-1]) + 1, np.nan)
        row[place.astype(int)] = numbers
        return {"x0": at[0], "dx": step, "y": packed(row)}
    return {
        "x": _packed(np.insert(at, pauses + 1, at[pauses] + step)),
        "y": packed(np.insert(numbers, pauses + 1, np.nan)),
    }


def areas(times: Any, low: Any, high: Any) -> Figure:
    """Return x and y of what lies between two lines: one outline a stretch without a pause."""
    at = milliseconds(times)
    lows, highs = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    between = np.diff(at)
    step = float(np.median(between)) if len(between) else 0.0
    xs: list[npt.NDArray[np.float64]] = []
    ys: list[npt.NDArray[np.float64]] = []
    hole = np.array([np.nan])
    for rows in np.split(np.arange(len(at)), np.flatnonzero(between > OUTAGE_STEPS * step) + 1):
        xs += [at[rows], at[rows][::-1], hole]
        ys += [lows[rows], highs[rows][::-1], hole]
    return {"x": _packed(np.concatenate(xs)[:-1]), "y": packed(np.concatenate(ys)[:-1])}


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Return where to write a label for each value, so that none comes nearer than ``gap``.

    >>> spread([1.0, 1.0, 5.0], 2.0)
    [0.0, 2.0, 5.0]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    groups: list[list[int]] = []
    centre: list[float] = []
    for i in order:
        groups.append([i])
        centre.append(values[i])
        # Two groups that touch become one around their common middle.
        while len(groups) > 1 and centre[-1] - centre[-2] < gap * (
            (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last, mid = groups.pop(), centre.pop()
            whole = len(last) + len(groups[-1])
            centre[-1] = (centre[-1] * len(groups[-1]) + mid * len(last)) / whole
            groups[-1] += last
    places = [0.0] * len(values)
    for group, middle in zip(groups, centre, strict=True):
        for rank, i in enumerate(group):
            places[i] = middle + (rank - (len(group) - 1) / 2) * gap
    return places
