"""Analytics: how types, places and hours of the day compare."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard_tabs import comparisons, layout, theme
from dashboard_tabs.data import Moment, Source
from dashboard_tabs.filters import View
from db import dashboard as queries
from db.selecting import Selection


def render(source: Source, view: View, moment: Moment) -> None:
    """Draw the tab."""
    selection = view.selection(moment)
    _correlations(source, view)
    statistics = source.frame(queries.location_statistics, selection)
    if statistics.empty:
        st.info("No window in this range yet.")
        return
    _boxes(statistics)
    _hours(source, selection)
    _statistics(statistics)


def _correlations(source: Source, view: View) -> None:
    table = source.frame(queries.correlations, view.location)
    st.markdown("##### Correlation between sensor types")
    if table.empty or table["correlation"].isna().all():
        st.caption("Comes with the third closed window of a location that has several types.")
        return
    st.caption(
        "Pearson's r of the window means of two types at one place, over its recent windows."
        " With few windows (n) even a strong r may be chance."
    )
    figures = {
        f"correlation-{place}": comparisons.correlation(
            one, f"{place} · n = {one['window_count'].max():.0f}"
        )
        for place, one in table.groupby("location")
    }
    if len(figures) > 1:
        pairs = table.groupby(["sensor_type_a", "sensor_type_b"], as_index=False)
        figures["correlation"] = comparisons.correlation(
            pairs["correlation"].median(), f"Median of {len(figures)} locations"
        )
    layout.in_columns(figures, 3)


def _boxes(statistics: pd.DataFrame) -> None:
    st.markdown("##### Window means by location")
    st.caption("Box: the middle half; whiskers: 5th to 95th percentile.")
    figures = {
        f"boxes-{each}": comparisons.boxes(one, str(each))
        for each, one in statistics.groupby("sensor_type")
    }
    figures["beyond"] = comparisons.counts(
        statistics, "statistical_anomalies", "Readings beyond 3σ of the windows before"
    )
    layout.in_columns(figures, 3)


def _hours(source: Source, selection: Selection) -> None:
    hours = source.frame(queries.hour_profile, selection)
    if len(hours):
        layout.draw(comparisons.hours(hours), "hours")


def _statistics(statistics: pd.DataFrame) -> None:
    st.markdown("##### Statistics by location")
    table = statistics.drop(columns=["quantiles"])
    two_decimals = st.column_config.NumberColumn(format="%.2f")
    st.dataframe(
        table.assign(sensor_type=table["sensor_type"].map(theme.heading)).rename(
            columns={
                "location": "Location",
                "sensor_type": "Type",
                "readings": "Readings",
                "mean": "Mean",
                "stddev": "Std dev",
                "low": "Min",
                "high": "Max",
                "rule_anomalies": "Flagged by rule",
                "statistical_anomalies": "Beyond 3σ",
                "windows": "Windows",
            }
        ),
        hide_index=True,
        key="statistics",
        column_config={each: two_decimals for each in ("Mean", "Std dev", "Min", "Max")},
    )
    st.download_button(
        "Download these statistics as CSV",
        table.to_csv(index=False),
        "statistics.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
