"""Tables window_partials and late_readings: the stream processor's state, and what missed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from psycopg2.extras import execute_values

from db.connection import Cursor
from db.copying import copy_columns, times, values
from db.times import to_microseconds, to_timestamp
from pipeline.decoding import Readings
from pipeline.windows import Late, Partial, Sums, WindowKey

_STATE = (
    *("readings", "sum_hundredths", "sum_squares", "min_hundredths", "max_hundredths"),
    *("anomalies", "statistical_anomalies", "usual_readings", "usual_sum", "usual_squares"),
    *("baseline_readings", "baseline_sum", "baseline_squares"),
)


def load(tx: Cursor, source_id: int) -> list[tuple[WindowKey, Partial]]:
    """Return the state of one partition."""
    tx.execute(
        f"SELECT window_start, location, sensor_type, {', '.join(_STATE)}"  # noqa: S608
        " FROM window_partials WHERE source_id = %s",
        (source_id,),
    )
    return [_partial(row) for row in tx.fetchall()]


def _partial(row: Sequence[object]) -> tuple[WindowKey, Partial]:
    start, location, sensor_type, *state = row
    n, total, squares, low, high, flagged, unusual, *usual_and_baseline = (int(x) for x in state)  # type: ignore[call-overload]
    partial = Partial(
        Sums(n, total, squares),
        low,
        high,
        flagged,
        unusual,
        Sums(*usual_and_baseline[:3]),
        Sums(*usual_and_baseline[3:]),
    )
    return WindowKey(to_microseconds(start), str(location), str(sensor_type)), partial  # type: ignore[arg-type]


def save(tx: Cursor, source_id: int, partials: Mapping[WindowKey, Partial]) -> None:
    """Write changed partials of one partition; its owner is the only writer."""
    execute_values(
        tx,
        "INSERT INTO window_partials (source_id, window_start, location, sensor_type,"  # noqa: S608
        f" {', '.join(_STATE)}) VALUES %s"
        " ON CONFLICT ON CONSTRAINT window_partials_pkey DO UPDATE SET"
        f" {', '.join(f'{name} = EXCLUDED.{name}' for name in _STATE)}",
        [
            (
                *(source_id, to_timestamp(key.start_us), key.location, key.sensor_type),
                *(p.all.readings, p.all.total, p.all.squares, p.minimum, p.maximum),
                *(p.anomalies, p.statistical_anomalies),
                *(p.usual.readings, p.usual.total, p.usual.squares),
                *(p.baseline.readings, p.baseline.total, p.baseline.squares),
            )
            for key, p in partials.items()
        ],
        page_size=1000,
    )


def delete(tx: Cursor, source_id: int, keys: Iterable[WindowKey]) -> None:
    """Drop state that nothing needs any more."""
    execute_values(
        tx,
        "DELETE FROM window_partials"
        " WHERE (source_id, window_start, location, sensor_type) IN (%s)",
        [(source_id, to_timestamp(k.start_us), k.location, k.sensor_type) for k in keys],
        template="(%s, %s::timestamp, %s, %s)",
        page_size=1000,
    )


def insert_late(
    tx: Cursor,
    source_id: int,
    offsets: npt.NDArray[np.int64],
    readings: Readings,
    late: Late,
    window_us: int,
) -> None:
    """Keep readings that missed their window; ``offsets`` are those of the batch."""
    if not len(late.rows):
        return  # nearly always
    missed = readings.take(late.rows)
    # A window that was final before its partition's watermark passed it: late by 0 seconds.
    late_by_us = np.maximum(0, late.watermark_us - late.window_start_us - window_us)
    # Before a partition's first reading there is no watermark: show the window's end instead.
    watermark_us = np.maximum(late.watermark_us, late.window_start_us + window_us)
    copy_columns(
        tx,
        "late_readings",
        {
            "source_id": np.full(len(missed), source_id),
            "log_offset": offsets[missed.position],
            "sensor_id": missed.sensor_id,
            "sensor_type": missed.sensor_type,
            "location": missed.location,
            "value": values(missed.hundredths),
            "timestamp": times(missed.timestamp_us),
            "anomaly": missed.anomaly,
            "unit": missed.unit,
            "window_start": times(late.window_start_us),
            "watermark": times(watermark_us),
            "late_by_seconds": late_by_us / 1e6,
        },
    )
