"""Quix Streams: a topic into a table of the same columns with its PostgreSQL sink."""

from __future__ import annotations

import os
import sys
import uuid
from urllib.parse import urlsplit

from quixstreams import Application
from quixstreams.sinks.community.postgresql import PostgreSQLSink


def main(topic: str, count: int) -> None:
    """Store ``count`` messages."""
    url = urlsplit(os.environ["DATABASE_URL"])
    app = Application(
        broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=f"quix_{uuid.uuid4()}",  # nothing committed by an earlier run
        auto_offset_reset="earliest",
        commit_every=10_000,
        commit_interval=1.0,
        loglevel="WARNING",
        auto_create_topics=False,
    )
    sink = PostgreSQLSink(
        host=url.hostname,
        port=url.port,
        dbname=url.path[1:],
        user=url.username,
        password=url.password,
        table_name="quix_readings",
        schema_auto_update=True,
    )
    app.dataframe(app.topic(topic, value_deserializer="json")).sink(sink)
    app.run(count=count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
