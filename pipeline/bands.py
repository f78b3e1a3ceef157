"""Bands: how far each feature is from usual, which one most, and whether vectors have changed."""

from __future__ import annotations

import numpy as np

from pipeline.features import (
    FEATURE_NAMES,
    HOUR_COS,
    HOUR_SIN,
    MEAN,
    RANGE,
    RATE,
    STD,
    VALUE,
    Floats,
)

# The features that can be out of their band; the hour cannot.
GATED = (VALUE, RATE, MEAN, STD, RANGE)
# Of the population stability index.
DRIFT_BINS = 10


def outside(vectors: Floats) -> Floats:
    """Return how far each feature is out, 0 or more."""
    out = np.abs(vectors)
    out[:, [HOUR_SIN, HOUR_COS]] = 0.0
    return out


def exceedance(vectors: Floats) -> Floats:
    """Return how far the furthest feature of each vector is out, in usual deviations."""
    furthest: Floats = outside(vectors).max(axis=1)
    return furthest


def describe(vectors: Floats, values: Floats) -> list[str]:
    """Return for each vector which feature is furthest out, in an operator's words."""
    furthest = outside(vectors).argmax(axis=1)
    texts = []
    for row, feature in enumerate(furthest.tolist()):
        name = FEATURE_NAMES[feature].replace("_", " ")
        far = vectors[row, feature]
        if feature == RANGE:
            texts.append("stuck: hardly any change between readings")
        elif feature == VALUE:
            side = "above" if far > 0 else "below"
            texts.append(f"value {abs(far):.1f} usual deviations {side} normal")
        else:
            texts.append(f"{name} {abs(far):.1f}× normal")
    return texts


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
