"""The topic: created if absent, and known by its identity, so that a re-created one is noticed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

log = logging.getLogger(__name__)

# One answer of the broker; the callers retry, so that a stop request is never far away.
REQUEST_TIMEOUT_SECONDS = 5.0
_EMBEDDED = "embedded:"


class BrokerUnavailable(Exception):
    """Kafka did not answer now and may later."""


class TopicChanged(Exception):
    """The topic is not what it was: deleted, re-created, cut or extended. Open a new reader."""


class BrokerMisconfigured(Exception):
    """Kafka's client refuses its settings; the text says which."""


@dataclass(frozen=True)
class Topic:
    """One identity of a topic: a topic that was deleted and created again is another one."""

    cluster_id: str
    topic_id: str
    name: str
    partitions: int

    @property
    def is_embedded(self) -> bool:
        """Whether it is in the broker inside librdkafka, which knows no topic ids."""
        return self.topic_id.startswith(_EMBEDDED)


def admin_client(client_config: dict[str, Any]) -> AdminClient:
    """Return an admin client.

    Raises
    ------
    BrokerMisconfigured
        When librdkafka refuses the configuration.
    """
    try:
        return AdminClient({**client_config, "log_level": 0})
    except KafkaException as problem:
        raise BrokerMisconfigured(problem.args[0].str()) from problem


def ensure_topic(admin: AdminClient, name: str, partitions: int) -> Topic:
    """Return the topic's identity; create it with ``partitions`` partitions if it is not there.

    It is created with LogAppendTime: a reading's time is checked against the broker's own clock.

    Raises
    ------
    BrokerUnavailable
        When the broker cannot be reached, or does not know the topic yet: ask again.
    """
    try:
        cluster_id = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).cluster_id or ""
        if _is_embedded(cluster_id):
            return _embedded_topic(admin, name)
        described = _describe(admin, name).result()
    except KafkaException as problem:
        if problem.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BrokerUnavailable(problem.args[0].str()) from problem
        _create(admin, name, partitions)
        raise BrokerUnavailable(f"topic {name} is being created") from problem
    if not described.partitions:
        raise BrokerUnavailable(f"topic {name} has no partitions yet")
    return Topic(cluster_id, str(described.topic_id), name, len(described.partitions))


def has_append_time(admin: AdminClient, topic: Topic) -> bool:
    """Tell whether the broker stamps messages with its own clock; True where it will not say."""
    if topic.is_embedded:
        return True
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    try:
        answer = admin.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_SECONDS)
        kind = answer[resource].result()["message.timestamp.type"].value
    except (KafkaException, KeyError) as problem:
        log.debug("topic_config_unknown topic=%s reason=%s", topic.name, problem)
        return True
    return bool(kind == "LogAppendTime")


def _describe(admin: AdminClient, name: str) -> Any:
    return admin.describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_SECONDS)[
        name
    ]


class IdentityCheck:
    """Asks the broker, in the background, whether a topic is still the one it was.

    The client library reads by name: it goes on in a topic that was deleted and created again as
    if nothing had happened, at an offset that means something else there. Topic ids never come
    back, so an answer that still shows the old id proves that whatever was polled before the
    question was the old topic's.
    """

    def __init__(self, admin: AdminClient, topic: Topic) -> None:
        self._topic = topic
        self._answer = None if topic.is_embedded else _describe(admin, topic.name)

    def confirm(self) -> None:
        """Wait for the answer.

        Raises
        ------
        TopicChanged
            When it is another topic, or none, or has other partitions.
        BrokerUnavailable
            When the broker does not answer.
        """
        if self._answer is None:
            return
        try:
            now = self._answer.result()
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicChanged(f"{self._topic.name} was deleted") from problem
            raise BrokerUnavailable(problem.args[0].str()) from problem
        if str(now.topic_id) != self._topic.topic_id:
            raise TopicChanged(f"{self._topic.name} was deleted and created again")
        if len(now.partitions) != self._topic.partitions:
            raise TopicChanged(f"{self._topic.name} has {len(now.partitions)} partitions now")

    @property
    def is_answered(self) -> bool:
        """Whether ``confirm`` returns at once."""
        return self._answer is None or bool(self._answer.done())


def _create(admin: AdminClient, name: str, partitions: int) -> None:
    new_topic = NewTopic(
        name, partitions, replication_factor=-1, config={"message.timestamp.type": "LogAppendTime"}
    )
    try:
        admin.create_topics([new_topic], request_timeout=REQUEST_TIMEOUT_SECONDS)[name].result()
        log.info("topic_created topic=%s partitions=%d", name, partitions)
    except KafkaException as problem:
        if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise BrokerUnavailable(problem.args[0].str()) from problem


def _is_embedded(cluster_id: str) -> bool:
    return cluster_id.startswith("mockCluster")  # what the broker inside librdkafka calls itself


def _embedded_topic(admin: AdminClient, name: str) -> Topic:
    # It creates a topic when asked about it, with a number of partitions of its own, and knows no
    # topic ids. Everything is gone with its process, so its port stands for this one life of it.
    metadata = admin.list_topics(name, timeout=REQUEST_TIMEOUT_SECONDS)
    ports = ",".join(str(broker.port) for broker in metadata.brokers.values())
    return Topic(
        metadata.cluster_id or "",
        f"{_EMBEDDED}{ports}",
        name,
        len(metadata.topics[name].partitions),
    )
