"""One sensor type: what it learns from, its forest, its threshold, its verdicts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.bands import describe, exceedance, population_stability
from pipeline.features import FEATURE_NAMES, VALUE, Bools, Floats, Ints, hour_weight
from pipeline.forest import Forest, grow, squeeze
from pipeline.settings import DetectorSettings

# The first model of a type needs so many vectors; further early ones follow each growth by half.
FIRST_FIT_ROWS = 50
EARLY_GROWTH = 1.5
# Two trainings on nearly the same rows give the same model: slow sensors may send one in 300 s.
MIN_NEW_ROWS = 50
# The threshold is the median of those of the last models: one odd training must not move it.
SMOOTHED_MODELS = 5
# A verdict needs a feature so many usual deviations out: a forest's quantile falls on clean data
# too. (4.5 beside 3.2 and 3.7: docs/detection.md.)
GATE = 4.5


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
    reason : list of str or None
        For an anomaly: the feature furthest out of its band, in words.
    exceedance : array
        How far the furthest feature is out, in usual deviations.
    trainings : list of Training
        Trainings that these readings set off.
    """

    known: Bools
    is_anomaly: Bools
    score: Floats
    below: Bools
    reason: list[str | None]
    exceedance: Floats
    trainings: list[Training] = field(default_factory=list)

    @classmethod
    def unknown(cls, readings: int) -> Verdicts:
        """Return verdicts not given yet."""
        no = np.zeros(readings, dtype=np.bool_)
        score = np.full(readings, np.nan)
        return cls(no, no.copy(), score, no.copy(), [None] * readings, np.zeros(readings))

    @classmethod
    def joined(cls, parts: list[Verdicts]) -> Verdicts:
        """Return verdicts one after the other."""
        return cls(
            np.concatenate([part.known for part in parts]),
            np.concatenate([part.is_anomaly for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.below for part in parts]),
            [reason for part in parts for reason in part.reason],
            np.concatenate([part.exceedance for part in parts]),
            [training for part in parts for training in part.trainings],
        )


class TypeModel:
    """One sensor type: its training buffer, its forest, its threshold."""

    def __init__(
        self, sensor_type: str, settings: DetectorSettings, clock: Callable[[], float]
    ) -> None:
        self.sensor_type = sensor_type
        self.settings = settings
        self.clock = clock
        self.slots: dict[str, int] = {}
        self.usual = _Buffer(settings.training_size)
        self.unusual = _Buffer(max(1, round(settings.training_size * settings.contamination)))
        self.readings = 0
        self.rows_seen = 0
        self.rows_at_fit = 0
        self.next_early_fit = FIRST_FIT_ROWS
        self.clock_us = -(2**62)
        self.fitted_clock_us = -(2**62)
        self.fits = 0
        self.thresholds: list[float] = []
        self.training = np.zeros((0, len(FEATURE_NAMES)))
        self.hour = 0.0
        self.centre = math.nan
        self.spread = math.nan
        self.forest: Forest | None = None

    # ------------------------------------------------------------------ stream

    def process(
        self, rows: npt.NDArray[np.intp], vectors: Floats, accepted: Bools, cold: Bools,
        values: Floats, timestamp_us: Ints, verdicts: Verdicts, learn_only: bool,
    ) -> None:  # fmt: skip
        """Take the readings at ``rows``; fill in their verdicts."""
        clock = np.maximum(np.maximum.accumulate(timestamp_us[rows]), self.clock_us)
        grown = np.cumsum(~cold[rows], dtype=np.int64)
        self.readings += len(rows)
        start = 0
        while start < len(rows):
            end = self._next_fit(clock, grown, start)
            part = rows[start:end]
            if self.forest is not None and not learn_only:
                self._judge(part, vectors[part], cold[part], values[part], verdicts)
            self._learn(vectors[part], accepted[part], cold[part], values[part], timestamp_us[part])
            self.clock_us = int(clock[end - 1])
            if self._due(np.array([self.rows_seen]), clock[end - 1 : end])[0]:
                verdicts.trainings.append(self._fit())
            start = end

    def _next_fit(self, clock: Ints, grown: Ints, start: int) -> int:
        """Return the end of the readings up to the one that sets off the next training."""
        seen = self.rows_seen + grown[start:] - (grown[start - 1] if start else 0)
        due = self._due(seen, clock[start:])
        first = int(np.argmax(due))
        return start + first + 1 if due[first] else len(clock)

    def _due(self, rows_seen: Ints, clock_us: Ints) -> Bools:
        """Return whether a training is due with so many vectors at this event time."""
        late = clock_us >= self.fitted_clock_us + round(self.settings.retrain_seconds * 1e6)
        fresh = rows_seen >= self.rows_at_fit + MIN_NEW_ROWS
        due: Bools = (rows_seen >= self.next_early_fit) | (late & fresh & (self.fits > 0))
        return due

    def _learn(
        self, vectors: Floats, accepted: Bools, cold: Bools, values: Floats, timestamp_us: Ints
    ) -> None:
        columns = np.column_stack([vectors, values, timestamp_us.astype(np.float64)])
        self.usual.add(columns[~cold & accepted])
        self.unusual.add(columns[~cold & ~accepted])
        self.rows_seen += int((~cold).sum())

    # ---------------------------------------------------------------- training

    def _fit(self) -> Training:
        began = self.clock()
        outliers = self.unusual.rows
        usual = self.usual.rows[len(outliers) - self.settings.training_size :]
        rows = np.concatenate([usual, outliers])
        previous = self.training
        self.training = rows[:, : len(FEATURE_NAMES)]
        self.hour = hour_weight(rows[:, -1].astype(np.int64))
        values = np.sort(rows[:, -2])
        self.centre = float(values[len(values) // 2])
        spread = np.sort(np.abs(values - self.centre))
        self.spread = max(1.4826 * float(spread[len(spread) // 2]), 0.01)
        self.fits += 1
        self._grow_forest()
        scores = self._forest_scores(self.training)
        self.thresholds.append(float(np.quantile(scores, self.settings.contamination)))
        del self.thresholds[:-SMOOTHED_MODELS]
        self.rows_at_fit = self.rows_seen
        self.fitted_clock_us = self.clock_us
        self.next_early_fit = self._early_fit_after(self.rows_seen)
        return Training(
            self.sensor_type,
            self.clock_us,
            len(rows),
            self.clock() - began,
            self.threshold,
            float((scores < self.threshold).mean()),
            population_stability(previous, self.training) if len(previous) else None,
        )

    def _early_fit_after(self, rows: int) -> int:
        """Return at how many vectors the next early training is; the last one is when full."""
        if rows >= self.settings.training_size:
            return 2**62
        return min(math.ceil(rows * EARLY_GROWTH), self.settings.training_size)

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

    def _judge(
        self,
        rows: npt.NDArray[np.intp],
        vectors: Floats,
        cold: Bools,
        values: Floats,
        verdicts: Verdicts,
    ) -> None:
        if cold.any():
            # No baseline of its own yet: the sensor is compared with all of its type.
            vectors = vectors.copy()
            vectors[cold, VALUE] = (values[cold] - self.centre) / self.spread
        scores = self._forest_scores(vectors)
        beyond = exceedance(vectors)
        anomalous = (scores < self.threshold) & (beyond > GATE)
        verdicts.known[rows] = True
        verdicts.score[rows] = scores
        verdicts.below[rows] = scores < self.threshold
        verdicts.is_anomaly[rows] = anomalous
        verdicts.exceedance[rows] = beyond
        for row, text in zip(
            rows[anomalous].tolist(), describe(vectors[anomalous], values[anomalous]), strict=True
        ):
            verdicts.reason[row] = text

    # ------------------------------------------------------------------- state

    def save(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return all that ``restore`` needs; the forest is grown again from its training rows."""
        whole = [self.rows_seen, self.rows_at_fit, self.next_early_fit, self.clock_us]
        whole += [self.fitted_clock_us, self.fits, self.readings]
        return {
            "whole": np.array(whole, dtype=np.int64),
            "real": np.array([self.hour, self.centre, self.spread]),
            "thresholds": np.array(self.thresholds),
            "training": self.training,
            "usual": self.usual.rows,
            "unusual": self.unusual.rows,
        }

    def restore(self, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        """Continue from what ``save`` returned."""
        self.rows_seen, self.rows_at_fit, self.next_early_fit, self.clock_us = (
            int(number) for number in arrays["whole"][:4]
        )
        self.fitted_clock_us, self.fits, self.readings = (
            int(number) for number in arrays["whole"][4:]
        )
        self.hour, self.centre, self.spread = (float(number) for number in arrays["real"])
        self.thresholds = [float(number) for number in arrays["thresholds"]]
        self.training = np.asarray(arrays["training"], dtype=np.float64)
        self.usual.add(np.asarray(arrays["usual"], dtype=np.float64))
        self.unusual.add(np.asarray(arrays["unusual"], dtype=np.float64))
        if self.fits:
            self._grow_forest()


class _Buffer:
    """The last rows added, up to a number."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows = np.zeros((0, len(FEATURE_NAMES) + 2))

    def add(self, rows: Floats) -> None:
        if len(rows):
            self.rows = np.concatenate([self.rows, rows])[-self.size :]
