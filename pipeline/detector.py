"""The detector: one Isolation Forest per sensor type, trained and asked along the stream."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.features import Floats, Ints, SensorStates, as_slots, compute_features
from pipeline.settings import DetectorSettings
from pipeline.type_model import Training, TypeModel, Verdicts

# Of what ``save`` returns; another one is not restored.
STATE_VERSION = 10


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
        self._types: dict[str, TypeModel] = {}
        self._states = SensorStates.empty(64, self.settings.history_size)
        self._free: list[int] = list(range(63, -1, -1))

    @property
    def models(self) -> int:
        """Number of sensor types that have a model."""
        return sum(model.forest is not None for model in self._types.values())

    def sensors(self, sensor_type: str) -> list[str]:
        """Return the sensors of a type that are remembered."""
        model = self._types.get(sensor_type)
        return list(model.slots) if model else []

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
        chunk = max(1, self.settings.forget_readings // 2)
        parts = []
        for first in range(0, max(1, len(values)), chunk):
            cut = slice(first, first + chunk)
            parts.append(
                self._process(
                    sensor_types[cut], sensor_ids[cut], values[cut], timestamp_us[cut], learn_only
                )
            )
        return parts[0] if len(parts) == 1 else Verdicts.joined(parts)

    def _process(
        self,
        sensor_types: Sequence[str],
        sensor_ids: Sequence[str],
        values: Floats,
        timestamp_us: Ints,
        learn_only: bool,
    ) -> Verdicts:
        verdicts = Verdicts.unknown(len(values))
        rows_of = _by_type(sensor_types)
        for sensor_type in rows_of.keys() - self._types.keys():
            self._types[sensor_type] = TypeModel(sensor_type, self.settings, self._clock)
        slots = self._slots(sensor_types, sensor_ids)
        numbers = {t: self._types[t].readings + np.arange(len(r)) for t, r in rows_of.items()}
        for sensor_type, rows in rows_of.items():
            self._start_anew_after_long(slots[rows], numbers[sensor_type])
        features = compute_features(self._states, slots, values, timestamp_us)
        for sensor_type, rows in rows_of.items():
            self._states.last[slots[rows]] = numbers[sensor_type]
            self._types[sensor_type].process(
                rows, features.vectors, features.accepted, features.cold, values, timestamp_us,
                verdicts, learn_only,
            )  # fmt: skip
        return verdicts

    def _start_anew_after_long(self, slots: npt.NDArray[np.intp], numbers: Ints) -> None:
        """Empty the states of sensors of a type that have not been seen for long.

        ``numbers`` counts the type's readings. That is what makes the memory of such a sensor worth
        nothing, so that it makes no difference when it is let go (``_let_go``).
        """
        sensors, first = np.unique(slots, return_index=True)
        unseen = numbers[first] - self._states.last[sensors]
        gone = sensors[unseen > self.settings.forget_readings]
        if len(gone):
            self._states.put(gone, SensorStates.empty(len(gone), self.settings.history_size))

    def _let_go(self) -> None:
        """Free the slots of sensors that would start anew anyway."""
        for model in self._types.values():
            self._let_go_of(model)

    def _let_go_of(self, model: TypeModel) -> None:
        names = list(model.slots)
        slots = as_slots([model.slots[name] for name in names])
        unseen = model.readings - self._states.last[slots]
        for place in np.flatnonzero(unseen > self.settings.forget_readings).tolist():
            self._free.append(model.slots.pop(names[place]))

    def _slots(
        self, sensor_types: Sequence[str], sensor_ids: Sequence[str]
    ) -> npt.NDArray[np.intp]:
        slots = self._known_slots(sensor_types, sensor_ids)
        new = {(sensor_types[row], sensor_ids[row]) for row in np.flatnonzero(slots < 0).tolist()}
        if len(new) > len(self._free):
            self._let_go()
            slots = self._known_slots(sensor_types, sensor_ids)
        for row in np.flatnonzero(slots < 0).tolist():
            known = self._types[sensor_types[row]].slots
            if sensor_ids[row] not in known:
                known[sensor_ids[row]] = self._new_slot()
            slots[row] = known[sensor_ids[row]]
        return slots

    def _known_slots(
        self, sensor_types: Sequence[str], sensor_ids: Sequence[str]
    ) -> npt.NDArray[np.intp]:
        types = {t: model.slots for t, model in self._types.items()}
        pairs = zip(sensor_types, sensor_ids, strict=True)
        return as_slots([types[t].get(i, -1) for t, i in pairs])

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self._states)
            self._states.grow(max(64, size // 4))
            self._free = list(range(len(self._states) - 1, size - 1, -1))
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
        model = self._types.get(sensor_type) or TypeModel(sensor_type, self.settings, self._clock)
        self._let_go_of(model)
        names = list(model.slots)
        arrays = self._states.take(as_slots([model.slots[name] for name in names])).arrays()
        text = np.frombuffer("\0".join(names).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        states: dict[str, Any] = {f"s_{k}": v for k, v in arrays.items()}
        version = np.array(STATE_VERSION)
        # Of sensors seen once or twice most is empty.
        np.savez_compressed(buffer, version=version, sensors=text, **(states | model.save()))
        return buffer.getvalue()

    def restore(self, sensor_type: str, state: bytes) -> bool:
        """Continue a sensor type from a saved state, in place of what is known of it.

        Returns whether that was possible: not from the state of another version of this class, or
        of another history size.
        """
        self.forget(sensor_type)
        model = TypeModel(sensor_type, self.settings, self._clock)
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


__all__ = ["AnomalyDetector", "Training", "Verdicts"]
