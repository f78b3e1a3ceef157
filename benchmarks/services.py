"""Each service at full load: its rate, the limit beside it, what it takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.limits import copy_rate, prebuilt_rows
from benchmarks.report import Figure, Results, rate
from benchmarks.testbed import Run, Testbed, query, work_off
from broker.topics import Topic
from consumer import GROUP as CONSUMER
from stream_processor import GROUP as PROCESSOR
from stream_processor import MAX_BATCH_MESSAGES as PROCESSOR_BATCH

PER_S, CPU, MEMORY = "readings/s", "us CPU/reading", "MB"


def consumer(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure the consumer against COPY of the same rows into the same table."""
    count, rounds = (200_000, 3) if quick else (600_000, 5)
    results.say(f"consumer: sending a backlog of {count:,} readings")
    topic = bed.filled_topic(count)
    runs, limits = [], []
    for _ in range(rounds):
        with bed.database() as url:
            with bed.start_service("consumer.py", topic, url) as process:
                runs.append(work_off(url, CONSUMER, count, [process]))
            batches = prebuilt_rows(url)
        with bed.database() as url:
            limits.append(copy_rate(url, batches))
        results.say(f"consumer {runs[-1].rate:,.0f}/s, COPY {limits[-1]:,.0f}/s")
    results.add(
        rate("consumer", [run.rate for run in runs], limits, PER_S), *_costs(runs, CONSUMER)
    )


def indexes(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure what indexes of sensor_readings cost: COPY with these, others, none."""
    count, rounds = (200_000, 3) if quick else (600_000, 5)
    topic = bed.filled_topic(count)
    with bed.database() as url, bed.start_service("consumer.py", topic, url) as process:
        work_off(url, CONSUMER, count, [process])
        batches = prebuilt_rows(url)
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, statement in _INDEX_SETS.items():
            with bed.database() as url:
                query(url, statement)
                rates.setdefault(name, []).append(copy_rate(url, batches))
    ours = rates["(timestamp, sensor_id)"]
    for name, values in rates.items():
        results.add(rate(f"COPY, {name}", values, ours, "rows/s"))


_DROP = "DROP INDEX sensor_readings_time"
_BY_TIME = "CREATE INDEX ON sensor_readings (timestamp)"
_BY_SENSOR = "CREATE INDEX ON sensor_readings (sensor_id, timestamp)"
_INDEX_SETS = {
    "(timestamp, sensor_id)": "SELECT",
    "(timestamp)": f"{_DROP}; {_BY_TIME}",
    "(timestamp) and (sensor_id, timestamp)": f"{_DROP}; {_BY_TIME}; {_BY_SENSOR}",
    "primary key only": _DROP,
}


def windows(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure the stream processor against consumption without work."""
    count, rounds = (1_000_000, 3) if quick else (2_000_000, 5)
    results.say(f"stream processor: sending a backlog of {count:,} readings")
    topic = bed.filled_topic(count)
    runs, limits = [], []
    for _ in range(rounds):
        with bed.database() as url:
            runs.append(process_backlog(bed, topic, url, count))
        limits.append(limit(bed, topic, "consume", str(count), str(PROCESSOR_BATCH)))
        results.say(f"stream processor {runs[-1].rate:,.0f}/s, consumption {limits[-1]:,.0f}/s")
    rates = [run.rate for run in runs]
    results.add(rate("stream processor", rates, limits, PER_S), *_costs(runs, PROCESSOR))


def process_backlog(bed: Testbed, topic: Topic, url: str, count: int) -> Run:
    """Let one stream processor work a backlog off."""
    with bed.start_service("stream_processor.py", topic, url) as process:
        return work_off(url, PROCESSOR, count, [process])


def producer(bed: Testbed, results: Results, quick: bool) -> None:
    """Measure the producer at ``--rate 0`` against bare produce calls of prebuilt messages."""
    count, rounds = (1_000_000, 3) if quick else (2_000_000, 5)
    runs, limits = [], []
    for _ in range(rounds):
        with bed.database() as url:
            topic = bed.topic()
            options = ("--rate", "0", "--max-messages", str(count))
            with bed.start_service("producer.py", topic, url, *options) as process:
                process.process.wait()
                process.require_alive()
        seconds = bed.append_span_s(topic)
        runs.append(Run(count / seconds, process.cpu_s / count * 1e6, process.peak_mb))
        bare = bed.topic()
        limit(bed, bare, "produce", str(count))
        limits.append(count / bed.append_span_s(bare))
        results.say(f"producer {runs[-1].rate:,.0f}/s, bare produce {limits[-1]:,.0f}/s")
    results.add(
        rate("producer", [run.rate for run in runs], limits, PER_S), *_costs(runs, "producer")
    )


def limit(bed: Testbed, topic: Topic, *arguments: str) -> float:
    """Return what ``benchmarks.limits`` measures, in a process of its own."""
    what, *rest = arguments
    command = ["-m", "benchmarks.limits", what, topic.name, *rest]
    with bed.start(command, bed.environment(topic, "")) as process:
        process.process.wait()
        process.require_alive()
        return float(process.output())


def _costs(runs: list[Run], name: str) -> list[Figure]:
    shown = name.replace("_", " ")
    return [
        Figure(f"{shown}, CPU time", statistics.median(run.cpu_us for run in runs), CPU),
        Figure(f"{shown}, most memory", max(run.peak_mb for run in runs), MEMORY),
    ]


SUITES: dict[str, Callable[[Testbed, Results, bool], None]] = {
    "consumer": consumer,
    "indexes": indexes,
    "windows": windows,
    "producer": producer,
}
