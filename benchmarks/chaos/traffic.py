"""Numbered messages at a steady rate, and which of them the broker has acknowledged."""

from __future__ import annotations

import contextlib
import threading
import time
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
    failed : int
        Messages given up: none, unless something is very wrong.
    """

    def __init__(self, servers: str, topic: str, rate: float, seed: int) -> None:
        self.acknowledged: set[int] = set()
        self.failed = 0
        self.sent = 0
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
                "log_level": 0,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def _run(self) -> None:
        started_s = time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            due = int((time.monotonic() - started_s) * self._rate) - self.sent
            for _ in range(due):
                self._send()
            self._producer.poll(0)

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
        else:
            self.failed += 1

    def _message(self, number: int) -> tuple[bytes | None, bytes]:
        if is_rubbish(number):
            return None, f"rubbish {number}".encode()
        kind = list(SENSOR_TYPES.values())[number % len(SENSOR_TYPES)]
        place = list(LOCATIONS)[number // len(SENSOR_TYPES) % len(LOCATIONS)]
        late = LATE_BY if is_late(number) else timedelta(0)
        disorder = timedelta(seconds=float(self._random.uniform(0, DISORDER_SECONDS)))
        reading = Reading(
            f"{kind.name}-{place}",
            kind.name,
            place,
            round(float(self._random.normal(50, 5)) * (3 if number % 211 == 0 else 1), 2),
            datetime.now(UTC) - disorder - late,
            number % 23 == 0,
            str(number),
        )
        key = reading_key(place, kind.name) if number % 2 else None
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
