"""What the producer sends, and when: a simulated fleet at a rate, or a recording at its own pace.

Both answer two questions, how many readings are due and how long until the next one is, and hand
out the messages (``Feed`` in service/sending.py). They are told the time and know no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.encoding import Envelope, Messages, Sensor, encode_readings, envelope
from simulator.fleet import AnomalyKind, SensorSimulator
from simulator.replay import BrokenLine, Recording

# Readings (or lines) taken at once: a few milliseconds of work, then the stop flag is looked at.
CHUNK = 2_000
# A sensor that was suspended for longer than this does not measure what it missed, seconds.
MAX_BEHIND_SECONDS = 5.0
# Broken lines of a recording that are reported one by one; beyond it they are only counted.
MAX_REPORTED_LINES = 1_000
# Readings of a recording that are held and sorted together: 25 bytes each, and as much to sort.
MAX_SORTED = 2_000_000


class RateSchedule:
    """Reading n is due n / rate seconds after the first: exact on average, whatever one is late.

    Parameters
    ----------
    rate : float
        Readings per second; 0 = always due.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._start_s: float | None = None
        self._taken = 0

    def due(self, now_s: float) -> int:
        """Return how many readings are due and not taken."""
        if not self.rate:
            return CHUNK
        if self._start_s is None:
            self._start_s = now_s
        behind = math.floor((now_s - self._start_s) * self.rate) + 1 - self._taken
        if behind > self.rate * MAX_BEHIND_SECONDS + 1:
            self._start_s, self._taken = now_s, 0
            behind = 1
        return behind

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next reading is due."""
        if not self.rate or self._start_s is None:
            return 0.0
        return max(0.0, self._start_s + self._taken / self.rate - now_s)

    def take(self, count: int) -> None:
        """Note that so many were taken."""
        self._taken += count


class SimulatedFeed:
    """A simulated fleet at a rate, for ever."""

    is_over = False

    def __init__(self, simulator: SensorSimulator, rate: float) -> None:
        self.is_paced = rate > 0
        self.skipped: Counter[str] = Counter()
        self._simulator = simulator
        self._schedule = RateSchedule(rate)
        self._envelopes = [envelope(sensor) for sensor in simulator.sensors]

    def due(self, now_s: float) -> int:
        """Return how many readings may be taken now, at most ``CHUNK``."""
        return min(self._schedule.due(now_s), CHUNK)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next reading is due."""
        return self._schedule.wait_s(now_s)

    def take(self, count: int, now_us: int) -> Messages:
        """Return the messages of the next ``count`` readings, with the injected truth."""
        self._schedule.take(count)
        readings = self._simulator.read(sending_times(count, now_us))
        envelopes = [self._envelopes[i] for i in readings.sensor.tolist()]
        truths: list[bytes | None] = [None] * count
        injected = np.flatnonzero(readings.kind)
        for row, kind, event_id in zip(
            injected.tolist(),
            readings.kind[injected].tolist(),
            readings.event_id[injected].tolist(),
            strict=True,
        ):
            truths[row] = b"%b:%d" % (_KIND_NAMES[kind], event_id)
        payloads = encode_readings(
            envelopes,
            readings.hundredths / 100,
            readings.timestamp_us,
            readings.anomaly.tolist(),
        )
        return Messages([each.key for each in envelopes], payloads, truths)


_KIND_NAMES = {int(kind): kind.name.lower().encode() for kind in AnomalyKind}


class ReplayFeed:
    """A recording, its gaps divided by ``speed``, sorted by time as far as memory allows.

    Parameters
    ----------
    recording : Recording
        What to send.
    speed : float
        How much faster than recorded; 0 = no waiting.
    keep_timestamps : bool
        Send the recorded times, not the times of sending.
    report : callable
        Told of each broken line, up to a thousand.
    portion : int
        Readings that are sorted together.

    Attributes
    ----------
    skipped : Counter
        Broken lines by the code of their reason.
    is_sorted : bool
        False once a portion had readings older than the portion before.
    """

    def __init__(
        self,
        recording: Recording,
        speed: float,
        keep_timestamps: bool,
        report: Callable[[BrokenLine], None],
        portion: int = MAX_SORTED,
    ) -> None:
        self.is_paced = speed > 0
        self.skipped: Counter[str] = Counter()
        self.is_sorted = True
        self._recording = recording
        self._speed = speed
        self._keep_timestamps = keep_timestamps
        self._report = report
        self._most = portion
        self._sensors: dict[Sensor, int] = {}
        self._envelopes: list[Envelope] = []
        self._start_s: float | None = None
        self._first_us: int | None = None
        self._latest_us = 0
        self._gathered: list[_Portion] = []
        self._readings = _NONE
        self._due_s = np.zeros(0)
        self._taken = 0

    def _gather(self) -> None:
        """Read some lines; once there is a portion, or no more for now, sort it."""
        chunk = self._recording.read(CHUNK)
        for line in chunk.broken[: max(0, MAX_REPORTED_LINES - self.skipped.total())]:
            self._report(line)
        self.skipped.update(line.code for line in chunk.broken)
        numbers = np.fromiter(map(self._number, chunk.sensors), np.int64, len(chunk))
        self._gathered.append(_Portion(numbers, chunk.values, chunk.timestamp_us, chunk.anomaly))
        is_last = self._recording.is_over or self._recording.is_paused
        if is_last or sum(len(p.sensor) for p in self._gathered) >= self._most:
            self._readings = _sorted(self._gathered)
            self._gathered = []
            self._taken = 0
            self._due_s = self._offsets_s(self._readings.timestamp_us)

    def _number(self, sensor: Sensor) -> int:
        number = self._sensors.setdefault(sensor, len(self._sensors))
        if number == len(self._envelopes):
            self._envelopes.append(envelope(sensor))
        return number

    def _offsets_s(self, timestamp_us: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return how long after the start the readings are due; never falls."""
        if not len(timestamp_us):
            return np.zeros(0)
        if self._first_us is None:
            self._first_us = self._latest_us = int(timestamp_us[0])
        self.is_sorted &= bool(timestamp_us[0] >= self._latest_us)
        # What belongs before what has been sent goes out at once.
        latest = np.maximum(timestamp_us, self._latest_us)
        self._latest_us = int(latest[-1])
        offsets: npt.NDArray[np.float64] = (latest - self._first_us) / 1e6
        return offsets / self._speed if self.is_paced else np.zeros(len(timestamp_us))

    @property
    def is_over(self) -> bool:
        """Whether everything has been taken."""
        return self._taken == len(self._due_s) and self._recording.is_over

    def due(self, now_s: float) -> int:
        """Return how many readings may be taken now, at most ``CHUNK``."""
        if self._taken == len(self._due_s) and not self._recording.is_over:
            self._gather()
        if self._start_s is None and len(self._due_s):
            self._start_s = now_s
        due = np.searchsorted(self._due_s, now_s - (self._start_s or now_s), side="right")
        return min(CHUNK, max(0, int(due) - self._taken))

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next reading is due."""
        if self._start_s is None or self._taken == len(self._due_s):
            return 0.0
        return max(0.0, self._start_s + float(self._due_s[self._taken]) - now_s)

    def take(self, count: int, now_us: int) -> Messages:
        """Return the messages of the next ``count`` readings."""
        rows = slice(self._taken, self._taken + count)
        self._taken += count
        envelopes = [self._envelopes[number] for number in self._readings.sensor[rows].tolist()]
        times = self._readings.timestamp_us[rows]
        payloads = encode_readings(
            envelopes,
            self._readings.values[rows],
            times if self._keep_timestamps else sending_times(count, now_us),
            self._readings.anomaly[rows].tolist(),
        )
        return Messages([each.key for each in envelopes], payloads, [None] * count)


class _Portion(NamedTuple):
    """Readings in order of time; ``sensor`` numbers the envelopes."""

    sensor: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: npt.NDArray[np.bool_]


def _sorted(parts: Sequence[_Portion]) -> _Portion:
    order = np.argsort(np.concatenate([part.timestamp_us for part in parts]), kind="stable")
    return _Portion(
        np.concatenate([part.sensor for part in parts])[order],
        np.concatenate([part.values for part in parts])[order],
        np.concatenate([part.timestamp_us for part in parts])[order],
        np.concatenate([part.anomaly for part in parts])[order],
    )


_NONE = _Portion(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_))


def sending_times(count: int, now_us: int) -> npt.NDArray[np.int64]:
    """Return the times of readings sent together: a microsecond apart, the last one now."""
    return np.arange(now_us - count + 1, now_us + 1)
