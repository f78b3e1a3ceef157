"""The detector's tables: readings in, ml_anomaly_predictions and model_runs out.

The primary key makes a second prediction impossible as well: a prediction lies in the partition of
the day on which its reading was stored.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2.extras import execute_values
from pyarrow import csv

from db.connection import Cursor
from db.copying import copy_csv, times, to_csv, values
from db.shards import SHARDS, Offsets
from db.statements import statements
from db.times import to_timestamp
from pipeline.detector import Training, Verdicts

SQL = statements(__file__)

# Readings as columns. ``number`` is the order in which they were stored (of scored ones: scored),
# ``age_ms`` the milliseconds since then.
SCHEMA = pa.schema(
    [
        *(("number", pa.int64()), ("source_id", pa.int64()), ("log_offset", pa.int64())),
        *(("sensor_id", pa.string()), ("sensor_type", pa.string()), ("location", pa.string())),
        *(("hundredths", pa.int64()), ("timestamp_us", pa.int64()), ("anomaly", pa.bool_())),
        *(("ingested_on", pa.date32()), ("unit", pa.string()), ("age_ms", pa.float64())),
    ]
)
_READ = csv.ReadOptions(column_names=SCHEMA.names, use_threads=False)
_PARSE = csv.ParseOptions(newlines_in_values=True)
_CONVERT = csv.ConvertOptions(
    column_types=SCHEMA, true_values=["t"], false_values=["f"], strings_can_be_null=False
)
_COLUMNS = (
    *("sensor_id", "sensor_type", "location", "value", "timestamp", "is_anomaly"),
    *("anomaly_score", "rule_based_anomaly", "reason", "lower", "upper"),
    *("source_id", "log_offset", "ingested_on"),
)


def visible_ends(tx: Cursor) -> Offsets:
    """Return per source the offset below which all readings are visible to later statements."""
    tx.execute(
        "SELECT source_id, next_offset FROM stream_offsets WHERE consumer_group = 'consumer'"
    )
    return dict(tx.fetchall())


@dataclass(frozen=True)
class Fetched:
    """Readings as PostgreSQL sent them.

    Attributes
    ----------
    begin, end : dict
        The offsets that were asked for.
    limit : int
        Of each source so many were sent at most.
    """

    rows: io.BytesIO
    begin: Offsets
    end: Offsets
    limit: int

    def readings(self) -> tuple[pa.Table, Offsets]:
        """Return the readings in the order they were stored, and where to go on.

        Without those that may come after one that was not sent: where a source filled its limit,
        it may have more that was stored before another's last. So the order is always the same,
        however it is cut.
        """
        found = _table(self.rows)
        following = {s: max(end, self.begin.get(s, 0)) for s, end in self.end.items()}
        following = {**self.begin, **following}
        of_source = {s: found.filter(pc.field("source_id") == s) for s in following}
        full = {s for s, rows in of_source.items() if len(rows) == self.limit}
        if not full:
            return found, following
        horizon = min(of_source[s]["number"][-1].as_py() for s in full)
        for source, rows in of_source.items():
            later = rows.filter(pc.field("number") > horizon)["log_offset"]
            if len(later):
                following[source] = later[0].as_py()
            elif source in full:
                following[source] = rows["log_offset"][-1].as_py() + 1
        return found.filter(pc.field("number") <= horizon), following


def fetch(
    tx: Cursor,
    shards: Collection[int],
    begin: Offsets,
    end: Offsets,
    max_readings: int,
    since: date,
) -> Fetched:
    """Fetch the next readings of some shards.

    Parameters
    ----------
    begin, end : dict
        First offset per source, and the one to stop before; all readings between are visible.
    max_readings : int
        About how many at most.
    since : date
        Narrows where they are looked for; see ``hidden_since``.
    """
    return _fetch(tx, SQL["stored"], shards, begin, end, max_readings, since)


def fetch_scored(
    tx: Cursor, shard: int, begin: Offsets, end: Offsets, max_readings: int
) -> Fetched:
    """Fetch the next scored readings of a shard, to be learnt again in the order of scoring."""
    return _fetch(tx, SQL["scored"], [shard], begin, end, max_readings, date.min)


def _fetch(
    tx: Cursor, query: str, shards: Collection[int], begin: Offsets, end: Offsets,
    max_readings: int, since: date,
) -> Fetched:  # fmt: skip
    rows, ranges = io.BytesIO(), _ranges(begin, end)
    limit = max(1, max_readings // max(1, len(ranges["sources"])))
    some = {"shards": list(shards), "all": len(shards) == SHARDS}
    given = {**ranges, **some, "limit": limit, "since": since}
    tx.copy_expert(b"COPY (" + tx.mogrify(query, given) + b") TO STDOUT (FORMAT csv)", rows)
    return Fetched(rows, begin, end, limit)


def hidden_since(tx: Cursor, begin: Offsets, following: Offsets, since: date) -> date | None:
    """Return the first day before ``since`` on which readings of these offsets were stored."""
    if since == date.min:
        return None
    tx.execute(SQL["hidden_since"], {**_ranges(begin, following), "since": since})
    day: date | None = tx.fetchone()[0]
    return day


def since_of(readings: pa.Table, since: date) -> date:
    """Return from which day on to look for what was stored after these."""
    if not len(readings):
        return since
    # A day to spare: a transaction is short, but dated by its beginning.
    return max(since, pc.min(readings["ingested_on"]).as_py() - timedelta(days=1))


def _ranges(begin: Offsets, end: Offsets) -> dict[str, list[int]]:
    sources = [s for s in end if begin.get(s, 0) < end[s]]
    low, high = [begin.get(s, 0) for s in sources], [end[s] for s in sources]
    return {"sources": sources, "low": low, "high": high}


def _table(csv_rows: io.BytesIO) -> pa.Table:
    if not csv_rows.tell():
        return SCHEMA.empty_table()
    table = csv.read_csv(
        pa.BufferReader(csv_rows.getbuffer()),
        read_options=_READ,
        parse_options=_PARSE,
        convert_options=_CONVERT,
    )
    return table.sort_by("number").combine_chunks()


def to_rows(readings: pa.Table, verdicts: Verdicts) -> bytes:
    """Return the rows of readings and the verdicts on them."""
    unknown = ~verdicts.known
    fields = (
        *(readings["sensor_id"], readings["sensor_type"], readings["location"]),
        values(readings["hundredths"].to_numpy()),
        times(readings["timestamp_us"].to_numpy()),
        pa.array(verdicts.is_anomaly, mask=unknown),
        pa.array(verdicts.score.round(6), mask=unknown),
        readings["anomaly"],
        pa.array(verdicts.reason, pa.string()),
        *(_limits(verdicts.lower), _limits(verdicts.upper)),
        *(readings["source_id"], readings["log_offset"], readings["ingested_on"]),
    )
    return to_csv(dict(zip(_COLUMNS, fields, strict=True)))


def _limits(limits: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(limits.round(2), mask=np.isnan(limits))


def insert(tx: Cursor, rows: bytes) -> None:
    """Store what ``to_rows`` made.

    Where a reading has a prediction already, the transaction ends with ``RowExists``.
    """
    copy_csv(tx, "ml_anomaly_predictions", _COLUMNS, rows)


def insert_trainings(tx: Cursor, trainings: Sequence[Training]) -> None:
    """Store a row per training."""
    execute_values(
        tx,
        SQL["insert_trainings"],
        [
            (
                *(t.sensor_type, to_timestamp(t.fitted_at_us), t.rows, t.duration_seconds),
                *(t.threshold, t.flagged_share, t.drift),
            )
            for t in trainings
        ],
    )


def verdicts(
    tx: Cursor, topic_id: str, begin: Mapping[int, int]
) -> list[tuple[int, int, bool, bool]]:
    """Return partition, offset, verdict and rule's flag of scored readings from these offsets on.

    ``begin`` is per partition of the topic with this id. Readings without a verdict are left out.
    """
    given = {"topic_id": topic_id, "partitions": list(begin), "low": list(begin.values())}
    tx.execute(SQL["verdicts"], given)
    return list(tx.fetchall())
