"""The detector: one Isolation Forest per sensor type, trained and asked along the stream."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline import bands, features, forest, type_model
from pipeline.features import Floats, Ints, States, compute_features, increase, new_state
from pipeline.settings import DetectorSettings
from pipeline.type_model import Training, TypeModel, Verdicts

Slots = npt.NDArray[np.intp]

# What a state depends on besides its layout.
_CONSTANTS = {
    f"{room.__name__}.{name}": value
    for room in (bands, features, forest, type_model)
    for name, value in vars(room).items()
    if name.isupper() and isinstance(value, int | float | tuple)
}

DEFAULT = DetectorSettings()


class AnomalyDetector:
    """Finds readings that are unlike what their series usually does; learns along the stream.

    Parameters
    ----------
    settings : DetectorSettings
    clock : callable
        Seconds, for the duration of trainings only.
    """

    def __init__(
        self, settings: DetectorSettings = DEFAULT, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.settings = settings
        self.cumulative = {name.strip() for name in self.settings.cumulative_types.split(",")}
        self._clock = clock
        self._types: dict[str, TypeModel] = {}
        self._empty = new_state(self.settings.history_size)
        self._states: States = np.repeat(self._empty, 64)
        self._free: list[int] = list(range(63, -1, -1))

    @property
    def models(self) -> int:
        """Number of sensor types that have a model."""
        return sum(model.forest is not None for model in self._types.values())

    def series(self, sensor_type: str) -> list[tuple[str, str]]:
        """Return location and sensor of the series of a type that are remembered."""
        model = self._types.get(sensor_type)
        return list(model.slots) if model else []

    def process(
        self,
        locations: Sequence[str],
        sensor_types: Sequence[str],
        sensor_ids: Sequence[str],
        values: Floats,
        timestamp_us: Ints,
        units: Sequence[str] | None = None,
        learn_only: bool = False,
    ) -> Verdicts:
        """Take readings in their order; return their verdicts.

        The verdicts depend on the readings and their order, not on how they are cut into calls.
        """
        units = units if units is not None else [""] * len(values)
        columns = (locations, sensor_types, sensor_ids, values, timestamp_us, units)
        # Within a portion no series is away for too long.
        portion = self.settings.forget_readings // 2
        cuts = [slice(first, first + portion) for first in range(0, len(values), portion)]
        parts = [self._process(*(c[cut] for c in columns), learn_only) for cut in cuts]  # type: ignore
        return Verdicts.joined(parts) if parts else Verdicts.unknown(0)

    def _process(
        self, locations: Sequence[str], sensor_types: Sequence[str], sensor_ids: Sequence[str],
        values: Floats, timestamp_us: Ints, units: Sequence[str], learn_only: bool,
    ) -> Verdicts:  # fmt: skip
        verdicts = Verdicts.unknown(len(values))
        rows_of = _by_type(sensor_types)
        for sensor_type in rows_of.keys() - self._types.keys():
            self._types[sensor_type] = TypeModel(sensor_type, self.settings, self._clock)
        series = zip(locations, sensor_ids, strict=True)
        slots = self._slots(list(zip(sensor_types, series, strict=True)))
        numbers = {t: self._types[t].readings + np.arange(len(r)) for t, r in rows_of.items()}
        for sensor_type, rows in rows_of.items():
            self._start_anew_after_long(slots[rows], numbers[sensor_type])
        counters = [rows_of[t] for t in rows_of.keys() & self.cumulative]
        counted = np.concatenate([_as_slots([]), *counters])
        counts, values = values[counted], values.copy()
        values[counted], seconds = increase(
            self._states, slots[counted], counts, timestamp_us[counted]
        )
        found = compute_features(self._states, slots, values, timestamp_us)
        for sensor_type, rows in rows_of.items():
            self._states["number"][slots[rows]] = numbers[sensor_type]
            model = self._types[sensor_type]
            model.process(rows, found, timestamp_us, verdicts, learn_only)
        for row in np.flatnonzero(verdicts.is_anomaly).tolist():
            unit = units[row] + "/s" * (sensor_types[row] in self.cumulative)
            verdicts.reason[row] = bands.reason(found.usual[row], values[row], unit)
        verdicts.lower, verdicts.upper = bands.band(found.usual)
        # What a counter may show is what it showed before, and so much more.
        for limits in (verdicts.lower, verdicts.upper):
            limits[counted] = counts + (limits[counted] - values[counted]) * seconds
        return verdicts

    def _start_anew_after_long(self, slots: Slots, numbers: Ints) -> None:
        """Empty the states of series of a type that have not been seen for long.

        ``numbers`` counts the type's readings. That is what makes the memory of such a series worth
        nothing, so that it makes no difference when it is let go (``_let_go``).
        """
        series, first = np.unique(slots, return_index=True)
        unseen = numbers[first] - self._states["number"][series]
        gone = series[unseen > self.settings.forget_readings]
        self._states[gone] = self._empty

    def _let_go(self, model: TypeModel) -> None:
        """Free the slots of series that would start anew anyway."""
        keys, slots = list(model.slots), _as_slots(model.slots.values())
        unseen = model.readings - self._states["number"][slots]
        for place in np.flatnonzero(unseen > self.settings.forget_readings).tolist():
            self._free.append(model.slots.pop(keys[place]))

    def _slots(self, keys: list[tuple[str, tuple[str, str]]]) -> Slots:
        """Return the row in ``_states`` of each key: a type, and a location and sensor."""
        slots = {sensor_type: self._types[sensor_type].slots for sensor_type, _ in keys}
        new = dict.fromkeys(key for key in keys if key[1] not in slots[key[0]])
        if len(new) > len(self._free):
            for model in self._types.values():
                self._let_go(model)
            new = dict.fromkeys(key for key in keys if key[1] not in slots[key[0]])
        for sensor_type, series in new:
            slots[sensor_type][series] = self._new_slot()
        return _as_slots(slots[sensor_type][series] for sensor_type, series in keys)

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self._states)
            self._states.resize(size + max(64, size // 4), refcheck=False)
            self._free = list(range(len(self._states) - 1, size - 1, -1))
        slot = self._free.pop()
        self._states[slot] = self._empty
        return slot

    def _version(self, sensor_type: str) -> int:
        """Return what a saved state must be of: these fields, constants and way to judge."""
        way = (self._empty.dtype.descr, _CONSTANTS, sensor_type in self.cumulative)
        return zlib.crc32(str(way).encode())

    def forget(self, sensor_type: str) -> None:
        """Drop all that is known of a sensor type."""
        model = self._types.pop(sensor_type, None)
        if model is not None:
            self._free.extend(model.slots.values())

    def save(self, sensor_type: str) -> bytes:
        """Return the state of a sensor type: compressed msgpack, no pickle."""
        model = self._types.get(sensor_type) or TypeModel(sensor_type, self.settings, self._clock)
        self._let_go(model)
        states = self._states[_as_slots(model.slots.values())].tobytes()
        whole = (self._version(sensor_type), list(model.slots), states, model.save())
        return zlib.compress(msgspec.msgpack.encode(whole), 1)

    def restore(self, sensor_type: str, state: bytes) -> bool:
        """Continue a sensor type from a saved state, in place of what is known of it.

        Returns whether that was possible: not from a state of other fields or constants.
        """
        self.forget(sensor_type)
        try:
            version, keys, states, saved = msgspec.msgpack.decode(zlib.decompress(state))
        except (zlib.error, msgspec.DecodeError, ValueError):
            return False
        if version != self._version(sensor_type):
            return False
        model = TypeModel(sensor_type, self.settings, self._clock)
        model.slots = {tuple(key): self._new_slot() for key in keys}
        slots = _as_slots(model.slots.values())
        self._states[slots] = np.frombuffer(states, dtype=self._states.dtype)
        model.restore(saved)
        self._types[sensor_type] = model
        return True


def _as_slots(slots: Iterable[int]) -> Slots:
    return np.fromiter(slots, dtype=np.intp)


def _by_type(sensor_types: Sequence[str]) -> dict[str, Slots]:
    codes: dict[str, int] = {}
    coded = np.array([codes.setdefault(t, len(codes)) for t in sensor_types], dtype=np.int64)
    return {t: np.flatnonzero(coded == code) for t, code in codes.items()}


__all__ = ["AnomalyDetector", "Training", "Verdicts"]
