"""Figures: JSON lines as they are measured, a table and a plot at the end."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

import psutil

from benchmarks.testbed import CHECKOUT

RESULTS = CHECKOUT / "benchmarks" / "results"


@dataclass(frozen=True)
class Figure:
    """One line of the results.

    Attributes
    ----------
    limit, ratio : float or None
        The limit measured beside it in the same run, and the median of value / limit over the
        rounds: what a loaded machine leaves standing.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    ratio: float | None = None


def rate(name: str, values: Sequence[float], limits: Sequence[float], unit: str) -> Figure:
    """Return the medians of several rounds, each with its own limit beside it."""
    ratios = [value / limit for value, limit in zip(values, limits, strict=True)]
    middle = statistics.median
    return Figure(name, middle(values), unit, middle(limits), middle(ratios))


class Results:
    """Takes figures, says them, keeps them in ``benchmarks/results/``."""

    def __init__(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.figures: list[Figure] = []
        self._begun_s = time.monotonic()
        date = datetime.now(UTC)
        self._file = RESULTS / f"{date:%Y%m%dT%H%M%S}.jsonl"
        processor = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB"
        self._common = {
            "commit": _commit(),
            "machine": f"{platform.system()} {platform.machine()}, {processor}",
            "date": date.isoformat(timespec="seconds"),
        }

    def say(self, line: str) -> None:
        """Show progress; the table alone goes to standard output."""
        print(f"{time.monotonic() - self._begun_s:5.0f} s  {line}", file=sys.stderr, flush=True)

    def add(self, *figures: Figure) -> None:
        """Take in figures."""
        for figure in figures:
            self.figures.append(figure)
            self.say(_line(figure))
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**figure.__dict__, **self._common}) + "\n")

    def close(self) -> None:
        """Print the table, draw the plot."""
        head = f"{'':<44} {'measured':>12} {'unit':<15} {'limit':>10} {'ratio':>6}"
        print("\n".join([head, "-" * len(head), *map(_line, self.figures)]))
        plot = self._file.with_suffix(".svg")
        plot.write_text(_plot(self.figures, str(self._common["machine"])), encoding="utf-8")
        self.say(f"results: {self._file.relative_to(CHECKOUT)}, plot: {plot.name} beside it")


def _line(figure: Figure) -> str:
    limit = "" if figure.limit is None else f"{figure.limit:,.0f}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    digits = 0 if abs(figure.value) >= 100 else 1
    value = f"{figure.value:,.{digits}f}"
    return f"{figure.name:<44} {value:>12} {figure.unit:<15} {limit:>10} {ratio:>6}"


def _plot(figures: Sequence[Figure], machine: str) -> str:
    """Return an SVG: each measured rate as a share of its limit, the limit being the full width."""
    shown = [figure for figure in figures if figure.ratio is not None]
    widest = max([1.0, *(figure.ratio or 0 for figure in shown)])
    rows = [f'<text x="10" y="20">Measured, as a share of the limit beside it ({machine})</text>']
    for row, figure in enumerate(shown, 2):
        ratio = figure.ratio or 0
        y, width = row * 22, ratio / widest * 500
        text = f"{ratio:.2f}: {figure.value:,.0f} of {figure.limit:,.0f} {figure.unit}"
        rows += [
            f'<text x="10" y="{y}">{escape(figure.name)}</text>',
            f'<rect x="360" y="{y - 13}" width="{500 / widest:.0f}" height="16" fill="#e4e4e4"/>',
            f'<rect x="360" y="{y - 13}" width="{width:.0f}" height="16" fill="#4c78a8"/>',
            f'<text x="870" y="{y}">{escape(text)}</text>',
        ]
    size = f'width="1250" height="{22 * (len(shown) + 3)}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, *rows, "</svg>"])


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
