"""Beyond full load: latency at a rate, several instances, growing size, memory."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.report import Figure, Results
from benchmarks.testbed import Measured, Testbed, query, work_off
from consumer import GROUP as CONSUMER
from pipeline.settings import WindowRules
from stream_processor import GROUP as PROCESSOR

RATES = (100, 1_000, 10_000)
# Services have joined their groups and fitted nothing yet; measured after this.
WARM_UP_SECONDS = 10.0
SETTLE_SECONDS = 5.0
SCRIPTS = {"consumer.py": CONSUMER, "stream_processor.py": PROCESSOR}
# Milliseconds from the sending of a reading (its timestamp); only what was sent in the interval.
STAGES = {
    "stored": "SELECT created_at - timestamp AS d FROM sensor_readings WHERE",
    "predicted": "SELECT created_at - timestamp AS d FROM ml_anomaly_predictions WHERE",
}
MAX_MEMORY_MB = 400


def latency(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure p50 and p99 from sent to stored, aggregated and predicted, at three rates."""
    seconds = 15 if quick else 60
    for rate in RATES:
        topic = bed.topic()
        with bed.database() as url, ExitStack() as stack:
            for script in ("consumer.py", "stream_processor.py", "ml_detector.py"):
                stack.enter_context(bed.start_service(script, topic, url))
            options = ("--rate", str(rate))
            stack.enter_context(bed.start_service("producer.py", topic, url, *options))
            time.sleep(WARM_UP_SECONDS)
            aggregated = _watch_aggregates(url, seconds)
            time.sleep(SETTLE_SECONDS)
            for stage, select in STAGES.items():
                _add_latency(results, f"{rate:,}/s, sent -> {stage}", _stage(url, select, seconds))
            _add_latency(results, f"{rate:,}/s, sent -> aggregated", aggregated)


def _stage(url: str, select: str, seconds: float) -> list[float]:
    reach = (seconds + SETTLE_SECONDS, SETTLE_SECONDS)
    rows = query(
        url,
        "WITH clock AS (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now)"  # noqa: S608
        f" SELECT extract(epoch FROM d)::float * 1000 FROM ({select} timestamp BETWEEN"
        " (SELECT now FROM clock) - %s * interval '1 s'"
        " AND (SELECT now FROM clock) - %s * interval '1 s') AS latencies",
        *reach,
    )
    return [ms for (ms,) in rows]


def _watch_aggregates(url: str, seconds: float) -> list[float]:
    """Return how old the newest reading is that the windows count, ms, sampled every 50 ms.

    A window's row does not say which readings it counts, the processor's watermark does: it is the
    newest of them minus the allowance for disorder.
    """
    ages = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        rows = query(
            url,
            "SELECT extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - max(watermark))"
            "::float * 1000 - %s FROM stream_offsets WHERE consumer_group = %s",
            1000 * WindowRules().out_of_orderness_seconds,
            PROCESSOR,
        )
        ages += [ms for (ms,) in rows if ms is not None]
        time.sleep(0.05)
    return ages


def _add_latency(results: Results, name: str, milliseconds: list[float]) -> None:
    if len(milliseconds) < 2:
        results.say(f"{name}: nothing arrived")
        return
    percent = statistics.quantiles(milliseconds, n=100)
    results.add(
        Figure(f"{name}, p50", percent[49], "ms"), Figure(f"{name}, p99", percent[98], "ms")
    )


def together(bed: Testbed, script: str, number: int, count: int) -> float:
    """Let so many instances of a service work a backlog off; return their rate, once all do."""
    topic = bed.filled_topic(count, partitions=12)
    with bed.database() as url, ExitStack() as stack:
        processes: list[Measured] = []
        for _ in range(number):
            processes.append(stack.enter_context(bed.start_service(script, topic, url)))
        while not all(map(_has_share, processes)):
            time.sleep(0.1)
        return work_off(url, SCRIPTS[script], count, processes).rate


def _has_share(process: Measured) -> bool:
    process.require_alive()
    return re.search(r"partitions_assigned .*partitions=\d", process.output()) is not None


def scaling(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure consumer and stream processor in 1, 2 and 4 instances."""
    for script, group in SCRIPTS.items():
        # So many that there is enough left when the last instance has its share.
        count = (3_000_000 if script == "consumer.py" else 6_000_000) // (2 if quick else 1)
        alone = 0.0
        for number in (1, 2, 4):
            rate = together(bed, script, number, count)
            alone = alone or rate
            name = f"{group.replace('_', ' ')}, {number} instances"
            results.add(Figure(name, rate, "readings/s", alone, rate / alone))


def size(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure consumer and stream processor with more sensors, and with more partitions."""
    count = 300_000 if quick else 1_000_000
    cases = [(25, 6), (1_000, 6), (100_000, 6), (25, 24), (25, 48)]
    for script, group in SCRIPTS.items():
        for sensors, partitions in cases:
            topic = bed.filled_topic(count, sensors, partitions)
            with bed.database() as url, bed.start_service(script, topic, url) as process:
                run = work_off(url, group, count, [process])
            name = f"{group.replace('_', ' ')}, {sensors:,} sensors, {partitions} partitions"
            results.add(Figure(name, run.rate, "readings/s"))


def memory(bed: Testbed, results: Results, quick: bool) -> None:
    """Work a long backlog off, and let a million distinct sensors come by: memory is bounded."""
    shrink = 10 if quick else 1
    for count, sensors in ((10_000_000 // shrink, 25), (2_000_000 // shrink, 1_000_000 // shrink)):
        results.say(f"memory: sending a backlog of {count:,} readings of {sensors:,} sensors")
        topic = bed.filled_topic(count, sensors)
        case = f"{count:,} readings of {sensors:,} sensors, most memory"
        with bed.database() as url:
            for script, group in SCRIPTS.items():
                with bed.start_service(script, topic, url) as process:
                    peak = work_off(url, group, count, [process]).peak_mb
                results.add(_memory(f"{group.replace('_', ' ')}, {case}", peak))
            with bed.start_service("ml_detector.py", topic, url, "--once") as process:
                process.process.wait()
            process.require_alive()
            results.add(_memory(f"detector, {case}", process.peak_mb))


def _memory(name: str, peak_mb: float) -> Figure:
    return Figure(name, peak_mb, "MB", MAX_MEMORY_MB, peak_mb / MAX_MEMORY_MB)


SUITES: dict[str, Callable[[Testbed, Results, bool], None]] = {
    "latency": latency,
    "scaling": scaling,
    "size": size,
    "memory": memory,
}
