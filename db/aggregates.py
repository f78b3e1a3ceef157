"""Tables sensor_aggregates and sensor_correlations: what the stream processor shows to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b

from psycopg2.extras import execute_values

from db.connection import Cursor
from db.offsets import StaleCheckpoint
from db.selecting import POOLED
from db.times import to_microseconds, to_timestamp
from pipeline.correlation import correlate
from pipeline.windows import Sums, WindowKey

# Advisory locks on groups of keys, not on keys: the server's memory bounds the number of locks.
_LOCK_STRIPES = 64
_LOCK_SPACE = 0x10761
_SWEEP_LOCK = 0x10762
_MERGE_LOCK = 0x10763
# Rows closed in one transaction; a backlog takes several.
MAX_SWEPT_ROWS = 2_000
# What is merged in one transaction: 70,000 windows of 25 groups.
MERGED_AT_ONCE = timedelta(days=2)


class WindowFinal(StaleCheckpoint):
    """Readings arrived for windows that have become final meanwhile; ``keys`` says which."""

    def __init__(self, keys: set[WindowKey]) -> None:
        super().__init__(f"final_windows={len(keys)}")
        self.keys = keys


def refine(tx: Cursor, keys: Iterable[WindowKey], window_us: int) -> None:
    """Bring the rows of these windows up to date with the partials of all partitions.

    Two processors may do this for the same row at once, each without seeing the other's
    uncommitted partial. So the key is locked first, and the partials are read in a statement after
    that: whoever comes second sees what the first has committed.

    Raises
    ------
    WindowFinal
        When one of the rows is final: the transaction must be rolled back.
    """
    wanted = sorted(keys)
    if not wanted:
        return
    _lock(tx, wanted)
    rows = [_aggregate(row, window_us) for row in _merged_partials(tx, wanted)]
    written = execute_values(
        tx,
        "INSERT INTO sensor_aggregates AS a (window_start, window_end, location, sensor_type,"
        " avg_value, min_value, max_value, stddev_value, count_readings, anomaly_count,"
        " statistical_anomalies) VALUES %s"
        " ON CONFLICT ON CONSTRAINT sensor_aggregates_window DO UPDATE SET"
        " avg_value = EXCLUDED.avg_value, min_value = EXCLUDED.min_value,"
        " max_value = EXCLUDED.max_value, stddev_value = EXCLUDED.stddev_value,"
        " count_readings = EXCLUDED.count_readings, anomaly_count = EXCLUDED.anomaly_count,"
        " statistical_anomalies = EXCLUDED.statistical_anomalies, updated_at = EXCLUDED.updated_at"
        " WHERE NOT a.is_final RETURNING window_start, location, sensor_type",
        rows,
        template="(%s, %s, %s, %s, %s * 0.01, %s * 0.01, %s * 0.01, %s * 0.01, %s, %s, %s)",
        page_size=1000,
        fetch=True,
    )
    refused = set(wanted) - {
        WindowKey(to_microseconds(s), place, kind) for s, place, kind in written
    }
    if refused:
        raise WindowFinal(refused)
    tx.execute(  # normally nothing: what is merged lies behind all windows that still change
        "DELETE FROM merged_aggregates WHERE window_start > %s - interval '10 minutes'",
        (to_timestamp(wanted[0].start_us),),
    )


def _lock(tx: Cursor, keys: Sequence[WindowKey]) -> None:
    stripes = {
        blake2b(repr(key).encode(), digest_size=2).digest()[0] % _LOCK_STRIPES for key in keys
    }
    tx.execute(  # in one order everywhere, or two processors deadlock
        "SELECT pg_advisory_xact_lock_shared(%s);"
        " SELECT pg_advisory_xact_lock(%s, stripe) FROM unnest(%s) AS stripe",
        (_MERGE_LOCK, _LOCK_SPACE, sorted(stripes)),
    )


def _merged_partials(tx: Cursor, keys: Sequence[WindowKey]) -> list[tuple[object, ...]]:
    tx.execute(
        "SELECT window_start, location, sensor_type, sum(readings), sum(sum_hundredths),"
        " sum(sum_squares), min(min_hundredths), max(max_hundredths), sum(anomalies),"
        " sum(statistical_anomalies)"
        " FROM window_partials JOIN unnest(%s::timestamp[], %s::varchar[], %s::varchar[])"
        " AS k (window_start, location, sensor_type) USING (window_start, location, sensor_type)"
        " GROUP BY window_start, location, sensor_type"
        " ORDER BY window_start, location, sensor_type",
        (
            [to_timestamp(key.start_us) for key in keys],
            [key.location for key in keys],
            [key.sensor_type for key in keys],
        ),
    )
    merged: list[tuple[object, ...]] = tx.fetchall()
    return merged


def _aggregate(row: Sequence[object], window_us: int) -> tuple[object, ...]:
    start, location, sensor_type, *figures = row
    n, total, squares, low, high, flagged, unusual = (int(x) for x in figures)  # type: ignore[call-overload]
    sums = Sums(n, total, squares)
    end = start + timedelta(microseconds=window_us)  # type: ignore[operator]
    spread = sums.stddev()
    return (start, end, location, sensor_type, sums.mean(), low, high, spread, n, flagged, unusual)


def watermark(tx: Cursor, group: str, source_ids: Sequence[int]) -> int | None:
    """Return the minimum watermark of all partitions, or None while one of them holds it back.

    A partition that has never had a reading and stands at the end of its log holds nothing back.
    """
    tx.execute(
        "SELECT CASE WHEN count(*) = %s AND"
        " bool_and(watermark IS NOT NULL OR coalesce(next_offset >= end_offset, false))"
        " THEN min(watermark) END FROM stream_offsets"
        " WHERE consumer_group = %s AND source_id = ANY(%s)",
        (len(source_ids), group, list(source_ids)),
    )
    (mark,) = tx.fetchone()
    return None if mark is None else to_microseconds(mark)


def close_windows(
    tx: Cursor, watermark_us: int, allowed_lateness_us: int, correlation_us: int
) -> int:
    """Mark what the watermark has passed as closed, then final, and write the correlations of both.

    Returns
    -------
    int
        Rows marked; 0 also while another processor is at it.
    """
    tx.execute("SELECT pg_try_advisory_xact_lock(%s)", (_SWEEP_LOCK,))
    if not tx.fetchone()[0]:
        return 0
    closed = _mark(tx, "NOT is_closed", "is_closed = true", watermark_us)
    final = _mark(
        tx, "NOT is_final", "is_closed = true, is_final = true", watermark_us - allowed_lateness_us
    )
    for ends, is_final in ((closed, False), (final, True)):
        if ends:
            _write_correlations(tx, set(ends), is_final, timedelta(microseconds=correlation_us))
    return len(closed) + len(final)


def merge(tx: Cursor) -> bool:
    """Add final windows to ``merged_aggregates``, a few days at most; return whether that was all.

    Where older windows open later (a topic created anew), ``refine`` takes away what they belong
    to and all after it. The lock keeps the two apart: no window opens unseen in between.
    """
    tx.execute("SELECT pg_try_advisory_xact_lock(%s)", (_MERGE_LOCK,))
    if not tx.fetchone()[0]:
        return False  # a processor is refining windows: soon
    tx.execute(
        "SELECT date_bin('10 minutes', coalesce("
        "(SELECT min(window_start) FROM sensor_aggregates WHERE NOT is_final),"
        " (SELECT max(window_start) FROM sensor_aggregates)), '2000-01-01')"
    )
    (until,) = tx.fetchone()
    if until is None:
        return True
    tx.execute(
        "SELECT min(window_start) FROM sensor_aggregates WHERE window_start >="
        " (SELECT coalesce(max(window_start) + interval '10 minutes', '-infinity')"
        " FROM merged_aggregates)"
    )
    (begin,) = tx.fetchone()
    if begin is None or begin >= until:
        return True
    step_end = min(until, begin.replace(minute=0, second=0, microsecond=0) + MERGED_AT_ONCE)
    tx.execute(
        "INSERT INTO merged_aggregates (window_start, location, sensor_type, count_readings,"  # noqa: S608
        " avg_value, stddev_value, min_value, max_value, anomaly_count, statistical_anomalies,"
        f" windows) SELECT date_bin('10 minutes', window_start, '2000-01-01'), location,"
        f" sensor_type, {POOLED}, count(*) FROM sensor_aggregates"
        " WHERE window_start >= %s AND window_start < %s GROUP BY 1, 2, 3",
        (begin, step_end),
    )
    return bool(step_end == until)


def final_until(tx: Cursor, watermark_us: int) -> int:
    """Return until when all windows are final: ``watermark_us``, or less where some are not."""
    tx.execute("SELECT min(window_end) FROM sensor_aggregates WHERE NOT is_final")
    (oldest_open,) = tx.fetchone()
    if oldest_open is None:
        return watermark_us
    return min(watermark_us, to_microseconds(oldest_open) - 1)


def _mark(tx: Cursor, unmarked: str, mark: str, until_us: int) -> list[tuple[str, datetime]]:
    # Rows that are being refined are left for the next time; waiting for them could deadlock.
    tx.execute(
        "WITH passed AS (SELECT id FROM sensor_aggregates"  # noqa: S608 - texts of this module
        f" WHERE NOT is_final AND {unmarked} AND window_end <= %s"
        " ORDER BY window_end LIMIT %s FOR UPDATE SKIP LOCKED)"
        f" UPDATE sensor_aggregates a SET {mark} FROM passed"
        " WHERE a.id = passed.id RETURNING a.location, a.window_end",
        (to_timestamp(until_us), MAX_SWEPT_ROWS),
    )
    marked: list[tuple[str, datetime]] = tx.fetchall()
    return marked


def _write_correlations(
    tx: Cursor, ends: set[tuple[str, datetime]], is_final: bool, reach: timedelta
) -> None:
    means = _window_means(tx, ends, reach)
    rows = []
    for location, end in sorted(ends):
        recent = {
            sensor_type: {
                to_microseconds(e): m for e, m in series.items() if end - reach < e <= end
            }
            for sensor_type, series in means.get(location, {}).items()
        }
        rows += [
            (end, location, c.sensor_type_a, c.sensor_type_b, c.value, c.window_count, is_final)
            for c in correlate({kind: series for kind, series in recent.items() if series})
        ]
    execute_values(
        tx,
        "INSERT INTO sensor_correlations AS c (window_end, location, sensor_type_a, sensor_type_b,"
        " correlation, window_count, is_final) VALUES %s"
        " ON CONFLICT ON CONSTRAINT sensor_correlations_pkey DO UPDATE SET"
        " correlation = EXCLUDED.correlation, window_count = EXCLUDED.window_count,"
        " is_final = c.is_final OR EXCLUDED.is_final, created_at = EXCLUDED.created_at",
        rows,
        page_size=1000,
    )


def _window_means(
    tx: Cursor, ends: set[tuple[str, datetime]], reach: timedelta
) -> Mapping[str, Mapping[str, Mapping[datetime, float]]]:
    """Return avg_value by location, sensor type and window end, as far as ``ends`` need it."""
    times = [end for _, end in ends]
    tx.execute(
        "SELECT location, sensor_type, window_end, avg_value FROM sensor_aggregates"
        " WHERE window_start >= %s AND window_start < %s AND location = ANY(%s)",
        (min(times) - reach, max(times), sorted({location for location, _ in ends})),
    )
    means: dict[str, dict[str, dict[datetime, float]]] = {}
    for location, sensor_type, end, mean in tx.fetchall():
        means.setdefault(location, {}).setdefault(sensor_type, {})[end] = float(mean)
    return means
