"""Batches of the log that the client cannot unpack, and would ask for again for ever.

A batch may be larger, unpacked, than the client takes (blanks shrink to a ten-thousandth), or be
damaged. The client says so with its first offset, whichever of its offsets was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

UNREADABLE = {KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError.INVALID_MSG}

# Damage on the way mends itself sooner.
GIVE_UP_SECONDS = 60.0
# The client waits half a second after such an error before it asks again.
PROBE_TIMEOUT_SECONDS = 5.0


class UnreadableBatches:
    """Which batch a partition does not get past, and since when.

    Parameters
    ----------
    config : mapping
        librdkafka properties of the consumer that met it.
    topic : str
        The topic.
    """

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._config = dict(config)
        self._topic = topic
        self._since: dict[int, tuple[int, float]] = {}

    def forget(self, partition: int) -> None:
        """Note that a partition gets on, or begins anew."""
        self._since.pop(partition, None)

    def is_given_up(self, partition: int, first: int) -> bool:
        """Note that a batch could not be unpacked; return whether that has been so for a minute."""
        known, since_s = self._since.get(partition, (first, time.monotonic()))
        self._since[partition] = (first, since_s if known == first else time.monotonic())
        return time.monotonic() - self._since[partition][1] > GIVE_UP_SECONDS

    def end_of(self, partition: int, first: int, log_end: int) -> int | None:
        """Return the first offset behind a batch; None if the broker does not answer.

        Found by halving: an offset belongs to the batch if reading from it gives the same error.
        """
        inside, behind = first, log_end
        with closing(Consumer(self._config)) as consumer:  # assigned by hand: it joins no group
            while behind - inside > 1:
                middle = (inside + behind) // 2
                consumer.assign([TopicPartition(self._topic, partition, middle)])
                if (met := _first_unreadable(consumer)) is None:
                    return None
                inside, behind = (middle, behind) if met == first else (inside, middle)
        return behind


def _first_unreadable(consumer: Consumer) -> int | None:
    """Return the first offset of the batch that cannot be unpacked; -1 = it can, None = unknown."""
    message = consumer.poll(PROBE_TIMEOUT_SECONDS)
    if message is None:
        return None
    error = message.error()
    if error is None or error.code() == KafkaError._PARTITION_EOF:
        return -1
    return message.offset() if error.code() in UNREADABLE else None
