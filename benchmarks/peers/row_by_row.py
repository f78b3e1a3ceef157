"""The consumer as it is often written: json.loads, INSERT, COMMIT, for every message."""

from __future__ import annotations

import json
import os
import sys

import psycopg2
from confluent_kafka import Consumer, TopicPartition


def main(topic: str, count: int) -> None:
    """Store ``count`` messages."""
    servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "row_by_row"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    stored = 0
    while stored < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        reading = json.loads(message.value() or b"")
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp,"
                " anomaly, unit, source_id, log_offset)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    *(reading["sensor_id"], reading["sensor_type"], reading["location"]),
                    *(reading["value"], reading["timestamp"], reading["anomaly"]),
                    *(reading["unit"], message.partition(), message.offset()),
                ),
            )
        stored += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
