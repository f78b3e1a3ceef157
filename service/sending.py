"""The producer's loop: send what is due, mind the broker, account for every reading at the end."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from broker.settings import KafkaSettings
from broker.topics import BrokerMisconfigured, BrokerUnavailable, admin_client, ensure_topic
from broker.writer import TopicWriter
from pipeline.encoding import NO_MESSAGES, Messages
from service.lifecycle import (
    MAX_WAIT_SECONDS,
    Heartbeat,
    Outage,
    StopSignal,
    UserError,
    wait_for,
)
from service.runner import Process

log = logging.getLogger(__name__)

# At high rates readings go out in small groups rather than waking up for each one.
MIN_PAUSE_SECONDS = 0.005
# A wait that the log tells the end of, seconds.
LONG_WAIT_SECONDS = 30.0
# A reading that is due before the end of the given duration may go out so much later.
OVERTIME_SECONDS = 1.0
# How long to wait for acknowledgements at the end, and once somebody wants us to stop.
DELIVERY_TIMEOUT_SECONDS = 300.0
STOPPED_DELIVERY_TIMEOUT_SECONDS = 3.0


class Feed(Protocol):
    """Readings with the times at which they are due."""

    is_paced: bool
    """False: everything is due at once."""
    skipped: Counter[str]
    """Lines of a recording that were no readings, by the code of the reason."""

    @property
    def is_over(self) -> bool:
        """Whether everything has been taken."""

    def due(self, now_s: float) -> int:
        """Return how many readings may be taken now, a few milliseconds of work at most."""

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next reading is due, when none is."""

    def take(self, count: int, now_us: int) -> Messages:
        """Return the messages of the next ``count`` readings, which must be due.

        ``now_us`` is the time of day, microseconds since the epoch, UTC.
        """


@dataclass(frozen=True)
class Target:
    """Where to send to, and how much.

    Attributes
    ----------
    kafka : KafkaSettings
        The topic.
    max_messages, duration_s : float
        Stop after so many readings or seconds of sending; inf = never.
    compression : str
        Codec of the messages.
    """

    kafka: KafkaSettings
    max_messages: float = math.inf
    duration_s: float = math.inf
    compression: str = "none"


@dataclass(frozen=True)
class Outcome:
    """What became of the readings: those sent are either delivered or failed."""

    sent: int
    delivered: int
    failed: int


class WatchedTopic:
    """The topic: waited for at the start, and looked for when nothing arrives there any more."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._admin = admin_client(kafka.client)
        self._outage = Outage("kafka")

    def ensure(self) -> None:
        """Create the topic where it is missing."""
        ensure_topic(self._admin, self._kafka.topic, self._kafka.partitions)

    def watch(self, writer: TopicWriter) -> None:
        """Say when nothing arrives any more, and when it does again."""
        if not writer.is_stalled:
            self._outage.over()
            return
        if self._outage.waiting:
            return
        try:
            if writer.problem is None:
                self.ensure()  # the broker is there: has somebody deleted the topic?
            self._outage.failed(writer.problem or "nothing is acknowledged")
        except BrokerUnavailable as problem:
            self._outage.failed(problem)


def send_feed(feed: Feed, target: Target, process: Process) -> Outcome:
    """Send readings as they fall due until a limit, the feed's end or a stop request.

    Raises
    ------
    UserError
        When the client refuses its settings.
    """
    beat, stop = process.beat, process.stop
    try:
        topic = WatchedTopic(target.kafka)
        wait_for("kafka", topic.ensure, BrokerUnavailable, stop)
        with TopicWriter(target.kafka.client, target.kafka.topic, target.compression) as writer:
            unsent = _send(feed, writer, topic, target, beat, stop)
            _finish(writer, topic, beat, stop)
    except BrokerMisconfigured as problem:
        raise UserError(f"Kafka refuses: {problem}; check the KAFKA_ settings") from problem
    _beat(beat, writer, "stopped", force=True)
    return Outcome(writer.accepted + unsent, writer.delivered, writer.failed + unsent)


def _send(
    feed: Feed,
    writer: TopicWriter,
    topic: WatchedTopic,
    target: Target,
    beat: Heartbeat,
    stop: StopSignal,
) -> int:
    """Return how many readings were taken from the feed and not accepted by the writer."""
    messages = NO_MESSAGES
    said_s = 0.0  # until when the log says that we wait
    end_s = time.monotonic() + target.duration_s
    while not stop.requested and writer.accepted < target.max_messages:
        topic.watch(writer)
        _beat(beat, writer)
        if not messages:
            now_s = time.monotonic()
            due = feed.due(min(now_s, end_s))
            is_late = due > 0 and feed.is_paced and now_s < end_s + OVERTIME_SECONDS
            if feed.is_over or (now_s >= end_s and not is_late):
                break
            if not due:
                writer.poll()
                wait_s = feed.wait_s(now_s)
                if wait_s > LONG_WAIT_SECONDS and now_s + wait_s > said_s + 1.0:
                    said_s = now_s + wait_s
                    _say_wait(wait_s)
                stop.wait(min(max(wait_s, MIN_PAUSE_SECONDS), MAX_WAIT_SECONDS))
                continue
            count = int(min(due, target.max_messages - writer.accepted))
            messages = feed.take(count, time.time_ns() // 1000)
        messages = messages.since(writer.send(messages))
    return len(messages)


def _say_wait(wait_s: float) -> None:
    until = datetime.now(UTC) + timedelta(seconds=wait_s)
    log.info(
        "waiting next_reading_at=%s seconds=%.0f; --speed shortens gaps",
        *(until.isoformat(timespec="seconds"), wait_s),
    )


def _finish(writer: TopicWriter, topic: WatchedTopic, beat: Heartbeat, stop: StopSignal) -> None:
    deadline_s = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    is_stopping = False
    while writer.flush(MAX_WAIT_SECONDS) and time.monotonic() < deadline_s:
        topic.watch(writer)
        _beat(beat, writer)
        if stop.requested and not is_stopping:
            is_stopping = True
            deadline_s = time.monotonic() + STOPPED_DELIVERY_TIMEOUT_SECONDS


def _beat(
    beat: Heartbeat, writer: TopicWriter, state: str = "running", force: bool = False
) -> None:
    if beat.due or force:
        beat.count(writer.delivered - beat.total)
        beat.beat(state, force, sent=writer.accepted, failed=writer.failed)
