"""Real-Time Monitoring: what the sensors say now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dashboard_tabs import cells, charts, plot, theme
from dashboard_tabs.filters import View
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db import health as health_queries
from db.selecting import MAX_RAW_READINGS, Selection

# A verdict colours its cell for so many refreshes: each is seen, and soon makes room.
ANOMALOUS_FOR_REFRESHES = 1.5
# While the page is paused there is none: as at the usual interval.
PAUSED_SECONDS = 10
# Cells of the grid: each is half a kilobyte with its picture, at every refresh.
MAX_CELLS = 400


def render(cache: QueryCache, view: View, as_of: AsOf) -> None:
    """Draw the tab."""
    selection = view.selection(as_of)
    sensors = cache.rows(queries.latest_readings, selection, as_of.reference)
    anomalies = cache.frame(queries.anomaly_marks, selection)
    totals = {r["is_current"]: r for r in cache.rows(queries.totals, selection)}
    _figures(cache, selection, totals, sensors, as_of)
    st.markdown("##### Latest reading of every sensor")
    flagged = (
        {}
        if anomalies.empty
        else anomalies.groupby(["location", "sensor_type"])["timestamp"].max().to_dict()
    )
    shown, places = whole_places(sensors, MAX_CELLS)
    left_out = len({s["location"] for s in sensors}) - places
    st.caption(
        "Each small line has a scale of its own."
        + (
            f" The first {places} of {places + left_out} locations; choose another one at the left."
            if left_out
            else ""
        )
    )
    red_since = selection.end - timedelta(
        seconds=ANOMALOUS_FOR_REFRESHES * (view.refresh_seconds or PAUSED_SECONDS)
    )
    st.html(grid(shown, flagged, red_since))
    _charts(cache, view, selection, totals, anomalies)


def _figures(
    cache: QueryCache,
    selection: Selection,
    totals: dict[bool, Any],
    sensors: list[Any],
    as_of: AsOf,
) -> None:
    flagged = {r["is_current"]: r["anomalies"] for r in cache.rows(queries.ml_totals, selection)}
    now, before = totals.get(True), totals.get(False)
    if (
        before
        and (before["first_window"] - selection.start).total_seconds() > 60 - selection.seconds
    ):
        before = None  # the data begin within that range: nothing whole to compare with
    readings = now["readings"] if now else 0.0
    anomalies = flagged.get(True, 0.0)
    per_second = rate(now, readings, selection.end)
    anomalies_before = flagged.get(False, 0.0)
    share = anomalies / readings if readings else None
    points = None
    if share is not None and before:
        points = f"{100 * (share - anomalies_before / before['readings']):+.1f} points"
    active, known = (sum(s[each] for s in sensors) for each in ("active", "sensors"))
    silent = known - active
    with st.container(horizontal=True):
        _metric(
            "Readings",
            theme.short(readings),
            change(readings, before and before["readings"]),
            "off",
        )
        if as_of.is_stale and not as_of.is_recorded:
            _metric("Readings/s", "0", "nothing comes", "inverse")
        else:
            _metric(
                "Readings/s",
                theme.short(per_second),
                change(per_second, before and rate(before, before["readings"], selection.start)),
                "off",
            )
        _metric(
            "Anomalies",
            theme.short(anomalies),
            change(
                rate(now, anomalies, selection.end), rate(before, anomalies_before, selection.start)
            ),
            "inverse",
        )
        _metric("Anomaly rate", "–" if share is None else f"{share:.1%}", points, "inverse")
        _metric(
            "Active sensors",
            f"{active:,} of {known:,}",
            f"{silent} silent" if silent else None,
            "off",
        )
        _rejected(cache, selection, as_of)


def _rejected(cache: QueryCache, selection: Selection, as_of: AsOf) -> None:
    since = as_of.now - timedelta(seconds=selection.seconds)
    reasons = cache.rows(health_queries.rejected_since, since)
    commonest = reasons[0]["reason_code"].replace("_", " ") if reasons else None
    _metric(
        "Rejected",
        theme.short(sum(row["messages"] for row in reasons)),
        commonest,
        "inverse",
        "Messages that are no readings, in whole hours. Below: the commonest reason.",
    )


def _metric(
    label: str,
    value: str,
    delta: str | None = None,
    colour: Any = "normal",
    about: str = "Below: the change against the range of the same length before.",
) -> None:
    st.metric(
        label,
        value,
        delta,
        delta_color=colour,
        border=True,
        height="stretch",
        delta_arrow="auto" if delta and delta[0] in "+-" and colour != "off" else "off",
        help=about if delta else None,
    )


def rate(totals: dict[str, Any] | None, count: float, end: Any) -> float | None:
    """Return ``count`` a second, from the first window of a range to its end."""
    if not totals:
        return None
    return count / max(1.0, (end - totals["first_window"]).total_seconds())


def change(now: float | None, before: float | None) -> str | None:
    """Return the relative change as text, None where there is nothing to compare with."""
    if now is None or not before:
        return None
    return f"{(now - before) / before:+.0%}"


def whole_places(sensors: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], int]:
    """Return the cells of the first locations, so many that they are no more than ``most``.

    And the number of those locations, which is at least one.
    """
    places = sorted({s["location"] for s in sensors})
    per_place = max(1, len({s["sensor_type"] for s in sensors}))
    shown = places[: max(1, most // per_place)]
    return [s for s in sensors if s["location"] in set(shown)], len(shown)


def grid(sensors: list[dict[str, Any]], flagged: dict[tuple[str, str], Any], red_since: Any) -> str:
    """Return a table location × type with value, unit, sparkline and state of the newest sensor.

    Parameters
    ----------
    sensors : list of dict
        Rows of ``db.dashboard.latest_readings``.
    flagged : dict
        (location, sensor_type) -> time of the last anomaly there.
    red_since : datetime
        A later anomaly colours its cell.
    """
    if not sensors:
        return "<p>No sensor in this selection.</p>"
    types = sorted({s["sensor_type"] for s in sensors})
    cells = {(s["location"], s["sensor_type"]): s for s in sensors}
    head = "".join(
        f'<th scope="col"><i class="dot" style="background:{theme.colour(each)}"></i>'
        f"{theme.text(theme.name(each))}</th>"
        for each in types
    )
    body = "".join(
        f'<tr><th class="place" scope="row">{theme.text(place)}</th>'
        + "".join(
            _cell(cells.get((place, each)), flagged.get((place, each)), red_since) for each in types
        )
        + "</tr>"
        for place in sorted({s["location"] for s in sensors})
    )
    head = f'<tr class="head"><td class="corner"></td>{head}</tr>'
    # With more types than the page is wide the table scrolls.
    label = (
        f'aria-label="Latest reading of every sensor" style="min-width: {9 + 7.4 * len(types)}rem"'
    )
    return f'<div class="scroll"><table class="grid" {label}>{head}{body}</table></div>'


def _cell(newest: dict[str, Any] | None, last_anomaly: Any, red_since: Any) -> str:
    if newest is None:
        return '<td class="absent"></td>'
    state, colour = "", theme.colour(newest["sensor_type"])
    if not newest["is_active"]:
        state, colour = "silent", theme.QUIET
    elif newest["anomaly"] or (last_anomaly and last_anomaly > red_since):
        state, colour = "anomalous", theme.ANOMALY
    others = f" · {newest['sensors']:,} sensors" if newest["sensors"] > 1 else ""
    about = f"{newest['sensor_id']}, {newest['timestamp']:%Y-%m-%d %H:%M:%S}{others}"
    said = f'<span class="unseen">{state}</span>' if state else ""
    return (
        f'<td class="{state}" title="{theme.text(about)}">'
        f"<small>{theme.text(theme.name(newest['sensor_type']))}</small>"
        f"<b>{reading(newest['recent'][-1])}</b>"
        f"<i>{theme.text(newest['unit'])}</i>{said}{sparkline(newest['recent'], colour)}</td>"
    )


def reading(value: float) -> str:
    """Return a measured value with as many decimals as fit into a cell."""
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def sparkline(values: list[float], colour: str) -> str:
    """Return the course of some values as a small picture."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    step = 100 / max(1, len(values) - 1)
    points = " ".join(
        f"{i * step:.1f},{18 - 16 * (value - low) / span:.1f}" for i, value in enumerate(values)
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 20" preserveAspectRatio="none">'
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.4" points="{points}"'
        ' vector-effect="non-scaling-stroke"/></svg>'
    )
    # As an image: Streamlit removes SVG that stands in the page itself.
    return f'<img alt="" src="data:image/svg+xml,{quote(svg)}">'


def _charts(
    cache: QueryCache,
    view: View,
    selection: Selection,
    totals: dict[bool, Any],
    anomalies: pd.DataFrame,
) -> None:
    readings = totals[True]["readings"] if True in totals else 0
    by_window = readings > MAX_RAW_READINGS
    lines = len(cache.rows(queries.choices))
    series = cache.frame(queries.window_series if by_window else queries.series, selection, lines)
    if series.empty:
        return
    st.markdown("##### Readings by type" + (", mean of each window" if by_window else ""))
    distribution = cache.frame(queries.verdicts_by_place, selection)
    flagged = int(distribution["anomalies"].sum()) if len(distribution) else 0
    st.caption(
        "Red crosses: the detector's anomalies"
        + (
            f", {len(anomalies):,} of {flagged:,}, spread evenly"
            if flagged > len(anomalies) > queries.MARK_STEPS
            else ""
        )
        + ". Drag over a stretch of time to see all figures of it, double click to go back."
    )
    figures, span = {}, (selection.start, selection.end)
    for each, one in series.groupby("sensor_type"):
        some = anomalies[anomalies["sensor_type"] == each] if len(anomalies) else anomalies
        figures[f"series-{each}"] = charts.lines(
            one, some, str(each), view.heading(str(each)), view.locations, span
        )
    if len(distribution):
        figures["distribution"] = cells.counts(
            distribution, "anomalies", "Anomalies by location and type"
        )
    plot.in_columns(figures, 2)
