"""The loop that consumer and stream processor share, and the whole of the exactly-once guarantee.

    1. poll      some messages from the topic
    2. prepare   what can be made of the messages alone: decode, format
    3. compute   what follows from them, in memory
    4. store     that, in one transaction: nothing in it takes longer for more messages but SQL
    5. confirm   that the topic is still the one whose offsets are stored
    6. advance   the offsets, in the same transaction, last, and only if nobody else has moved them
    7. commit

Steps 3 to 7 run in a thread, while 1 and 2 of the next batch run in the loop: there is one
transaction at most, and nothing but polling and preparing happens beside it. The loop waits for its
outcome before it looks at anything that the transaction touches, and before partitions are given
away.

Nothing is in memory that is not in the database after step 7, but for the batch that was polled
meanwhile. So every failure, whatever it was, has one cure: forget, that batch too, load offsets and
state from the database, seek there, go on.
"""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from broker.reader import OffsetBeyondEnd, PartitionBatch, TopicReader
from broker.settings import KafkaSettings
from broker.topics import (
    BrokerMisconfigured,
    BrokerUnavailable,
    IdentityCheck,
    Topic,
    TopicChanged,
    admin_client,
    ensure_topic,
    has_append_time,
)
from db.connection import (
    Cursor,
    DatabaseUnavailable,
    RowExists,
    StaleCheckpoint,
    UnsuitableDatabase,
)
from db.offsets import Checkpoint, Position, register_sources
from db.versions import prepare_database
from service.lifecycle import (
    Outage,
    StopSignal,
    UserError,
    one_line,
    refuse_set_back,
    wait_for,
)
from service.runner import Process

log = logging.getLogger(__name__)

# Kafka's own copy of the offsets only feeds lag tools.
KAFKA_COMMIT_SECONDS = 1.0
# How long partitions are held back for a transaction; after that it may fail, which is safe.
REVOKE_WAIT_SECONDS = 2.0
# The transaction's thread waits so long for the interpreter after each answer of the database; at
# Python's own 5 ms it would do little else while the loop decodes.
SWITCH_SECONDS = 0.0005

# Messages come by the thousand, go soon and form no cycles: at Python's own threshold, 700 objects,
# looking for cycles took a fifth of the time.
COLLECT_OBJECTS = 200_000

# Why messages were never read, in lost_messages.
DELETED = "deleted from the log before they were read"
UNREADABLE = "in a batch that the Kafka client cannot unpack"

SENDERS_TIMES = (
    "topic_has_senders_times topic=%s; a message's time is what its sender says: a clock that is"
    " ahead is not noticed, and moves windows. To mend it: kafka-configs.sh --bootstrap-server %s"
    " --alter --entity-type topics --entity-name %s"
    " --add-config message.timestamp.type=LogAppendTime"
)

Work = TypeVar("Work")
Changes = TypeVar("Changes")


@dataclass(frozen=True)
class Intake:
    """What to read and how.

    Attributes
    ----------
    kafka : KafkaSettings
        The topic.
    group : str
        Name of the service; its consumer group is this and the identity of the database.
    max_messages, timeout_s : int, float
        A poll ends with so many messages or after so many seconds.
    once : bool
        Return when all that was in the topic at the beginning is stored, by whatever instance.
    """

    kafka: KafkaSettings
    group: str
    max_messages: int
    timeout_s: float
    once: bool = False


class Handler(Protocol[Work, Changes]):
    """What a service does with the messages. All but ``prepare`` have it to themselves."""

    def start(
        self, tx: Cursor, reader: TopicReader, sources: dict[int, int], at: dict[int, Position]
    ) -> None:
        """Load the state of partitions that begin ``at``; ``sources`` are all source ids."""

    def retain(self, partitions: set[int]) -> None:
        """Forget the state of all other partitions."""

    def prepare(self, batch: PartitionBatch) -> Work:
        """Return what can be made of messages alone; runs beside ``store``, so it changes nothing.

        Not called before their partition's ``start``.
        """

    def is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        """Return whether there is something to store where no offset moves."""

    def compute(self, work: Sequence[Work]) -> Changes:
        """Return what follows from prepared batches; ``store`` comes next, or all is forgotten."""

    def store(self, tx: Cursor, changes: Changes) -> dict[int, Position]:
        """Write it; return where the partitions stand then."""

    def committed(self, changes: Changes) -> int:
        """Count what was stored, now that it is; return the number of readings."""

    def is_settled(self, ends: Mapping[int, int]) -> bool:
        """Return whether all that follows from the messages before these offsets is stored."""

    def gauges(self) -> dict[str, Any]:
        """Return figures for the heartbeat."""


def run_stream(intake: Intake, handler: Handler[Work, Changes], process: Process) -> None:
    """Read the topic until a stop is requested, through every outage and every re-creation of it.

    Raises
    ------
    UserError
        When only a person can help: a refused setting, a log shorter than what was stored, a
        database of another version, or with rows made with another setting.
    """
    kafka, stop = intake.kafka, process.stop
    try:
        admin = admin_client(kafka.client)
        prepare = partial(prepare_database, process.database)
        is_warned = False
        while not stop.requested:
            identity: str = wait_for("postgresql", prepare, DatabaseUnavailable, stop)
            topic: Topic = wait_for(
                "kafka",
                lambda: ensure_topic(admin, kafka.topic, kafka.partitions),
                BrokerUnavailable,
                stop,
            )
            if not is_warned and not has_append_time(admin, topic):
                is_warned = True
                log.warning(SENDERS_TIMES, topic.name, kafka.bootstrap_servers, topic.name)
            try:
                with TopicReader(
                    kafka.client,
                    admin,
                    f"{intake.group}-{identity}",
                    topic,
                    kafka.group_protocol,
                    kafka.session_timeout_seconds,
                ) as reader:
                    _Run(intake, identity, topic, reader, handler, process).until(stop)
                break
            except TopicChanged as change:
                log.warning("topic_changed topic=%s reason=%s", topic.name, one_line(change))
            except DatabaseReplaced:
                log.warning("database_replaced action=begin_where_this_one_stands")
    except BrokerMisconfigured as problem:
        raise UserError(f"Kafka refuses: {problem}; check the KAFKA_ settings") from problem
    except UnsuitableDatabase as problem:
        raise UserError(problem) from problem
    except OffsetBeyondEnd as problem:
        raise UserError(
            f"{problem}: the topic has lost messages that were stored from it. Nothing was changed."
            " Restore the topic, or see docs/operations.md on setting offsets"
        ) from problem
    process.beat.beat("stopped", force=True)


class DatabaseReplaced(Exception):
    """Another database stands where the one was: an empty one, or a copy with a new identity."""


class _Run(Generic[Work, Changes]):
    """The loop over one identity of the topic."""

    def __init__(
        self,
        intake: Intake,
        identity: str,
        topic: Topic,
        reader: TopicReader,
        handler: Handler[Work, Changes],
        process: Process,
    ) -> None:
        self.intake = intake
        self.identity = identity
        self.topic = topic
        self.reader = reader
        self.handler = handler
        self.database = process.database
        self.beat = process.beat
        self.checkpoint = Checkpoint(intake.group)
        self.database_outage, self.broker_outage = Outage("postgresql"), Outage("kafka_lookup")
        self.refused_row = ""
        self.is_done = False
        self.lost_messages = 0
        self.committed_s = 0.0
        self.goal: dict[int, int] | None = None
        self.in_flight: Future[Changes] | None = None
        reader.before_revoke = self._wait

    def until(self, stop: StopSignal) -> None:
        """Go on until a stop is requested, or, if ``once``, all that was there is stored."""
        sys.setswitchinterval(SWITCH_SECONDS)
        # Arrow's own keeps some 70 MB more for the same columns, and is no faster here.
        pa.set_memory_pool(pa.system_memory_pool())
        gc.set_threshold(COLLECT_OBJECTS)
        with ThreadPoolExecutor(1, "transaction") as self.thread:
            while not stop.requested:
                # Polled also while waiting: that keeps the membership, and paused partitions give
                # nothing.
                batches = self.reader.poll(self.intake.max_messages, self.intake.timeout_s)
                if self.database_outage.waiting or self.broker_outage.waiting:
                    continue
                self._recovering(partial(self._step, batches))
                if self.intake.once and not self.reader.waiting:
                    self._recovering(self._look_whether_done)
                if self.is_done:
                    log.info("caught_up partitions=%d", len(self.reader.assigned))
                    break
            self._recovering(self._finish)

    def _recovering(self, action: Callable[[], None]) -> None:
        """Do something; when it fails, forget everything that is not in the database."""
        try:
            return action()
        except (StaleCheckpoint, RowExists) as problem:
            if isinstance(problem, RowExists):
                refuse_set_back("offset in stream_offsets", problem, self.refused_row)
                self.refused_row = str(problem)
            log.warning("checkpoint_stale action=reload reason=%s", one_line(problem))
        except DatabaseUnavailable as problem:
            self.database_outage.failed(problem)
        except BrokerUnavailable as problem:
            self.broker_outage.failed(problem)
        self.reader.rewind()

    def _step(self, batches: Sequence[PartitionBatch]) -> None:
        """Store one poll, as soon as the one before is stored."""
        work = [self.handler.prepare(batch) for batch in batches]
        self._finish()
        if self.reader.waiting:
            self._start()
        reading = self.reader.assigned - self.reader.waiting
        self.handler.retain(reading)
        self._tell(reading)
        if self._is_due(batches):
            identity = self.reader.check_identity()  # asked after the messages were polled
            ends = {p: self.reader.end_offset(p) for p in reading}
            self.in_flight = self.thread.submit(self._store, work, identity, ends)
        else:
            self._note_success()

    def _is_due(self, batches: Sequence[PartitionBatch]) -> bool:
        # Also where a log ends with what is no message: control records, an aborted transaction.
        at = self.checkpoint.next_offsets
        has_moved = any(batch.next_offset > at[batch.partition] for batch in batches)
        return has_moved or self.handler.is_due(batches)

    def _store(
        self, work: Sequence[Work], identity: IdentityCheck, ends: dict[int, int | None]
    ) -> Changes:
        changes = self.handler.compute(work)
        with self.database.transaction() as tx:
            moves = self.handler.store(tx, changes)
            identity.confirm()
            self.checkpoint.advance(tx, moves, ends)
        return changes

    def _finish(self) -> None:
        """Wait for the transaction in flight, if there is one; raise what it raised."""
        if self.in_flight is not None:
            in_flight, self.in_flight = self.in_flight, None
            self.beat.count(self.handler.committed(in_flight.result()))
            self._note_success()

    def _wait(self) -> None:
        # Not for the outcome: that is for the loop.
        if self.in_flight is not None:
            wait([self.in_flight], REVOKE_WAIT_SECONDS)

    def _note_success(self) -> None:
        self.database_outage.over()
        self.broker_outage.over()

    def _start(self) -> None:
        """Begin the partitions that wait for it where the database says."""
        if prepare_database(self.database) != self.identity:
            raise DatabaseReplaced
        firsts = self.reader.first_offsets(self.reader.waiting)
        with self.database.transaction() as tx:
            sources = self._register(tx)
            positions = self.checkpoint.load(tx, firsts)
            positions |= self.checkpoint.skip(tx, positions, firsts, DELETED)
            readable = self.reader.first_readable
            positions |= self.checkpoint.skip(tx, positions, readable, UNREADABLE)
            self.handler.start(tx, self.reader, sources, positions)
            self.lost_messages = self.checkpoint.lost_messages(tx)
        self.reader.start({p: position.next_offset for p, position in positions.items()})

    def _register(self, tx: Cursor) -> dict[int, int]:
        """Return the source id of every partition, and note it in the checkpoint."""
        topic = self.topic
        identity = (topic.cluster_id, topic.topic_id, topic.name, topic.partitions)
        sources = register_sources(tx, *identity)
        self.checkpoint.source_ids = sources
        return sources

    def _tell(self, reading: set[int]) -> None:
        """Tell Kafka and the heartbeat how far it is; between two transactions."""
        next_offsets = {p: self.checkpoint.next_offsets[p] for p in reading}
        if time.monotonic() - self.committed_s > KAFKA_COMMIT_SECONDS:
            self.reader.commit(next_offsets)
            self.committed_s = time.monotonic()
        if self.beat.due:
            ends = {p: self.reader.end_offset(p) or 0 for p in reading}
            lag = sum(max(0, ends[p] - next_offsets[p]) for p in reading)
            self.beat.beat(lag=lag, lost_messages=self.lost_messages, **self.handler.gauges())

    def _look_whether_done(self) -> None:
        """See whether all that was in the topic at the beginning is done, whoever did it."""
        if self.goal is None:
            self.goal = self.reader.end_offsets(range(self.topic.partitions))
        at = self.checkpoint.next_offsets
        if self.reader.waiting or any(at[p] < self.goal[p] for p in self.reader.assigned):
            return
        self._finish()
        with self.database.transaction() as tx:
            if not self.checkpoint.source_ids:  # others have all partitions: never done
                self._register(tx)
            stored = self.checkpoint.stored(tx)
        is_stored = all(stored.get(p, 0) >= end for p, end in self.goal.items())
        self.is_done = is_stored and self.handler.is_settled(self.goal)
