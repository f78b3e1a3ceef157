"""``make bench``: every service measured on real servers, beside the limit it stands on.

make bench ARGS="--quick"            a few minutes
make bench ARGS="--only consumer"    one suite

Absolute figures are this machine's at this hour; the ratio of a rate to the limit measured beside
it, in turn, is what stays.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import load, services
from benchmarks.report import Results
from benchmarks.testbed import Testbed
from local_stack.interrupts import end_as_by_ctrl_c

SUITES = {**services.SUITES, **load.SUITES}


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller runs, fewer of them")
    parser.add_argument(
        "--only", choices=SUITES, action="append", help="this suite only; may be repeated"
    )
    return parser.parse_args()


def main() -> None:
    """Run the suites."""
    args = parse_args()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="iot-bench-") as temporary:
        Path(temporary).chmod(0o755)  # PostgreSQL's own user has to go in, when we are root
        with Testbed(Path(temporary)) as bed:
            for name in args.only or SUITES:
                SUITES[name](bed, results, args.quick)
    results.close()


if __name__ == "__main__":
    end_as_by_ctrl_c()
    main()
