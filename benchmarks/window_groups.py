"""What groups cost: CPU time to add 20,000 readings to windows of so many places and types.

``python -m benchmarks.window_groups`` needs no server. In each case the same number of readings,
first in windows that open, then in windows that are there; median of five.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import pyarrow as pa

from pipeline.decoding import Readings
from pipeline.settings import WindowRules
from pipeline.windows import PartitionWindows

READINGS = 20_000
GROUPS = (1, 25, 1_000, 20_000)
REPEATS = 5
RULES = WindowRules(window_seconds=10)


def batch(groups: int, second: int) -> Readings:
    """Return readings of one second, of all groups in turn."""
    chance = np.random.default_rng(1)
    types = [f"type-{n % groups}" for n in range(READINGS)]
    same = (pa.array([text] * READINGS, pa.string()) for text in ("sensor", "Laboratory", "ppm"))
    sensor, place, unit = same
    return Readings(
        np.arange(READINGS),
        sensor,
        pa.array(types, pa.string()),
        place,
        chance.integers(0, 10_000, READINGS),
        second * 1_000_000 + np.arange(READINGS),
        chance.random(READINGS) < 0.05,
        unit,
    )


def cpu_ms(windows: PartitionWindows, readings: Readings) -> float:
    """Return the CPU time of one batch, milliseconds."""
    began = time.process_time()
    windows.add(readings)
    return 1000 * (time.process_time() - began)


def main() -> None:
    """Print a line a case."""
    print("groups  opening (ms)  refining (ms)")
    for groups in GROUPS:
        windows = PartitionWindows(RULES)
        cpu_ms(windows, batch(groups, 0))  # Arrow and numpy have been used once
        seconds = range(10, 10 + 10 * REPEATS, 10)
        opening = [cpu_ms(windows, batch(groups, second)) for second in seconds]
        refining = [cpu_ms(windows, batch(groups, seconds[-1] + 1)) for _ in range(REPEATS)]
        print(f"{groups:6}  {median(opening):12.1f}  {median(refining):13.1f}")


if __name__ == "__main__":
    main()
