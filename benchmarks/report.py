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

import plotly.graph_objects as go
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


class Report:
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
            with self._file.open("a", encoding="utf-8") as results:
                results.write(json.dumps({**figure.__dict__, **self._common}) + "\n")

    def close(self) -> None:
        """Print the table, draw the plot."""
        head = f"{'':<44} {'measured':>12} {'unit':<15} {'limit':>10} {'ratio':>6}"
        print("\n".join([head, "-" * len(head), *map(_line, self.figures)]))
        plot = self._file.with_suffix(".html")
        _plot(self.figures, str(self._common["machine"])).write_html(plot, include_plotlyjs="cdn")
        self.say(f"results: {self._file.relative_to(CHECKOUT)}, plot: {plot.name} beside it")


def _line(figure: Figure) -> str:
    limit = "" if figure.limit is None else f"{figure.limit:,.0f}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    digits = 0 if abs(figure.value) >= 100 else 1
    value = f"{figure.value:,.{digits}f}"
    return f"{figure.name:<44} {value:>12} {figure.unit:<15} {limit:>10} {ratio:>6}"


def _plot(figures: Sequence[Figure], machine: str) -> go.Figure:
    """Return rates beside their limits."""
    shown = [figure for figure in figures if figure.limit is not None]
    names = [figure.name for figure in shown]
    plot = go.Figure(layout={"title": f"Measured, and the limit beside it ({machine})"})
    plot.add_bar(x=names, y=[f.value for f in shown], name="measured")
    plot.add_bar(x=names, y=[f.limit for f in shown], name="limit")
    plot.update_yaxes(title="per second")
    return plot


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
