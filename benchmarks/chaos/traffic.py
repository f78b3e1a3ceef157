"""Numbered messages at a steady rate, and which of them the broker has acknowledged."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from pipeline.encoding import Reading, encode_reading, reading_key
from simulator.sensor_types import LOCATIONS, SENSOR_TYPES

# One message in so many is no reading, and one in so many comes an hour late.
RUBBISH_EVERY = 97
LATE_EVERY = 499
# Before that many messages a partition may have no watermark yet that they could be behind.
FIRST_LATE = 5_000
LATE_BY = timedelta(hours=1)
# Readings are this far out of order; well within the allowed lateness, whatever is broken.
DISORDER_SECONDS = 3.0
TICK_SECONDS = 0.02
DELIVERY_DEADLINE_SECONDS = 120.0


class Traffic:
    """A producer in a thread; a context manager that stops it.

    The number of a message is in its ``unit`` (readings) or is its payload (rubbish). Every other
    message has no key, so that windows are spread over partitions.

    Attributes
    ----------
    acknowledged : set of int
        Numbers of the messages that the broker has acknowledged.
    placed : dict
        Partition and offset of each of them.
    failed : int
        Messages given up: none, unless something is very wrong.
    made_up_types : int
        Every other message is of one of so many further sensor types, all at one place.
    """

    def __init__(self, servers: str, topic: str, rate: float, seed: int) -> None:
        self.acknowledged: set[int] = set()
        self.placed: dict[int, tuple[int, int]] = {}
        self.failed = 0
        self.made_up_types = 0
        self.sent = 0
        self._pausing = threading.Lock()
        self._topic = topic
        self._rate = rate
        self._random = np.random.default_rng(seed)
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": int(DELIVERY_DEADLINE_SECONDS * 1000),
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 1_000,  # new partitions get some, too
                "log_level": 0,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def _run(self) -> None:
        told_s = time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            with self._pausing:
                due = int((time.monotonic() - told_s) * self._rate)
                told_s += due / self._rate
                for _ in range(due):
                    self._send()
            self._producer.poll(0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing meanwhile; begins when all that was sent is acknowledged."""
        with self._pausing:
            self._producer.flush(DELIVERY_DEADLINE_SECONDS)
            yield

    def _send(self) -> None:
        number = self.sent
        key, payload = self._message(number)
        with contextlib.suppress(BufferError):  # a long outage: this number goes out later
            self._producer.produce(
                self._topic,
                payload,
                key,
                on_delivery=partial(self._delivered, number),
            )
            self.sent += 1

    def _delivered(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.add(number)
            self.placed[number] = (message.partition() or 0, message.offset() or 0)
        else:
            self.failed += 1

    def _message(self, number: int) -> tuple[bytes | None, bytes]:
        if is_rubbish(number):
            return None, f"rubbish {number}".encode()
        kind = list(SENSOR_TYPES)[number % len(SENSOR_TYPES)]
        place = list(LOCATIONS)[number // len(SENSOR_TYPES) % len(LOCATIONS)]
        if self.made_up_types and number % 2:
            kind, place = f"made-up-{number // 2 % self.made_up_types}", "Laboratory"
        late = LATE_BY if is_late(number) else timedelta(0)
        disorder = timedelta(seconds=float(self._random.uniform(0, DISORDER_SECONDS)))
        reading = Reading(
            f"{kind}-{place}",
            kind,
            place,
            round(float(self._random.normal(50, 5)) * (3 if number % 211 == 0 else 1), 2),
            datetime.now(UTC) - disorder - late,
            number % 23 == 0,
            str(number),
        )
        key = reading_key(place, kind) if number % 2 else None
        return key, encode_reading(reading)

    def stop(self) -> None:
        """Send no more, and wait for what is on its way."""
        self._stopping.set()
        self._thread.join()
        self.failed += self._producer.flush(DELIVERY_DEADLINE_SECONDS)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()


def is_rubbish(number: int) -> bool:
    """Return whether the message with this number is no reading."""
    return number % RUBBISH_EVERY == RUBBISH_EVERY - 1


def is_late(number: int) -> bool:
    """Return whether the reading with this number comes after its window is final."""
    return number >= FIRST_LATE and number % LATE_EVERY == 0 and not is_rubbish(number)
