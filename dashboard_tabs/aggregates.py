"""Windowed Aggregates: what the stream processor made of the readings."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard_tabs import charts, layout, plot, states, theme
from dashboard_tabs.filters import View
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db.selecting import Selection, window_step_s

_COLUMNS = {
    "window_start": layout.time("Window"),
    **layout.STATISTICS,
    "state": "State",
    "has_mixed_units": st.column_config.CheckboxColumn("Mixed units"),
}
_LATE_COLUMNS = {
    "arrived": layout.time("Arrived"),
    "timestamp": layout.time("Measured"),
    "sensor_id": "Sensor",
    "location": "Location",
    "sensor_type": "Type",
    "value": layout.number("Value", 2),
    "late_by_seconds": layout.number("Late by", 0, " s"),
}


def render(cache: QueryCache, view: View, as_of: AsOf) -> None:
    """Draw the tab."""
    selection = view.selection(as_of)
    windows = cache.frame(queries.windows, selection)
    if windows.empty:
        states.missing(
            cache,
            "No window in this range yet: the first appears seconds after the first reading.",
        )
        return
    _counts(windows)
    st.markdown("##### Mean, ±1 standard deviation and min–max per window")
    st.caption(
        "Dotted on grey, or pale: windows that are still open, shown as far as they have come."
        + (
            " All locations together, ± what the readings of one location differ by; choose one at"
            " the left to see its own."
            if view.location is None
            else ""
        )
    )
    if mixed := cache.rows(queries.mixed_units, selection):
        places = ", ".join(
            f"{theme.name(row['sensor_type'])} at {theme.plain(row['location'])}" for row in mixed
        )
        st.warning(
            f"Sensors of one type measure in several units here, so their means say nothing"
            f" ({places}). The readings themselves are as they came.",
            icon=":material/straighten:",
        )
    span = selection.start, selection.end
    drawn = {
        f"ranges-{each}": charts.ranges(one, str(each), view.heading(str(each)), span)
        for each, one in windows.groupby("sensor_type")
    }
    per_window = windows.groupby("time", as_index=False).agg(
        readings=("readings", "sum"),
        rule_anomalies=("rule_anomalies", "sum"),
        statistical_anomalies=("statistical_anomalies", "sum"),
        is_closed=("is_closed", "all"),
    )
    step_s = window_step_s(selection)
    for column, title, colour in (
        ("readings", "Readings per window", theme.NEUTRAL),
        ("rule_anomalies", "Flagged by the sensor's rule, per window", theme.ANOMALY),
        ("statistical_anomalies", "Beyond 3σ of the windows before, per window", theme.ANOMALY),
    ):
        drawn[column] = charts.bars(per_window, {column: (title, colour)}, title, step_s, span)
    plot.in_columns(drawn, 2)
    _table(cache, view, selection)
    _late(cache, view)


def _counts(windows: pd.DataFrame) -> None:
    readings = float(windows["readings"].sum())
    beyond = float(windows["statistical_anomalies"].sum())
    flagged = float(windows["rule_anomalies"].sum())
    with st.container(horizontal=True):
        for label, value in (
            ("Windows", theme.short(float(windows["windows"].sum()))),
            ("Readings in them", theme.short(readings)),
            ("Flagged by rule", f"{flagged / readings:.1%}"),
            ("Beyond 3σ", f"{beyond / readings:.1%}"),
        ):
            st.metric(label, value, border=True, height="stretch")


def _table(cache: QueryCache, view: View, selection: Selection) -> None:
    st.markdown("##### Windows")
    table = cache.frame(queries.window_table, selection)
    if table.empty:
        return
    layout.table(
        table.assign(sensor_type=table["sensor_type"].map(view.heading)),
        "windows",
        "The newest windows, one row per window, location and type",
        _COLUMNS | ({} if table["has_mixed_units"].any() else {"has_mixed_units": None}),
    )
    layout.download(cache, "windows", queries.window_table, selection, queries.MAX_DOWNLOAD)


def _late(cache: QueryCache, view: View) -> None:
    late = cache.frame(queries.late_readings)
    st.markdown("##### Late readings")
    if late.empty:
        st.caption("None: no reading came after its window was final.")
        return
    st.caption(
        "Came after their window was final: in no window until "
        "`python -m service.backfill` counts them."
    )
    layout.table(
        late.assign(sensor_type=late["sensor_type"].map(view.heading)),
        "late",
        "The newest late readings",
        _LATE_COLUMNS,
        most=6,
    )
    layout.download(cache, "late readings", queries.late_readings, queries.MAX_DOWNLOAD)
