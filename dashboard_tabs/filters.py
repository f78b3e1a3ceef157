"""The sidebar: what to look at. Kept in the address, so that a view can be shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import streamlit as st

from dashboard_tabs import theme
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db.selecting import Selection

ALL = "All"
RANGES_MINUTES = {
    "5m": 5,
    "15m": 15,
    "1h": 60,
    "6h": 360,
    "24h": 1440,
    "7d": 10_080,
}
REFRESH_SECONDS = (5, 10, 30, 60)


@dataclass(frozen=True)
class View:
    """What a person chose."""

    location: str | None
    sensor_type: str | None
    minutes: int
    refresh_seconds: int | None
    units: Mapping[str, str] = field(default_factory=dict)
    locations: Sequence[str] = ()

    def heading(self, sensor_type: str) -> str:
        """Return a sensor type with the unit of its readings."""
        return theme.heading(sensor_type, self.units.get(sensor_type))

    def selection(self, as_of: AsOf) -> Selection:
        """Return the range and the filters as of a moment."""
        return as_of.selection(self.minutes, self.location, self.sensor_type)


def choices(cache: QueryCache) -> tuple[list[str], list[str]]:
    """Return the locations and sensor types there are."""
    rows = cache.rows(queries.choices)
    return (
        sorted({row["location"] for row in rows}),
        sorted({row["sensor_type"] for row in rows}),
    )


def units(cache: QueryCache) -> dict[str, str]:
    """Return the unit of each sensor type whose sensors all measure in the same."""
    found: dict[str, set[str]] = {}
    for row in cache.rows(queries.units):
        found.setdefault(row["sensor_type"], set()).add(row["unit"])
    return {each: next(iter(some)) for each, some in found.items() if len(some) == 1}


def sidebar(cache: QueryCache, default_refresh_seconds: int) -> View:
    """Draw the filters and return what they are set to."""
    locations, sensor_types = choices(cache)
    st.session_state["choices"] = (locations, sensor_types)
    known_units = units(cache)
    refreshes = {f"{each}s": each for each in sorted({*REFRESH_SECONDS, default_refresh_seconds})}
    with st.sidebar:
        st.markdown("### :material/sensors: Sensor pipeline")
        location = st.selectbox("Location", [ALL, *locations], key="location", bind="query-params")
        sensor_type = st.selectbox(
            "Sensor type",
            [ALL, *sensor_types],
            format_func=lambda each: (
                each if each == ALL else theme.heading(each, known_units.get(each))
            ),
            key="type",
            bind="query-params",
        )
        chosen = st.segmented_control(
            "Time range",
            list(RANGES_MINUTES),
            default="15m",
            required=True,
            key="range",
            bind="query-params",
        )
        refresh = st.segmented_control(
            "Refresh every",
            list(refreshes),
            default=f"{default_refresh_seconds}s",
            required=True,
            key="refresh",
            bind="query-params",
        )
        paused = st.toggle("Pause", key="paused", bind="query-params")
        st.caption(
            f"All times are UTC{_own_clock()}. The address of this page holds these filters."
        )
    return View(
        None if location in (ALL, None) else location,
        None if sensor_type in (ALL, None) else sensor_type,
        RANGES_MINUTES[chosen or "15m"],
        None if paused else refreshes.get(refresh or "", default_refresh_seconds),
        known_units,
        locations,
    )


def _own_clock() -> str:
    """Return how the clock of the person who looks differs from UTC, as far as that is known."""
    zone, offset = st.context.timezone, st.context.timezone_offset
    if not zone or not offset:
        return ""
    hours, minutes = divmod(abs(offset), 60)
    return f"; your clock ({zone}) shows UTC{'-' if offset > 0 else '+'}{hours}:{minutes:02d}"
