"""The catalogue: what each type of sensor measures, and what is normal at each location.

Figures are those of ordinary building sensors. A sensor's *operating band* is the rule it applies
by itself: what its place normally does, and six sigma of noise; beyond it the ``anomaly`` flag is
set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The band ends so many standard deviations of noise beyond the normal levels.
BAND_SIGMAS = 6.0


@dataclass(frozen=True)
class SensorType:
    """What one type of sensor measures; all figures in its ``unit``.

    Attributes
    ----------
    physical_range : tuple of float
        What the instrument can put out; a value beyond is cut to it.
    baseline : float
        Mean level at a location without an offset of its own.
    daily_amplitude, peak_hour : float
        Half the swing over a day, and the hour (UTC) at which it is highest.
    drift : float
        Bound of the slow wander around the daily cycle.
    air_coupling : float
        Share of that wander, -1..1, which follows the air at the location, and its direction:
        when ventilation ebbs, it gets warmer, drier and stuffier together.
    noise_sd : float
        Standard deviation of the noise.
    resolution : float
        Step of the instrument, a multiple of 0.01.
    """

    name: str
    unit: str
    physical_range: tuple[float, float]
    baseline: float
    daily_amplitude: float
    peak_hour: float
    drift: float
    air_coupling: float
    noise_sd: float
    resolution: float


@dataclass(frozen=True)
class Location:
    """What is special about a place.

    Attributes
    ----------
    offsets : mapping
        Per sensor type, how far its baseline is off, in the type's unit.
    daily_factors : mapping
        Per sensor type, how much larger the daily swing is (default 1).
    noise_factor : float
        How much larger the noise is.
    """

    name: str
    offsets: Mapping[str, float]
    daily_factors: Mapping[str, float]
    noise_factor: float = 1.0


SENSOR_TYPES = {
    each.name: each
    for each in (
        SensorType("temperature", "°C", (-40, 85), 22, 1.5, 14, 0.5, 0.5, 0.15, 0.01),
        SensorType("humidity", "%", (0, 100), 45, 3.0, 5, 2.0, -0.5, 0.6, 0.01),
        SensorType("air_quality", "AQI", (0, 500), 60, 12.0, 16, 8.0, 0.4, 2.0, 0.1),
        SensorType("pressure", "hPa", (300, 1100), 1013.25, 0.8, 9, 2.0, 0.0, 0.12, 0.01),
        SensorType("co2", "ppm", (0, 5000), 620, 60.0, 13, 25.0, 0.5, 6.0, 0.1),
    )
}

LOCATIONS = {
    each.name: each
    for each in (
        # Cooled and dried around the clock, nobody breathes there.
        Location(
            "Server Room",
            {"temperature": -3, "humidity": -8, "air_quality": -20, "co2": -150},
            {"temperature": 0.3, "humidity": 0.4, "air_quality": 0.3, "co2": 0.2},
        ),
        # People by day; ten metres up.
        Location(
            "Office Floor 3",
            {"temperature": 0.5, "air_quality": -10, "pressure": -1.2, "co2": 150},
            {"co2": 4.0},
        ),
        # Hardly heated, doors open.
        Location(
            "Warehouse",
            {"temperature": -5, "humidity": 8, "air_quality": 5, "co2": -120},
            {"temperature": 2.0, "humidity": 1.5},
        ),
        # Air-conditioned and filtered.
        Location(
            "Laboratory",
            {"temperature": -1, "humidity": -3, "air_quality": -25, "co2": -60},
            {"temperature": 0.4, "humidity": 0.4, "air_quality": 0.5, "co2": 0.8},
        ),
        # Machines: warm, dusty and electrically noisy.
        Location(
            "Manufacturing",
            {"temperature": 4, "humidity": -4, "air_quality": 45, "co2": 60},
            {"temperature": 1.5, "air_quality": 1.5, "co2": 1.5},
            noise_factor=1.4,
        ),
    )
}


def baseline(sensor_type: SensorType, location: Location) -> float:
    """Return the mean level of a type at a location, in the type's unit."""
    return sensor_type.baseline + location.offsets.get(sensor_type.name, 0.0)


def daily_amplitude(sensor_type: SensorType, location: Location) -> float:
    """Return half the daily swing of a type at a location, in the type's unit."""
    return sensor_type.daily_amplitude * location.daily_factors.get(sensor_type.name, 1.0)


def noise_sd(sensor_type: SensorType, location: Location) -> float:
    """Return the noise's standard deviation of a type at a location, in the type's unit."""
    return sensor_type.noise_sd * location.noise_factor


def operating_band(sensor_type: SensorType, location: Location) -> tuple[float, float]:
    """Return the lowest and highest value that a sensor there takes for normal (both included)."""
    margin = (
        daily_amplitude(sensor_type, location)
        + sensor_type.drift
        + BAND_SIGMAS * noise_sd(sensor_type, location)
    )
    level = baseline(sensor_type, location)
    low, high = sensor_type.physical_range
    return max(low, level - margin), min(high, level + margin)
