"""Pearson correlation between the sensor types of one location, over time-aligned window means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

# Two points always lie on a line.
MIN_WINDOWS = 3


@dataclass(frozen=True)
class Correlation:
    """Correlation of two sensor types (alphabetical order) over the windows both have a mean in.

    ``value`` is None when there are too few such windows or one series is constant.
    """

    sensor_type_a: str
    sensor_type_b: str
    value: float | None
    window_count: int


def correlate(means: Mapping[str, Mapping[int, float]]) -> list[Correlation]:
    """Return the correlation of every pair of types.

    Parameters
    ----------
    means : mapping
        For each sensor type, the mean per window, by window start.

    Examples
    --------
    >>> correlate({"a": {0: 1.0, 60: 2.0, 120: 3.0}, "b": {0: 5.0, 60: 4.0, 120: 3.0, 180: 9.0}})
    [Correlation(sensor_type_a='a', sensor_type_b='b', value=-1.0, window_count=3)]
    """
    return [_pair(a, b, means[a], means[b]) for a, b in combinations(sorted(means), 2)]


def _pair(
    a: str, b: str, means_a: Mapping[int, float], means_b: Mapping[int, float]
) -> Correlation:
    common = sorted(means_a.keys() & means_b.keys())
    x = np.array([means_a[start] for start in common])
    y = np.array([means_b[start] for start in common])
    if len(common) < MIN_WINDOWS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(a, b, None, len(common))
    dx, dy = x - x.mean(), y - y.mean()
    value = float(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)))
    return Correlation(a, b, max(-1.0, min(1.0, value)), len(common))
