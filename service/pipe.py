"""Input that may never end: threads read it, and whoever waits for more is told when none comes.

A pause is a ``BlockingIOError``; what comes after it is had by asking again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from queue import Empty, Queue
from threading import Thread
from typing import BinaryIO, Generic, TypeVar

T = TypeVar("T")

# What a portion of a recording waits for more: as late may a reading be sent.
PATIENCE_SECONDS = 1.0
# Lines, or chunks of bytes, read ahead.
QUEUE_SIZE = 1_000
CHUNK_BYTES = 65_536


class Patient(Generic[T]):
    """What an iterator gives; a pause when, for a second or more, most of the time was waiting.

    So a slow trickle pauses every second, and a file that another program unpacks does not.
    """

    def __init__(self, source: Iterator[T]) -> None:
        self._queue: Queue[T | Exception] = Queue(QUEUE_SIZE)
        self._since_s: float | None = None
        self._waited_s = 0.0
        Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: Iterator[T]) -> None:
        try:
            for each in source:
                self._queue.put(each)
            self._queue.put(StopIteration())
        except Exception as problem:  # noqa: BLE001
            self._queue.put(problem)  # raised there: whoever waits would wait for ever

    def __iter__(self) -> Patient[T]:
        return self

    def __next__(self) -> T:
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s, self._waited_s = now_s, 0.0
        spent_s = now_s - self._since_s
        try:
            if spent_s > PATIENCE_SECONDS and self._waited_s > spent_s / 2:
                raise Empty
            each = self._queue.get(timeout=PATIENCE_SECONDS)
        except Empty:
            self._since_s = None
            raise BlockingIOError from None
        self._waited_s += time.monotonic() - now_s
        if isinstance(each, Exception):
            self._queue.put(each)  # asked again, it is the end again
            raise each
        return each


class Pipe:
    """The bytes of a pipe as of a file, but that a pause is an end to how much is read at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._chunks = Patient(iter(lambda: os.read(stream.fileno(), CHUNK_BYTES), b""))
        self._rest = b""

    def read(self, most: int) -> bytes:
        """Return ``most`` bytes, or those before a pause; none at the end."""
        while len(self._rest) < most:
            try:
                self._rest += next(self._chunks)
            except StopIteration:
                break
            except BlockingIOError:
                if self._rest:
                    break
        return self._take(most)

    def read1(self, most: int) -> bytes:
        """Return what is there, at most ``most`` bytes; none at the end."""
        return self.read(1) + self._take(most - 1)

    def _take(self, most: int) -> bytes:
        taken, self._rest = self._rest[:most], self._rest[most:]
        return taken
