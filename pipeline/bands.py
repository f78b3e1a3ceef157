"""Bands: how far each feature is from usual, which one most and how to say it; drift of vectors."""

from __future__ import annotations

import math

import numpy as np

from pipeline import features as f
from pipeline.features import MEAN, RANGE, RATE, SCALE, STD, VALUE, Floats

# The features that can be out of their band; the hour cannot.
GATED = (VALUE, RATE, MEAN, STD, RANGE)
# A verdict needs a feature so many usual deviations out: a forest's quantile falls on clean data
# too. What it buys: docs/detection.md.
GATE = 4.5
# Of the population stability index.
DRIFT_BINS = 10


def outside(vectors: Floats) -> Floats:
    """Return how far each feature is out, 0 or more."""
    out = np.abs(vectors[:, : len(f.FEATURE_NAMES)])
    out[:, [f.HOUR_SIN, f.HOUR_COS]] = 0.0
    return out


def exceedance(vectors: Floats) -> Floats:
    """Return how far the furthest feature of each vector is out, in usual deviations."""
    furthest: Floats = outside(vectors).max(axis=1)
    return furthest


def band(usual: Floats) -> tuple[Floats, Floats]:
    """Return between which values each reading was usual; NaN where that is not known."""
    centre, half = usual[:, f.CENTRE], GATE * usual[:, SCALE]
    known = usual[:, SCALE] > 0
    return np.where(known, centre - half, np.nan), np.where(known, centre + half, np.nan)


def reason(usual: Floats, value: float, unit: str) -> str:
    """Return in an operator's words what of one reading (a row of ``usual``) is furthest out."""
    feature = int(outside(usual[None])[0].argmax())
    if feature == RANGE:
        return f"has not changed for {_duration(usual[f.STILL])}"
    if feature == STD:
        return f"swings {max(2.0, usual[f.SWING]):.0f} times as much as usual"
    digits = max(0, min(2, 1 - math.floor(math.log10(2 * GATE * usual[SCALE]))))
    (lower,), (upper,) = band(usual[None])
    shown = f"{value:.{digits}f} {unit}".rstrip()
    if feature == VALUE:
        return f"{shown}, usually {lower:.{digits}f} to {upper:.{digits}f}"
    if feature == MEAN:
        side = "above" if usual[MEAN] > 0 else "below"
        return f"{shown}, stays {side} its usual {usual[f.CENTRE]:.{digits}f}"
    way, most = "up" if usual[f.STEP] > 0 else "down", GATE * usual[f.STEP_SCALE]
    step = f"{abs(usual[f.STEP]):.{digits}f} {unit}".rstrip()
    return f"went {way} by {step} at once, usually by at most {most:.{digits}f}"


def _duration(seconds: float) -> str:
    """Return a time as one would say it, e.g. 14 min."""
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def population_stability(previous: Floats, current: Floats) -> float:
    """Return the largest population stability index of the features between two trainings.

    Below 0.1 they are alike; above 0.25 the sensors behave differently now.
    """
    worst = 0.0
    for feature in GATED:
        edges = np.quantile(previous[:, feature], np.linspace(0, 1, DRIFT_BINS + 1)[1:-1])
        shares = []
        for rows in (previous, current):
            counts = np.bincount(np.searchsorted(edges, rows[:, feature]), minlength=DRIFT_BINS)
            shares.append((counts + 0.5) / (len(rows) + 0.5 * DRIFT_BINS))
        was, now = shares
        worst = max(worst, float(((now - was) * np.log(now / was)).sum()))
    return worst
