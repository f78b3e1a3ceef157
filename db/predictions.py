"""The detector's tables: readings in, ml_anomaly_predictions out, and how far that has come.

Per sensor type and source (partition) ``detector_progress`` holds the first offset not yet scored.
It moves with the predictions, in one transaction, and only from the offset that this process last
read or wrote: that is the fence. The primary key as well makes a second prediction impossible: a
prediction lies in the partition of the day on which its reading was stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg2.extras import Json, execute_values

from db import retention, verdict_counts
from db.connection import Cursor
from db.copying import copy_columns, times, values
from db.times import to_timestamp
from pipeline.detector import Training, Verdicts

# Readings are visible up to the consumer's own progress, and no further.
_CONSUMER = "consumer"

# First offset not yet handled, per source_id.
Offsets = dict[int, int]


class StaleProgress(Exception):
    """The stored progress is not what this process last read or wrote: another has moved it."""


@dataclass(frozen=True)
class StoredReadings:
    """Readings as columns, in the order in which they are scored.

    Attributes
    ----------
    hundredths, timestamp_us : array of int64
        Values in hundredths; event times in microseconds since the epoch.
    source_id, log_offset : array of int64
        Where each came from.
    age_ms : array
        Milliseconds since each was stored, when it was read.
    ingested_on : list of date
        When each was stored.
    """

    sensor_id: list[str]
    sensor_type: list[str]
    location: list[str]
    hundredths: npt.NDArray[np.int64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: npt.NDArray[np.bool_]
    source_id: npt.NDArray[np.int64]
    log_offset: npt.NDArray[np.int64]
    age_ms: npt.NDArray[np.float64]
    ingested_on: list[date]

    def __len__(self) -> int:
        return len(self.sensor_id)

    def take(self, rows: npt.NDArray[np.intp]) -> StoredReadings:
        """Return the readings at ``rows``."""
        picked = rows.tolist()
        return StoredReadings(
            [self.sensor_id[i] for i in picked],
            [self.sensor_type[i] for i in picked],
            [self.location[i] for i in picked],
            self.hundredths[rows],
            self.timestamp_us[rows],
            self.anomaly[rows],
            self.source_id[rows],
            self.log_offset[rows],
            self.age_ms[rows],
            [self.ingested_on[i] for i in picked],
        )

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Values in their unit."""
        return self.hundredths / 100.0


def visible_ends(tx: Cursor) -> Offsets:
    """Return per source the offset below which all readings are visible to later statements."""
    tx.execute(
        "SELECT source_id, next_offset FROM stream_offsets WHERE consumer_group = %s", (_CONSUMER,)
    )
    return dict(tx.fetchall())


def origins(tx: Cursor) -> dict[str, Offsets]:
    """Return for every sensor type the offset of its first reading per source."""
    tx.execute("SELECT sensor_type, source_id, first_offset FROM sensor_types")
    return _by_type(tx.fetchall())


def progress(tx: Cursor, starts: Mapping[str, Offsets]) -> dict[str, Offsets]:
    """Return how far types are scored; what never was begins where it first occurred."""
    execute_values(
        tx,
        "INSERT INTO detector_progress (sensor_type, source_id, next_offset) VALUES %s"
        " ON CONFLICT DO NOTHING",
        sorted((t, s, offset) for t, offsets in starts.items() for s, offset in offsets.items()),
    )
    tx.execute(
        "SELECT sensor_type, source_id, next_offset FROM detector_progress"
        " WHERE sensor_type = ANY(%s)",
        (list(starts),),
    )
    return _by_type(tx.fetchall())


def _by_type(rows: Iterable[tuple[str, int, int]]) -> dict[str, Offsets]:
    types: dict[str, Offsets] = {}
    for sensor_type, source_id, offset in rows:
        types.setdefault(sensor_type, {})[source_id] = offset
    return types


def read(
    tx: Cursor,
    sensor_types: Sequence[str],
    begin: Offsets,
    end: Offsets,
    max_readings: int,
    since: date = date.min,
) -> tuple[StoredReadings, Offsets, date]:
    """Return the next readings of some types in the order they were stored, and where to go on.

    The latter as offsets and as a date: no reading from there on was stored before it.

    Parameters
    ----------
    begin, end : dict
        First offset per source, and the one to stop before; all readings between are visible.
    max_readings : int
        About how many at most.
    since : date
        None of them was stored before.
    """
    open_sources = [s for s in end if begin.get(s, 0) < end[s]]
    if not open_sources:
        return _columns([]), dict(begin), since
    limit = max(1, max_readings // len(open_sources))
    tx.execute(
        "SELECT r.* FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS s(source_id, low, high)"
        " CROSS JOIN LATERAL (SELECT id, sensor_id, sensor_type, location,"
        " (value * 100)::bigint, (extract(epoch FROM timestamp) * 1000000)::bigint, anomaly,"
        " source_id, log_offset, date_part('epoch', now() AT TIME ZONE 'UTC' - created_at)"
        " * 1000, ingested_on FROM sensor_readings WHERE ingested_on >= %s"
        " AND source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high"
        " AND sensor_type = ANY(%s) ORDER BY log_offset LIMIT %s) AS r",
        (
            open_sources,
            [begin.get(s, 0) for s in open_sources],
            [end[s] for s in open_sources],
            since,
            list(sensor_types),
            limit,
        ),
    )
    rows = tx.fetchall()
    # A day to spare: a transaction is shorter, but it is dated by its beginning.
    reached = min((row[10] for row in rows), default=None) or retention.today_of(tx)
    since = max(since, reached - timedelta(days=1))
    # A source that filled its limit may have more below another's last id: take what is certain.
    counts: dict[int, int] = {}
    last_id: dict[int, int] = {}
    for row in rows:
        counts[row[7]] = counts.get(row[7], 0) + 1
        last_id[row[7]] = row[0]
    horizon = min((last_id[s] for s, n in counts.items() if n == limit), default=None)
    following = {**begin, **{s: end[s] for s in open_sources}}
    if horizon is not None:
        for row in reversed(rows):
            if row[0] > horizon:
                following[row[7]] = row[8]
            elif row[0] == horizon:
                following[row[7]] = row[8] + 1
        rows = [row for row in rows if row[0] <= horizon]
    rows.sort()
    return _columns(rows), following, since


def read_scored(
    tx: Cursor, sensor_type: str, begin: Offsets, end: Offsets, max_readings: int
) -> Iterable[StoredReadings]:
    """Yield scored readings in the order in which they were scored, to be learnt again."""
    sources = [s for s in end if begin.get(s, 0) < end[s]]
    if not sources:
        return
    tx.execute(
        # OFFSET 0 keeps the sources apart: joined, the whole table would be read.
        "DECLARE scored NO SCROLL CURSOR FOR SELECT p.*"
        " FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS s(source_id, low, high)"
        " CROSS JOIN LATERAL (SELECT id, sensor_id, sensor_type, location,"
        " (value * 100)::bigint, (extract(epoch FROM timestamp) * 1000000)::bigint,"
        " rule_based_anomaly, source_id, log_offset, 0.0::float8, ingested_on"
        " FROM ml_anomaly_predictions WHERE source_id = s.source_id"
        " AND log_offset >= low AND log_offset < high AND sensor_type = %s OFFSET 0) AS p"
        " ORDER BY p.id",
        (sources, [begin.get(s, 0) for s in sources], [end[s] for s in sources], sensor_type),
    )
    while True:
        tx.execute("FETCH %s FROM scored", (max_readings,))
        rows = tx.fetchall()
        if not rows:
            break
        yield _columns(rows)
    tx.execute("CLOSE scored")


def _columns(rows: Sequence[tuple[Any, ...]]) -> StoredReadings:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 11
    _, sensor_id, sensor_type, location, hundredths, time_us, anomaly, *place = columns
    source, offset, age, ingested_on = place
    return StoredReadings(
        list(sensor_id),
        list(sensor_type),
        list(location),
        np.array(hundredths, dtype=np.int64),
        np.array(time_us, dtype=np.int64),
        np.array(anomaly, dtype=np.bool_),
        np.array(source, dtype=np.int64),
        np.array(offset, dtype=np.int64),
        np.array(age, dtype=np.float64),
        list(ingested_on),
    )


def insert(tx: Cursor, readings: StoredReadings, verdicts: Verdicts) -> None:
    """Store the verdicts on readings, and count them.

    Where one of them has a prediction already, the transaction ends with ``RowExists``.
    """
    unknown = ~verdicts.known
    copy_columns(
        tx,
        "ml_anomaly_predictions",
        {
            "sensor_id": readings.sensor_id,
            "sensor_type": readings.sensor_type,
            "location": readings.location,
            "value": values(readings.hundredths),
            "timestamp": times(readings.timestamp_us),
            "is_anomaly": pa.array(verdicts.is_anomaly, mask=unknown),
            "anomaly_score": pa.array(verdicts.score.round(6), mask=unknown),
            "rule_based_anomaly": readings.anomaly,
            "reason": pa.array(verdicts.reason, pa.string()),
            "source_id": readings.source_id,
            "log_offset": readings.log_offset,
            "ingested_on": pa.array(readings.ingested_on, pa.date32()),
        },
    )
    kinds = verdict_counts.kinds(verdicts.known, verdicts.is_anomaly, readings.anomaly)
    verdict_counts.add(tx, readings.timestamp_us, readings.location, readings.sensor_type, kinds)


def insert_trainings(tx: Cursor, trainings: Sequence[Training]) -> None:
    """Store a row per training."""
    execute_values(
        tx,
        "INSERT INTO model_runs (sensor_type, fitted_at, training_rows, duration_seconds,"
        " threshold, flagged_share, drift) VALUES %s",
        [
            (
                *(t.sensor_type, to_timestamp(t.fitted_at_us), t.rows, t.duration_seconds),
                *(t.threshold, t.flagged_share, t.drift),
            )
            for t in trainings
        ],
    )


def advance(tx: Cursor, moves: Mapping[str, tuple[Offsets, Offsets]]) -> None:
    """Move the progress of types, expected to next offsets; the last statement before COMMIT.

    Raises
    ------
    StaleProgress
        When a stored offset is not the expected one: the transaction must be rolled back.
    """
    rows = sorted(
        (sensor_type, source_id, expected[source_id], offset)
        for sensor_type, (expected, following) in moves.items()
        for source_id, offset in following.items()
    )
    execute_values(
        tx,
        "UPDATE detector_progress AS p SET next_offset = v.next_offset,"
        " updated_at = clock_timestamp() AT TIME ZONE 'UTC'"
        " FROM (VALUES %s) AS v(sensor_type, source_id, expected, next_offset)"
        " WHERE p.sensor_type = v.sensor_type AND p.source_id = v.source_id"
        " AND p.next_offset = v.expected",
        rows,
        template="(%s, %s, %s::bigint, %s::bigint)",
        page_size=max(1, len(rows)),
    )
    if rows and tx.rowcount != len(rows):
        raise StaleProgress(f"rows={len(rows)} moved={tx.rowcount}")


# ---------------------------------------------------------------------------------------- snapshots


def save_snapshot(tx: Cursor, sensor_type: str, state: bytes, at: Offsets) -> None:
    """Keep a type's state and the progress that it stands for."""
    tx.execute(
        "INSERT INTO detector_snapshots (sensor_type, state, progress) VALUES (%s, %s, %s)"
        " ON CONFLICT (sensor_type) DO UPDATE SET state = EXCLUDED.state,"
        " progress = EXCLUDED.progress, created_at = EXCLUDED.created_at",
        (sensor_type, state, Json({str(source): offset for source, offset in at.items()})),
    )


def load_snapshot(tx: Cursor, sensor_type: str) -> tuple[bytes, Offsets] | None:
    """Return a type's last kept state and the progress it stands for."""
    tx.execute(
        "SELECT state, progress FROM detector_snapshots WHERE sensor_type = %s", (sensor_type,)
    )
    row = tx.fetchone()
    return row and (bytes(row[0]), {int(source): offset for source, offset in row[1].items()})


def verdicts(
    tx: Cursor, topic_id: str, begin: Mapping[int, int]
) -> list[tuple[int, int, bool, bool]]:
    """Return partition, offset, verdict and rule's flag of scored readings from these offsets on.

    ``begin`` is per partition of the topic with this id. Readings without a verdict are left out.
    """
    tx.execute(
        "SELECT partition, log_offset, is_anomaly, rule_based_anomaly FROM ml_anomaly_predictions"
        " JOIN sources USING (source_id) JOIN unnest(%s::int[], %s::bigint[]) AS b(partition, low)"
        " USING (partition) WHERE topic_id = %s AND log_offset >= low AND is_anomaly IS NOT NULL",
        (list(begin), list(begin.values()), topic_id),
    )
    return list(tx.fetchall())
