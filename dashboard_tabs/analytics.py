"""Analytics: how types, places and hours of the day compare."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard_tabs import cells, charts, layout, plot, states
from dashboard_tabs.filters import View
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db.selecting import Selection

# Pictures of one kind that a page draws; a location of one's own is chosen at the left.
MOST_PLACES = 11


def render(cache: QueryCache, view: View, as_of: AsOf) -> None:
    """Draw the tab."""
    selection = view.selection(as_of)
    statistics = cache.frame(queries.location_statistics, selection)
    if statistics.empty:
        states.missing(cache, "No window in this range yet.")
        return
    correlations = cache.frame(queries.correlations, view.location)
    _correlations(correlations)
    _boxes(statistics, view)
    hours = cache.frame(queries.hour_profile, selection)
    if len(hours):
        headings = {each: view.heading(each) for each in hours["sensor_type"]}
        plot.draw(cells.hours(hours, headings), "hours")
    _statistics(cache, statistics, view, selection)


def _correlations(table: pd.DataFrame) -> None:
    st.markdown("##### Correlation between sensor types")
    known = table[table["correlation"].notna()] if len(table) else table
    if known.empty or known["window_count"].max() < cells.MIN_WINDOWS:
        so_far = 0 if known.empty else known["window_count"].max()
        st.caption(
            f"Comes when two types of a location have {cells.MIN_WINDOWS} closed windows in common;"
            f" so far {so_far:.0f}. Fewer would say nothing."
        )
        return
    st.caption(
        "Pearson's r of the window means of two types at one place, over its n recent windows;"
        f" from {cells.MIN_WINDOWS} windows on. Without colour: no more than chance gives to one of"
        " so many pairs (95 %)."
    )
    known = known[known["window_count"] >= cells.MIN_WINDOWS]
    places = sorted(known["location"].unique())
    figures = {
        f"correlation-{place}": cells.correlation(
            one, f"{place} · n = {one['window_count'].max():.0f}"
        )
        for place, one in table.groupby("location")
        if place in places[:MOST_PLACES]
    }
    if len(places) > MOST_PLACES:
        st.caption(
            f"The first {MOST_PLACES} of {len(places)} locations; choose another one at the left."
        )
    if len(figures) > 1:
        pairs = table.groupby(["sensor_type_a", "sensor_type_b"], as_index=False)
        figures["correlation"] = cells.correlation(
            pairs[["correlation", "window_count"]].median(), f"Median of {len(places)} locations"
        )
    plot.in_columns(figures, 3)


def _boxes(statistics: pd.DataFrame, view: View) -> None:
    st.markdown("##### Window means by location")
    st.caption("Box: the middle half; whiskers: 5th to 95th percentile.")
    figures = {
        f"boxes-{each}": charts.boxes(one, str(each), view.heading(str(each)))
        for each, one in statistics.dropna(subset=["quantiles"]).groupby("sensor_type")
    }
    figures["beyond"] = cells.counts(
        statistics, "statistical_anomalies", "Readings beyond 3σ of the windows before"
    )
    plot.in_columns(figures, 3)


def _statistics(
    cache: QueryCache, statistics: pd.DataFrame, view: View, selection: Selection
) -> None:
    st.markdown("##### Statistics by location")
    table = statistics.drop(columns=["quantiles"])
    layout.table(
        table.assign(sensor_type=table["sensor_type"].map(view.heading)),
        "statistics",
        "Statistics of each location and type",
        layout.STATISTICS | {"windows": layout.number("Windows")},
        most=12,
    )
    with st.container(horizontal=True):
        layout.download(cache, "statistics", queries.location_statistics, selection)
        layout.download(cache, "correlations", queries.correlations, view.location)
        layout.download(cache, "hours", queries.hour_profile, selection)
