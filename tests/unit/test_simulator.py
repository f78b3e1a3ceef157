"""The fleet: stable, the same for any batching, with anomalies of six kinds in their share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.fleet import AnomalyKind, SensorSimulator, make_fleet
from simulator.sensor_types import LOCATIONS, SENSOR_TYPES, operating_band

START_US = 1_767_225_600_000_000


def times(count, first=0):
    return START_US + np.arange(first, first + count) * 40_000


def rows(readings):
    return list(
        zip(
            readings.sensor.tolist(),
            readings.hundredths.tolist(),
            readings.anomaly.tolist(),
            readings.kind.tolist(),
            readings.event_id.tolist(),
            strict=True,
        )
    )


def test_the_fleet_is_every_type_at_every_location_once():
    fleet = make_fleet(25)
    assert {(s.sensor_type, s.location) for s in fleet} == {
        (kind, place) for kind in SENSOR_TYPES for place in LOCATIONS
    }
    assert len({s.sensor_id for s in fleet}) == 25
    assert {s.sensor_type: s.unit for s in fleet} == {
        "temperature": "°C",
        "humidity": "%",
        "air_quality": "AQI",
        "pressure": "hPa",
        "co2": "ppm",
    }


def test_a_sensor_keeps_its_id_in_a_larger_fleet():
    assert make_fleet(1000)[:25] == make_fleet(25)
    assert len({s.sensor_id for s in make_fleet(1000)}) == 1000


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_any_batching_gives_the_same_readings(sizes):
    total = sum(sizes)
    whole = rows(SensorSimulator(7, sensors=6, anomaly_rate=0.3).read(times(total)))
    one = SensorSimulator(7, sensors=6, anomaly_rate=0.3)
    parts, first = [], 0
    for size in sizes:
        parts += rows(one.read(times(size, first)))
        first += size
    assert parts == whole


def test_another_seed_gives_other_readings():
    assert rows(SensorSimulator(1).read(times(100))) != rows(SensorSimulator(2).read(times(100)))


def test_all_six_kinds_occur_and_have_their_share():
    kinds = SensorSimulator(3).read(times(300_000)).kind
    shares = np.bincount(kinds, minlength=7) / len(kinds)
    assert shares[1:].sum() == pytest.approx(0.05, abs=0.005)
    assert shares[1:] == pytest.approx(np.full(6, 0.05 / 6), rel=0.4)


def test_without_anomalies_there_are_none():
    assert not SensorSimulator(3, anomaly_rate=0).read(times(5_000)).kind.any()


def test_the_flag_is_the_sensors_operating_band_and_not_the_injected_truth():
    simulator = SensorSimulator(3)
    readings = simulator.read(times(50_000))
    bands = [
        operating_band(SENSOR_TYPES[s.sensor_type], LOCATIONS[s.location])
        for s in simulator.sensors
    ]
    low, high = (np.array(side)[readings.sensor] * 100 for side in zip(*bands, strict=True))
    outside = (readings.hundredths < low) | (readings.hundredths > high)
    assert (readings.anomaly == outside).all()
    assert (readings.kind[~readings.anomaly] > 0).any()  # stuck within the band, say


def test_a_stuck_sensor_repeats_its_value_and_a_spike_leaves_the_level():
    readings = SensorSimulator(3, sensors=1, anomaly_rate=0.3).read(times(20_000))
    for event in np.unique(readings.event_id[readings.kind == AnomalyKind.STUCK]):
        assert len(np.unique(readings.hundredths[readings.event_id == event])) == 1
    ordinary = readings.hundredths[readings.kind == 0]
    spikes = readings.hundredths[readings.kind == AnomalyKind.SPIKE]
    assert np.median(spikes) > np.quantile(ordinary, 0.999)


def test_values_follow_the_day():
    hourly = START_US + np.arange(24) * 3_600_000_000
    simulator = SensorSimulator(3, sensors=1, anomaly_rate=0)
    means = [
        np.mean(simulator.read(np.full(200, hour)).hundredths) / 100 for hour in hourly.tolist()
    ]
    assert max(means) - min(means) > 0.5  # °C in the server room, whose day is small


@pytest.mark.parametrize("options", [{"sensors": 0}, {"anomaly_rate": 0.6}, {"anomaly_rate": -1}])
def test_impossible_fleets_are_refused(options):
    with pytest.raises(ValueError, match="="):
        SensorSimulator(1, **options)
