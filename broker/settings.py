"""What may be set of Kafka; .env.example says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

PORT = r"(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_SERVER = rf"[^\s,]+:{PORT}"
Servers = Annotated[
    str,
    Meta(
        pattern=rf"{_SERVER}(?:\s*,\s*{_SERVER})*",
        description="host:port, several separated by commas, e.g. localhost:9092",
    ),
]
TopicName = Annotated[
    str,
    Meta(
        pattern=r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}",
        description="1..249 of the characters A-Z a-z 0-9 . _ -",
    ),
]


@dataclass(frozen=True)
class KafkaSettings:
    """Where the topic is and how it is read.

    ``security`` holds librdkafka's properties: KAFKA_SSL_CA_LOCATION is ssl.ca.location, and so on.
    """

    bootstrap_servers: Servers = "localhost:9092"
    topic: TopicName = "iot_sensors"
    partitions: Annotated[int, Meta(ge=1, le=1000)] = 6
    group_protocol: Literal["classic", "consumer"] = "classic"
    session_timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 6
    security: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def client(self) -> dict[str, Any]:
        """Properties that every librdkafka client needs."""
        return {"bootstrap.servers": self.bootstrap_servers, **self.security}
