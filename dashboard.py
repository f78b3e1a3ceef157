"""Show the pipeline live: ``streamlit run dashboard.py``, then http://localhost:8501.

Reads    the tables, as a role that may only SELECT
Writes   nothing
Promises one refresh costs the database the same for one browser and for ten; while the database is
         away what was last known stays on the page
"""

from __future__ import annotations

import sys

import streamlit as st

from config import SettingError, load_settings
from dashboard_tabs import (
    aggregates,
    analytics,
    anomalies,
    filters,
    health,
    monitoring,
    states,
    status_strip,
)
from dashboard_tabs.queries import AsOf, QueryCache
from db.connection import Database

HEALTH = "Pipeline Health"
TABS = {
    "Real-Time Monitoring": monitoring.render,
    "Windowed Aggregates": aggregates.render,
    "ML Anomaly Detection": anomalies.render,
    "Analytics": analytics.render,
    HEALTH: health.render,
}


@st.cache_resource
def open_cache(refresh_seconds: int, *urls: str) -> QueryCache:
    """Return the one cache that all sessions of this server share."""
    return QueryCache([Database(url, "dashboard", read_only=True) for url in urls], refresh_seconds)


def as_of_now(cache: QueryCache, view: filters.View) -> AsOf | None:
    """Return the moment to show; while the page is paused that at which it was."""
    held: AsOf | None = st.session_state.get("as_of")
    if view.refresh_seconds is None and held is not None:
        return held
    as_of = cache.as_of(view.refresh_seconds, held)
    st.session_state["as_of"] = as_of
    return as_of


def head(cache: QueryCache, view: filters.View) -> None:
    """Draw what stands above all tabs; called again at every refresh."""
    as_of = as_of_now(cache, view)
    states.banner(cache, as_of)
    if as_of is None:
        return
    status_strip.render(cache, as_of, view.refresh_seconds)
    states.notice(cache, as_of)
    if filters.choices(cache) != st.session_state.get("choices"):
        st.rerun()  # the filters at the left lack a location or a type that has come


def body(cache: QueryCache, view: filters.View, tab: str) -> None:
    """Draw the open tab; called again at every refresh."""
    as_of = as_of_now(cache, view)
    if as_of is not None and (as_of.newest is not None or tab == HEALTH):
        TABS[tab](cache, view, as_of)
    else:
        states.empty(cache)


def main() -> None:
    """Draw the page: filters, tabs, and in the open tab what is live."""
    st.set_page_config(
        page_title="Sensor pipeline", page_icon="dashboard_tabs/icon.svg", layout="wide"
    )
    try:
        settings = load_settings()
    except SettingError as problem:
        st.error(str(problem))
        st.stop()
    refresh_seconds = settings.dashboard.refresh_seconds
    urls = (settings.dashboard_url, settings.service.database_url)
    cache = open_cache(refresh_seconds, *urls)
    view = filters.sidebar(cache, refresh_seconds)
    st.fragment(head, run_every=view.refresh_seconds)(cache, view)
    for name, tab in zip(TABS, st.tabs(list(TABS), key="tab", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                st.fragment(body, run_every=view.refresh_seconds)(cache, view, name)


if st.runtime.exists():
    main()
elif __name__ == "__main__":
    sys.stderr.write("start it with: streamlit run dashboard.py\n")
    raise SystemExit(0 if "--help" in sys.argv else 2)
