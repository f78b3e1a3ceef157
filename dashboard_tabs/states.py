"""What the page says when all is not as usual: no database, no data, old data."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from dashboard_tabs import theme
from dashboard_tabs.queries import AsOf, QueryCache
from db import health as health_queries

# After a day a loss is told on Pipeline Health alone.
LOSS_IS_NEWS_FOR = timedelta(days=1)

FIRST_STEPS = """
Nothing has been stored yet. This page fills by itself once readings arrive; each line in a terminal
of its own:

```
python producer.py
python consumer.py
python stream_processor.py
python ml_detector.py
```
"""


def banner(cache: QueryCache, as_of: AsOf | None) -> None:
    """Say that the database is away, and since when; nothing while it answers."""
    if cache.problem is None or (cache.tables_are_missing and as_of is None):
        return  # where there were never any tables, the first steps are what helps
    since = cache.last_answer
    known = (
        f"What you see was last known at {since:%H:%M:%S} UTC."
        if as_of is not None and since is not None
        else "Nothing is known yet."
    )
    what = "The tables are gone" if cache.tables_are_missing else "The database does not answer"
    st.warning(
        f"**{what}.** {known} This page tries again by itself."
        f"\n\n`{cache.problem.replace('`', '')}`",
        icon=":material/cloud_off:",
    )


def empty(cache: QueryCache) -> None:
    """Say what is waited for and how to start it, or that all that came was rejected."""
    rejected = (cache.rows(health_queries.dead_letter_total) or [{"rejected": 0}])[0]["rejected"]
    newest = cache.rows(health_queries.dead_letters)
    if not rejected or not newest:
        st.info(FIRST_STEPS, icon=":material/hourglass_empty:")
        return
    st.warning(
        f"**{theme.short(rejected)} messages came, and none of them is a reading.** The newest:"
        f" `{theme.plain(newest[0]['reason']).replace('`', '')}`. All of them, with what was sent,"
        " are on the tab Pipeline Health; what a message looks like is in docs/data_contract.md.",
        icon=":material/report:",
    )


def notice(cache: QueryCache, as_of: AsOf) -> None:
    """Say that the data are a recording, have stopped coming, or are not whole."""
    for lost in cache.rows(health_queries.lost_messages):
        if as_of.now - lost["noticed_at"] < LOSS_IS_NEWS_FOR:
            st.error(
                f"{lost['consumer_group']} lost {theme.short(lost['messages'])} messages, which are"
                f" in no table ({lost['reason']}). More on the tab Pipeline Health.",
                icon=":material/delete_history:",
            )
    if as_of.newest is None or as_of.stored is None:
        return
    if as_of.is_recorded:
        st.info(
            f"Recorded data: the newest reading was measured at {as_of.newest:%Y-%m-%d %H:%M:%S}"
            f" and stored at {as_of.stored:%Y-%m-%d %H:%M:%S} (UTC)."
            " Time ranges end with the data.",
            icon=":material/history:",
        )
    elif as_of.is_stale:
        silent_s = (as_of.now - as_of.stored).total_seconds()
        st.warning(
            f"No new reading since {theme.clock(as_of.stored, as_of.now)} UTC"
            f" ({theme.age(silent_s)}). Time ranges end with the data. Is the producer running?",
            icon=":material/schedule:",
        )


def missing(cache: QueryCache, text: str) -> None:
    """Say why there is nothing to draw: ``text``, or that there is no database to ask."""
    if cache.problem is not None:
        text = "This view was not asked for before the database went away; it comes back with it."
    st.info(text)
