"""The detector: one Isolation Forest per sensor type, trained and asked along the stream."""

from __future__ import annotations

import io
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.tree import ExtraTreeRegressor
from sklearn.utils.random import sample_without_replacement

from pipeline.features import (
    BLOCK,
    FEATURE_NAMES,
    HOUR_COS,
    HOUR_SIN,
    MEAN,
    RANGE,
    RATE,
    STD,
    VALUE,
    Bools,
    Floats,
    Ints,
    SensorStates,
    as_slots,
    compute_features,
    hour_weight,
)

# scikit-learn's own defaults.
TREES, SAMPLES_PER_TREE = 100, 256
_MAX_SEED = np.iinfo(np.int32).max
# The first model of a type needs so many vectors; further early ones follow each growth by half.
FIRST_FIT_ROWS = 50
EARLY_GROWTH = 1.5
# Two trainings on nearly the same rows give the same model: slow sensors may send one in 300 s.
MIN_NEW_ROWS = 50
# The threshold is the median of those of the last models: one odd training must not move it.
SMOOTHED_MODELS = 5
# Gate: a forest's quantile also falls on clean data; a verdict needs a feature outside its band.
GATE = 3.5
# Beyond this a feature is an anomaly whatever the forest says: forests do not extrapolate, and a
# forest of seven features takes little notice of one that is just out (docs/detection.md).
FAR = 3.8
# The forest sees a feature so many usual deviations out at the middle of its range (squeeze).
HALF_WAY = 5.0
# Share of synthetic rows in training, usual ones with one feature anywhere in its range: they show
# the forest what is out where nothing has been out yet.
BACKGROUND_SHARE = 0.2
# Of what ``save`` returns; another one is not restored.
STATE_VERSION = 3
# Bins of the population stability index.
DRIFT_BINS = 10

_GATED = (VALUE, RATE, MEAN, STD, RANGE)
_EULER = 0.5772156649015329


@dataclass(frozen=True)
class DetectorSettings:
    """How the detector works.

    Attributes
    ----------
    contamination : float
        Assumed share of anomalies in training data, 0..0.5.
    training_size : int
        Vectors per sensor type kept for training.
    retrain_seconds : float
        Event time between two trainings, seconds.
    history_size : int
        Readings per sensor behind its features.
    seed : int
        Seed of the forests.
    """

    contamination: float = 0.05
    training_size: int = 1000
    retrain_seconds: float = 300.0
    history_size: int = 100
    seed: int = 42


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


class Forest:
    """An Isolation Forest, grown and asked without scikit-learn's checks of every tree.

    The trees, and so the scores, are those of ``sklearn.ensemble.IsolationForest(n_estimators=100,
    random_state=seed)`` (``score_samples``, but for last bits; a test holds this). Its ``fit``
    spends three quarters of its time on copying and validating parameters tree by tree.
    """

    def __init__(self, rows: Floats, seed: int) -> None:
        narrow = rows.astype(np.float32)
        samples = min(SAMPLES_PER_TREE, len(narrow))
        depth = math.ceil(math.log2(max(samples, 2)))
        # Seeding one again costs a tenth of making one, and there would be three a tree.
        chance, of_tree = np.random.RandomState(seed), np.random.RandomState(seed)
        target = chance.uniform(size=len(narrow))
        seeds = of_tree.randint(_MAX_SEED, size=TREES)
        self._trees, self._paths = [], []
        with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
            for tree_seed in seeds.tolist():
                chance.seed(tree_seed)
                of_tree.seed(chance.randint(_MAX_SEED))
                grower = ExtraTreeRegressor(max_features=1, max_depth=depth, random_state=of_tree)
                chance.seed(tree_seed)
                features = narrow.shape[1]
                sample_without_replacement(features, features, random_state=chance)
                drawn = sample_without_replacement(len(narrow), samples, random_state=chance)
                drawn.sort()
                tree = grower.fit(narrow[drawn], target[drawn], check_input=False).tree_
                self._trees.append(tree)
                # Depth is counted in nodes, wanted in edges.
                edges = tree.compute_node_depths() - 1.0
                self._paths.append(edges + _average_path(tree.n_node_samples))
        self._normal = TREES * _average_path(np.array([samples]))[0]

    def scores(self, rows: Floats) -> Floats:
        """Return the score of each row, -1..0, lower = more anomalous."""
        narrow = rows.astype(np.float32)
        depth = np.zeros(len(rows))
        for tree, paths in zip(self._trees, self._paths, strict=True):
            depth += paths[tree.apply(narrow)]
        scores: Floats = -np.exp2(-depth / self._normal)
        return scores


def _average_path(samples: npt.NDArray[np.int64]) -> Floats:
    """Return the mean path length of an unsuccessful search in a binary tree of so many samples."""
    n = samples.astype(np.float64)
    path = np.zeros(len(n))
    path[n == 2] = 1.0
    many = n > 2
    path[many] = 2.0 * (np.log(n[many] - 1.0) + _EULER) - 2.0 * (n[many] - 1.0) / n[many]
    return path


class AnomalyDetector:
    """Finds readings that are unlike what their sensor usually does; learns along the stream.

    Parameters
    ----------
    settings : DetectorSettings
    clock : callable
        Seconds, for the duration of trainings only.
    """

    def __init__(
        self,
        settings: DetectorSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = settings or DetectorSettings()
        self._clock = clock
        self._types: dict[str, _TypeModel] = {}
        self._states = SensorStates.empty(64, self.settings.history_size)
        self._free: list[int] = list(range(63, -1, -1))

    @property
    def models(self) -> int:
        """Number of sensor types that have a model."""
        return sum(model.forest is not None for model in self._types.values())

    def process(
        self,
        sensor_types: Sequence[str],
        sensor_ids: Sequence[str],
        values: Floats,
        timestamp_us: Ints,
        learn_only: bool = False,
    ) -> Verdicts:
        """Take readings in their order; return their verdicts.

        The verdicts depend on the readings and their order, not on how they are cut into calls.
        """
        n = len(values)
        verdicts = Verdicts(
            np.zeros(n, dtype=np.bool_),
            np.zeros(n, dtype=np.bool_),
            np.full(n, np.nan),
            np.zeros(n, dtype=np.bool_),
            [None] * n,
            np.zeros(n),
        )
        slots = self._slots(sensor_types, sensor_ids)
        features = compute_features(self._states, slots, values, timestamp_us)
        for sensor_type, rows in _by_type(sensor_types).items():
            self._types[sensor_type].process(
                rows, features.vectors, features.accepted, features.cold, values, timestamp_us,
                verdicts, learn_only,
            )  # fmt: skip
        return verdicts

    def _slots(
        self, sensor_types: Sequence[str], sensor_ids: Sequence[str]
    ) -> npt.NDArray[np.intp]:
        for sensor_type in set(sensor_types) - self._types.keys():
            self._types[sensor_type] = _TypeModel(sensor_type, self.settings, self._clock)
        types = self._types
        slots = [types[t].slots.get(i, -1) for t, i in zip(sensor_types, sensor_ids, strict=True)]
        if -1 in slots:
            for row, slot in enumerate(slots):
                if slot < 0:
                    known = types[sensor_types[row]].slots
                    slots[row] = known.setdefault(sensor_ids[row], -1)
                    if slots[row] < 0:
                        slots[row] = known[sensor_ids[row]] = self._new_slot()
        return as_slots(slots)

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self._states)
            self._states = self._states.grown(2 * size)
            self._free = list(range(2 * size - 1, size - 1, -1))
        slot = self._free.pop()
        self._states.put(as_slots([slot]), SensorStates.empty(1, self.settings.history_size))
        return slot

    def forget(self, sensor_type: str) -> None:
        """Drop all that is known of a sensor type."""
        model = self._types.pop(sensor_type, None)
        if model is not None:
            self._free.extend(model.slots.values())

    def save(self, sensor_type: str) -> bytes:
        """Return the state of a sensor type: numpy's npz format, no pickle."""
        model = self._types.get(sensor_type) or _TypeModel(sensor_type, self.settings, self._clock)
        names = list(model.slots)
        arrays = self._states.take(as_slots([model.slots[name] for name in names])).arrays()
        text = np.frombuffer("\0".join(names).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        states: dict[str, Any] = {f"s_{k}": v for k, v in arrays.items()}
        version = np.array(STATE_VERSION)
        np.savez(buffer, version=version, sensors=text, **(states | model.save()))
        return buffer.getvalue()

    def restore(self, sensor_type: str, state: bytes) -> bool:
        """Continue a sensor type from a saved state, in place of what is known of it.

        Returns whether that was possible: not from the state of another version of this class, or
        of another history size.
        """
        self.forget(sensor_type)
        model = _TypeModel(sensor_type, self.settings, self._clock)
        with np.load(io.BytesIO(state), allow_pickle=False) as stored:
            arrays = dict(stored)
        if arrays.get("version") != STATE_VERSION:
            return False
        if arrays["s_history"].shape[1] != self.settings.history_size:
            return False
        text = arrays["sensors"].tobytes().decode()
        names = text.split("\0") if text else []
        for name in names:
            model.slots[name] = self._new_slot()
        columns = SensorStates.empty(0, self.settings.history_size).arrays()
        saved = SensorStates(*(arrays[f"s_{name}"] for name in columns))
        self._states.put(as_slots(list(model.slots.values())), saved)
        model.restore(arrays)
        self._types[sensor_type] = model
        return True


def _by_type(sensor_types: Sequence[str]) -> dict[str, npt.NDArray[np.intp]]:
    codes: dict[str, int] = {}
    coded = np.array([codes.setdefault(t, len(codes)) for t in sensor_types], dtype=np.int64)
    return {t: np.flatnonzero(coded == code) for t, code in codes.items()}


class _TypeModel:
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
        rng = np.random.default_rng(seed)
        usual = squeeze(self.training, self.hour)
        count = math.ceil(BACKGROUND_SHARE * len(usual))
        background = usual[rng.integers(len(usual), size=count)]
        background[np.arange(count), rng.choice(_GATED, count)] = rng.uniform(0, 1, count)
        rows = np.concatenate([usual, background])
        self.forest = Forest(rows, int(rng.integers(2**31)))

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
        anomalous = ((scores < self.threshold) & (beyond > GATE)) | (beyond > FAR)
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
        whole += [self.fitted_clock_us, self.fits]
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
        self.fitted_clock_us, self.fits = (int(number) for number in arrays["whole"][4:])
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


def squeeze(vectors: Floats, hour: float) -> Floats:
    """Return vectors as the forest sees them: how far out each feature is, 0..1; the hour.

    A forest cuts its range evenly, so what is usual is pressed together near 0 and what is out
    spread over the rest: then one feature out is enough to be cut off early.
    """
    fourth = (_outside(vectors) / HALF_WAY) ** 4
    squeezed = fourth / (1.0 + fourth)
    squeezed[:, [HOUR_SIN, HOUR_COS]] = vectors[:, [HOUR_SIN, HOUR_COS]] * hour
    return squeezed


def _outside(vectors: Floats) -> Floats:
    """Return how far each feature is out, 0 or more; a small range is one, a large one is not."""
    outside = np.abs(vectors)
    outside[:, [HOUR_SIN, HOUR_COS]] = 0.0
    outside[:, RANGE] = np.maximum(-vectors[:, RANGE], 0.0)
    return outside


def exceedance(vectors: Floats) -> Floats:
    """Return how far the furthest feature of each vector is out, in usual deviations."""
    furthest: Floats = _outside(vectors).max(axis=1)
    return furthest


def describe(vectors: Floats, values: Floats) -> list[str]:
    """Return for each vector which feature is furthest out, in an operator's words."""
    outside = _outside(vectors)
    furthest = outside.argmax(axis=1)
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
    for feature in _GATED:
        edges = np.quantile(previous[:, feature], np.linspace(0, 1, DRIFT_BINS + 1)[1:-1])
        shares = []
        for rows in (previous, current):
            counts = np.bincount(np.searchsorted(edges, rows[:, feature]), minlength=DRIFT_BINS)
            shares.append((counts + 0.5) / (len(rows) + 0.5 * DRIFT_BINS))
        was, now = shares
        worst = max(worst, float(((now - was) * np.log(now / was)).sum()))
    return worst


__all__ = [
    "BLOCK",
    "AnomalyDetector",
    "DetectorSettings",
    "Forest",
    "Training",
    "Verdicts",
    "describe",
    "exceedance",
    "population_stability",
    "squeeze",
]
