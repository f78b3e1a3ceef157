"""The strip on top of every tab: how the pipeline is, and how fresh what you see."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard_tabs import theme
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db import health as health_queries

SERVICES = ("producer", "consumer", "stream_processor", "ml_detector")
# A heartbeat comes every 5 s.
LATE_AFTER_SECONDS = 15
DOWN_AFTER_SECONDS = 60


def verdict(state: str | None, age_s: float) -> tuple[str, str]:
    """Return colour and word for a service's last heartbeat (state None: there never was one)."""
    if state is None:
        return "quiet", "never seen"
    if state == "stopped":
        return "quiet", "stopped"
    if age_s > DOWN_AFTER_SECONDS:
        return "bad", "down"
    if age_s > LATE_AFTER_SECONDS:
        return "warning", "late"
    return ("good", state) if state == "running" else ("warning", state)


def by_service(cache: QueryCache) -> dict[str, list[dict[str, Any]]]:
    """Return the heartbeats of each service; of one that runs, only those of running processes."""
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in SERVICES}
    for row in cache.rows(health_queries.services):
        found.setdefault(row["service"], []).append(row)
    for service, rows in found.items():
        alive = [r for r in rows if verdict(r["state"], r["age_s"])[0] in ("good", "warning")]
        found[service] = alive or rows[:1]
    return found


def render(cache: QueryCache, as_of: AsOf, refresh_seconds: float | None) -> None:
    """Draw the strip; ``refresh_seconds`` is None while the page is paused."""
    found = by_service(cache)
    cells = [_service_cell(service, rows) for service, rows in found.items()]
    consumers, detectors = found["consumer"], found["ml_detector"]
    latency = _most(consumers, "latency_ms_p99")
    lag = _total([row for rows in found.values() for row in rows], "lag")
    recent = cache.rows(queries.ml_totals, as_of.selection(15))
    flagged = sum(row["anomalies"] for row in recent if row["is_current"])
    data_age = (as_of.now - as_of.newest).total_seconds() if as_of.newest else None
    cells += [
        _fact(theme.short(_total(consumers, "readings_per_s")), "readings/s"),
        _fact(theme.short(lag), "readings behind"),
        _fact("–" if latency is None else f"{theme.short(latency, 0)} ms", "sent → stored, p99"),
        _fact(theme.short(flagged) if detectors else "–", "anomalies in 15 min"),
        _age_cell(data_age, as_of, refresh_seconds),
    ]
    # Once two refreshes have failed to come, the page itself says so: whatever does not answer,
    # the browser's own clock goes on.
    live = f'live" style="--doubt: {2 * refresh_seconds:g}s' if refresh_seconds else "paused"
    st.html(f'{theme.STYLE}<div class="strip {live}" role="status">{"".join(cells)}</div>')


def _age_cell(data_age: float | None, as_of: AsOf, refresh_seconds: float | None) -> str:
    value = "–" if data_age is None else theme.text(theme.age(data_age))
    if data_age is not None and data_age < 120 and refresh_seconds:
        value = f'<span class="ticking" style="--from: {data_age:.0f}"></span>'
    # In one place whether it is paused or not: pausing moves nothing.
    about = f"old, {'as of' if refresh_seconds else 'paused'} {as_of.now:%H:%M:%S}"
    return f'<div class="age"><b>{value}</b><small>{about}</small></div>'


def _service_cell(service: str, rows: list[dict[str, Any]]) -> str:
    newest: dict[str, Any] = rows[0] if rows else {"state": None, "age_s": 0.0}
    colour, word = verdict(newest["state"], newest["age_s"])
    if colour == "good" and len(rows) > 1:
        word = f"{len(rows)} running"
    elif word in ("down", "late", "stopped"):
        word = f"{word}, {theme.age(newest['age_s'])} ago"
    return (
        f'<div><i class="dot {colour}"></i>{theme.text(service)}<small>{theme.text(word)}</small>'
        "</div>"
    )


def _fact(value: str, meaning: str) -> str:
    return f"<div><b>{theme.text(value)}</b><small>{theme.text(meaning)}</small></div>"


def _values(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [
        float(row["details"][key])
        for row in rows
        if isinstance(row["details"].get(key), int | float)
        and verdict(row["state"], row["age_s"])[0] == "good"
    ]


def _total(rows: list[dict[str, Any]], key: str) -> float | None:
    values = _values(rows, key)
    return sum(values) if values else None


def _most(rows: list[dict[str, Any]], key: str) -> float | None:
    return max(_values(rows, key), default=None)
