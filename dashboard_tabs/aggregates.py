"""Windowed Aggregates: what the stream processor made of the readings."""

from __future__ import annotations

import streamlit as st

from dashboard_tabs import charts, layout, states, theme
from dashboard_tabs.data import Moment, Source
from dashboard_tabs.filters import View
from db import dashboard as queries
from db.selecting import Selection, window_step_s

_NAMES = {
    "time": "Window",
    "location": "Location",
    "sensor_type": "Type",
    "readings": "Readings",
    "mean": "Mean",
    "stddev": "Std dev",
    "low": "Min",
    "high": "Max",
    "rule_anomalies": "Flagged by rule",
    "statistical_anomalies": "Beyond 3σ",
    "state": "State",
}


def render(source: Source, view: View, moment: Moment) -> None:
    """Draw the tab."""
    selection = view.selection(moment)
    windows = source.frame(queries.windows, selection)
    if windows.empty:
        states.missing(
            source,
            "No window in this range yet: the first appears seconds after the first reading.",
        )
        return
    st.markdown("##### Mean, ±1 standard deviation and min–max per window")
    st.caption(
        "Dotted on grey, or pale: windows that are still open, shown as far as they have come."
        + (
            " All locations together; choose one at the left to see its own."
            if view.location is None
            else ""
        )
    )
    drawn = {
        f"bands-{each}": charts.bands(one, str(each), view.heading(str(each)))
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
        drawn[column] = charts.bars(per_window, {column: (title, colour)}, title, step_s)
    layout.in_columns(drawn, 2)
    _table(source, view, selection)
    _late(source, view)


def _table(source: Source, view: View, selection: Selection) -> None:
    st.markdown("##### Windows")
    table = source.frame(queries.window_table, selection)
    if table.empty:
        return
    st.dataframe(
        table.assign(sensor_type=table["sensor_type"].map(view.heading)).rename(
            columns=_NAMES | {"window_start": "Window"}
        ),
        hide_index=True,
        height=330,
        key="windows",
        alt="The newest windows, one row per window, location and type",
        column_config={
            "Window": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
            **{
                each: st.column_config.NumberColumn(format="%.2f")
                for each in ("Mean", "Std dev", "Min", "Max")
            },
        },
    )
    st.download_button(
        "Download these windows as CSV",
        table.to_csv(index=False),
        "windows.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _late(source: Source, view: View) -> None:
    late = source.frame(queries.late_readings)
    st.markdown("##### Late readings")
    if late.empty:
        st.caption("None: no reading came after its window was final.")
        return
    st.caption("Came after their window was final: kept here, not counted in any window.")
    st.dataframe(
        late.assign(sensor_type=late["sensor_type"].map(view.heading)),
        hide_index=True,
        height=220,
        key="late",
        alt="The newest late readings",
        column_config={
            "arrived": st.column_config.DatetimeColumn("Arrived", format="YYYY-MM-DD HH:mm:ss"),
            "timestamp": st.column_config.DatetimeColumn("Measured", format="YYYY-MM-DD HH:mm:ss"),
            "sensor_id": "Sensor",
            "location": "Location",
            "sensor_type": "Type",
            "value": st.column_config.NumberColumn("Value", format="%.2f"),
            "late_by_seconds": st.column_config.NumberColumn("Late by (s)", format="localized"),
        },
    )
