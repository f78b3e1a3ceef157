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
from dashboard_tabs.data import Source
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
def open_source(*urls: str) -> Source:
    """Return the one source that all sessions of this server share."""
    return Source([Database(url, "dashboard", read_only=True) for url in urls])


def head(source: Source) -> None:
    """Draw what stands above all tabs; called again at every refresh."""
    moment = source.moment()
    states.banner(source, moment)
    if moment is None:
        return
    status_strip.render(source, moment)
    states.notice(moment)
    if filters.choices(source) != st.session_state.get("choices"):
        st.rerun()  # the filters at the left lack a location or a type that has come


def body(source: Source, view: filters.View, tab: str) -> None:
    """Draw the open tab; called again at every refresh."""
    moment = source.moment()
    if moment is not None and (moment.newest is not None or tab == HEALTH):
        TABS[tab](source, view, moment)
    else:
        states.empty()


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
    source = open_source(settings.dashboard_url, settings.database_url)
    view = filters.sidebar(source, settings.dashboard_refresh_seconds)
    st.fragment(head, run_every=view.refresh_seconds)(source)
    for name, tab in zip(TABS, st.tabs(list(TABS), key="tab", bind="query-params"), strict=True):
        if tab.open:
            with tab:
                st.fragment(body, run_every=view.refresh_seconds)(source, view, name)


if st.runtime.exists():
    main()
elif __name__ == "__main__":
    sys.stderr.write("start it with: streamlit run dashboard.py\n")
    raise SystemExit(0 if "--help" in sys.argv else 2)
