"""ML Anomaly Detection: the detector's verdicts, beside the sensors' own rule."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard_tabs import charts, layout, plot, states, theme
from dashboard_tabs.filters import View
from dashboard_tabs.queries import AsOf, QueryCache
from db import dashboard as queries
from db.selecting import Selection, verdict_step_s


def render(cache: QueryCache, view: View, as_of: AsOf) -> None:
    """Draw the tab."""
    selection = view.selection(as_of)
    table = cache.frame(queries.agreement, selection)
    if table.empty:
        states.missing(
            cache,
            "No prediction in this range yet: start the detector with `python ml_detector.py`.",
        )
        return
    models = cache.frame(queries.models)
    _counts(table)
    who = {
        "both": ("both", theme.ANOMALY),
        "ml_only": ("detector only", theme.PALE_ANOMALY),
        "rule_only": ("rule only", theme.QUIET),
    }
    span = selection.start, selection.end
    plot.in_columns(
        {
            "agreement": charts.agreement(with_kappa(table), span),
            "who-flags": charts.bars(table, who, "Who flags", verdict_step_s(selection), span),
        },
        2,
    )
    _latest(cache, view, selection)
    _scores(cache, selection, models)
    _models(view, models, cache.frame(queries.verdicts_by_place, selection))


def _counts(table: pd.DataFrame) -> None:
    total = table[["both", "ml_only", "rule_only", "neither", "without_verdict"]].sum()
    judged = total["both"] + total["ml_only"] + total["rule_only"] + total["neither"]
    agreed = (total["both"] + total["neither"]) / judged if judged else None
    kappa = cohens_kappa(total)
    with st.container(horizontal=True):
        for label, value in (
            ("Predictions", theme.short(judged)),
            ("Both", theme.short(total["both"])),
            ("Detector only", theme.short(total["ml_only"])),
            ("Rule only", theme.short(total["rule_only"])),
            ("Agreement", "–" if agreed is None else f"{agreed:.1%}"),
            ("Cohen's κ", "–" if kappa is None else f"{kappa:.2f}"),
        ):
            st.metric(label, value, border=True, height="stretch")
    if total["without_verdict"]:
        st.caption(
            f"{theme.short(total['without_verdict'])} readings in this range have no verdict:"
            " they came before their type's first model was fitted."
        )


def cohens_kappa(counts: Any) -> float | None:
    """Return how far two judges agree beyond chance, -1..1 (Cohen, 1960).

    Parameters
    ----------
    counts : mapping
        Numbers both, ml_only, rule_only, neither.

    Returns
    -------
    float or None
        None where chance alone explains all: no readings, or both judges always said the same.
    """
    both, ml, rule, neither = (
        float(counts[k]) for k in ("both", "ml_only", "rule_only", "neither")
    )
    total = both + ml + rule + neither
    if not total:
        return None
    observed = (both + neither) / total
    by_chance = ((both + ml) * (both + rule) + (neither + rule) * (neither + ml)) / total**2
    return None if by_chance >= 1 else (observed - by_chance) / (1 - by_chance)


def with_kappa(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that hold verdicts, with columns agreement and kappa."""
    judged = table["both"] + table["ml_only"] + table["rule_only"] + table["neither"]
    table = table[judged > 0]
    return table.assign(
        agreement=(table["both"] + table["neither"]) / judged[judged > 0],
        kappa=[cohens_kappa(row) for row in table.to_dict("records")],
    )


def _latest(cache: QueryCache, view: View, selection: Selection) -> None:
    newest = cache.frame(queries.anomalies, selection)
    anomalies = _held(newest, selection)
    st.markdown("##### Latest anomalies")
    if anomalies.empty:
        st.caption("None in this range.")
        return
    st.caption(
        f"The newest {queries.MAX_LISTED} at most. Select a row to see the sensor around that time;"
        " the list waits while one is selected."
    )
    shown = anomalies.assign(
        sensor_type=anomalies["sensor_type"].map(view.heading),
        rule_based_anomaly=anomalies["rule_based_anomaly"].map({True: "flagged too", False: "–"}),
    )
    event = layout.table(
        shown,
        "anomalies",
        "The newest anomalies; select one to see its surroundings",
        {
            "timestamp": layout.time("Time"),
            "location": "Location",
            "sensor_type": "Type",
            "value": layout.number("Value", 2),
            "reason": st.column_config.TextColumn("Reason", width=300),
            "score": layout.number("Score", 3),
            "rule_based_anomaly": "Sensor's rule",
            "sensor_id": "Sensor",
        },
        most=8,
        on_select="rerun",
        selection_mode="single-row",
        column_order=[
            "timestamp",
            "location",
            "sensor_type",
            "value",
            "reason",
            "score",
            "rule_based_anomaly",
            "sensor_id",
        ],
    )
    if rows := event.selection.rows:
        row = anomalies.iloc[min(rows[0], len(anomalies) - 1)]
        sensor_id, around = row["sensor_id"], row["timestamp"].to_pydatetime()
        series = row["location"], row["sensor_type"], sensor_id
        history = cache.frame(queries.sensor_history, series, around)
        if len(history):
            title = f"{theme.plain(sensor_id)} around {around:%Y-%m-%d %H:%M:%S}"
            chart = charts.surroundings(history, around, row["sensor_type"], title)
            plot.draw(chart, "surroundings-chart")
    layout.download(cache, "anomalies", queries.anomalies, selection, queries.MAX_DOWNLOAD)


def _held(anomalies: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """Return the anomalies to list: while a row is selected those among which it was.

    A row is known by its place only; among newer anomalies another would seem to be the one.
    """
    filters = (selection.location, selection.sensor_type)
    chosen = st.session_state.get("anomalies", {}).get("selection", {}).get("rows")
    if not chosen or st.session_state.get("listed", (None,))[0] != filters:
        st.session_state["listed"] = (filters, anomalies)
    listed: pd.DataFrame = st.session_state["listed"][1]
    return listed


def _scores(cache: QueryCache, selection: Selection, models: pd.DataFrame) -> None:
    scores = cache.frame(queries.score_histogram, selection)
    if scores.empty:
        return
    st.markdown("##### Scores")
    st.caption(
        "The lower, the more anomalous; dashed: the present model's threshold. Number of"
        f" readings, in steps that grow; of the newest {theme.short(scores['readings'].sum())}."
    )
    thresholds = {} if models.empty else models.set_index("sensor_type")["threshold"].to_dict()
    figures = {
        f"scores-{each}": charts.histogram(one, thresholds.get(each), str(each))
        for each, one in scores.groupby("sensor_type")
    }
    plot.in_columns(figures, min(5, max(3, len(figures))))


def _models(view: View, models: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    st.markdown("##### Models")
    if models.empty:
        st.caption("None fitted yet: a type's first model needs 50 readings.")
        return
    by_type = verdicts.groupby("sensor_type")[["anomalies", "judged"]].sum()
    judged = by_type["judged"].where(by_type["judged"] > 0)
    percent = (100 * by_type["anomalies"] / judged).to_dict()
    layout.table(
        models.assign(
            flagged_share=100 * models["flagged_share"],
            flagged_now=models["sensor_type"].map(percent),
            sensor_type=models["sensor_type"].map(view.heading),
        ),
        "models",
        "The model of each sensor type",
        {
            "sensor_type": "Type",
            "fitted_at": layout.time("Last training"),
            "training_rows": layout.number("Readings learnt from"),
            "duration_s": layout.number("Took", 2, " s"),
            "threshold": layout.number("Threshold", 3),
            "flagged_share": layout.number("Flagged in training", 1, " %%"),
            "drift": layout.number(
                "Drift (PSI)",
                2,
                about="Population stability index of the features against the training before:"
                " below 0.1 steady, above 0.25 look at it.",
            ),
            "flagged_now": layout.number("Flagged in this range", 1, " %%"),
        },
    )
