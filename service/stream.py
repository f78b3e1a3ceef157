"""The loop that consumer and stream processor share, and the whole of the exactly-once guarantee.

    1. poll      some messages from the topic
    2. store     what follows from them, in one transaction
    3. confirm   that the topic is still the one whose offsets are stored
    4. advance   the offsets, in the same transaction, last, and only if nobody else has moved them
    5. commit

Nothing is in memory that is not in the database after step 5. So every failure, whatever it was,
has one cure: forget, load offsets and state from the database, seek there, go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.reader import OffsetBeyondEnd, PartitionBatch, TopicReader
from broker.topics import (
    BrokerMisconfigured,
    BrokerUnavailable,
    Topic,
    TopicChanged,
    admin_client,
    ensure_topic,
)
from db.connection import Cursor, Database, DatabaseUnavailable, RowExists
from db.offsets import Checkpoint, Position, StaleCheckpoint, register_sources
from db.schema import prepare_database
from service.lifecycle import Heartbeat, Outage, StopSignal, UserError, one_line, wait_for

log = logging.getLogger(__name__)

# Kafka's own copy of the offsets only feeds lag tools.
KAFKA_COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class Stream:
    """What to read and how.

    Attributes
    ----------
    kafka : dict
        librdkafka properties: brokers and security.
    topic, partitions : str, int
        Name of the topic, and how many partitions it gets if it has to be created.
    group, group_protocol : str
        Consumer group, and ``classic`` or ``consumer`` (KIP-848).
    session_timeout_s : int
        See ``TopicReader``.
    max_messages, timeout_s : int, float
        A poll ends with so many messages or after so many seconds.
    once : bool
        Return when all assigned partitions are read to their end.
    """

    kafka: dict[str, Any]
    topic: str
    partitions: int
    group: str
    group_protocol: str
    session_timeout_s: int
    max_messages: int
    timeout_s: float
    once: bool = False


class Handler(Protocol):
    """What a service does with the messages."""

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Load the state of partitions that begin ``at``; ``sources`` are all source ids."""

    def retain(self, partitions: set[int]) -> None:
        """Forget the state of all other partitions."""

    def is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        """Return whether there is something to store."""

    def store(self, tx: Cursor, batches: Sequence[PartitionBatch]) -> dict[int, Position]:
        """Write what follows from the batches; return where their partitions stand then."""

    def is_settled(self) -> bool:
        """Return whether everything that follows from the messages so far is stored."""

    def gauges(self) -> dict[str, Any]:
        """Return figures for the heartbeat."""


def run_stream(
    stream: Stream, handler: Handler, database: Database, beat: Heartbeat, stop: StopSignal
) -> None:
    """Read the topic until a stop is requested, through every outage and every re-creation of it.

    Raises
    ------
    UserError
        When only a person can help: a refused setting, a log shorter than what was stored.
    """
    try:
        admin = admin_client(stream.kafka)
        wait_for("postgresql", lambda: prepare_database(database), DatabaseUnavailable, stop)
        while not stop.requested:
            topic: Topic = wait_for(
                "kafka",
                lambda: ensure_topic(admin, stream.topic, stream.partitions),
                BrokerUnavailable,
                stop,
            )
            try:
                with TopicReader(
                    stream.kafka,
                    admin,
                    stream.group,
                    topic,
                    stream.group_protocol,
                    stream.session_timeout_s,
                ) as reader:
                    return _run(stream, topic, reader, handler, database, beat, stop)
            except TopicChanged as change:
                log.warning("topic_changed topic=%s reason=%s", topic.name, one_line(change))
    except BrokerMisconfigured as problem:
        raise UserError(f"Kafka refuses: {problem}; check the KAFKA_ settings") from problem
    except OffsetBeyondEnd as problem:
        raise UserError(
            f"{problem}: the topic has lost messages that were stored from it. Nothing was changed."
            " Restore the topic, or see docs/operations.md on setting offsets"
        ) from problem


def _run(
    stream: Stream,
    topic: Topic,
    reader: TopicReader,
    handler: Handler,
    database: Database,
    beat: Heartbeat,
    stop: StopSignal,
) -> None:
    checkpoint = Checkpoint(stream.group)
    database_outage, broker_outage = Outage("postgresql"), Outage("kafka_lookup")
    at_end: set[int] = set()
    committed_s = 0.0
    refused_row = ""
    while not stop.requested:
        # Polled also while waiting: that keeps the membership, and paused partitions give nothing.
        batches = reader.poll(stream.max_messages, stream.timeout_s)
        if database_outage.waiting or broker_outage.waiting:
            continue
        try:
            if reader.waiting:
                _start(topic, reader, checkpoint, handler, database)
            reading = reader.assigned - reader.waiting
            handler.retain(reading)
            if handler.is_due(batches):
                identity = reader.check_identity()
                ends = {p: reader.end_offset(p) for p in reading}
                with database.transaction() as tx:
                    moves = handler.store(tx, batches)
                    identity.confirm()
                    checkpoint.advance(tx, moves, ends)
                beat.count(sum(len(batch) for batch in batches))
            database_outage.over()
            broker_outage.over()
        except (StaleCheckpoint, RowExists) as problem:
            if isinstance(problem, RowExists):
                _refuse_offset_set_back(problem, refused_row)
                refused_row = str(problem)
            log.warning("checkpoint_stale action=reload reason=%s", one_line(problem))
            reader.rewind()
            continue
        except DatabaseUnavailable as problem:
            database_outage.failed(problem)
            reader.rewind()
            continue
        except BrokerUnavailable as problem:
            broker_outage.failed(problem)
            reader.rewind()
            continue
        if time.monotonic() - committed_s > KAFKA_COMMIT_SECONDS:
            reader.commit({p: checkpoint.next_offsets[p] for p in reading})
            committed_s = time.monotonic()
        if beat.due:
            beat.beat(lag=_lag(reader, checkpoint, reading), **handler.gauges())
        at_end = {b.partition for b in batches if b.is_at_end} | (
            at_end - {b.partition for b in batches}
        )
        if stream.once and reading and reading <= at_end and handler.is_settled():
            log.info("caught_up partitions=%d", len(reading))
            return


def _refuse_offset_set_back(problem: RowExists, refused_before: str) -> None:
    # Whoever stored the row moved the offset past it in the same transaction, so after loading the
    # offsets again the same row cannot be met again.
    if str(problem) == refused_before:
        raise UserError(
            f"{problem} The offset in stream_offsets was set back to before rows that exist."
            " Nothing was changed. Delete them or move it forward: docs/operations.md"
        ) from problem


def _start(
    topic: Topic,
    reader: TopicReader,
    checkpoint: Checkpoint,
    handler: Handler,
    database: Database,
) -> None:
    with database.transaction() as tx:
        sources = register_sources(
            tx, topic.cluster_id, topic.topic_id, topic.name, topic.partitions
        )
        checkpoint.source_ids = sources
        positions = checkpoint.load(tx, reader.waiting)
        handler.start(tx, reader, sources, positions)
    reader.start({p: position.next_offset for p, position in positions.items()})


def _lag(reader: TopicReader, checkpoint: Checkpoint, partitions: set[int]) -> int:
    ends = {p: reader.end_offset(p) or 0 for p in partitions}
    return sum(max(0, ends[p] - checkpoint.next_offsets[p]) for p in partitions)
