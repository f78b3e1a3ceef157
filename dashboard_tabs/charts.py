"""Tables to plotly figures. Pure: no database, no Streamlit, no clock."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard_tabs import theme

HEIGHT = 220
_MARGIN = {"l": 8, "r": 8, "t": 30, "b": 8}
_GRID = "rgba(128,136,150,0.18)"
# Blue for together, orange for opposed; grey where there is nothing; sign is also in the text.
_DIVERGING = [[0, "#C46A1B"], [0.5, "rgba(128,136,150,0.10)"], [1, "#2457C5"]]
_COUNTS = [[0, "rgba(215,38,61,0.04)"], [1, "rgba(215,38,61,0.85)"]]


def _figure(title: str, height: int = HEIGHT) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "xanchor": "left", "y": 0.98},
        height=height,
        margin=_MARGIN,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        showlegend=False,
        # What a person zoomed or hid stays as it is when new data come.
        uirevision="kept",
    )
    figure.update_xaxes(showgrid=False, automargin=True, nticks=7)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, automargin=True, nticks=5)
    return figure


def _time_axis(figure: go.Figure, times: pd.Series) -> go.Figure:
    """Write the time of day below the axis, and the date too where there is more than one."""
    if len(times):
        one_day = times.min().date() == times.max().date()
        figure.update_xaxes(type="date", tickformat="%H:%M" if one_day else "%H:%M<br>%b %d")
    return figure


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name, the same whatever the order; they repeat after seven."""
    palette = theme.CATEGORIES
    return {each: palette[i % len(palette)] for i, each in enumerate(sorted(set(names)))}


def lines(
    series: pd.DataFrame, anomalies: pd.DataFrame, title: str, palette: dict[str, str]
) -> go.Figure:
    """Return one line a location, anomalies as red points on top.

    Parameters
    ----------
    series : DataFrame
        Columns location, time, mean.
    anomalies : DataFrame
        Columns timestamp, value, sensor_id, reason; may be empty.
    """
    figure = _figure(title)
    for location, one in series.groupby("location"):
        figure.add_scatter(
            x=one["time"],
            y=one["mean"],
            name=theme.text(location),
            mode="lines" if len(one) > 1 else "markers",
            line={"width": 1.5, "color": palette.get(str(location), theme.QUIET)},
            hovertemplate="%{y:,.2f}",
        )
    if len(anomalies):
        figure.add_scatter(
            x=anomalies["timestamp"],
            y=anomalies["value"],
            name="anomaly",
            mode="markers",
            marker={"color": theme.ANOMALY, "size": 5},
            text=[theme.text(f"{s}: {r}") for s, r in anomalies[["sensor_id", "reason"]].values],
            hovertemplate="%{y:,.2f} · %{text}",
        )
    return _time_axis(figure, series["time"])


def bands(windows: pd.DataFrame, title: str) -> go.Figure:
    """Return the windows' mean, ±1 standard deviation and min-max; what is still open is dotted.

    Parameters
    ----------
    windows : DataFrame
        Columns time, mean, stddev, low, high, is_closed; of one sensor type, in order of time.
    """
    figure = _figure(title)
    time = windows["time"]
    for low, high, alpha, label in (
        (windows["low"], windows["high"], 0.10, "min–max"),
        (
            windows["mean"] - windows["stddev"],
            windows["mean"] + windows["stddev"],
            0.22,
            "±1 standard deviation",
        ),
    ):
        figure.add_scatter(x=time, y=high, mode="lines", line={"width": 0}, hoverinfo="skip")
        figure.add_scatter(
            x=time,
            y=low,
            mode="lines",
            line={"width": 0},
            fill="tonexty",
            fillcolor=f"rgba(59,125,216,{alpha})",
            hoverinfo="skip",
            name=label,
        )
    closed = windows[windows["is_closed"]]
    from_last_closed = windows.iloc[max(0, len(closed) - 1) :]
    for part, dash, label in ((closed, "solid", "mean"), (from_last_closed, "dot", "open so far")):
        figure.add_scatter(
            x=part["time"],
            y=part["mean"],
            name=label,
            mode="lines+markers" if len(part) < 3 else "lines",
            line={"width": 2, "color": theme.ACCENT, "dash": dash},
            customdata=part[["stddev", "low", "high", "readings"]],
            hovertemplate="%{y:,.2f} ± %{customdata[0]:,.2f} (%{customdata[1]:,.2f} to"
            " %{customdata[2]:,.2f}), %{customdata[3]:,} readings",
        )
    return _time_axis(figure, time)


def bars(table: pd.DataFrame, columns: dict[str, tuple[str, str]], title: str) -> go.Figure:
    """Return stacked bars over time.

    Parameters
    ----------
    table : DataFrame
        Column time, and those of ``columns``.
    columns : dict
        Column -> (label, colour).
    """
    figure = _figure(title)
    for column, (label, colour) in columns.items():
        figure.add_bar(x=table["time"], y=table[column], name=label, marker_color=colour)
    figure.update_layout(barmode="stack", bargap=0.15, showlegend=len(columns) > 1, legend=_LEGEND)
    figure.update_traces(marker_line_width=0)
    return _time_axis(figure, table["time"])


_LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1, "xanchor": "right"}


def counts(table: pd.DataFrame, value: str, title: str) -> go.Figure:
    """Return a heatmap location × type of whole numbers, each written in its cell."""
    grid = table.pivot_table(index="location", columns="sensor_type", values=value, fill_value=0)
    figure = _figure(title, max(HEIGHT, 60 + 30 * len(grid)))
    figure.add_heatmap(
        z=grid.values,
        x=[theme.name(column) for column in grid.columns],
        y=[theme.text(place) for place in grid.index],
        colorscale=_COUNTS,
        zmin=0,
        text=grid.values,
        texttemplate="%{text:,.0f}",
        hovertemplate="%{y}, %{x}: %{z:,.0f}<extra></extra>",
        showscale=False,
        xgap=3,
        ygap=3,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(hovermode="closest")
    return figure


def correlation(table: pd.DataFrame, title: str) -> go.Figure:
    """Return the symmetric heatmap of one location.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type_a, sensor_type_b, correlation (may be missing).
    """
    other = table.rename(
        columns={"sensor_type_a": "sensor_type_b", "sensor_type_b": "sensor_type_a"}
    )
    both = pd.concat([table, other])
    types = sorted(both["sensor_type_a"].unique())
    grid = both.pivot_table(
        index="sensor_type_a", columns="sensor_type_b", values="correlation", dropna=False
    ).reindex(index=types, columns=types)
    names = [theme.name(each) for each in types]
    figure = _figure(title, 290)
    figure.add_heatmap(
        z=grid.values,
        x=names,
        y=names,
        zmin=-1,
        zmax=1,
        colorscale=_DIVERGING,
        text=[[f"{r:+.2f}" if r == r else "" for r in row] for row in grid.values],
        texttemplate="%{text}",
        hovertemplate="%{y} with %{x}: %{z:+.3f}<extra></extra>",
        hoverongaps=False,
        showscale=False,
        xgap=3,
        ygap=3,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(hovermode="closest")
    return figure


def histogram(scores: pd.DataFrame, threshold: float | None, title: str) -> go.Figure:
    """Return how many readings have which score; what lies below the threshold in red.

    Parameters
    ----------
    scores : DataFrame
        Columns score, readings; of one sensor type.
    """
    figure = _figure(title, 190)
    beyond = scores["score"] < (-2 if threshold is None else threshold)
    figure.add_bar(
        x=scores["score"],
        y=scores["readings"],
        width=0.009,
        marker_color=[theme.ANOMALY if b else theme.ACCENT for b in beyond],
        hovertemplate="score %{x:.2f}: %{y:,} readings<extra></extra>",
    )
    if threshold is not None:
        figure.add_vline(x=threshold, line={"dash": "dash", "width": 1, "color": theme.ANOMALY})
    figure.update_layout(hovermode="closest", bargap=0)
    return figure


def agreement(table: pd.DataFrame) -> go.Figure:
    """Return agreement and Cohen's kappa of detector and rule over time (columns time, ...)."""
    figure = _figure("Agreement and Cohen's kappa over time")
    for column, label, colour in (
        ("agreement", "agreement", theme.QUIET),
        ("kappa", "kappa", theme.ACCENT),
    ):
        figure.add_scatter(
            x=table["time"],
            y=table[column],
            name=label,
            mode="lines+markers" if len(table) < 3 else "lines",
            line={"width": 2, "color": colour},
            hovertemplate="%{y:.2f}",
            connectgaps=False,
        )
    figure.update_layout(showlegend=True, legend=_LEGEND)
    figure.update_yaxes(range=[-0.1, 1.05])
    return _time_axis(figure, table["time"])


def surroundings(history: pd.DataFrame, title: str) -> go.Figure:
    """Return one sensor's readings (columns timestamp, value, is_anomaly)."""
    figure = _figure(title, 260)
    figure.add_scatter(
        x=history["timestamp"],
        y=history["value"],
        mode="lines+markers",
        marker={"size": 4},
        line={"width": 1.5, "color": theme.ACCENT},
        name="value",
        hovertemplate="%{y:,.2f}",
    )
    flagged = history[history["is_anomaly"].fillna(False).astype(bool)]
    figure.add_scatter(
        x=flagged["timestamp"],
        y=flagged["value"],
        mode="markers",
        name="anomaly",
        marker={"color": theme.ANOMALY, "size": 9},
        hovertemplate="%{y:,.2f}",
    )
    return _time_axis(figure, history["timestamp"])


def boxes(table: pd.DataFrame, title: str, palette: dict[str, str]) -> go.Figure:
    """Return a box a location: quartiles, and whiskers to the 5th and 95th percentile.

    Parameters
    ----------
    table : DataFrame
        Columns location, quantiles (5, 25, 50, 75, 95 %); of one sensor type.
    """
    figure = _figure(title, max(HEIGHT, 60 + 30 * len(table)))
    for location, quantiles in table[["location", "quantiles"]].values:
        low, first, median, third, high = quantiles
        figure.add_box(
            y=[theme.text(location)],
            lowerfence=[low],
            q1=[first],
            median=[median],
            q3=[third],
            upperfence=[high],
            orientation="h",
            name=theme.text(location),
            line={"width": 1.5, "color": palette.get(location, theme.QUIET)},
        )
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(showgrid=True, gridcolor=_GRID, nticks=6)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def hours(table: pd.DataFrame) -> go.Figure:
    """Return hour of day × type, coloured by the distance from the type's mean.

    Parameters
    ----------
    table : DataFrame
        Columns sensor_type, hour (0..23, UTC), mean.
    """
    grid = table.pivot_table(index="sensor_type", columns="hour", values="mean").reindex(
        columns=range(24)
    )
    spread = grid.std(axis=1).replace(0, pd.NA).astype(float)
    distance = grid.sub(grid.mean(axis=1), axis=0).div(spread, axis=0).clip(-2, 2)
    # A type seen in one hour only is at its mean.
    distance = distance.mask(grid.notna() & distance.isna(), 0.0)
    figure = _figure("Mean by hour of the day (UTC), last 7 days", 60 + 40 * max(3, len(grid)))
    figure.add_heatmap(
        z=distance.values,
        x=[f"{hour:02d}" for hour in range(24)],
        y=[theme.heading(each) for each in grid.index],
        zmin=-2,
        zmax=2,
        colorscale=_DIVERGING,
        text=[[theme.short(v) if v == v else "" for v in row] for row in grid.values],
        texttemplate="%{text}",
        hovertemplate="%{y}, %{x}:00: %{text}<extra></extra>",
        hoverongaps=False,
        showscale=False,
        xgap=2,
        ygap=3,
    )
    figure.update_xaxes(type="category", nticks=24)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(hovermode="closest")
    return figure
