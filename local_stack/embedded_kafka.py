"""The broker inside librdkafka: for a first look on a machine without Java.

It keeps about 5 MB of messages per partition in memory and forgets them with its process, chooses
its own port and knows no rebalance, crash or restart worth testing: no substitute for Apache Kafka.
"""

from __future__ import annotations

from confluent_kafka import Producer

# Its first answer comes at once; more than this is a broken client library.
START_DEADLINE_SECONDS = 10.0


class EmbeddedKafka:
    """A broker that lives in this process for as long as the context is open."""

    def __init__(self) -> None:
        self._host: Producer | None = None
        self.bootstrap_servers = ""

    def start(self) -> None:
        """Start it; its address is in ``bootstrap_servers``, another one after each start."""
        self._host = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._host.list_topics(timeout=START_DEADLINE_SECONDS).brokers.values()
        self.bootstrap_servers = ",".join(f"{b.host}:{b.port}" for b in brokers)

    def stop(self) -> None:
        """End it; everything it held is gone."""
        self._host = None

    kill = stop

    def __enter__(self) -> EmbeddedKafka:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
