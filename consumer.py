"""Store every message of the topic in PostgreSQL, exactly once.

Reads    the Kafka topic
Writes   sensor_readings; what is no reading goes to dead_letters
Promises every message is in one of the two exactly once, through any crash, because the offsets
         (stream_offsets) move in the same transaction as the rows (service/stream.py)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from broker.reader import PartitionBatch, TopicReader
from config import load_settings_or_exit
from db import dead_letters, readings
from db.connection import Cursor
from db.offsets import Position
from pipeline.decoding import decode_batch
from service.cli import service_parser
from service.latencies import RecentLatencies
from service.leases import Presence
from service.rejections import CoarseLog, RejectionLog
from service.runner import run_service, running
from service.stream import Intake, run_stream
from service.upkeep import Upkeep

GROUP = "consumer"
# One transaction: large enough for COPY to be the cost, small enough for a row to be seen soon.
MAX_BATCH_MESSAGES = 20_000
BATCH_TIMEOUT_SECONDS = 0.2


@dataclass(frozen=True)
class PreparedRows:
    """What is to be stored of the messages of one partition, and nothing else of them.

    Thousands of messages go in ``prepare``, beside the transaction, not between two of them.

    Attributes
    ----------
    rows : bytes
        What COPY takes.
    letters : list
        Pages of dead letters.
    timestamp_ms : array of int64
        Kafka timestamp of each message.
    readings : int
        Rows.
    coarse : mapping
        Types that two decimals are too few for (``Readings``).
    """

    partition: int
    next_offset: int
    rows: bytes
    letters: list[dead_letters.Page]
    timestamp_ms: npt.NDArray[np.int64]
    readings: int
    coarse: Mapping[str, float]


@dataclass
class Changes:
    """What one transaction writes: all rows in one piece, and what each partition has besides.

    ``stored_ms`` is when, milliseconds since the epoch.
    """

    rows: bytes
    work: Sequence[PreparedRows]
    stored_ms: float = 0.0


class StoreReadings:
    """Rows for readings, dead letters for everything else."""

    def __init__(self, dead_letter_rows_per_hour: int, upkeep: Upkeep) -> None:
        self.rows_per_hour = dead_letter_rows_per_hour
        self.upkeep = upkeep
        self.latency = RecentLatencies()
        self.rejections = RejectionLog()
        self.coarse = CoarseLog()

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Refuse offsets that lie before rows that exist."""
        self.topic = reader.topic.name
        self.sources = sources
        readings.refuse_rows_ahead(tx, GROUP, [sources[partition] for partition in at])

    def retain(self, partitions: set[int]) -> None:
        """Do nothing: there is no state."""

    def is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        """Return False: without messages there is nothing to do."""
        return False

    def prepare(self, batch: PartitionBatch) -> PreparedRows:
        """Decode the messages of one partition and format their rows."""
        decoded, rejected = decode_batch(batch.payloads, batch.timestamp_ms)
        return PreparedRows(
            batch.partition,
            batch.next_offset,
            readings.to_rows(self.sources[batch.partition], batch.offsets, decoded),
            dead_letters.to_pages(batch.offsets, batch.payloads, rejected, self.rows_per_hour),
            batch.timestamp_ms,
            len(decoded),
            decoded.coarse,
        )

    def compute(self, work: Sequence[PreparedRows]) -> Changes:
        """Return the rows of one poll."""
        return Changes(b"".join([each.rows for each in work]), work)

    def store(self, tx: Cursor, changes: Changes) -> dict[int, Position]:
        """Store the rows of one poll."""
        readings.insert(tx, changes.rows)
        for each in changes.work:
            source_id = self.sources[each.partition]
            dead_letters.insert(
                tx, source_id, self.topic, each.partition, each.letters, self.rows_per_hour
            )
        changes.stored_ms = time.time() * 1000
        return {each.partition: Position(each.next_offset) for each in changes.work}

    def committed(self, changes: Changes) -> int:
        """Say what was rejected, and how long the rest took; return the number of readings."""
        for each in changes.work:
            self.latency.add(changes.stored_ms - each.timestamp_ms)
            self.coarse.add(each.coarse)
            for page in each.letters:
                self.rejections.add(*dead_letters.counts(page))
        return sum(each.readings for each in changes.work)

    def is_settled(self, ends: Mapping[int, int]) -> bool:
        """Return True: a row has no later life."""
        return True

    def gauges(self) -> dict[str, Any]:
        """Return messages rejected, latency from broker to stored row, and what upkeep says."""
        gauges = {
            "rejected": self.rejections.total,
            **self.latency.percentiles_ms(),
            **self.upkeep.gauges(),
        }
        self.latency.reset()
        return gauges


def main() -> None:
    """Run until stopped."""
    args = service_parser(__doc__, once="catch up to the end of the topic, then exit").parse_args()
    settings = load_settings_or_exit()
    topic = Intake(settings.kafka, GROUP, MAX_BATCH_MESSAGES, BATCH_TIMEOUT_SECONDS, args.once)
    presence, keep = Presence(GROUP), settings.retention
    with (
        running(GROUP, settings.service, presence) as process,
        Upkeep(settings.service.database_url, keep, presence) as upkeep,
    ):
        run_stream(topic, StoreReadings(keep.dead_letter_rows_per_hour, upkeep), process)


if __name__ == "__main__":
    run_service(main)
