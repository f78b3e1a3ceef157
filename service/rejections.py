"""What is said of messages that are no readings, and of readings that lose what they say."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

SAY_SECONDS = 60.0
# Types that are warned of; anybody can make up more.
MAX_COARSE_TYPES = 100


class RejectionLog:
    """Counts what is rejected, and warns of every reason, at most once a minute.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._unsaid: Counter[str] = Counter()
        self._said_s: dict[str, float] = {}

    def add(self, counts: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Take in how many messages were rejected for which reason.

        Parameters
        ----------
        counts : mapping
            Messages by reason code.
        examples : mapping
            Of each code the reason of one message, in words.
        """
        self.total += sum(counts.values())
        self._unsaid.update(counts)
        now_s = self._clock()
        for code in counts:
            if now_s - self._said_s.get(code, -SAY_SECONDS) >= SAY_SECONDS:
                self._said_s[code] = now_s
                log.warning(
                    "messages_rejected reason_code=%s messages=%d table=dead_letters example=%s",
                    *(code, self._unsaid.pop(code), examples.get(code, "beyond the hourly cap")),
                )


class CoarseLog:
    """Warns once of each sensor type whose values two decimals are too few for."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def add(self, coarse: Mapping[str, float]) -> None:
        """Take in types, and a value of each as it was sent."""
        for sensor_type, value in coarse.items():
            if sensor_type in self._said or len(self._said) >= MAX_COARSE_TYPES:
                continue
            self._said.add(sensor_type)
            log.warning(
                "values_lose_digits sensor_type=%s example=%r stored_as=%.2f; two decimals are"
                " kept: send a smaller unit, mV for V",
                *(sensor_type, value, value),
            )
