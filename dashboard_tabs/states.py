"""What the page says when all is not as usual: no database, no data, old data."""

from __future__ import annotations

import streamlit as st

from dashboard_tabs import theme
from dashboard_tabs.data import Moment, Source

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


def banner(source: Source, moment: Moment | None) -> None:
    """Say that the database is away, and since when; nothing while it answers."""
    if source.problem is None:
        return
    since = source.last_answer
    known = (
        f"What you see was last known at {since:%H:%M:%S} UTC."
        if moment is not None and since is not None
        else "Nothing is known yet."
    )
    st.warning(
        f"**The database does not answer.** {known} This page tries again by itself."
        f"\n\n`{source.problem.replace('`', '')}`",
        icon=":material/cloud_off:",
    )


def empty() -> None:
    """Say what is waited for and how to start it."""
    st.info(FIRST_STEPS, icon=":material/hourglass_empty:")


def notice(moment: Moment) -> None:
    """Say that the data are a recording or have stopped coming; nothing while they are live."""
    if moment.newest is None or moment.stored is None:
        return
    if moment.is_recorded:
        st.info(
            f"Recorded data: the newest reading was measured at {moment.newest:%Y-%m-%d %H:%M:%S}"
            f" and stored at {moment.stored:%Y-%m-%d %H:%M:%S} (UTC)."
            " Time ranges end with the data.",
            icon=":material/history:",
        )
    elif moment.is_stale:
        silent_s = (moment.now - moment.stored).total_seconds()
        st.warning(
            f"No new reading since {theme.clock(moment.stored, moment.now)} UTC"
            f" ({theme.age(silent_s)}). Time ranges end with the data. Is the producer running?",
            icon=":material/schedule:",
        )


def missing(source: Source, text: str) -> None:
    """Say why there is nothing to draw: ``text``, or that there is no database to ask."""
    if source.problem is not None:
        text = "This view was not asked for before the database went away; it comes back with it."
    st.info(text)
