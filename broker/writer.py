"""The way to Kafka: messages are handed over in bulk, and each one is accounted for.

A message is *accepted* once the local queue has it; from there it is *delivered* when the broker
has acknowledged it, or *failed* when it will never be. While the broker is away the queue holds
what it can; then it accepts no more, and the caller, who has to ask again, stops measuring.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.topics import BrokerMisconfigured
from pipeline.encoding import Messages

log = logging.getLogger(__name__)

# Header of the simulator's truth, for evaluation only: kind:event_id.
TRUTH_HEADER = "injected_anomaly"
# More than two hours at 25 readings a second; a broker that is there takes them in half a second.
QUEUE_MESSAGES = 200_000
# How long a full queue is waited for at a time: the caller has a stop flag and heartbeats to mind.
ROOM_TIMEOUT_SECONDS = 0.1
# Messages are acknowledged within milliseconds; after so long without it something is wrong.
STALLED_SECONDS = 2.0
# A broker that is away is tried again every second; an older error is no longer the reason.
RECONNECT_MS = 1_000
PROBLEM_SECONDS = 5.0
# Purging empties queues in this process; no broker is asked.
PURGE_TIMEOUT_SECONDS = 2.0
# Failed messages are reported together.
REPORT_SECONDS = 5.0
# Acknowledged by all replicas, in order, none twice; the rest is for throughput.
SEND_SETTINGS = {
    "acks": "all",
    "enable.idempotence": True,
    # Never give a message up by itself: an outage ends, a reading does not come again.
    "message.timeout.ms": 0,
    # A deleted topic is created again by whoever misses it, in seconds.
    "topic.metadata.propagation.max.ms": 3_600_000,
    "reconnect.backoff.max.ms": RECONNECT_MS,
    "queue.buffering.max.messages": QUEUE_MESSAGES,
    # A few milliseconds' worth of messages in one request, where they are compressed together.
    "linger.ms": 5,
    "batch.num.messages": 10_000,
    # As Java clients do it: whoever joins on the key finds it in the same partition.
    "partitioner": "murmur2_random",
}

_NOT_ALLOWED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


class TopicWriter:
    """Sends messages to a topic: acknowledged by all replicas, in order, none twice.

    Parameters
    ----------
    client_config : dict
        librdkafka properties: brokers and security.
    topic : str
        Where the messages go.
    compression : str
        Codec; with none every client can read them.

    Attributes
    ----------
    accepted, failed : int
        Messages that the queue took, and those of them that will never arrive.

    Raises
    ------
    BrokerMisconfigured
        When librdkafka refuses the configuration.
    """

    def __init__(
        self, client_config: dict[str, Any], topic: str, compression: str = "none"
    ) -> None:
        self.topic = topic
        self.accepted = 0
        self.failed = 0
        self._is_refused = False
        self._fatal = ""
        self._reasons: Counter[str] = Counter()
        self._reported_s = -REPORT_SECONDS
        self._problem = ""
        self._problem_s = -PROBLEM_SECONDS
        self._last_delivered = 0
        self._progress_s = time.monotonic()
        config = {
            **client_config,
            **SEND_SETTINGS,
            "compression.type": compression,
            # A Python call for each delivered message would cost as much as sending it.
            "delivery.report.only.error": True,
            "on_delivery": self._on_failure,
            "error_cb": self._on_error,
            "log_level": 0,
        }
        try:
            self._producer = Producer(config)
        except KafkaException as problem:
            raise BrokerMisconfigured(problem.args[0].str()) from problem

    # Callbacks run inside poll() and flush(); they only note what happened.

    def _on_failure(self, error: KafkaError, message: Message) -> None:
        self.failed += 1
        self._reasons[error.str()] += 1
        if error.code() in _NOT_ALLOWED:
            self._fatal = error.str()

    def _on_error(self, error: KafkaError) -> None:
        log.debug("kafka_error code=%s reason=%s", error.name(), error.str())
        self._problem, self._problem_s = error.str(), time.monotonic()
        if error.fatal() or error.code() in _NOT_ALLOWED:
            self._fatal = error.str()

    @property
    def pending(self) -> int:
        """Messages accepted whose fate is not known yet."""
        return len(self._producer)

    @property
    def delivered(self) -> int:
        """Messages that the broker has acknowledged."""
        return self.accepted - self.failed - self.pending

    @property
    def is_stalled(self) -> bool:
        """Whether there are messages to send and for a while none has been acknowledged."""
        has_work = self._is_refused or self.pending > 0
        return has_work and time.monotonic() - self._progress_s > STALLED_SECONDS

    @property
    def problem(self) -> str | None:
        """What is wrong with the connection; None = nothing that the client knows of."""
        is_recent = time.monotonic() - self._problem_s < PROBLEM_SECONDS
        return self._problem if is_recent else None

    def send(self, messages: Messages) -> int:
        """Hand messages over; return how many were accepted: not all when the queue is full.

        Raises
        ------
        BrokerMisconfigured
            When the client can never work, e.g. it may not write to the topic.
        """
        produce, topic, accepted = self._producer.produce, self.topic, 0
        self._is_refused = False
        try:
            for key, payload, truth in zip(
                messages.keys, messages.payloads, messages.truths, strict=True
            ):
                if truth is None:
                    produce(topic, payload, key)
                else:
                    produce(topic, payload, key, headers=[(TRUTH_HEADER, truth)])
                accepted += 1
        except BufferError:
            self._is_refused = True
        except KafkaException as problem:  # the topic is not there
            log.debug("produce_failed reason=%s", problem.args[0].str())
            self._is_refused = True
        self.accepted += accepted
        self.poll(ROOM_TIMEOUT_SECONDS if self._is_refused else 0)
        return accepted

    def poll(self, timeout_s: float = 0) -> None:
        """Take note of what became of messages.

        Raises
        ------
        BrokerMisconfigured
            As ``send``.
        """
        self._producer.poll(timeout_s)
        self._take_note()
        if self._fatal:
            raise BrokerMisconfigured(self._fatal)

    def flush(self, timeout_s: float) -> int:
        """Wait for all messages to be delivered or failed; return how many still are neither."""
        self._producer.flush(timeout_s)
        self._take_note()
        return self.pending

    def _take_note(self) -> None:
        now_s = time.monotonic()
        delivered = self.delivered
        if delivered > self._last_delivered or not (self.pending or self._is_refused):
            self._last_delivered, self._progress_s = delivered, now_s
        if self._reasons and now_s - self._reported_s >= REPORT_SECONDS:
            self._report_failures()
            self._reported_s = now_s

    def _report_failures(self) -> None:
        for reason, count in self._reasons.items():
            log.error("readings_failed count=%d reason=%s", count, reason)
        self._reasons.clear()

    def close(self) -> None:
        """Give up what is still pending: it counts as failed, though some may have arrived."""
        if self.pending:
            self._producer.purge()
            self.flush(PURGE_TIMEOUT_SECONDS)
        self._report_failures()

    def __enter__(self) -> TopicWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
