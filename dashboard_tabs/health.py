"""Pipeline Health: the services, what they refused, how much they left to do, what it weighs."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard_tabs import theme
from dashboard_tabs.data import Moment, Source
from dashboard_tabs.filters import View
from dashboard_tabs.status_strip import by_service, verdict
from db import health as health_queries


def render(source: Source, view: View, moment: Moment) -> None:
    """Draw the tab."""
    _services(source)
    left, right = st.columns([3, 2])
    with left:
        _offsets(source)
    with right:
        _tables(source)
    _dead_letters(source)


_LATENCY = "Consumer: from sent to stored. Detector: from stored to judged, newest 500 readings."


def _services(source: Source) -> None:
    st.markdown("##### Services")
    judged = (source.rows(health_queries.verdict_latency) or [{}])[0]
    rows = []
    for service, processes in by_service(source).items():
        for row in processes or [{"state": None, "age_s": None, "details": {}, "instance": "–"}]:
            details = row["details"]
            own = judged if service == "ml_detector" else {}
            _, word = verdict(row["state"], row["age_s"] or 0.0)
            rows.append(
                {
                    "Service": service,
                    "State": word,
                    "Instance": row["instance"],
                    "Heartbeat": "–" if row["age_s"] is None else f"{theme.age(row['age_s'])} ago",
                    "Readings": details.get("readings"),
                    "Readings/s": details.get("readings_per_s"),
                    "Lag": details.get("lag"),
                    "p50 (ms)": details.get("latency_ms_p50", own.get("p50")),
                    "p99 (ms)": details.get("latency_ms_p99", own.get("p99")),
                    "Last error": details.get("last_error") or "–",
                }
            )
    whole = st.column_config.NumberColumn(format="localized")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        key="services",
        placeholder="–",
        alt="Each process of each service",
        column_config={
            "Readings": whole,
            "Lag": whole,
            "Readings/s": st.column_config.NumberColumn(format="%.1f"),
            "p50 (ms)": st.column_config.NumberColumn(
                "Latency p50 (ms)", format="%.0f", help=_LATENCY
            ),
            "p99 (ms)": st.column_config.NumberColumn(
                "Latency p99 (ms)", format="%.0f", help=_LATENCY
            ),
            "Last error": st.column_config.TextColumn(width="medium"),
        },
    )


def _offsets(source: Source) -> None:
    st.markdown("##### Offsets")
    offsets = source.frame(health_queries.offsets)
    if offsets.empty:
        st.caption("No service has read from the topic yet.")
        return
    st.dataframe(
        offsets,
        hide_index=True,
        height=330,
        key="offsets",
        alt="How far each service has read each partition",
        placeholder="–",
        column_config={
            "consumer_group": "Service",
            "topic": None if offsets["topic"].nunique() == 1 else "Topic",
            "partition": "Partition",
            "next_offset": "Next offset",
            "end_offset": "End offset",
            "lag": "Lag",
            "watermark": st.column_config.DatetimeColumn("Watermark", format="HH:mm:ss"),
            "updated_at": st.column_config.DatetimeColumn("Moved", format="HH:mm:ss"),
        },
    )


def _tables(source: Source) -> None:
    st.markdown("##### Tables")
    tables = source.frame(health_queries.table_sizes)
    whole = source.rows(health_queries.database_size)
    if tables.empty or not whole:
        st.caption("No table yet.")
        return
    readings = tables[tables["table_name"] == "sensor_readings"]
    per_second = sum(
        float(row["details"].get("readings_per_s") or 0)
        for row in by_service(source)["consumer"]
        if verdict(row["state"], row["age_s"])[0] == "good"
    )
    growth = ""
    if len(readings) and float(readings["rows"].iloc[0]) > 1000:
        # What a reading costs in all tables, at the rate of now.
        per_reading = whole[0]["bytes"] / float(readings["rows"].iloc[0])
        growth = f", growing by some {theme.size(per_reading * per_second * 86_400)} a day"
    st.caption(f"{theme.size(whole[0]['bytes'])} in all{growth}. Rows are estimates.")
    st.dataframe(
        tables.assign(bytes=tables["bytes"].map(theme.size)),
        hide_index=True,
        height=294,
        key="tables",
        alt="Estimated rows and size of each table",
        column_config={
            "table_name": "Table",
            "rows": st.column_config.NumberColumn("Rows", format="localized"),
            "bytes": "Size",
        },
    )


def _dead_letters(source: Source) -> None:
    st.markdown("##### Dead letters")
    total = source.rows(health_queries.dead_letter_total)
    letters = source.frame(health_queries.dead_letters)
    if letters.empty or not total:
        st.caption("None: every message on the topic was a valid reading.")
        return
    st.caption(
        f"{theme.short(total[0]['rejected'])} messages rejected,"
        f" {theme.short(total[0]['counted_only'])} of them beyond the cap and only counted."
        " The newest hundred:"
    )
    st.dataframe(
        letters.assign(payload=[readable(each) for each in letters["payload"]]),
        hide_index=True,
        height=300,
        key="dead-letters",
        alt="The newest rejected messages",
        column_config={
            "created_at": st.column_config.DatetimeColumn("Rejected", format="MM-DD HH:mm:ss"),
            "partition": "Partition",
            "log_offset": "Offset",
            "reason_code": None,
            "reason": st.column_config.TextColumn("Reason", width="medium"),
            "payload_bytes": "Bytes",
            "payload": st.column_config.TextColumn("Payload (its beginning)", width="large"),
        },
    )


def readable(payload: bytes | memoryview | None) -> str:
    """Return bytes as text; what is not printable is escaped."""
    if payload is None:
        return "(none: a tombstone)"
    if not len(payload):
        return "(empty)"
    text = bytes(payload).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
