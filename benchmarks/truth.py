"""The simulator's truth, read from the headers of messages already sent; for evaluation only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from broker.topics import BrokerUnavailable
from broker.writer import TRUTH_HEADER

REQUEST_TIMEOUT_SECONDS = 10.0
POLL_MESSAGES, POLL_SECONDS = 5_000, 0.2


@dataclass(frozen=True)
class Truth:
    """What was injected into the messages of one partition.

    Attributes
    ----------
    begin, end : int
        First offset read, and the one behind the last.
    injected : dict
        Per offset with an injected anomaly: its kind and its event, e.g. ``("spike", "spike:17")``.
    """

    begin: int
    end: int
    injected: dict[int, tuple[str, str]]


def read_truth(client_config: dict[str, Any], topic: str, since_ms: int) -> dict[int, Truth]:
    """Return what a topic's headers say, per partition, from a Kafka timestamp to the end now.

    It joins no group and commits nothing.

    Raises
    ------
    BrokerUnavailable
        When the broker does not answer, or has no such topic.
    """
    consumer = Consumer(
        {
            **client_config,
            "group.id": "evaluation",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    try:
        known = consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic]
        since = [TopicPartition(topic, p, since_ms) for p in known.partitions]
        found = {
            start.partition: _read_partition(consumer, start)
            for start in consumer.offsets_for_times(since, timeout=REQUEST_TIMEOUT_SECONDS)
        }
    except KafkaException as problem:
        raise BrokerUnavailable(problem.args[0].str()) from problem
    finally:
        consumer.close()
    return found


def _read_partition(consumer: Consumer, start: TopicPartition) -> Truth:
    low, end = consumer.get_watermark_offsets(start, timeout=REQUEST_TIMEOUT_SECONDS)
    begin = end if start.offset < 0 else max(low, start.offset)  # negative: nothing so late
    injected: dict[int, tuple[str, str]] = {}
    consumer.assign([TopicPartition(start.topic, start.partition, begin)])
    position = begin
    silent_s = 0.0
    while position < end:
        # It waits for so many messages, or for so long.
        messages = consumer.consume(POLL_MESSAGES, POLL_SECONDS)
        silent_s = 0.0 if messages else silent_s + POLL_SECONDS
        if silent_s > REQUEST_TIMEOUT_SECONDS:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            offset = message.offset() or 0
            position = offset + 1
            truth = dict(message.headers() or []).get(TRUTH_HEADER)
            if isinstance(truth, bytes):
                event = truth.decode(errors="replace")
                injected[offset] = (event.partition(":")[0], event)
    return Truth(begin, end, injected)
