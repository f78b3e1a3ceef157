"""Numbers on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def number(
    kind: type[int] | type[float], low: float, high: float = float("inf")
) -> Callable[[str], float]:
    """Return an argparse type: a number of ``kind`` from ``low`` to ``high``, both included."""

    def parse(text: str) -> float:
        allowed = f"from {low:g}" + ("" if high == float("inf") else f" to {high:g}")
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {allowed}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not allowed: use a number {allowed}")
        return value

    return parse
