"""``make chaos``: each fault in turn on a topic and a database of its own, then the table.

CHAOS=short takes three minutes, not thirty-five. Lines of JSON go to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos.attack import Attack, Fault
from benchmarks.chaos.faults import FAULTS, SHORT
from benchmarks.chaos.system import SERVICES, Progress, Servers, System
from benchmarks.chaos.traffic import FIRST_LATE, Traffic
from benchmarks.chaos.verify import Counts, count
from db.connection import Database
from local_stack.interrupts import end_as_by_ctrl_c

RESULTS = Path(__file__).resolve().parent.parent / "results"
DRAIN_DEADLINE_SECONDS = 90.0
WARM_UP_DEADLINE_SECONDS = 60.0
COLUMNS = (
    *("fault", "blows", "acknowledged", "stored", "lost", "duplicated", "wrong_windows"),
    *("stuck_windows", "wrong_predictions", "first_write_s", "zero_lag_s"),
)


@dataclass(frozen=True)
class Outcome:
    """One line of the table; times are the worst of all blows, None if there was no recovery."""

    fault: str
    seed: int
    blows: int
    counts: Counts
    first_write_s: float | None
    zero_lag_s: float | None
    unclean: list[str]

    @property
    def is_right(self) -> bool:
        """Whether nothing went wrong."""
        return self.counts.is_right and not self.unclean and self.zero_lag_s is not None

    def line(self) -> dict[str, object]:
        """Return all of it, flat."""
        mine = asdict(self)
        return {**{k: v for k, v in mine.items() if k != "counts"}, **mine["counts"]}


def run_fault(
    servers: Servers, name: str, fault: Fault, rate: float, seed: int, logs: Path
) -> Outcome:
    """Attack a fresh system; count when the dust has settled."""
    system = System(servers, logs / name)
    progress = Progress(system)
    chance = random.Random(f"{seed} {name}")
    traffic = Traffic(servers.bootstrap_servers, system.topic, rate, seed)
    attack = Attack(system, traffic, progress, chance, fault.seconds, fault.max_blows)
    for service in SERVICES:
        system.start(service)
    with traffic:
        # The attack begins on a running system: every partition has its watermark.
        _await(progress, lambda: min(FIRST_LATE, 4 * int(rate)), WARM_UP_DEADLINE_SECONDS)
        fault.attack(attack)
        traffic.stop()
    _await(progress, lambda: len(traffic.acknowledged), DRAIN_DEADLINE_SECONDS)
    if traffic.failed:
        system.unclean.append(f"{traffic.failed} messages were not acknowledged")
    system.stop_all()
    with Database(system.database_url, "chaos") as database:
        counts = count(database, traffic.placed)
    progress.close()
    if counts.is_right:
        system.drop()
    return Outcome(
        name,
        seed,
        attack.blows,
        counts,
        _worst(attack.first_write_s),
        _worst(attack.zero_lag_s),
        system.unclean,
    )


def _await(progress: Progress, goal: Callable[[], int], deadline_s: float) -> None:
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        handled = progress.read()
        if handled and min(handled.values()) >= goal():
            return
        time.sleep(0.1)


def _worst(seconds: list[float]) -> float | None:
    return round(max(seconds), 1) if seconds else None


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of every random moment [drawn and printed]")
    parser.add_argument("--rate", type=float, default=1000.0, help="messages per second [1000]")
    parser.add_argument(
        "--fault", action="append", choices=FAULTS, help="only this one; may be repeated"
    )
    parser.add_argument("--seconds", type=float, help="how long each fault goes on")
    parser.add_argument("--results", type=Path, help="file for the lines of JSON")
    parser.add_argument("--logs", type=Path, help="keep the services' logs in this directory")
    return parser.parse_args()


@contextlib.contextmanager
def log_directory(wanted: Path | None) -> Iterator[Path]:
    """Yield where logs go: a directory that is kept, or one that is not."""
    if wanted:
        yield wanted.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="iot-chaos-") as temporary:
            yield Path(temporary)


def main() -> int:
    """Run the faults; return the exit status."""
    args = parse_args()
    faults = SHORT if os.environ.get("CHAOS") == "short" else FAULTS
    seed = random.SystemRandom().randrange(10_000) if args.seed is None else args.seed
    _say(f"seed {seed}: the same moments again with ARGS='--seed {seed}'")
    path = args.results or RESULTS / f"chaos-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with (
        tempfile.TemporaryDirectory(prefix="iot-chaos-") as data,
        log_directory(args.logs) as logs,
        path.open("w", encoding="utf-8") as file,
    ):
        Path(data).chmod(0o755)  # PostgreSQL's own user has to go in, when we are root
        with Servers(Path(data)) as servers:
            for name in args.fault or faults:
                fault = faults.get(name) or FAULTS[name]
                if args.seconds:
                    fault = replace(fault, seconds=args.seconds)
                _say(f"{name}: {fault.attack.__doc__}")
                outcome = run_fault(servers, name, fault, args.rate, seed, logs)
                outcomes.append(outcome)
                file.write(json.dumps(outcome.line()) + "\n")
                for problem in outcome.unclean:
                    _say(f"  {problem}")
    print("\n".join(table(outcomes)))
    _say(f"lines of JSON: {path}")
    return 0 if all(outcome.is_right for outcome in outcomes) else 1


def table(outcomes: list[Outcome]) -> list[str]:
    """Return the outcomes as lines of text."""
    rows = [[str(outcome.line()[name]) for name in COLUMNS] for outcome in outcomes]
    widths = [max(len(cell) for cell in column) for column in zip(COLUMNS, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [list(COLUMNS), *rows]
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    end_as_by_ctrl_c()
    sys.exit(main())
