"""Charts in rows; a phone shows them one below the other."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
import streamlit as st


def in_columns(figures: Mapping[str, go.Figure], columns: int) -> None:
    """Draw figures in rows of ``columns``; each key is the chart's identity over refreshes."""
    keys = list(figures)
    for first in range(0, len(keys), columns):
        row = keys[first : first + columns]
        for column, key in zip(st.columns(columns), row, strict=False):
            column.plotly_chart(figures[key], key=key, config={"displaylogo": False})
