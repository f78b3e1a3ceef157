"""The way from Kafka: batches per partition, read from offsets that the caller holds, not Kafka.

Life of a partition here: *assigned* by the group and paused -> ``start`` at the offset that
PostgreSQL holds -> read -> *revoked*. After any failed transaction the caller calls ``rewind``,
which puts every partition back to the beginning of that life: what was in memory is forgotten,
the database decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from broker.topics import (
    BrokerMisconfigured,
    BrokerUnavailable,
    IdentityCheck,
    Topic,
    TopicChanged,
)
from broker.unreadable import UNREADABLE, UnreadableBatches

log = logging.getLogger(__name__)

# Looking up the ends of a log: the loop must get back to its stop flag.
LOOKUP_TIMEOUT_SECONDS = 2.0
# A broker that has just come back may show a shorter log for a moment; one that lost data stays so.
BEYOND_END_SECONDS = 10.0
# How often the broker is asked whether the topic is still what it was, whatever comes meanwhile.
WATCH_SECONDS = 5.0

# An error that goes on is said again after so long.
SAY_AGAIN_SECONDS = 60.0

# How much the client fetches ahead: small fetches, and often. What arrives compressed takes five
# times the space here, so fetches of 10 MB cost 200 MB of memory and gain nothing.
FETCH_SETTINGS = {
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.message.max.bytes": 2_097_152,
    "fetch.max.bytes": 2_097_152,
    # Full, the client by default waits a second before it fetches again: what it holds lasts less.
    "fetch.queue.backoff.ms": 5,
}

_TOPIC_CHANGED = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.INCONSISTENT_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
}


class OffsetBeyondEnd(Exception):
    """The stored offset lies beyond the end of the log: the topic has lost stored messages."""


@dataclass(frozen=True)
class PartitionBatch:
    """Messages of one partition, in log order, and where the next one will be.

    Attributes
    ----------
    payloads : list of bytes or None
        Message values; None is a tombstone.
    offsets, timestamp_ms : array of int64
        Offset and Kafka timestamp (ms since the epoch, negative = unknown) of each message.
    next_offset : int
        Where reading goes on; logs have gaps, so it need not be the last offset + 1.
    is_at_end : bool
        The batch reached the end of the log.
    """

    partition: int
    payloads: list[bytes | None]
    offsets: npt.NDArray[np.int64]
    timestamp_ms: npt.NDArray[np.int64]
    next_offset: int
    is_at_end: bool

    def __len__(self) -> int:
        return len(self.payloads)


class TopicReader:
    """A member of a consumer group that reads from offsets its caller gives it.

    Parameters
    ----------
    client_config : dict
        librdkafka properties: brokers and security.
    admin : AdminClient
        For looking up the ends of logs.
    group : str
        Consumer group; its offsets in Kafka are written for lag tools and never read.
    topic : Topic
        The identity to read.
    group_protocol : {"classic", "consumer"}
        ``consumer`` is KIP-848.
    session_timeout_s : int
        Silence after which the group gives the partitions to others; classic protocol only.
    """

    def __init__(
        self,
        client_config: dict[str, Any],
        admin: AdminClient,
        group: str,
        topic: Topic,
        group_protocol: str,
        session_timeout_s: int,
    ) -> None:
        self.topic = topic
        self._admin = admin
        self._group = group
        self._beyond_end_since: dict[int, float] = {}
        self._is_broker_down = False
        self._said_s: dict[tuple[str, int], float] = {}
        self._watch: IdentityCheck | None = None
        self._watched_s = time.monotonic()
        self.assigned: set[int] = set()
        self.waiting: set[int] = set()
        """Partitions of ``assigned`` that are paused until ``start`` says where."""
        self.before_revoke: Callable[[], None] = lambda: None
        """Called inside ``poll`` before partitions are given away; may not raise."""
        self.first_readable: dict[int, int] = {}
        """Of partitions of ``waiting``: the first offset behind a batch that cannot be unpacked."""
        config = {
            **client_config,
            **FETCH_SETTINGS,
            "group.id": group,
            "group.protocol": group_protocol,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # A silent jump to the start or end would double or lose readings.
            "auto.offset.reset": "error",
            "log_level": 0,
            "error_cb": self._on_client_error,
        }
        if group_protocol == "classic":
            config |= {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": session_timeout_s * 1000,
                "heartbeat.interval.ms": session_timeout_s * 250,
            }
        try:
            self._consumer = Consumer(config)
        except KafkaException as problem:
            raise BrokerMisconfigured(problem.args[0].str()) from problem
        self._unreadable = UnreadableBatches(config, topic.name)
        self._consumer.subscribe(
            [topic.name],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    # Callbacks run inside poll(); an exception in one surfaces there as a SystemError, so they only
    # note what happened and the caller's loop does the work.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            partition.offset = 0  # any: it is paused before a message is handed out, then sought
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        self._note_broker_up()
        numbers = {p.partition for p in partitions}
        self.assigned |= numbers
        self.waiting |= numbers
        log.info("partitions_assigned group=%s partitions=%s", self._group, _listed(numbers))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.before_revoke()
        consumer.incremental_unassign(partitions)
        numbers = {p.partition for p in partitions}
        self.assigned -= numbers
        self.waiting -= numbers
        for partition in numbers:
            self._forget_unreadable(partition)
        log.info("partitions_revoked partitions=%s", _listed(numbers))

    def first_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Ask the broker for the first offset that each partition still has.

        Raises
        ------
        BrokerUnavailable
            When it does not answer.
        TopicChanged
            When they would be offsets of another topic.
        """
        firsts = self._look_up(partitions, OffsetSpec.earliest())
        self.check_identity().confirm()  # asked last: it is this topic that was looked at
        return firsts

    def _refuse_beyond_end(self, partition: int, offset: int, end: int) -> None:
        if offset <= end:
            self._beyond_end_since.pop(partition, None)
            return
        since_s = self._beyond_end_since.setdefault(partition, time.monotonic())
        text = f"offset {offset} of {self.topic.name}[{partition}] is beyond its end {end}"
        if time.monotonic() - since_s > BEYOND_END_SECONDS:
            raise OffsetBeyondEnd(text)
        raise BrokerUnavailable(text)

    def start(self, next_offsets: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on.

        Raises
        ------
        BrokerUnavailable
            When a partition cannot be positioned now; it stays in ``waiting``.
        OffsetBeyondEnd
            When the log has been shorter than an offset for ten seconds.
        TopicChanged
            When these are offsets of another topic.
        """
        ends = self.end_offsets(next_offsets)
        self.check_identity().confirm()
        for partition, offset in next_offsets.items():
            self._refuse_beyond_end(partition, offset, ends[partition])
            position = TopicPartition(self.topic.name, partition, offset)
            try:
                self._consumer.seek(position)  # before resume, or messages in between are skipped
                self._consumer.resume([position])
            except KafkaException as problem:
                raise BrokerUnavailable(problem.args[0].str()) from problem
            self.waiting.discard(partition)
            self._forget_unreadable(partition)

    def rewind(self) -> None:
        """Pause everything until ``start`` is called again."""
        self._pause(self.assigned)
        self.first_readable.clear()

    def _forget_unreadable(self, partition: int) -> None:
        self.first_readable.pop(partition, None)
        self._unreadable.forget(partition)

    def _pause(self, partitions: Iterable[int]) -> None:
        self._consumer.pause([TopicPartition(self.topic.name, p) for p in partitions])
        self.waiting |= set(partitions)

    def poll(self, max_messages: int, timeout_s: float) -> list[PartitionBatch]:
        """Return what arrives within ``timeout_s``, by partition; serves rebalances meanwhile.

        Raises
        ------
        TopicChanged
            When the broker no longer knows the topic, or knows another one of its name, or one with
            more partitions.
        BrokerMisconfigured
            When the client can never work, e.g. it may not read the topic.
        """
        consumed = self._consumer.consume(max_messages, timeout_s)
        self._watch_topic()
        ends: dict[int, int] = {}
        # Here and in _batch by map and by runs of one partition: a loop over messages with several
        # calls for each would cost as much as getting them.
        errors = [m for m in consumed if m.error() is not None]
        for message in errors:
            error = message.error()
            assert error is not None
            if error.code() == KafkaError._PARTITION_EOF:
                ends[message.partition() or 0] = message.offset() or 0
            else:
                self._on_error(error, message)
        messages: dict[int, list[Message]] = {}
        good = [m for m in consumed if m.error() is None] if errors else consumed
        for partition, run in groupby(good, Message.partition):
            messages.setdefault(partition or 0, []).extend(run)
        if messages:
            self._note_broker_up()
        for partition in messages:
            self._forget_unreadable(partition)
        return [
            _batch(p, messages.get(p, []), ends.get(p))
            for p in sorted({*messages, *ends} & (self.assigned - self.waiting))
        ]

    def _watch_topic(self) -> None:
        # Nothing is said of an idle topic that goes or grows: the client would learn of it minutes
        # later, and from a topic created again read on as if nothing had happened.
        if any(partition >= self.topic.partitions for partition in self.assigned):
            raise TopicChanged(f"{self.topic.name} has more partitions")
        if self._watch is None and time.monotonic() > self._watched_s + WATCH_SECONDS:
            self._watch = self.check_identity()
        elif self._watch is not None and self._watch.is_answered:
            watch, self._watch = self._watch, None
            self._watched_s = time.monotonic()
            with suppress(BrokerUnavailable):
                watch.confirm()

    def _on_client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._is_broker_down:
            self._is_broker_down = True
            log.warning("kafka_unavailable waiting=1 reason=%s", error.str())

    def _note_broker_up(self) -> None:
        if self._is_broker_down:
            self._is_broker_down = False
            log.info("kafka_available")

    def _on_error(self, error: KafkaError, message: Message) -> None:
        if error.code() in _TOPIC_CHANGED:
            raise TopicChanged(error.str())
        if error.fatal() or error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            raise BrokerMisconfigured(error.str())
        partition, offset = message.partition() or 0, message.offset() or 0
        now_s = time.monotonic()
        if now_s - self._said_s.get((error.name(), partition), -inf) > SAY_AGAIN_SECONDS:
            self._said_s[error.name(), partition] = now_s
            log.error(
                "kafka_error code=%s partition=%s offset=%s reason=%s",
                *(error.name(), partition, offset, error.str()),
            )
        is_read = partition in self.assigned - self.waiting
        if error.code() in UNREADABLE and is_read and offset >= 0:  # else unknown: not to be sought
            self._pass_over(partition, offset)

    def _pass_over(self, partition: int, offset: int) -> None:
        """After a minute of a batch that cannot be unpacked, wait to begin behind it."""
        if self._unreadable.is_given_up(partition, offset):
            with suppress(BrokerUnavailable):
                end = self.end_offsets([partition])[partition]
                if (behind := self._unreadable.end_of(partition, offset, end)) is not None:
                    self.first_readable[partition] = behind
                    self._pause([partition])

    def end_offsets(self, partitions: Iterable[int]) -> dict[int, int]:
        """Ask the broker for the offset after the last message of each partition.

        Raises
        ------
        BrokerUnavailable
            When it does not answer.
        """
        return self._look_up(partitions, OffsetSpec.latest())

    def _look_up(self, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
        # Not over the consumer's own connection: there the answer waits behind a pending fetch.
        return look_up(self._admin, self.topic.name, partitions, spec)

    def check_identity(self) -> IdentityCheck:
        """Ask whether the topic is still the same; confirm before what was read is committed."""
        return IdentityCheck(self._admin, self.topic)

    def end_offset(self, partition: int) -> int | None:
        """Return the end of a partition's log as last fetched; None = not yet known."""
        _, high = self._consumer.get_watermark_offsets(
            TopicPartition(self.topic.name, partition), cached=True
        )
        return high if high >= 0 else None

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Tell Kafka, for lag tools; what counts are PostgreSQL's offsets, so this may fail."""
        positions = [TopicPartition(self.topic.name, p, o) for p, o in next_offsets.items()]
        try:
            self._consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as problem:
            log.debug("kafka_commit_failed reason=%s", problem.args[0].str())

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def look_up(
    admin: AdminClient, topic: str, partitions: Iterable[int], spec: OffsetSpec
) -> dict[int, int]:
    """Return the offset that each partition has by ``spec``, or raise ``BrokerUnavailable``."""
    wanted = {TopicPartition(topic, p): spec for p in partitions}
    try:
        answers = admin.list_offsets(wanted, request_timeout=LOOKUP_TIMEOUT_SECONDS)
        return {tp.partition: answer.result().offset for tp, answer in answers.items()}
    except KafkaException as problem:
        # After a restart of the broker the admin client asks with the leader epoch it remembers,
        # and is refused for minutes. Listing the topics makes it learn the new one.
        with suppress(KafkaException):
            admin.list_topics(timeout=LOOKUP_TIMEOUT_SECONDS)
        raise BrokerUnavailable(problem.args[0].str()) from problem


def _batch(partition: int, messages: list[Message], end: int | None) -> PartitionBatch:
    offsets = np.array(list(map(Message.offset, messages)), dtype=np.int64)
    last = int(offsets[-1]) + 1 if messages else 0
    return PartitionBatch(
        partition,
        list(map(Message.value, messages)),
        offsets,
        np.array([ms for _, ms in map(Message.timestamp, messages)], dtype=np.int64),
        max(last, end or 0),
        end is not None and end >= last,
    )


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(n) for n in sorted(numbers)) or "none"
