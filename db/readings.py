"""Tables sensor_readings and sensor_types: what the consumer stores."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor
from db.copying import (
    boolean_fields,
    copy_text,
    hundredths_fields,
    integer_fields,
    rows_text,
    text_fields,
    timestamp_fields,
)
from pipeline.reading import Readings

_COLUMNS = (
    *("sensor_id", "sensor_type", "location", "value", "timestamp", "anomaly", "unit"),
    *("source_id", "log_offset"),
)


def to_rows(source_id: int, offsets: npt.NDArray[np.int64], readings: Readings) -> str:
    """Return readings of one partition as rows; ``offsets`` are those of the whole batch."""
    return rows_text(
        (
            text_fields(readings.sensor_id),
            text_fields(readings.sensor_type),
            text_fields(readings.location),
            hundredths_fields(readings.hundredths),
            timestamp_fields(readings.timestamp_us),
            boolean_fields(readings.anomaly),
            text_fields(readings.unit),
            [str(source_id)] * len(readings),
            integer_fields(offsets[readings.position]),
        )
    )


def insert(tx: Cursor, rows: Iterable[str]) -> None:
    """Store what ``to_rows`` made."""
    copy_text(tx, "sensor_readings", _COLUMNS, "".join(rows))


def register_types(tx: Cursor, first_offsets: Iterable[tuple[str, int, int]]) -> None:
    """Note from which (sensor_type, source_id, first_offset) on types come; the earliest stays."""
    execute_values(
        tx,
        "INSERT INTO sensor_types (sensor_type, source_id, first_offset) VALUES %s"
        " ON CONFLICT DO NOTHING",
        list(first_offsets),
    )
