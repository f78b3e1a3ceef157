"""How good the detector is, beside simpler ways to detect, on streams whose anomalies are known.

python -m benchmarks.detection_quality [--only WORD ...]
python -m benchmarks.detection_quality --peers
python -m benchmarks.detection_quality --nab DIRECTORY
python -m benchmarks.detection_quality --stream FILE.jsonl --labels FILE.jsonl

The first measures the detector on both generators at intervals of 1 to 60 s, on what misleads a
detector, and at its cold start; --peers puts simpler ways beside it; NAB takes the benchmark's own
layout. The last prints a JSON line per method. Tuning was done on seeds below 300.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.detection_cases import (
    STORM_FLAGS,
    cases,
    flags_after_being_stuck,
    longest_false_run,
)
from benchmarks.detection_methods import Found, Method, detector, methods
from benchmarks.detection_scores import Quality, mean_quality, quality
from benchmarks.labelled_streams import KINDS, LabelledStream, read_stream
from benchmarks.nab import debounced, nab_score, read_nab

EVALUATION_SEEDS = (301, 302, 303, 304, 305)
WARMUP_MINUTES = 10.0
INTERVALS_SECONDS = (1.0, 2.0, 10.0, 30.0, 60.0)
# At this one the simpler ways are put beside it.
PEERS_INTERVAL_SECONDS = 2.0
COLD_STARTS = 30
# An episode of alarms on a NAB file ends after so many rows without one: a third of a day.
QUIET_ROWS = 100


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stream", type=Path, metavar="FILE", help="messages, one a line, in order"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="their labels, in that order")
    parser.add_argument(
        "--warmup-minutes", type=float, default=WARMUP_MINUTES, metavar="M",
        help="of --stream: what is not measured at its beginning (default %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=EVALUATION_SEEDS, metavar="N",
        help="of the generated streams (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD",
        help="cases that have one of these in their name, e.g. fleet, 60, cold",
    )  # fmt: skip
    parser.add_argument("--peers", action="store_true", help="simpler ways beside the detector")
    parser.add_argument("--nab", type=Path, metavar="DIR", help="a copy of NAB: data/, labels/")
    parser.add_argument("--river", action="store_true", help="HalfSpaceTrees too, where installed")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    args = parser.parse_args()
    if bool(args.stream) != bool(args.labels):
        parser.error("--stream and --labels go together")
    return args


def measure(
    streams: Iterable[LabelledStream], warmup_minutes: float, ways: list[Method]
) -> list[Quality]:
    """Return the mean quality of each method over some streams."""
    measured: dict[str, list[Quality]] = {}
    for stream in streams:
        for way in ways:
            for name, found in way(stream).items():
                result = quality(name, stream, found, warmup_minutes)
                measured.setdefault(name, []).append(result)
    return [mean_quality(results) for results in measured.values()]


def show(title: str, measured: list[Quality], as_json: bool) -> None:
    """Print what was measured."""
    if as_json:
        for result in measured:
            print(json.dumps({"stream": title, **result.as_dict()}), flush=True)
        return
    kinds = [kind for kind in KINDS if kind in measured[0].recall_by_kind]
    print(f"\n{title}\n")
    heads = ["precision", "recall", "F1", "PR-AUC", "flagged", "false alarms"]
    heads = [*heads, *(kind.replace("_", " ") for kind in kinds)]
    print("| method | " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * len(heads))
    for result in measured:
        cells = [_share(x) for x in (result.precision, result.recall, result.f1, result.pr_auc)]
        cells += [f"{result.flagged:.2%}", f"{result.false_alarms:.2%}"]
        cells += [
            f"{result.recall_by_kind[k]:.2f} ({result.event_recall_by_kind[k]:.2f})" for k in kinds
        ]
        print(f"| {result.method} | " + " | ".join(cells) + " |", flush=True)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def show_nab(directory: Path, ways: list[Method], as_json: bool) -> None:
    """Print the score of each method on NAB's files."""
    files = read_nab(directory)
    found: dict[str, list[Found]] = {}
    for way in ways:
        for file in files:
            for name, verdicts in way(file.stream).items():
                found.setdefault(name, []).append(verdicts)
    if not as_json:
        print(
            "\nNAB, standard profile\n\n| method | score | alerts | files |\n| --- |"
            + " ---: |" * 3
        )
    for name, of_files in found.items():
        alerts = [debounced(each.flagged, QUIET_ROWS) for each in of_files]
        pairs = [(a, file.windows) for a, file in zip(alerts, files, strict=True)]
        count = sum(int(a.sum()) for a in alerts)
        line = {"stream": "NAB", "method": name, "nab": round(nab_score(pairs), 1), "alerts": count}
        per_file = {
            file.stream.name: round(nab_score([pair]), 1)
            for file, pair in zip(files, pairs, strict=True)
            if file.windows
        }
        if as_json:
            print(json.dumps({**line, "files": per_file}), flush=True)
        else:
            scores = ", ".join(f"{score:g}" for score in per_file.values())
            print(f"| {name} | {line['nab']} | {count} | {scores} |", flush=True)


def main() -> None:
    """Measure what the command line names."""
    args = parse_args()
    ways = methods(args.river)
    if args.stream:
        stream = read_stream(args.stream, args.labels)
        for way in ways:
            for name, found in way(stream).items():
                result = quality(name, stream, found, args.warmup_minutes)
                print(json.dumps(result.as_dict()), flush=True)
        return
    if args.nab:
        show_nab(args.nab, ways, args.json)
        return
    chosen = [c for c in cases(INTERVALS_SECONDS) if any(word in c.name for word in args.only)]
    if args.peers:
        chosen = [c for c in chosen if f"every {PEERS_INTERVAL_SECONDS:g} s" in c.name]
    for case in chosen:
        streams = (case.stream(seed) for seed in args.seeds)
        measured = measure(streams, case.warmup_minutes, ways if args.peers else [detector])
        show(case.name, measured, args.json)
    if not args.peers and any(word in "cold start" for word in args.only):
        show_cold_starts(args.seeds, args.json)


def show_cold_starts(seeds: list[int], as_json: bool) -> None:
    """Print what a sensor's first readings set off."""
    stuck = [flags_after_being_stuck(seed) for seed in seeds]
    first = min(seeds)
    runs = [longest_false_run(seed) for seed in range(first, first + COLD_STARTS)]
    line = {
        "stream": "cold start",
        "flags_after_being_stuck_for_100": stuck,
        "fleets": len(runs),
        "longest_false_run": max(runs),
        "storms": sum(run > STORM_FLAGS for run in runs),
    }
    print(json.dumps(line) if as_json else f"\ncold start: {line}", flush=True)


if __name__ == "__main__":
    main()
