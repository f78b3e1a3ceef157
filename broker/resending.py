"""Messages sent again, each once: in transactions that shut out whoever sent them before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from broker.reader import look_up
from broker.topics import BrokerUnavailable, Topic
from broker.writer import SEND_SETTINGS

# Names the dead letter that a message was: source_id/log_offset.
HEADER = "dead_letter"
# What a broker that is there needs for a request.
TIMEOUT_SECONDS = 30.0
# Another program's transaction that is open holds reading up; brokers end one after 15 minutes.
READ_TIMEOUT_SECONDS = 960.0


class Letter(NamedTuple):
    """A message to be sent again, and the name of the dead letter that it was."""

    name: str
    key: bytes | None
    payload: bytes


class Resender:
    """Sends messages to a topic in transactions.

    Parameters
    ----------
    client_config : dict
        librdkafka properties: brokers and security.
    admin : AdminClient
        For looking up the ends of the log.
    topic : Topic
        Where the messages go.
    transactional_id : str
        Of two that have the same, the later shuts out the earlier, whose open transaction is
        over, one way or the other, when this returns.

    Raises
    ------
    BrokerUnavailable
        When the broker does not answer.
    """

    def __init__(
        self, client_config: dict[str, Any], admin: AdminClient, topic: Topic, transactional_id: str
    ) -> None:
        self._client = {**client_config, "log_level": 0}
        self._admin = admin
        self._topic = topic.name
        self._partitions = range(topic.partitions)
        self._producer = Producer(
            {
                **self._client,
                "transactional.id": transactional_id,
                "partitioner": SEND_SETTINGS["partitioner"],  # where the key's others are
            }
        )
        try:
            self._producer.init_transactions(TIMEOUT_SECONDS)
        except KafkaException as problem:
            raise BrokerUnavailable(problem.args[0].str()) from problem

    def end_offsets(self) -> dict[int, int]:
        """Return where each partition ends now; nothing of this process lies behind it yet."""
        return self._look_up(OffsetSpec.latest())

    def _look_up(self, spec: OffsetSpec) -> dict[int, int]:
        return look_up(self._admin, self._topic, self._partitions, spec)

    def _consumer(self, isolation: str) -> Consumer:
        return Consumer(
            {
                **self._client,
                "group.id": "dead_letters",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
            }
        )

    def arrived(self, since: Mapping[int, int]) -> set[str]:
        """Return the names of the dead letters that have been sent again at or behind offsets.

        Raises
        ------
        LookupError
            When the log has been cut behind them: nobody knows any more.
        BrokerUnavailable
            When the broker does not answer.
        """
        firsts, ends = self._look_up(OffsetSpec.earliest()), self.end_offsets()
        for partition, offset in since.items():
            if not firsts.get(partition, 0) <= offset <= ends.get(partition, 0):
                raise LookupError(f"offset {offset} of partition {partition} is gone")
        ends = {p: end for p, end in ends.items() if since.get(p, 0) < end}
        with closing(self._consumer("read_committed")) as consumer:
            consumer.assign([TopicPartition(self._topic, p, since.get(p, 0)) for p in ends])
            return _read_names(consumer, ends)

    def send(self, letters: Sequence[Letter]) -> None:
        """Send all of them or none.

        Raises
        ------
        BrokerUnavailable
            When nobody knows what became of them, or another process has shut this one out.
        """
        try:
            self._producer.begin_transaction()
            for letter in letters:
                self._producer.produce(
                    self._topic,
                    letter.payload,
                    letter.key,
                    headers=[(HEADER, letter.name.encode())],
                )
            self._producer.commit_transaction(TIMEOUT_SECONDS)
        except KafkaException as problem:
            raise BrokerUnavailable(problem.args[0].str()) from problem


def _read_names(consumer: Consumer, ends: dict[int, int]) -> set[str]:
    """Return the names found before ``ends``; the consumer is assigned."""
    names: set[str] = set()
    missing = set(ends)
    give_up_s = time.monotonic() + READ_TIMEOUT_SECONDS
    while missing:
        if time.monotonic() > give_up_s:
            raise BrokerUnavailable("somebody's transaction stays open")
        message: Any = consumer.poll(1.0)
        if message is None:
            continue
        error, partition = message.error(), message.partition()
        next_offset = message.offset()
        if error is None:
            next_offset += 1
            names.update(_name_of(message))
        elif error.code() != KafkaError._PARTITION_EOF:
            raise BrokerUnavailable(error.str())
        # The end of a log may be a control record, behind which no message comes.
        if next_offset >= ends[partition]:
            missing.discard(partition)
    return names


def _name_of(message: Any) -> set[str]:
    headers = dict(message.headers() or ())
    return {headers[HEADER].decode("utf-8", "replace")} if headers.get(HEADER) else set()
