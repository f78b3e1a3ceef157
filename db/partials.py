"""Tables window_partials and late_readings: the stream processor's state, and what missed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from db.connection import Cursor
from db.copying import copy_csv, times, to_csv, values
from db.statements import statements
from db.times import to_microseconds, to_timestamp
from pipeline.decoding import Readings
from pipeline.windows import Group, Late, Partial, Sums, WindowKey

SQL = statements(__file__)

# Rows of one statement: what is done for them between two statements takes some milliseconds.
PAGE_ROWS = 500

Page = dict[str, Any]

_LATE_COLUMNS = (
    *("source_id", "log_offset", "sensor_id", "sensor_type", "location", "value", "timestamp"),
    *("anomaly", "unit", "window_start", "watermark", "late_by_seconds"),
)


def load(
    tx: Cursor, source_id: int, groups: Sequence[Group]
) -> Iterator[tuple[WindowKey, Partial]]:
    """Yield the state of some groups of one partition."""
    for n in range(0, len(groups), PAGE_ROWS):
        locations, types = map(list, zip(*groups[n : n + PAGE_ROWS], strict=True))
        tx.execute(SQL["load"], {"source": source_id, "locations": locations, "types": types})
        yield from map(_partial, tx.fetchall())


def _partial(row: Sequence[object]) -> tuple[WindowKey, Partial]:
    start, location, sensor_type, *state, first_unit, last_unit = row
    n, total, squares, low, high, flagged, unusual, *usual_and_baseline = (int(x) for x in state)  # type: ignore[call-overload]
    partial = Partial(
        Sums(n, total, squares),
        low,
        high,
        flagged,
        unusual,
        Sums(*usual_and_baseline[:3]),
        Sums(*usual_and_baseline[3:]),
        (str(first_unit), str(last_unit)),
    )
    return WindowKey(to_microseconds(start), str(location), str(sensor_type)), partial  # type: ignore[arg-type]


def to_pages(source_id: int, partials: Mapping[WindowKey, Partial]) -> list[Page]:
    """Return changed partials of one partition as ``save`` takes them; its owner alone writes."""
    names = (
        *("readings", "sum", "squares", "low", "high", "flagged", "unusual"),
        *("usual_readings", "usual_sum", "usual_squares"),
        *("baseline_readings", "baseline_sum", "baseline_squares", "first_unit", "last_unit"),
    )
    rows = [
        (
            *(p.all.readings, p.all.total, p.all.squares, p.minimum, p.maximum),
            *(p.anomalies, p.statistical_anomalies),
            *(p.usual.readings, p.usual.total, p.usual.squares),
            *(p.baseline.readings, p.baseline.total, p.baseline.squares),
            *(p.units or ("", "")),
        )
        for p in partials.values()
    ]
    return [
        page | dict(zip(names, map(list, zip(*rows[n : n + PAGE_ROWS], strict=True)), strict=True))
        for n, page in zip(
            range(0, len(rows), PAGE_ROWS), key_pages(source_id, list(partials)), strict=True
        )
    ]


def key_pages(source_id: int, keys: Sequence[WindowKey]) -> list[Page]:
    """Return windows of one partition as ``delete`` takes them."""
    return [
        {
            "source": source_id,
            "start": [to_timestamp(key.start_us) for key in page],
            "location": [key.location for key in page],
            "type": [key.sensor_type for key in page],
        }
        for page in (keys[n : n + PAGE_ROWS] for n in range(0, len(keys), PAGE_ROWS))
    ]


def save(tx: Cursor, pages: Iterable[Page]) -> None:
    """Write what ``to_pages`` made."""
    for page in pages:
        tx.execute(SQL["save"], page)


def delete(tx: Cursor, pages: Iterable[Page]) -> None:
    """Drop state that nothing needs any more: what ``key_pages`` made."""
    for page in pages:
        tx.execute(SQL["delete"], page)


def to_late_rows(
    source_id: int, offsets: npt.NDArray[np.int64], readings: Readings, late: Late, window_us: int
) -> bytes:
    """Return readings that missed their window as rows; ``offsets`` are those of the batch."""
    if not len(late.rows):
        return b""  # nearly always
    missed = readings.take(late.rows)
    # A window that was final before its partition's watermark passed it: late by 0 seconds.
    late_by_us = np.maximum(0, late.watermark_us - late.window_start_us - window_us)
    # Before a partition's first reading there is no watermark: show the window's end instead.
    watermark_us = np.maximum(late.watermark_us, late.window_start_us + window_us)
    columns = (
        *(np.full(len(missed), source_id), offsets[missed.position]),
        *(missed.sensor_id, missed.sensor_type, missed.location),
        *(values(missed.hundredths), times(missed.timestamp_us), missed.anomaly, missed.unit),
        *(times(late.window_start_us), times(watermark_us), late_by_us / 1e6),
    )
    return to_csv(dict(zip(_LATE_COLUMNS, columns, strict=True)))


def insert_late(tx: Cursor, rows: bytes) -> None:
    """Keep what ``to_late_rows`` made."""
    copy_csv(tx, "late_readings", _LATE_COLUMNS, rows)
