"""What all charts have in common, as parts of Vega-Lite specifications.

A chart's data travel apart from its specification, so that new data change what is drawn and not
the chart: the browser redraws nothing else, and what a person zoomed into stays. So whatever
changes from refresh to refresh is a row of the data, told apart by the column ``kind``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

Spec = dict[str, Any]

# Of a whole chart with its title and axes, pixels.
HEIGHT = 230
# The colours of below and above on both themes; how much is told by how opaque they are.
BELOW = "#D07A22"
ABOVE = "#3B6FD0"
GRID = "rgba(128,136,150,0.20)"
QUIET_TEXT = "#8A8D91"


@dataclass(frozen=True)
class Chart:
    """A picture of some data.

    Parameters
    ----------
    data : DataFrame
        What is drawn.
    spec : dict
        How, in Vega-Lite; the same for the same choice of filters.
    alt : str
        What a screen reader says; part of the specification, so it holds no figure that changes
        from refresh to refresh.
    """

    data: pd.DataFrame
    spec: Spec
    alt: str

    @property
    def can_zoom(self) -> bool:
        """Whether a person may zoom into it."""
        return any(ZOOM in layer.get("params", []) for layer in self.spec["layer"])


def chart(
    data: pd.DataFrame,
    title: str,
    layers: Sequence[Spec],
    alt: str,
    height: int = HEIGHT,
    right: int = 8,
) -> Chart:
    """Return layers over each other below a title."""
    spec: Spec = {
        "title": {"text": title, "anchor": "start", "fontSize": 14, "offset": 8},
        "height": height,
        "padding": {"left": 4, "top": 2, "right": right, "bottom": 4},
        "layer": list(layers),
        "config": {
            "view": {"stroke": None},
            "axis": {"gridColor": GRID},
            "legend": {"labelFontSize": 12, "symbolSize": 70},
        },
    }
    return Chart(data, spec, alt)


def utc(times: pd.Series) -> pd.Series:
    """Return the tables' naive times as what they are, so that no browser moves them."""
    return pd.to_datetime(times).dt.tz_localize("UTC")


# Seconds where less than four minutes are seen, days where more than one and a half.
_TIME_LABEL = (
    "(domain('x')[1] - domain('x')[0]) < 240000 ? utcFormat(datum.value, '%H:%M:%S')"
    " : (domain('x')[1] - domain('x')[0]) < 129600000 ? utcFormat(datum.value, '%H:%M')"
    " : utcFormat(datum.value, '%b %d, %H:%M')"
)


def time(field: str = "time") -> Spec:
    """Return an axis of time in UTC."""
    return {
        "field": field,
        "type": "temporal",
        "scale": {"type": "utc", "padding": 4},
        "axis": {
            "title": None,
            "grid": False,
            "tickCount": 7,
            "labelExpr": _TIME_LABEL,
            "labelOverlap": True,
            "labelFlush": True,
        },
    }


def number(field: str, from_zero: bool = False, number_format: str = ",~f") -> Spec:
    """Return an axis of values; its grid lines are all the frame a chart has."""
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"zero": from_zero, "nice": True, "padding": 0 if from_zero else 6},
        "axis": {
            "title": None,
            "tickCount": 5,
            "format": number_format,
            "domain": False,
            "ticks": False,
        },
    }


def plain(values: pd.Series) -> str:
    """Return the format of an axis: thousands abbreviated only where there are tens of them."""
    return "~s" if len(values) and values.abs().max() >= 20_000 else ",~f"


# Drag to move along the time axis; Shift and the wheel to zoom, so that the wheel alone scrolls the
# page; a double click shows all again.
ZOOM: Spec = {
    "name": "zoom",
    "select": {
        "type": "interval",
        "encodings": ["x"],
        "zoom": "wheel![event.shiftKey]",
    },
    "bind": "scales",
}


def only(kind: str) -> list[Spec]:
    """Return the transform that lets rows of one kind through."""
    return [{"filter": f"datum.kind === '{kind}'"}]


def hover(y: Spec, tooltip: Sequence[Spec], kind: str | None = None) -> Spec:
    """Return invisible points that tell about the one nearest to the pointer."""
    layer: Spec = {
        "mark": {"type": "point", "size": 60, "filled": True, "clip": True, "color": QUIET_TEXT},
        "params": [
            {
                "name": "hover",
                "select": {
                    "type": "point",
                    "on": "pointerover",
                    "clear": "pointerout",
                    "nearest": True,
                },
            }
        ],
        "encoding": {
            "x": time(),
            "y": y,
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0},
            "tooltip": list(tooltip),
        },
    }
    return layer | ({"transform": only(kind)} if kind else {})


def tip(field: str, title: str, number_format: str | None = None) -> Spec:
    """Return a line of a tooltip."""
    if number_format is None:
        return {"field": field, "type": "nominal", "title": title}
    return {"field": field, "type": "quantitative", "title": title, "format": number_format}


TIME_TIP = {
    "field": "time",
    "type": "temporal",
    "title": "Time (UTC)",
    "format": "%Y-%m-%d %H:%M:%S",
    "scale": {"type": "utc"},
}


def top_legend(title: str | None = None) -> Spec:
    """Return a legend in one line above the chart, where it hides nothing."""
    return {"orient": "top", "title": title, "symbolType": "square", "offset": 4, "padding": 0}


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
