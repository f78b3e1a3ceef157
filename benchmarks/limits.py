"""What the services stand on, without their work: the limits they are measured against.

``python -m benchmarks.limits consume|produce TOPIC COUNT`` prints messages per second; run as a
process of its own, as the services are.
"""

from __future__ import annotations

import io
import os
import sys
import time

import psycopg2
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.testbed import backlog
from broker.reader import FETCH_SETTINGS
from broker.writer import SEND_SETTINGS
from consumer import MAX_BATCH_MESSAGES as BATCH_ROWS

_COLUMNS = (
    "sensor_id, sensor_type, location, value, timestamp, anomaly, unit, source_id, log_offset"
)


def prebuilt_rows(url: str) -> list[str]:
    """Return the stored readings as COPY text, in the order they were stored in."""
    lines = io.StringIO()
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY (SELECT {_COLUMNS} FROM sensor_readings ORDER BY id) TO STDOUT",  # noqa: S608
            lines,
        )
    connection.close()
    rows = lines.getvalue().splitlines(keepends=True)
    return ["".join(rows[i : i + BATCH_ROWS]) for i in range(0, len(rows), BATCH_ROWS)]


def copy_rate(url: str, batches: list[str]) -> float:
    """COPY prebuilt rows into the table as it is, indexes and all; return rows per second."""
    connection = psycopg2.connect(url)
    begun_s = time.monotonic()
    for batch in batches:
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY sensor_readings ({_COLUMNS}) FROM STDIN", io.StringIO(batch))
    seconds = time.monotonic() - begun_s
    connection.close()
    return sum(batch.count("\n") for batch in batches) / seconds


def consume_rate(servers: str, topic: str, count: int, per_call: int) -> float:
    """Take messages from the client, with the services' settings, and drop them."""
    consumer = Consumer(
        {**FETCH_SETTINGS, "bootstrap.servers": servers, "group.id": "limit", "log_level": 0}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    first = consumer.consume(1, 10)
    begun_s, taken = time.monotonic(), len(first)
    while taken < count:
        # Not more than there are: it would wait for the rest.
        taken += len(consumer.consume(min(per_call, count - taken), 0.5))
    seconds = time.monotonic() - begun_s
    consumer.close()
    return count / seconds


def produce_rate(servers: str, topic: str, count: int) -> float:
    """Hand prebuilt messages to the client, with the producer's settings, until acknowledged."""
    batches = list(backlog(count, 25))
    producer = Producer({**SEND_SETTINGS, "bootstrap.servers": servers, "log_level": 0})
    begun_s = time.monotonic()
    for batch in batches:
        for key, payload in zip(batch.keys, batch.payloads, strict=True):
            while True:
                try:
                    producer.produce(topic, payload, key)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    return count / (time.monotonic() - begun_s)


if __name__ == "__main__":
    what, name, number = sys.argv[1:4]
    kafka = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    if what == "consume":
        print(consume_rate(kafka, name, int(number), int(sys.argv[4])))
    else:
        print(produce_rate(kafka, name, int(number)))
