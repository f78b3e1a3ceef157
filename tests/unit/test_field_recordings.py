"""Recordings as people have them (tests/field), replayed without options."""

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from pipeline.encoding import Sensor
from simulator.files import NoRecording, open_text
from simulator.replay import Recording
from tests.conftest import CHECKOUT

FIELD = CHECKOUT / "tests" / "field"


class Now(NamedTuple):
    """What is sent: readings, skipped lines, sensors, one of them, and the earliest time."""

    readings: int
    skipped: int
    sensors: int
    one: str
    earliest: str


REFUSED = "exit 2"
LOST = "exit 0, nothing sent"
# File, what became of it before, and what does now.
RECORDINGS = [
    (
        "01-semicolon-wide/skab.csv",
        REFUSED,
        Now(300, 0, 5, "AccelA/AccelA/unknown/", "2020-03-09T10:34:00"),
    ),
    (
        "02-decimal-comma/uci.csv",
        REFUSED,
        Now(21, 0, 3, "CO(GT)/CO(GT)/unknown/", "2004-03-10T18:00:00"),
    ),
    (
        "03-decimal-comma-quoted/dc.csv",
        LOST,
        Now(10, 0, 1, "file/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "05-epoch-ms/epochms.csv",
        LOST,
        Now(10, 0, 1, "file/unknown/unknown/", "2024-07-08T21:27:08"),
    ),
    (
        "06-influx-ns/influx.csv",
        REFUSED,
        Now(10, 0, 1, "file/unknown/unknown/", "2019-01-31T00:10:00"),
    ),
    (
        "08-home-assistant/ha.csv",
        REFUSED,
        Now(5, 3, 1, "sensor.wohnzimmer_temperatur/unknown/unknown/", "2025-08-31T20:00:00"),
    ),
    (
        "10-slash-dates/aot.csv",
        LOST,
        Now(10, 0, 1, "001e0610ba8f/humidity/unknown/", "2017-09-09T22:12:44"),
    ),
    (
        "11-openaq-gz/loc.csv.gz",
        REFUSED,
        Now(10, 0, 1, "3917/pm25/Del Norte-2178/µg/m³", "2022-05-03T06:00:00"),
    ),
    (
        "13-thousands/thousands.csv",
        LOST,
        Now(10, 0, 1, "file/unknown/unknown/", "2018-12-11T23:00:00"),
    ),
    (
        "15-excel-bom-sep/excel.csv",
        REFUSED,
        Now(10, 0, 1, "file/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "17-latin1/latin1.csv",
        REFUSED,
        Now(10, 0, 1, "file/unknown/unknown/°C", "2024-05-01T10:00:00"),
    ),
    (
        "18-upper-quoted-bom/ub.csv",
        "10 sent",
        Now(10, 0, 1, "a,b/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "19-descending/desc.csv",
        "60 sent, 53 late",
        Now(60, 0, 1, "file/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "20-sorted-by-sensor/intel.csv",
        "351 sent, 210 late",
        Now(351, 0, 3, "mote1/temperature/lab/", "2004-02-28T01:00:00"),
    ),
    (
        "22-long-gap/gap.csv",
        "4 sent, waits unsaid",
        Now(4, 0, 1, "file/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "24-big-counter/counter.csv",
        "2 sent",
        Now(2, 8, 1, "file/energy/unknown/Wh", "2024-05-01T10:00:00"),
    ),
    (
        "25-naive-dst/dst.csv",
        "24 sent, 5 late",
        Now(24, 0, 1, "file/unknown/unknown/", "2024-10-27T01:00:00"),
    ),
    ("27-headerless/nohead.csv", REFUSED, "no column of times"),
    (
        "28-comment-preamble/noaa.csv",
        REFUSED,
        Now(1, 0, 1, "file/unknown/unknown/", "2024-05-01T10:00:00"),
    ),
    (
        "31-many-types-one-place/wadi_melted.csv",
        "sent",
        Now(4800, 0, 120, "p000/tag_000/plant/", "2017-10-09T18:00:00"),
    ),
    (
        "32-constant-type/battery.csv",
        "sent",
        Now(3, 0, 1, "b1/battery/Cellar/V", "2024-05-01T10:00:00"),
    ),
    (
        "48-multi-sensor-device/bme280.csv",
        "sent",
        Now(360, 0, 3, "bme280-1/humidity/Attic/%", "2024-05-01T10:00:00"),
    ),
    (
        "52-slow-sensors-silent/slow30.csv",
        "sent",
        Now(360, 0, 30, "t00/temperature/Room 00/°C", "2024-05-01T10:00:00"),
    ),
]


def replay(name):
    with (FIELD / name).open("rb") as file:
        recording = Recording(open_text(file), Sensor("file", "", "unknown", ""))
        while not recording.is_over:
            yield recording.read(500)


@pytest.mark.parametrize(
    ("name", "now"), [(name, now) for name, _, now in RECORDINGS], ids=[r[0] for r in RECORDINGS]
)
def test_a_recording_of_the_field_is_sent_without_options(name, now):
    if isinstance(now, str):
        with pytest.raises(NoRecording, match=now):
            list(replay(name))
        return
    parts = list(replay(name))
    sensors = {sensor for part in parts for sensor in part.sensors}
    times = [time for part in parts for time in part.timestamp_us.tolist()]
    earliest = datetime.fromtimestamp(min(times) / 1e6, UTC)
    skipped = sum(len(part.broken) for part in parts)
    found = Now(
        len(times), skipped, len(sensors), "/".join(min(sensors)), earliest.isoformat()[:19]
    )
    assert found == now


def test_every_file_of_the_field_is_in_a_table():
    tables = {name for name, _, _ in RECORDINGS} | {"38-device-json/messages.tsv"}
    files = {str(path.relative_to(FIELD)) for path in FIELD.glob("*/*") if path.name != "README"}
    assert files == tables | {"36-all-rejected/message.json"}
