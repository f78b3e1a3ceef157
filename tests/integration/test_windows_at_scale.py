"""Final windows against an independent computation with pandas, by 1, 2 and 3 processors.

The log is unkind: shuffled within 30 s, spread over 6 partitions without regard to keys, with equal
times, and with readings beyond the allowed lateness. `pytest -m benchmark` does it with 1 million.
"""

import json

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer

from tests.waiting import until

pytestmark = pytest.mark.integration

WINDOW_S, LATENESS_S, DISORDER_S = 60, 120, 5
START_S = 1_769_860_800  # 2026-01-31 12:00 UTC


def unkind_log(count, seed):
    """Return readings as a frame in log order of each partition."""
    chance = np.random.default_rng(seed)
    times = np.sort(chance.uniform(0, 1_200, count))
    log = pd.DataFrame(
        {
            "time_us": ((START_S + times) * 1e6).astype(np.int64),
            "cents": np.round(chance.normal(0, 1e5, count)).astype(np.int64),
            "location": chance.choice(["Laboratory", "Warehouse", "Büro 3"], count),
            "sensor_type": chance.choice(["co2", "pressure", "humidity", "temperature"], count),
            "anomaly": chance.random(count) < 0.05,
            "partition": chance.integers(0, 6, count),
        }
    )
    twins = chance.choice(count - 1, count // 100, replace=False)
    log.loc[twins, "time_us"] = log.loc[twins + 1, "time_us"].to_numpy()
    arrival = log["time_us"] + (chance.uniform(0, 30, count) * 1e6).astype(np.int64)
    late = chance.choice(count, count // 1000, replace=False)
    arrival[late] += (WINDOW_S + LATENESS_S + 60) * 1_000_000
    return log.iloc[np.argsort(arrival.to_numpy(), kind="stable")].reset_index(drop=True)


def expected_windows(log):
    """Compute the final rows, and how many readings are late, from the contract alone."""
    log = log.copy()
    log["start_us"] = log["time_us"] // (WINDOW_S * 1_000_000) * (WINDOW_S * 1_000_000)
    seen = log.groupby("partition")["time_us"].cummax().groupby(log["partition"]).shift()
    closes = log["start_us"] + (WINDOW_S + LATENESS_S) * 1_000_000
    is_late = (seen - DISORDER_S * 1_000_000) >= closes  # False before a partition's first reading
    rows = []
    for key, group in log[~is_late].groupby(["start_us", "location", "sensor_type"]):
        cents = group["cents"].astype(object)  # Python's whole numbers: exact
        n, total, squares = len(cents), cents.sum(), (cents * cents).sum()
        mean = round(total / n)
        spread = round(float(np.sqrt(float(n * squares - total * total)) / n))
        figures = (mean, cents.min(), cents.max(), spread, n, int(group["anomaly"].sum()))
        rows.append((*key, *figures))
    return rows, int(is_late.sum())


STORED = (
    "SELECT (extract(epoch FROM window_start) * 1000000)::bigint, location, sensor_type,"
    " (avg_value * 100)::int, (min_value * 100)::int, (max_value * 100)::int,"
    " (stddev_value * 100)::int, count_readings, anomaly_count"
    ' FROM sensor_aggregates ORDER BY window_start, location COLLATE "C", sensor_type COLLATE "C"'
)
HANDLED = (
    "SELECT (SELECT coalesce(sum(count_readings), 0) FROM sensor_aggregates)"
    " + (SELECT count(*) FROM late_readings)"
)


def produce(kafka, topic, log):
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 20, "log_level": 0})
    times = np.datetime_as_string(log["time_us"].to_numpy().astype("datetime64[us]"))
    columns = [log[name].tolist() for name in ("cents", "location", "sensor_type", "anomaly")]
    for time, partition, cents, location, kind, anomaly in zip(
        times.tolist(), log["partition"].tolist(), *columns, strict=True
    ):
        fields = {
            "sensor_id": f"{kind}-1",
            "sensor_type": kind,
            "location": location,
            "value": cents / 100,
            "timestamp": time,
            "anomaly": anomaly,
            "unit": "",
        }
        while True:
            try:
                producer.produce(topic, json.dumps(fields).encode(), partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


@pytest.mark.parametrize(
    ("count", "processors"),
    [
        (30_000, 1),
        (30_000, 3),
        pytest.param(1_000_000, 1, marks=pytest.mark.benchmark),
        pytest.param(1_000_000, 2, marks=pytest.mark.benchmark),
        pytest.param(1_000_000, 3, marks=pytest.mark.benchmark),
    ],
)
@pytest.mark.timeout(600)
def test_an_unkind_log_gives_the_windows_that_pandas_gives(
    service, kafka, topic, query, count, processors
):
    log = unkind_log(count, seed=count + processors)
    rows, late = expected_windows(log)
    assert late > 0
    for _ in range(processors):
        service("stream_processor.py", ALLOWED_LATENESS_SECONDS=str(LATENESS_S))
    produce(kafka, topic, log)
    until(lambda: query(HANDLED)[0][0] == count, seconds=300)
    assert query("SELECT count(*) FROM late_readings") == [(late,)]
    assert query(STORED) == rows


def test_windows_that_memory_has_no_room_for_hold_the_same(service, kafka, topic, query):
    log = unkind_log(10_000, seed=1)
    rows, late = expected_windows(log)
    service("tests.few_windows", ALLOWED_LATENESS_SECONDS=str(LATENESS_S))
    produce(kafka, topic, log)
    until(lambda: query(HANDLED)[0][0] == len(log), seconds=300)
    assert query("SELECT count(*) FROM late_readings") == [(late,)]
    assert query(STORED) == rows
