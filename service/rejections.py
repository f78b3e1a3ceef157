"""What is said of messages that are no readings: each reason once a minute, with an example."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

SAY_SECONDS = 60.0


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
