"""Charts in rows; a phone shows them one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dashboard_tabs.vega import ZOOM, Chart


def draw(chart: Chart, key: str) -> None:
    """Draw a chart; ``key`` is its identity over refreshes."""
    # Streamlit forgets at the next data a zoom that it does not also report.
    zoom: dict[str, Any] = {"on_select": "rerun", "selection_mode": ZOOM["name"]}
    st.vega_lite_chart(
        chart.data,
        chart.spec | {"config": chart.spec["config"] | {"text": {"color": _text_colour()}}},
        width="stretch",
        key=key,
        alt=chart.alt,
        **(zoom if chart.can_zoom else {}),
    )


def _text_colour() -> str:
    """Return the colour of text in charts, which Streamlit leaves black on its dark theme too."""
    return "#E6EAF0" if st.context.theme.type == "dark" else "#1B2430"


def in_columns(charts: Mapping[str, Chart], columns: int) -> None:
    """Draw charts in rows of ``columns``."""
    keys = list(charts)
    for first in range(0, len(keys), columns):
        row = keys[first : first + columns]
        for column, key in zip(st.columns(columns), row, strict=False):
            with column:
                draw(charts[key], key)
