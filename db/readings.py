"""Tables sensor_readings and sensor_types: what the consumer stores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor
from db.copying import copy_csv, times, to_csv, values
from pipeline.reading import Readings

_COLUMNS = (
    *("sensor_id", "sensor_type", "location", "value", "timestamp", "anomaly", "unit"),
    *("source_id", "log_offset"),
)


def to_rows(source_id: int, offsets: npt.NDArray[np.int64], readings: Readings) -> bytes:
    """Return readings of one partition as rows; ``offsets`` are those of the whole batch."""
    fields = (
        readings.sensor_id,
        readings.sensor_type,
        readings.location,
        values(readings.hundredths),
        times(readings.timestamp_us),
        readings.anomaly,
        readings.unit,
        np.full(len(readings), source_id),
        offsets[readings.position],
    )
    return to_csv(dict(zip(_COLUMNS, fields, strict=True)))


def insert(tx: Cursor, rows: Iterable[bytes]) -> None:
    """Store what ``to_rows`` made."""
    copy_csv(tx, "sensor_readings", _COLUMNS, b"".join(rows))


def register_types(tx: Cursor, first_offsets: Iterable[tuple[str, int, int]]) -> None:
    """Note from which (sensor_type, source_id, first_offset) on types come; the earliest stays."""
    execute_values(
        tx,
        "INSERT INTO sensor_types (sensor_type, source_id, first_offset) VALUES %s"
        " ON CONFLICT DO NOTHING",
        list(first_offsets),
    )
