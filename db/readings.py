"""Tables sensor_readings and sensors: what the consumer stores, and who sent it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from db.connection import Cursor, RowExists
from db.copying import copy_csv, times, to_csv, values
from db.statements import statements
from pipeline.decoding import Readings

SQL = statements(__file__)

# Readings looked through for their sensors in one transaction: some 0.1 s with few sensors.
MAX_NOTED = 50_000

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


def insert(tx: Cursor, rows: bytes) -> None:
    """Store what ``to_rows`` made, of one partition or of several one after the other."""
    copy_csv(tx, "sensor_readings", _COLUMNS, rows)


def refuse_rows_ahead(tx: Cursor, group: str, source_ids: Iterable[int]) -> None:
    """Raise ``RowExists`` where a reading lies at or beyond the offset stored for its source.

    Of the same day it would be refused when it is stored again; of another day only here. In one
    statement, so of one moment: the consumer before us may just be storing.
    """
    tx.execute(SQL["rows_ahead"], {"group": group, "source_ids": list(source_ids)})
    for row in tx.fetchall():
        raise RowExists(
            f"sensor_readings: Key (source_id, log_offset)=({row[0]}, {row[1]}) already exists."
        )


def note_sensors(tx: Cursor) -> bool:
    """Note the sensors of the next stored readings, and what they said; return whether any were.

    By offsets, so that none is overlooked whatever its clock says. An index by sensor would cost
    every single row more.
    """
    tx.execute(SQL["unnoted"])
    if (behind := tx.fetchone()) is None:
        return False
    page = dict(zip(("source", "first", "stored"), behind, strict=True))
    tx.execute(SQL["page_end"], page | {"rows": MAX_NOTED})
    end = tx.fetchone()
    page["end"] = end[0] if end else page["stored"]
    tx.execute(SQL["note_sensors"], page)
    tx.execute(SQL["noted"], page)
    return True
