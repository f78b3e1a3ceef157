"""``make bench-peers``: the same work done by other libraries, in turn with ours, as ratios.

A peer's rate is what it took for its share of a topic, less what it took for a topic of a few
messages: imports, joining the group and leaving it do not count. Quix Streams' sink writes into a
table without indexes, and the window peers write no result at all: both is less than ours do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, Results
from benchmarks.testbed import CHECKOUT, Testbed, work_off
from broker.topics import Topic
from consumer import GROUP as CONSUMER
from local_stack.interrupts import end_as_by_ctrl_c
from stream_processor import GROUP as PROCESSOR

HERE = Path(__file__).resolve().parent
VENV = CHECKOUT / ".local" / "peers-venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
FEW = 100
DEADLINE_SECONDS = 300.0
# Ours, with the messages of a run, and the peers: script, messages of a run, what it is.
CONTESTS = (
    (
        ("consumer.py", CONSUMER, 400_000),
        (("quix_sink", 100_000, "Quix Streams' sink"), ("row_by_row", 10_000, "row by row")),
    ),
    (
        ("stream_processor.py", PROCESSOR, 1_000_000),
        (("bytewax_window", 200_000, "Bytewax"), ("quix_window", 50_000, "Quix Streams' window")),
    ),
)


def make_venv(results: Results) -> None:
    """Make the peers' environment, once."""
    wanted = HERE / "requirements.txt"
    stamp = VENV / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return
    results.say("installing the peers into .local/peers-venv (once; a minute or two)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*pip, "-r", str(wanted)], check=False).returncode:
        results.say("not all peers can be installed on this Python: trying them one by one")
        for line in wanted.read_text().splitlines()[1:]:
            subprocess.run([*pip, line], check=False)
    stamp.write_text(wanted.read_text())


def peer_seconds(bed: Testbed, name: str, topic: Topic, count: int) -> float:
    """Let a peer do ``count`` messages of a topic; return the seconds of its whole life."""
    with bed.database() as url:
        begun_s = time.monotonic()
        answer = subprocess.run(
            [str(PYTHON), str(HERE / f"{name}.py"), topic.name, str(count)],
            env=bed.environment(topic, url),
            cwd=bed.directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(answer.stderr.strip().splitlines()[-1])
        return time.monotonic() - begun_s


def contest(bed: Testbed, results: Results, rounds: int) -> None:
    """Measure ours and the peers in turn."""
    few = bed.filled_topic(FEW)
    for (script, group, count), peers in CONTESTS:
        ours = group.replace("_", " ")
        topics = {each: bed.filled_topic(each) for each in {count, *(n for _, n, _ in peers)}}
        rates: dict[str, list[float]] = {}
        for _ in range(rounds):
            with bed.database() as url, bed.start_service(script, topics[count], url) as process:
                rates.setdefault(ours, []).append(work_off(url, group, count, [process]).rate)
            for name, messages, title in peers:
                try:
                    least_s = peer_seconds(bed, name, few, FEW)
                    seconds = peer_seconds(bed, name, topics[messages], messages) - least_s
                except (RuntimeError, subprocess.TimeoutExpired, OSError) as problem:
                    results.say(f"{title}: not measured here: {problem}")
                    continue
                rates.setdefault(title, []).append((messages - FEW) / seconds)
            results.say(", ".join(f"{k} {v[-1]:,.0f}/s" for k, v in rates.items()))
        mine = statistics.median(rates.pop(ours))
        results.add(Figure(ours, mine, "messages/s"))
        for title, theirs in rates.items():
            rate = statistics.median(theirs)
            results.add(
                Figure(f"{title} (ratio: ours / theirs)", rate, "messages/s", mine, mine / rate)
            )


def main() -> None:
    """Run the contests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn (default 3)")
    args = parser.parse_args()
    results = Results()
    make_venv(results)
    with tempfile.TemporaryDirectory(prefix="iot-bench-") as temporary:
        Path(temporary).chmod(0o755)
        with Testbed(Path(temporary)) as bed:
            contest(bed, results, args.rounds)
    results.close()


if __name__ == "__main__":
    end_as_by_ctrl_c()
    main()
