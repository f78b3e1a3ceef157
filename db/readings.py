"""Tables sensor_readings, sensor_types and sensors: what the consumer stores, and who sent it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor, RowExists
from db.copying import copy_csv, times, to_csv, values
from pipeline.decoding import Readings

# Readings looked through for their sensors.
MAX_NEWEST = 20_000

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


def refuse_rows_ahead(tx: Cursor, group: str, source_ids: Iterable[int]) -> None:
    """Raise ``RowExists`` where a reading lies at or beyond the offset stored for its source.

    Of the same day it would be refused when it is stored again; of another day only here. In one
    statement, so of one moment: the consumer before us may just be storing.
    """
    tx.execute(
        "SELECT source_id, r.log_offset FROM stream_offsets o CROSS JOIN LATERAL ("
        "SELECT log_offset FROM sensor_readings r WHERE r.source_id = o.source_id"
        " AND r.log_offset >= o.next_offset ORDER BY log_offset LIMIT 1) AS r"
        " WHERE consumer_group = %s AND source_id = ANY(%s)",
        (group, list(source_ids)),
    )
    for row in tx.fetchall():
        raise RowExists(
            f"sensor_readings: Key (source_id, log_offset)=({row[0]}, {row[1]}) already exists."
        )


def register_types(tx: Cursor, first_offsets: Iterable[tuple[str, int, int]]) -> None:
    """Note from which (sensor_type, source_id, first_offset) on types come; the earliest stays."""
    execute_values(
        tx,
        "INSERT INTO sensor_types (sensor_type, source_id, first_offset) VALUES %s"
        " ON CONFLICT DO NOTHING",
        list(first_offsets),
    )


def note_sensors(tx: Cursor, since: date) -> None:
    """Note the sensors of the newest readings, of those stored since a date, and what they say.

    Read every minute, so up to some 300 readings a second no reading is overlooked, and beyond that
    no sensor for long. An index by sensor would cost every single row more.
    """
    tx.execute(
        "INSERT INTO sensors AS s (sensor_id, sensor_type, location, value, timestamp, anomaly,"
        " unit) SELECT DISTINCT ON (sensor_id) sensor_id, sensor_type, location, value, timestamp,"
        " anomaly, unit FROM (SELECT * FROM sensor_readings WHERE ingested_on >= %s"
        " ORDER BY timestamp DESC LIMIT %s) AS newest ORDER BY sensor_id, timestamp DESC"
        " ON CONFLICT (sensor_id) DO UPDATE SET sensor_type = EXCLUDED.sensor_type,"
        " location = EXCLUDED.location, value = EXCLUDED.value, timestamp = EXCLUDED.timestamp,"
        " anomaly = EXCLUDED.anomaly, unit = EXCLUDED.unit, updated_at = EXCLUDED.updated_at"
        " WHERE EXCLUDED.timestamp > s.timestamp",
        (since, MAX_NEWEST),
    )
