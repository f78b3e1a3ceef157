"""Readings to messages: one by one, or in bulk the same bytes at a tenth of the cost.

What all readings of one sensor have in common is encoded once; values and times are encoded as
columns, by the same JSON library as single readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson


@dataclass(frozen=True)
class Reading:
    """One measured value of one sensor at one event time (``timestamp``, aware, UTC)."""

    sensor_id: str
    sensor_type: str
    location: str
    value: float
    timestamp: datetime
    anomaly: bool
    unit: str


def reading_key(location: str, sensor_type: str) -> bytes:
    """Return the message key: it keeps the readings of one window in order in one partition."""
    return f"{location}/{sensor_type}".encode()


def encode_reading(reading: Reading) -> bytes:
    """Return the message of a reading, UTF-8 JSON."""
    return orjson.dumps(
        {
            "sensor_id": reading.sensor_id,
            "sensor_type": reading.sensor_type,
            "location": reading.location,
            "value": reading.value,
            "timestamp": reading.timestamp.isoformat(),
            "anomaly": reading.anomaly,
            "unit": reading.unit,
        }
    )


class Sensor(NamedTuple):
    """What all readings of one sensor have in common."""

    sensor_id: str
    sensor_type: str
    location: str
    unit: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sensor's messages but for value and time.

    Attributes
    ----------
    key : bytes
        Message key.
    head : bytes
        What comes before the value.
    tails : tuple of bytes
        What comes after the time, without and with the ``anomaly`` flag.
    """

    key: bytes
    head: bytes
    tails: tuple[bytes, bytes]


@dataclass(frozen=True)
class Messages:
    """Messages ready to be sent, in order.

    Attributes
    ----------
    keys, payloads : list of bytes
        One each per message.
    truths : list of bytes or None
        The injected anomaly a reading belongs to, ``kind:event_id``; None = unknown or none.
    """

    keys: list[bytes]
    payloads: list[bytes]
    truths: list[bytes | None]

    def __len__(self) -> int:
        return len(self.payloads)

    def since(self, first: int) -> Messages:
        """Return the messages from index ``first`` on."""
        if first == len(self):
            return NO_MESSAGES
        return Messages(self.keys[first:], self.payloads[first:], self.truths[first:])


NO_MESSAGES = Messages([], [], [])


def envelope(sensor: Sensor) -> Envelope:
    """Return the envelope of a sensor's messages."""
    named = orjson.dumps(
        {
            "sensor_id": sensor.sensor_id,
            "sensor_type": sensor.sensor_type,
            "location": sensor.location,
        }
    )
    unit = orjson.dumps(sensor.unit)
    return Envelope(
        reading_key(sensor.location, sensor.sensor_type),
        named[:-1] + b',"value":',
        (b',"anomaly":false,"unit":%b}' % unit, b',"anomaly":true,"unit":%b}' % unit),
    )


def encode_readings(
    envelopes: Sequence[Envelope],
    values: npt.NDArray[np.float64],
    timestamp_us: npt.NDArray[np.int64],
    anomaly: Sequence[bool],
) -> list[bytes]:
    """Return the messages of many readings, the same bytes as ``encode_reading`` gives.

    Parameters
    ----------
    envelopes : sequence of Envelope
        Of each reading's sensor.
    values : array of float64
        Finite.
    timestamp_us : array of int64
        Microseconds since the epoch, UTC; years 1 to 9999.
    anomaly : sequence of bool
        The flags.
    """
    if not len(envelopes):
        return []
    value_texts = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    times = timestamp_us.astype("datetime64[us]")
    time_texts = orjson.dumps(times, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC)
    rows = zip(envelopes, value_texts, time_texts[1:-1].split(b","), anomaly, strict=True)
    return [
        b'%b%b,"timestamp":%b%b' % (each.head, value, time, each.tails[flag])
        for each, value, time, flag in rows
    ]
