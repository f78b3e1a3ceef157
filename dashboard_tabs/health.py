"""Pipeline Health: the services, what they refused, how much they left to do, what it weighs."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard_tabs import layout, theme
from dashboard_tabs.filters import View
from dashboard_tabs.queries import AsOf, QueryCache
from dashboard_tabs.status_strip import by_service, verdict
from db import dashboard as queries
from db import health as health_queries


def render(cache: QueryCache, view: View, as_of: AsOf) -> None:
    """Draw the tab."""
    _services(cache)
    left, right = st.columns([3, 2])
    with left:
        _offsets(cache)
    with right:
        _tables(cache)
    _dead_letters(cache)


_LATENCY = "Consumer: from sent to stored. Detector: from stored to judged, newest 500 readings."


def _services(cache: QueryCache) -> None:
    st.markdown("##### Services")
    judged = (cache.rows(health_queries.verdict_latency) or [{}])[0]
    rows = []
    for service, processes in by_service(cache).items():
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
    layout.table(
        pd.DataFrame(rows),
        "services",
        "Each process of each service",
        {
            "Readings": layout.number("Readings"),
            "Readings/s": layout.number("Readings/s", 1),
            "Lag": layout.number("Lag"),
            "p50 (ms)": layout.number("Latency p50", 0, " ms", _LATENCY),
            "p99 (ms)": layout.number("Latency p99", 0, " ms", _LATENCY),
            "Last error": st.column_config.TextColumn(width="medium"),
        },
    )


def _offsets(cache: QueryCache) -> None:
    st.markdown("##### Offsets")
    offsets = cache.frame(health_queries.offsets)
    if offsets.empty:
        st.caption("No service has read from the topic yet.")
        return
    for lost in cache.rows(health_queries.lost_messages):
        st.warning(
            f"{lost['consumer_group']} lost {theme.short(lost['messages'])} messages, last noticed"
            f" {lost['noticed_at']:%Y-%m-%d %H:%M} UTC: {lost['reason']}"
            f" (offsets {', '.join(lost['offsets'])})."
        )
    for late in cache.rows(health_queries.late_to_fold):
        if late["readings"]:
            st.info(
                f"{theme.short(late['readings'])} late readings are in no window:"
                " `python -m service.backfill` counts them."
            )
    st.caption(
        "Next: the first one not yet read. Watermark: event time believed complete. In Kafka a"
        f" service's group is its name and `-{offsets['identity'].iloc[0]}`."
    )
    layout.table(
        offsets,
        "offsets",
        "How far each service has read each partition",
        {
            "consumer_group": "Service",
            "identity": None,
            "topic": None if offsets["topic"].nunique() == 1 else "Topic",
            "partition": "Partition",
            "next_offset": layout.number("Next"),
            "end_offset": layout.number("End"),
            "lag": layout.number("Lag"),
            "watermark": st.column_config.DatetimeColumn("Watermark", format="MM-DD HH:mm:ss"),
            "updated_at": st.column_config.DatetimeColumn("Moved", format="MM-DD HH:mm:ss"),
        },
        most=12,
    )


def _tables(cache: QueryCache) -> None:
    st.markdown("##### Tables")
    tables = cache.frame(health_queries.table_sizes)
    whole = cache.rows(health_queries.database_size)
    if tables.empty or not whole:
        st.caption("No table yet.")
        return
    # What grows with every reading; the rest stays as it is or is small.
    grows = tables["table_name"].str.match("sensor_readings|ml_anomaly_predictions")
    readings = tables[tables["table_name"].str.startswith("sensor_readings")]["rows"].sum()
    per_second = sum(
        float(row["details"].get("readings_per_s") or 0)
        for row in by_service(cache)["consumer"]
        if verdict(row["state"], row["age_s"])[0] == "good"
    )
    growth = ""
    if readings > 1000:
        per_reading = float(tables[grows]["bytes"].sum()) / float(readings)
        growth = f", growing by some {theme.size(per_reading * per_second * 86_400)} a day"
    st.caption(f"{theme.size(whole[0]['bytes'])} in all{growth}. Rows are estimates.")
    layout.table(
        tables.assign(bytes=tables["bytes"] / 2**20),
        "tables",
        "Estimated rows and size of each table",
        {
            "table_name": "Table",
            "rows": layout.number("Rows"),
            "bytes": layout.number("Size", 1, " MiB"),
        },
        most=12,
    )


def _dead_letters(cache: QueryCache) -> None:
    st.markdown("##### Dead letters")
    total = cache.rows(health_queries.dead_letter_total)
    letters = cache.frame(health_queries.dead_letters)
    if letters.empty or not total:
        st.caption("None: every message on the topic was a valid reading.")
        return
    st.caption(
        f"{theme.short(total[0]['rejected'])} messages rejected,"
        f" {theme.short(total[0]['counted_only'])} of them beyond the cap and only counted."
        " The newest hundred:"
    )
    letters = letters.assign(payload=[readable(each) for each in letters["payload"]])
    layout.table(
        letters,
        "dead-letters",
        "The newest rejected messages",
        {
            "created_at": layout.time("Rejected"),
            "partition": "Partition",
            "log_offset": layout.number("Offset"),
            "reason_code": None,
            "reason": st.column_config.TextColumn("Reason", width="medium"),
            "payload_bytes": layout.number("Bytes"),
            "payload": st.column_config.TextColumn("Payload (its beginning)", width="large"),
        },
    )
    layout.download(cache, "dead letters", health_queries.dead_letters, queries.MAX_DOWNLOAD)


def readable(payload: bytes | memoryview | None) -> str:
    """Return bytes as text; what is not printable is escaped."""
    if payload is None:
        return "(none: a tombstone)"
    if not len(payload):
        return "(empty)"
    return theme.plain(bytes(payload).decode("utf-8", "backslashreplace"))
