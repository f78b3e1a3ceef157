"""The ways to detect that are compared: each takes a stream in its order, without looking ahead."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.labelled_streams import LabelledStream
from pipeline.bands import GATE, exceedance
from pipeline.detector import AnomalyDetector
from pipeline.features import compute_features, new_state
from pipeline.settings import DetectorSettings

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Readings behind a baseline's statistics: as many as the detector keeps.
WINDOW = 100
MIN_WINDOW = 20
# The usual cuts: three sigma; 3.5 robust deviations (Iglewicz and Hoaglin 1993).
SIGMAS = 3.0
ROBUST_DEVIATIONS = 3.5
HST_SHARE = 0.05
HST_WARMUP = 1000


@dataclass(frozen=True)
class Found:
    """What a method says of each reading.

    Attributes
    ----------
    flagged : array of bool
        Its verdict.
    rank : array
        The higher, the more anomalous: what PR-AUC is taken from.
    """

    flagged: Bools
    rank: Floats


Method = Callable[[LabelledStream], dict[str, Found]]


def detector(stream: LabelledStream) -> dict[str, Found]:
    """Return this project's detector, ranked by the score it stores; and its forest alone."""
    settings = DetectorSettings(cumulative_types=stream.cumulative)
    verdicts = AnomalyDetector(settings).process(
        stream.locations, stream.sensor_types, stream.sensor_ids, stream.values, stream.timestamp_us
    )
    rank = np.where(verdicts.known, -verdicts.score, 0.0)
    return {
        "detector": Found(verdicts.is_anomaly, rank),
        "forest alone": Found(verdicts.below, rank),
    }


def plain_rule(stream: LabelledStream) -> dict[str, Found]:
    """Return the same features and limit without the forest."""
    rank = exceedance(_vectors(stream))
    return {"rule on the features": Found(rank > GATE, rank)}


def _vectors(stream: LabelledStream) -> Floats:
    """Return the detector's own features of the whole stream."""
    numbers: dict[tuple[str, ...], int] = {}
    slots = np.array([numbers.setdefault(key, len(numbers)) for key in stream.series()], np.intp)
    states = np.repeat(new_state(WINDOW), len(numbers))
    return compute_features(states, slots, stream.values, stream.timestamp_us).vectors


def rolling_sigma(stream: LabelledStream) -> dict[str, Found]:
    """Return mean and standard deviation of a sensor's last readings, 3 sigma."""

    def rank(windows: Floats, values: Floats) -> Floats:
        spread = np.maximum(np.nanstd(windows, axis=1), 0.01)
        return np.abs(values - np.nanmean(windows, axis=1)) / spread

    ranks = _by_sensor(stream, rank)
    return {"rolling 3-sigma": Found(ranks > SIGMAS, ranks)}


def rolling_mad(stream: LabelledStream) -> dict[str, Found]:
    """Return median and median absolute deviation of a sensor's last readings."""

    def rank(windows: Floats, values: Floats) -> Floats:
        median = np.nanmedian(windows, axis=1)
        mad = np.nanmedian(np.abs(windows - median[:, None]), axis=1)
        return np.abs(values - median) / np.maximum(1.4826 * mad, 0.01)

    ranks = _by_sensor(stream, rank)
    return {"rolling MAD z": Found(ranks > ROBUST_DEVIATIONS, ranks)}


def _by_sensor(stream: LabelledStream, rank: Callable[[Floats, Floats], Floats]) -> Floats:
    """Return the rank of each reading against the ``WINDOW`` readings of its sensor before it."""
    rows_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, key in enumerate(stream.series()):
        rows_of[key].append(row)
    ranks = np.zeros(len(stream))
    for rows in rows_of.values():
        values = stream.values[rows]
        if len(values) <= MIN_WINDOW:
            continue
        padded = np.concatenate([np.full(WINDOW - MIN_WINDOW, np.nan), values])
        windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:-1]
        ranks[rows[MIN_WINDOW:]] = rank(windows, values[MIN_WINDOW:])
    return ranks


def half_space_trees(stream: LabelledStream) -> dict[str, Found]:
    """Return River's HalfSpaceTrees (Tan, Ting and Liu 2011), one a type, on the same features."""
    from river.anomaly import HalfSpaceTrees

    # It wants [0, 1]; the hours, constant within one, are left out.
    scaled = (np.clip(_vectors(stream)[:, [0, 3, 4, 5, 6]], -10, 10) + 10) / 20
    trees = {t: HalfSpaceTrees(seed=42) for t in set(stream.sensor_types)}
    scores: dict[str, list[float]] = {t: [] for t in trees}
    flagged, rank = np.zeros(len(stream), dtype=np.bool_), np.zeros(len(stream))
    cut = dict.fromkeys(trees, 2.0)
    for row, (sensor_type, vector) in enumerate(
        zip(stream.sensor_types, scaled.tolist(), strict=True)
    ):
        point = dict(enumerate(vector))
        rank[row] = trees[sensor_type].score_one(point)
        flagged[row] = rank[row] > cut[sensor_type]
        trees[sensor_type].learn_one(point)
        past = scores[sensor_type]
        past.append(float(rank[row]))
        if len(past) % HST_WARMUP == 0:
            cut[sensor_type] = float(np.quantile(past[-HST_WARMUP:], 1 - HST_SHARE))
    return {"HalfSpaceTrees": Found(flagged, rank)}


def methods(with_river: bool = False) -> list[Method]:
    """Return the methods; River's where it is installed and wanted (it takes 0.16 ms a reading)."""
    found: list[Method] = [detector, plain_rule, rolling_sigma, rolling_mad]
    if with_river and importlib.util.find_spec("river"):
        found.append(half_space_trees)
    return found
