"""A fleet of simulated sensors: daily cycles, drift, noise, and anomalies of six kinds.

The same seed and the same times give the same readings, however they are asked for: one by one or
ten thousand at once. A reading's value depends on the seed, on its time (daily cycle, drift) and on
its number (noise, anomalies), and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pipeline.encoding import Sensor
from simulator.sensor_types import (
    LOCATIONS,
    SENSOR_TYPES,
    Location,
    SensorType,
    baseline,
    daily_amplitude,
    noise_sd,
    operating_band,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# What stands where: sensor n of a fleet of any size is of the n-th kind here, and so on, round.
PLACEMENTS = tuple((kind, place) for place in LOCATIONS.values() for kind in SENSOR_TYPES.values())

# Correlation of a sensor's noise from one reading to its next, at any interval.
NOISE_CORRELATION = 0.5
# The drift is made of three waves of such periods (shortest, longest), seconds: two are the
# sensor's own, the third is the air of its location, which its neighbours feel too.
WAVE_PERIODS_SECONDS = ((3 * 3600.0, 9 * 3600.0), (1.5 * 3600.0, 3 * 3600.0), (1800.0, 5400.0))
_DAY_SECONDS = 86_400.0
_MICROSECONDS = 1e6
# A table, not np.sin: a reading must have the same bits in a batch of any size.
_SINE_STEPS = 1 << 16
_SINE = np.sin(np.arange(_SINE_STEPS) * (2 * np.pi / _SINE_STEPS))


class AnomalyKind(IntEnum):
    """Kinds of injected anomalies; 0 is an ordinary reading."""

    NONE = 0
    SPIKE = 1
    DROP = 2
    LEVEL_SHIFT = 3
    RAMP = 4
    STUCK = 5
    NOISE_BURST = 6


# Per kind: shortest and longest event, readings; smallest and largest size, standard deviations of
# the sensor's noise. Ramp: size at its end; noise burst: of the noise meanwhile; stuck: none.
EVENTS: dict[AnomalyKind, tuple[int, int, float, float]] = {
    AnomalyKind.SPIKE: (1, 3, 8.0, 40.0),
    AnomalyKind.DROP: (1, 3, 8.0, 40.0),
    AnomalyKind.LEVEL_SHIFT: (20, 60, 6.0, 25.0),
    AnomalyKind.RAMP: (20, 60, 10.0, 40.0),
    AnomalyKind.STUCK: (20, 60, 0.0, 0.0),
    AnomalyKind.NOISE_BURST: (20, 60, 5.0, 12.0),
}
MAX_ANOMALY_RATE = 0.5
_EVENT_TABLE = np.array(list(EVENTS.values()))
# All kinds have the same share of the readings, so short ones have more events.
_MEAN_LENGTHS = _EVENT_TABLE[:, :2].mean(axis=1)
_KIND_BOUNDS = np.cumsum((1 / _MEAN_LENGTHS) / np.sum(1 / _MEAN_LENGTHS))
_MEAN_LENGTH = len(EVENTS) / np.sum(1 / _MEAN_LENGTHS)
_NEVER = np.iinfo(np.int64).max

# Streams of random numbers that a seed is split into.
_NOISE, _TRAITS, _EVENTS = 1, 2, 3


@dataclass(frozen=True)
class SimulatedReadings:
    """Readings as columns, in the order of their times, with the truth beside them.

    Attributes
    ----------
    sensor : array of int64
        Index into the simulator's ``sensors``.
    hundredths, timestamp_us : array of int64
        Value in hundredths of its unit; event time in microseconds since the epoch, UTC.
    anomaly : array of bool
        The sensor's own verdict: outside its operating band.
    kind, event_id : array of int64
        The truth: ``AnomalyKind``, and the event the reading belongs to (-1: none).
    """

    sensor: Ints
    hundredths: Ints
    timestamp_us: Ints
    anomaly: npt.NDArray[np.bool_]
    kind: Ints
    event_id: Ints

    def __len__(self) -> int:
        return len(self.sensor)


def make_fleet(sensors: int) -> tuple[Sensor, ...]:
    """Return so many sensors, e.g. ``temperature-server-room-1``; the first 25 are all different.

    Sensor n is the same in a fleet of any size.
    """
    fleet = []
    for index in range(sensors):
        number, which = divmod(index, len(PLACEMENTS))
        kind, place = PLACEMENTS[which]
        slug = f"{kind.name}-{place.name}".replace("_", "-").replace(" ", "-").lower()
        fleet.append(Sensor(f"{slug}-{number + 1}", kind.name, place.name, kind.unit))
    return tuple(fleet)


class SensorSimulator:
    """Sensors that are read in turn: the first reading is the first sensor's, and so on, round.

    Parameters
    ----------
    seed : int
        Of everything that is random; 0 or more.
    sensors : int
        Size of the fleet; 1 or more.
    anomaly_rate : float
        Share of readings inside an injected event, 0 to 0.5. The six kinds have equal shares of
        these readings.
    """

    def __init__(self, seed: int, sensors: int = 25, anomaly_rate: float = 0.05) -> None:
        if sensors < 1:
            raise ValueError(f"sensors={sensors}: at least 1")
        if not 0 <= anomaly_rate <= MAX_ANOMALY_RATE:
            raise ValueError(f"anomaly_rate={anomaly_rate} is outside [0, {MAX_ANOMALY_RATE}]")
        self.sensors = make_fleet(sensors)
        self._traits = _Traits(seed, sensors)
        self._events = _EventStream(seed, sensors, anomaly_rate)
        self._random = np.random.default_rng([seed, _NOISE])
        # The noise of the last round; it starts as if it had been running for ever.
        self._last_noise = self._random.standard_normal(sensors)
        self._next_position = 0

    def read(self, timestamp_us: Ints) -> SimulatedReadings:
        """Return the next readings, one for each time (microseconds since the epoch)."""
        first = self._next_position
        self._next_position += len(timestamp_us)
        sensor = np.arange(first, self._next_position) % len(self.sensors)
        traits = self._traits
        sd = traits.noise_sd[sensor]
        level = traits.level(sensor, timestamp_us)
        innovation = self._random.standard_normal(len(sensor))
        values = level + sd * self._correlated(innovation)
        kind, event_id = self._events.inject(first, values, level, sd * innovation, sd)

        within = np.clip(values, traits.lowest[sensor], traits.highest[sensor])
        steps = np.rint(within / traits.resolution[sensor]).astype(np.int64)
        hundredths = steps * traits.resolution_hundredths[sensor]
        anomaly = (hundredths < traits.band_low[sensor]) | (hundredths > traits.band_high[sensor])
        return SimulatedReadings(sensor, hundredths, timestamp_us, anomaly, kind, event_id)

    def _correlated(self, innovation: Floats) -> Floats:
        """Return autoregressive noise of unit variance: a sensor's last one is a round before."""
        per_round = len(self.sensors)
        noise = np.concatenate([self._last_noise, innovation * np.sqrt(1 - NOISE_CORRELATION**2)])
        for first in range(per_round, len(noise), per_round):
            last = min(first + per_round, len(noise))
            noise[first:last] += NOISE_CORRELATION * noise[first - per_round : last - per_round]
        self._last_noise = noise[len(innovation) :].copy()
        return noise[per_round:]


class _Traits:
    """What distinguishes the sensors: columns, one row per sensor."""

    def __init__(self, seed: int, sensors: int) -> None:
        own = np.arange(sensors)
        of_placement = own % len(PLACEMENTS)

        def column(figure: Callable[[SensorType, Location], float]) -> Floats:
            return np.array([figure(*p) for p in PLACEMENTS], dtype=np.float64)[of_placement]

        self.noise_sd = column(noise_sd)
        self.resolution = column(lambda kind, place: kind.resolution)
        self.resolution_hundredths = np.rint(self.resolution * 100).astype(np.int64)
        self.lowest = column(lambda kind, place: kind.physical_range[0])
        self.highest = column(lambda kind, place: kind.physical_range[1])
        self.band_low = column(lambda kind, place: operating_band(kind, place)[0] * 100)
        self.band_high = column(lambda kind, place: operating_band(kind, place)[1] * 100)
        self._baseline = column(baseline)

        # Waves: the day, then those of the drift. A sine is highest at a quarter of its turn.
        drift = column(lambda kind, place: kind.drift)
        air = column(lambda kind, place: kind.air_coupling)
        rest = drift * (1 - np.abs(air))
        self._amplitudes = [column(daily_amplitude), rest * 0.6, rest * 0.4, drift * air]
        self._turns_per_us = [np.full(sensors, 1 / (_DAY_SECONDS * _MICROSECONDS))]
        self._phases = [0.25 - column(lambda kind, place: kind.peak_hour / 24)]
        keys = iter(_keys(seed, _TRAITS, 2 * len(WAVE_PERIODS_SECONDS)))
        owners = (own, own, of_placement // len(SENSOR_TYPES))
        for (shortest, longest), owner in zip(WAVE_PERIODS_SECONDS, owners, strict=True):
            period_s = shortest + (longest - shortest) * _uniform(next(keys), owner)
            self._turns_per_us.append(1 / (period_s * _MICROSECONDS))
            self._phases.append(_uniform(next(keys), owner))

    def level(self, sensor: Ints, timestamp_us: Ints) -> Floats:
        """Return what a sensor without noise would show at a time."""
        level = self._baseline[sensor]
        waves = zip(self._amplitudes, self._turns_per_us, self._phases, strict=True)
        for amplitude, turns_per_us, phase in waves:
            turns = timestamp_us * turns_per_us[sensor] + phase[sensor]
            step = (turns * _SINE_STEPS).astype(np.int64) & (_SINE_STEPS - 1)
            level += amplitude[sensor] * _SINE[step]
        return level


class _EventStream:
    """The injected anomalies: one event after the other on every sensor, with gaps between them.

    Positions count the readings of the whole fleet. An event of one sensor covers every n-th
    position from ``begin`` up to ``end``, n being the number of sensors.
    """

    def __init__(self, seed: int, sensors: int, anomaly_rate: float) -> None:
        self._sensors = sensors
        self._keys = _keys(seed, _EVENTS, 5)
        self._number = np.zeros(sensors, dtype=np.int64)
        self._begin = np.full(sensors, _NEVER)
        self._end = np.arange(sensors)
        self._kind = np.zeros(sensors, dtype=np.int64)
        self._size = np.zeros(sensors)
        self._held = np.zeros(sensors)  # what a stuck sensor shows
        if anomaly_rate:
            self._mean_gap = _MEAN_LENGTH * (1 - anomaly_rate) / anomaly_rate
            self._schedule(np.arange(sensors))

    def _schedule(self, sensor: Ints) -> None:
        """Draw the next event of some sensors, after their present one."""
        self._number[sensor] += 1
        # Every draw depends on seed, sensor and event only, not on the order of the draws.
        which, length, size, sign, gap = (_uniform(k, self._id(sensor)) for k in self._keys)
        row = np.searchsorted(_KIND_BOUNDS[:-1], which, side="right")
        shortest, longest, smallest, largest = _EVENT_TABLE[row].T
        kind = row + 1
        either_way = np.isin(kind, [AnomalyKind.LEVEL_SHIFT, AnomalyKind.RAMP])
        is_down = (kind == AnomalyKind.DROP) | (either_way & (sign < 0.5))
        self._kind[sensor] = kind
        self._size[sensor] = (smallest + size * (largest - smallest)) * np.where(is_down, -1, 1)
        readings = np.floor(shortest + length * (longest - shortest + 1)).astype(np.int64)
        # Geometric: after each ordinary reading the next event is equally likely.
        wait = 1 + np.floor(np.log1p(-gap) / np.log1p(-1 / self._mean_gap)).astype(np.int64)
        self._begin[sensor] = self._end[sensor] + wait * self._sensors
        self._end[sensor] = self._begin[sensor] + readings * self._sensors

    def _id(self, sensor: Ints) -> Ints:
        return self._number[sensor] * self._sensors + sensor

    def inject(
        self, first: int, values: Floats, level: Floats, noise: Floats, sd: Floats
    ) -> tuple[Ints, Ints]:
        """Change ``values`` from position ``first`` on in place; return their kinds and events.

        ``level`` is what they would be without noise, ``noise`` is uncorrelated, ``sd`` its
        standard deviation.
        """
        last = first + len(values)
        kinds = np.zeros(len(values), dtype=np.int64)
        event_ids = np.full(len(values), -1)
        due = np.flatnonzero(self._begin < last)
        while len(due):
            for sensor, event_id in zip(due.tolist(), self._id(due).tolist(), strict=True):
                begin, end = int(self._begin[sensor]), int(self._end[sensor])
                # It may have begun in an earlier batch: go on at its next reading.
                done = max(0, -(-(first - begin) // self._sensors))
                start = begin + done * self._sensors - first
                rows = slice(start, max(start, min(end, last) - first), self._sensors)
                kinds[rows] = self._kind[sensor]
                event_ids[rows] = event_id
                if done == 0:
                    self._held[sensor] = values[start]
                size = self._size[sensor]
                match self._kind[sensor]:
                    case AnomalyKind.STUCK:
                        values[rows] = self._held[sensor]
                    case AnomalyKind.NOISE_BURST:
                        values[rows] = level[rows] + size * noise[rows]
                    case AnomalyKind.RAMP:
                        step = np.arange(done + 1, done + 1 + len(values[rows]))
                        values[rows] += size * sd[rows] * step / ((end - begin) // self._sensors)
                    case _:
                        values[rows] += size * sd[rows]
            due = due[self._end[due] <= last]
            self._schedule(due)
            due = due[self._begin[due] < last]
        return kinds, event_ids


def _keys(seed: int, stream: int, count: int) -> list[np.uint64]:
    return list(np.random.SeedSequence([seed, stream]).generate_state(count, np.uint64))


def _uniform(key: np.uint64, number: Ints) -> Floats:
    """Return a random number in [0, 1) for each number: SplitMix64, a function, not a sequence."""
    mixed = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)
    return mixed.astype(np.float64) * 2.0**-53
