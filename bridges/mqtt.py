"""Send readings from an MQTT broker to the Kafka topic.

python -m bridges.mqtt --topic 'site/{location}/{sensor_type}/{sensor_id}'

Reads    the MQTT topics that fit, at QoS 1, in a session that the broker keeps while we are away
Writes   the Kafka topic, keyed by location/sensor_type
Promises at least once: MQTT gets its acknowledgement after Kafka has given its own. Needs no
         database; an outage of either broker is waited out, and MQTT's holds what comes meanwhile
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.topics import BrokerMisconfigured, BrokerUnavailable
from broker.writer import TopicWriter
from config import load_settings_or_exit
from pipeline.encoding import NO_MESSAGES, Messages, reading_key
from pipeline.reading import MAX_PAYLOAD_BYTES
from service.cli import service_parser
from service.lifecycle import Heartbeat, Outage, StopSignal, UserError, wait_for
from service.logs import setup_logging
from service.runner import run_service
from service.sending import STOPPED_DELIVERY_TIMEOUT_SECONDS, WatchedTopic

log = logging.getLogger(__name__)

FIELDS = ("sensor_id", "sensor_type", "location", "unit")
_NAMED = ", ".join(f"{{{name}}}" for name in FIELDS)
# MQTT sends no more than so many that are not acknowledged: what an outage of Kafka costs memory.
MAX_UNACKNOWLEDGED = 1_000
# Of QoS 0, which knows no acknowledgement, so many wait; further ones are dropped and counted.
MAX_WAITING = 10_000
# How long a loop waits for a message: Kafka's acknowledgements are passed on as late as this.
WAIT_SECONDS = 0.01
# A connection that has died without a word is noticed after one and a half of it.
KEEP_ALIVE_SECONDS = 15
# A connection that lasts is one; two clients of one name end each other's at once, again and again.
LASTING_SECONDS = 2.0
KEPT_FOR_EVER = 0xFFFF_FFFF
# Reason codes of MQTT 5 that pass by themselves: server unavailable, busy; quota, rate exceeded.
_PASSING = {0x88, 0x89, 0x97, 0x9F}


class Template:
    """Which MQTT topics are read, and what their levels say: ``site/{location}/+/{sensor_id}``.

    Raises
    ------
    argparse.ArgumentTypeError
        When it is none.
    """

    def __init__(self, text: str) -> None:
        self._levels = text.split("/")
        for position, level in enumerate(self._levels):
            is_field = level[:1] + level[-1:] == "{}" and level[1:-1] in FIELDS
            is_last = position == len(self._levels) - 1
            is_plain = bool(text) and not set(level) & set("{}+#\0")
            if not (is_field or is_plain or level == "+" or (level == "#" and is_last)):
                raise argparse.ArgumentTypeError(
                    f"level {level!r} of {text!r} is none of a name, +, # at the end, " + _NAMED
                )
        self.filter = "/".join("+" if level[:1] == "{" else level for level in self._levels)

    def fields(self, topic: str) -> dict[str, str]:
        """Return the fields that a topic's levels say."""
        pairs = zip(self._levels, topic.split("/"), strict=False)
        return {level[1:-1]: said for level, said in pairs if level[:1] == "{"}


class Arrived(NamedTuple):
    """A message for Kafka; ``packet_id`` is what MQTT wants acknowledged, 0 = nothing."""

    packet_id: int
    key: bytes
    payload: bytes


def to_message(payload: bytes, given: dict[str, str], now: datetime) -> tuple[bytes, bytes]:
    """Return key and message: the payload's fields over ``given`` and the time of arrival.

    What is neither an object nor a number goes as it is: the consumer keeps it as a dead letter.
    """
    reading: dict[str, Any] = {"timestamp": now.isoformat(), **given}
    try:
        said = json.loads(payload.decode("utf-8-sig"))
        if type(said) in (int, float):
            said = {"value": said}
        if isinstance(said, dict) and len(payload) <= MAX_PAYLOAD_BYTES:
            reading.update(said)
            return _key(reading), json.dumps(reading, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        pass
    # One byte too many is enough to be refused as too large; Kafka takes no more than a megabyte.
    return _key(given), payload[: MAX_PAYLOAD_BYTES + 1]


def _key(reading: dict[str, Any]) -> bytes:
    return reading_key(reading.get("location", ""), reading.get("sensor_type", ""))


class Bridge:
    """One loop over both brokers; ``waiting`` -> ``sending`` to Kafka -> acknowledged to MQTT.

    Parameters
    ----------
    url : str
        ``mqtt://user:password@host:port``, or ``mqtts://`` with TLS.
    client_id : str
        Names the session; of two clients with one name the broker ends the earlier's connection.
    template : Template
        What is read.
    constants : dict
        Fields that neither topic nor payload says.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        template: Template,
        constants: dict[str, str],
        writer: TopicWriter,
    ) -> None:
        self.dropped = 0
        """Messages of QoS 0 for which there was no room."""
        self._template = template
        self._constants = constants
        self._writer = writer
        self._waiting: list[Arrived] = []
        self._sending: list[Arrived] = []
        self._unsent = NO_MESSAGES
        self._outage = Outage("mqtt")
        self._is_connected = self._is_subscribed = False
        self._connected_s = 0.0
        self._refused = ""
        self._client = _client(url, client_id)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    # Callbacks run inside loop(), in this thread.

    def _on_connect(
        self, _: Client, ___: Any, flags: Any, reason: ReasonCode, __: Properties | None
    ) -> None:
        if reason.is_failure:
            if reason.value not in _PASSING:
                self._refused = f"the MQTT broker refuses: {reason}; check MQTT_URL"
            return
        # Packet ids are the connection's. What the session holds comes again, under a new one.
        is_kept = flags.session_present
        self._waiting = [
            m._replace(packet_id=0) for m in self._waiting if not (is_kept and m.packet_id)
        ]
        self._sending = [m._replace(packet_id=0) for m in self._sending]
        self._subscribe()
        log.info("mqtt_connected topic=%s session_kept=%d", self._template.filter, is_kept)

    def _subscribe(self) -> None:
        # Retained messages only when there is no session yet, not at each connection.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        self._client.subscribe(self._template.filter, options=options)

    def _on_subscribe(
        self, _: Client, __: Any, ___: int, reasons: list[ReasonCode], *____: Any
    ) -> None:
        self._is_subscribed = True
        if any(reason.is_failure for reason in reasons):
            self._refused = f"the MQTT broker refuses {self._template.filter}: {reasons[0]}"

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        if not message.qos and len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        given = {**self._constants, **self._template.fields(message.topic)}
        key, payload = to_message(bytes(message.payload), given, datetime.now(UTC))
        self._waiting.append(Arrived(message.mid if message.qos else 0, key, payload))

    def receive(self, stop: StopSignal) -> None:
        """Take what MQTT sends within a moment; connect where there is no connection.

        Raises
        ------
        UserError
            When the broker will never let us in.
        """
        if not self._is_connected and self._outage.waiting:
            stop.wait(WAIT_SECONDS)
            return
        try:
            if not self._is_connected:
                self._client.reconnect()
                self._is_connected, self._connected_s = True, time.monotonic()
            code = self._client.loop(WAIT_SECONDS)
            problem = code and "connection lost, or another client has our name (--client-id)"
        except OSError as error:
            problem = error.strerror or str(error)
        if self._refused:
            raise UserError(self._refused)
        if problem:
            self._is_connected = False
            self._outage.failed(problem)
        elif time.monotonic() - self._connected_s > LASTING_SECONDS:
            self._outage.over()

    def forward(self) -> None:
        """Hand to Kafka what waits, once all before it is delivered; then acknowledge that.

        Raises
        ------
        UserError
            When Kafka has refused messages for good: none of them is acknowledged.
        """
        self._unsent = self._unsent.since(self._writer.send(self._unsent))
        if self._unsent or self._writer.pending:
            return
        if self._writer.failed:
            raise UserError("Kafka refused messages, see above; MQTT keeps them")
        for message in self._sending:
            if message.packet_id:
                self._client.ack(message.packet_id, 1)
        self._sending, self._waiting = self._waiting, []
        if self._sending:
            _, keys, payloads = map(list, zip(*self._sending, strict=True))
            self._unsent = Messages(keys, payloads, [None] * len(keys))

    def close(self) -> None:
        """Wait a moment for what is on its way to Kafka, and leave; the session stays."""
        self._waiting = []  # comes again
        self._unsent = self._unsent.since(self._writer.send(self._unsent))
        if not self._writer.flush(STOPPED_DELIVERY_TIMEOUT_SECONDS) and not self._writer.failed:
            self.forward()
        # Its answer to a later request says that it has our acknowledgements: a connection closed
        # before may lose them, and what they were for comes twice.
        self._is_subscribed = False
        self._subscribe()
        give_up_s = time.monotonic() + STOPPED_DELIVERY_TIMEOUT_SECONDS
        while self._client.is_connected() and time.monotonic() < give_up_s:
            if self._is_subscribed:
                break
            self._client.loop(WAIT_SECONDS)
        self._client.disconnect()


def _client(url: str, client_id: str) -> Client:
    """Return a client that has yet to connect."""
    parts = urlsplit(url)
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5, manual_ack=True
    )
    if parts.username:
        client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
    is_secure = parts.scheme == "mqtts"
    if is_secure:
        client.tls_set()
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = KEPT_FOR_EVER
    properties.ReceiveMaximum = MAX_UNACKNOWLEDGED
    client.connect_async(
        parts.hostname or "localhost",
        parts.port or (8883 if is_secure else 1883),
        KEEP_ALIVE_SECONDS,
        clean_start=False,
        properties=properties,
    )
    return client


def _constant(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name not in FIELDS or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE of {', '.join(FIELDS)}")
    return name, value


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    parser.add_argument(
        "--topic",
        type=Template,
        required=True,
        metavar="TEMPLATE",
        help=f"levels of the MQTT topics: names, + for any, # for all below, {_NAMED}",
    )
    parser.add_argument(
        "--set",
        type=_constant,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field that neither topic nor payload says",
    )
    parser.add_argument("--client-id", metavar="NAME", help="of the session [KAFKA_TOPIC-bridge]")
    return parser.parse_args()


def main() -> None:
    """Run until stopped."""
    args = parse_args()
    settings = load_settings_or_exit()
    setup_logging("mqtt_bridge", settings.service)
    kafka = settings.kafka
    stop = StopSignal().install()
    beat = Heartbeat(lambda state, details: None)
    try:
        topic = WatchedTopic(kafka)
        wait_for("kafka", topic.ensure, BrokerUnavailable, stop)
        with TopicWriter(kafka.client, kafka.topic) as writer:
            client_id = args.client_id or f"{kafka.topic}-bridge"
            bridge = Bridge(settings.mqtt.url, client_id, args.topic, dict(args.set), writer)
            while not stop.requested:
                bridge.receive(stop)
                bridge.forward()
                topic.watch(writer)
                if beat.due:
                    beat.count(writer.delivered - beat.total)
                    beat.beat(unacknowledged=writer.pending, dropped=bridge.dropped)
            bridge.close()
    except BrokerMisconfigured as problem:
        raise UserError(f"Kafka refuses: {problem}; check the KAFKA_ settings") from problem
    log.info("finished delivered=%d dropped=%d", writer.delivered, bridge.dropped)


if __name__ == "__main__":
    run_service(main)
