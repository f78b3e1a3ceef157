"""One sensor type: what it learns from, its forest, its threshold, its verdicts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.bands import GATE, exceedance, population_stability
from pipeline.features import FEATURE_NAMES, Bools, Features, Floats, Ints, hour_weight
from pipeline.forest import Forest, grow, squeeze
from pipeline.settings import DetectorSettings

# A training needs so many new vectors (slow sensors may send one in 300 s): the same rows give the
# same model. Early ones follow each growth by half.
NEW_ROWS = 50
EARLY_GROWTH = 1.5
# The threshold is the median of those of the last models: one odd training must not move it.
SMOOTHED_MODELS = 5
# What of a model is saved; the forest is grown again.
_SAVED = (
    *("rows_seen", "rows_at_fit", "next_early_fit", "clock_us", "fitted_clock_us", "fits"),
    *("readings", "hour", "thresholds"),
)
_ARRAYS = ("training", "usual", "unusual")


@dataclass(frozen=True)
class Training:
    """One training of one sensor type; a row of ``model_runs``."""

    sensor_type: str
    fitted_at_us: int
    rows: int
    duration_seconds: float
    threshold: float
    flagged_share: float
    drift: float | None


@dataclass
class Verdicts:
    """Verdicts on readings, in their order.

    Attributes
    ----------
    known : array of bool
        Whether there is a verdict; False before the type's first model.
    is_anomaly : array of bool
        The verdict where known.
    score : array
        The forest's ``score_samples``, -1..0, lower = more anomalous; NaN where not known.
    below : array of bool
        Whether the score is below the threshold: the forest's part of the verdict.
    lower, upper : array
        Between which values the reading was usual for its series; NaN where that is not known.
    reason : list of str or None
        For an anomaly: the feature furthest out of its band, in words.
    trainings : list of Training
        Trainings that these readings set off.
    """

    known: Bools
    is_anomaly: Bools
    score: Floats
    below: Bools
    lower: Floats
    upper: Floats
    reason: list[str | None]
    trainings: list[Training] = field(default_factory=list)

    @classmethod
    def unknown(cls, readings: int) -> Verdicts:
        """Return verdicts not given yet."""
        no = np.zeros((3, readings), dtype=np.bool_)
        nan = np.full((3, readings), np.nan)
        reason: list[str | None] = [None] * readings
        return cls(no[0], no[1], nan[0], no[2], nan[1], nan[2], reason)

    @classmethod
    def joined(cls, parts: list[Verdicts]) -> Verdicts:
        """Return verdicts one after the other."""
        columns = [[getattr(part, f.name) for part in parts] for f in fields(cls)]
        return cls(
            *(np.concatenate(column) for column in columns[:-2]),  # type: ignore[arg-type]
            *(list(chain(*column)) for column in columns[-2:]),
        )


class TypeModel:
    """One sensor type: its training buffer, its forest, its threshold."""

    def __init__(
        self, sensor_type: str, settings: DetectorSettings, clock: Callable[[], float]
    ) -> None:
        self.sensor_type = sensor_type
        self.settings = settings
        self.clock = clock
        self.slots: dict[tuple[str, str], int] = {}
        self.usual = self.unusual = np.zeros((0, len(FEATURE_NAMES) + 1))
        self.readings = 0
        self.rows_seen = 0
        self.rows_at_fit = 0
        self.next_early_fit = NEW_ROWS
        self.clock_us = -(2**62)
        self.fitted_clock_us = -(2**62)
        self.fits = 0
        self.thresholds: list[float] = []
        self.training = np.zeros((0, len(FEATURE_NAMES)))
        self.hour = 0.0
        self.forest: Forest | None = None

    # ------------------------------------------------------------------ stream

    def process(
        self, rows: npt.NDArray[np.intp], found: Features, timestamp_us: Ints,
        verdicts: Verdicts, learn_only: bool,
    ) -> None:  # fmt: skip
        """Take the readings at ``rows``; fill in their verdicts."""
        clock = np.maximum(np.maximum.accumulate(timestamp_us[rows]), self.clock_us)
        seen = self.rows_seen + np.cumsum(~found.cold[rows], dtype=np.int64)
        self.readings += len(rows)
        start = 0
        while start < len(rows):
            due = self._due(seen[start:], clock[start:])
            end = start + int(due.argmax()) + 1 if due.any() else len(rows)
            part = rows[start:end]
            if self.forest is not None and not learn_only:
                self._judge(part, found.vectors[part], verdicts)
            self._learn(part[~found.cold[part]], found, timestamp_us)
            self.clock_us = int(clock[end - 1])
            if due.any():
                verdicts.trainings.append(self._fit())
            start = end

    def _due(self, rows_seen: Ints, clock_us: Ints) -> Bools:
        """Return whether a training is due with so many vectors at this event time."""
        late = clock_us >= self.fitted_clock_us + round(self.settings.retrain_seconds * 1e6)
        fresh = rows_seen >= self.rows_at_fit + NEW_ROWS
        due: Bools = (rows_seen >= self.next_early_fit) | (late & fresh & (self.fits > 0))
        return due

    def _learn(self, rows: npt.NDArray[np.intp], found: Features, timestamp_us: Ints) -> None:
        columns = np.column_stack([found.vectors[rows], timestamp_us[rows].astype(np.float64)])
        size, share = self.settings.training_size, self.settings.contamination
        self.usual = _last(size, self.usual, columns[found.accepted[rows]])
        outliers = max(1, round(size * share))
        self.unusual = _last(outliers, self.unusual, columns[~found.accepted[rows]])
        self.rows_seen += len(rows)

    # ---------------------------------------------------------------- training

    def _fit(self) -> Training:
        began = self.clock()
        usual = _last(self.settings.training_size - len(self.unusual), self.usual)
        rows = np.concatenate([usual, self.unusual])
        previous = self.training
        self.training = rows[:, : len(FEATURE_NAMES)]
        self.hour = hour_weight(rows[:, -1].astype(np.int64))
        self.fits += 1
        self._grow_forest()
        scores = self._forest_scores(self.training)
        self.thresholds.append(float(np.quantile(scores, self.settings.contamination)))
        del self.thresholds[:-SMOOTHED_MODELS]
        self.rows_at_fit = self.rows_seen
        self.fitted_clock_us = self.clock_us
        # The last early training is when the buffer is full.
        size, later = self.settings.training_size, math.ceil(self.rows_seen * EARLY_GROWTH)
        self.next_early_fit = 2**62 if self.rows_seen >= size else min(later, size)
        return Training(
            self.sensor_type,
            self.clock_us,
            len(rows),
            self.clock() - began,
            self.threshold,
            float((scores < self.threshold).mean()),
            population_stability(previous, self.training) if len(previous) else None,
        )

    def _grow_forest(self) -> None:
        seed = [self.settings.seed, zlib.crc32(self.sensor_type.encode()), self.fits]
        self.forest = grow(self.training, self.hour, np.random.default_rng(seed))

    @property
    def threshold(self) -> float:
        """Score below which a reading may be an anomaly."""
        return float(np.median(self.thresholds))

    def _forest_scores(self, vectors: Floats) -> Floats:
        assert self.forest is not None
        return self.forest.scores(squeeze(vectors, self.hour))

    # ----------------------------------------------------------------- verdict

    def _judge(self, rows: npt.NDArray[np.intp], vectors: Floats, verdicts: Verdicts) -> None:
        scores = self._forest_scores(vectors)
        verdicts.known[rows] = True
        verdicts.score[rows] = scores
        verdicts.below[rows] = scores < self.threshold
        verdicts.is_anomaly[rows] = verdicts.below[rows] & (exceedance(vectors) > GATE)

    # ------------------------------------------------------------------- state

    def save(self) -> list[Any]:
        """Return all that ``restore`` needs; the forest is grown again from its training rows."""
        arrays = [getattr(self, name).tobytes() for name in _ARRAYS]
        return [[getattr(self, name) for name in _SAVED], arrays]

    def restore(self, saved: list[Any]) -> None:
        """Continue from what ``save`` returned."""
        for name, value in zip(_SAVED, saved[0], strict=True):
            setattr(self, name, value)
        for name, array in zip(_ARRAYS, saved[1], strict=True):
            width = getattr(self, name).shape[1]
            setattr(self, name, np.frombuffer(array).reshape(-1, width))
        if self.fits:
            self._grow_forest()


def _last(size: int, *rows: Floats) -> Floats:
    """Return the last rows, so many at most."""
    joined = np.concatenate(rows)
    return joined[max(0, len(joined) - size) :]
