"""Polling until a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    seconds: float = 30.0,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Return the condition's first true value; fail when there is none within ``seconds``."""
    deadline_s = time.monotonic() + seconds
    while True:
        problem: object = "never true"
        try:
            if value := condition():
                return value
        except ignoring as exception:
            problem = exception
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {seconds:g} s: {problem}")
        time.sleep(0.05)
