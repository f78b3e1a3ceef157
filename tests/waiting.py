"""Polling until a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import subprocess
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


def output_of(process: subprocess.Popen[bytes], seconds: float = 90.0) -> str:
    """Return what a process of the fixture ``service`` has written, once it has ended well."""
    status = process.wait(seconds)
    output: str = process.log_path.read_text()  # type: ignore[attr-defined]
    assert status == 0, output
    return output
