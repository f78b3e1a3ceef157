"""Settings of all services: read from the environment or ``.env``, validated before any start.

Every field names its environment variable, its default, what is allowed and its unit;
``.env.example`` lists the same for users.
Only the scripts and ``local_stack`` import this module: the rooms take plain arguments.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from dotenv import dotenv_values

Parser = Callable[[str], Any]


class SettingError(ValueError):
    """A setting cannot work; the text names it, its value and what is allowed."""


# --- parsers: text -> value, or ValueError saying what is allowed ----------------------------


def _between(kind: type, low: float, high: float) -> Parser:
    def parse(text: str) -> Any:
        allowed = f"{'a whole number' if kind is int else 'a number'} from {low:g} to {high:g}"
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not low <= value <= high:
            raise ValueError(allowed)
        return value

    return parse


def _one_of(*choices: str) -> Parser:
    def parse(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError("one of " + ", ".join(choices))

    return parse


def _bootstrap_servers(text: str) -> str:
    for server in text.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("host:port, several separated by commas, e.g. localhost:9092")
    return text


def _topic(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text) or text in (".", ".."):
        raise ValueError("1..249 of the characters A-Z a-z 0-9 . _ -")
    return text


def _database_url(text: str) -> str:
    allowed = "postgresql://user:password@host:port/database"
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - raises when the port is not a number
    except ValueError:
        raise ValueError(allowed) from None
    if url.scheme not in ("postgresql", "postgres") or not url.path.strip("/"):
        raise ValueError(allowed)
    if not url.hostname and "host=" not in url.query:
        raise ValueError(allowed)
    return text


def _setting(name: str, default: Any, parse: Parser, meaning: str) -> Any:
    return field(default=default, metadata={"name": name, "parse": parse, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """All settings; one field per environment variable (metadata: name, parser, meaning)."""

    # Kafka
    kafka_bootstrap_servers: str = _setting(
        "KAFKA_BOOTSTRAP_SERVERS",
        "localhost:9092",
        _bootstrap_servers,
        "brokers, host:port,host:port",
    )
    kafka_topic: str = _setting("KAFKA_TOPIC", "iot_sensors", _topic, "topic of the readings")
    kafka_partitions: int = _setting(
        "KAFKA_PARTITIONS",
        6,
        _between(int, 1, 1000),
        "partitions of the topic if a service has to create it",
    )
    kafka_group_protocol: str = _setting(
        "KAFKA_GROUP_PROTOCOL",
        "classic",
        _one_of("classic", "consumer"),
        "group protocol; consumer = KIP-848",
    )
    kafka_session_timeout_seconds: int = _setting(
        "KAFKA_SESSION_TIMEOUT_SECONDS",
        6,
        _between(int, 1, 3600),
        "silence after which the group gives a dead process's partitions to others, seconds;"
        " classic protocol (with consumer the broker decides)",
    )
    # PostgreSQL
    database_url: str = _setting(
        "DATABASE_URL",
        "postgresql://iot_user:iot_password@localhost:5432/iot_db",
        _database_url,
        "database of the writing services",
    )
    dashboard_database_url: str = _setting(
        "DASHBOARD_DATABASE_URL",
        "",
        _database_url,
        "database of the dashboard; default: DATABASE_URL as iot_dashboard, who may only SELECT",
    )
    retention_days: int = _setting(
        "RETENTION_DAYS",
        0,
        _between(int, 0, 36_500),
        "days that readings, predictions, late readings and dead letters are kept; 0 = for ever",
    )
    aggregate_retention_days: int = _setting(
        "AGGREGATE_RETENTION_DAYS",
        0,
        _between(int, 0, 36_500),
        "days that windows, correlations, counts and trainings are kept; 0 = for ever",
    )
    # Consumer
    dead_letter_rows_per_hour: int = _setting(
        "DEAD_LETTER_ROWS_PER_HOUR",
        1000,
        _between(int, 0, 1_000_000),
        "rejected messages kept per partition and hour; further ones are only counted",
    )
    # Stream processor
    window_seconds: int = _setting(
        "WINDOW_SECONDS", 60, _between(int, 1, 86_400), "length of a window, seconds"
    )
    allowed_lateness_seconds: int = _setting(
        "ALLOWED_LATENESS_SECONDS",
        300,
        _between(int, 0, 604_800),
        "how long after its end a window still takes late readings, seconds of event time",
    )
    out_of_orderness_seconds: int = _setting(
        "OUT_OF_ORDERNESS_SECONDS",
        5,
        _between(int, 0, 86_400),
        "how far the watermark stays behind the latest event time, seconds",
    )
    baseline_windows: int = _setting(
        "BASELINE_WINDOWS",
        30,
        _between(int, 1, 1000),
        "preceding windows of a group against which its readings get their z-score",
    )
    correlation_windows: int = _setting(
        "CORRELATION_WINDOWS",
        30,
        _between(int, 3, 1000),
        "recent windows a correlation is computed over",
    )
    # Detector
    detector_contamination: float = _setting(
        "DETECTOR_CONTAMINATION",
        0.05,
        _between(float, 0.0001, 0.5),
        "assumed share of anomalies in training",
    )
    detector_training_size: int = _setting(
        "DETECTOR_TRAINING_SIZE",
        1000,
        _between(int, 50, 1_000_000),
        "readings per sensor type kept for training",
    )
    detector_retrain_seconds: int = _setting(
        "DETECTOR_RETRAIN_SECONDS",
        300,
        _between(int, 1, 86_400),
        "event time between two trainings, seconds",
    )
    detector_history_size: int = _setting(
        "DETECTOR_HISTORY_SIZE",
        100,
        _between(int, 10, 10_000),
        "readings per sensor behind its features",
    )
    detector_forget_readings: int = _setting(
        "DETECTOR_FORGET_READINGS",
        5_000,
        _between(int, 100, 10_000_000),
        "readings of its type after which an unseen sensor starts anew; bounds memory",
    )
    detector_poll_seconds: float = _setting(
        "DETECTOR_POLL_SECONDS",
        0.25,
        _between(float, 0.01, 60),
        "pause between two looks at an empty table, seconds",
    )
    detector_seed: int = _setting(
        "DETECTOR_SEED", 42, _between(int, 0, 2**31 - 1), "seed of the forests"
    )
    # Dashboard
    dashboard_refresh_seconds: int = _setting(
        "DASHBOARD_REFRESH_SECONDS", 10, _between(int, 1, 3600), "default refresh interval, seconds"
    )
    dashboard_port: int = _setting(
        "DASHBOARD_PORT",
        8501,
        _between(int, 1, 65_535),
        "port of the dashboard that make demo starts",
    )
    # Producer
    producer_rate: float = _setting(
        "PRODUCER_RATE",
        25.0,
        _between(float, 0, 10_000_000),
        "readings per second; 0 = as fast as possible",
    )
    # Local stack
    local_kafka: str = _setting(
        "LOCAL_KAFKA",
        "auto",
        _one_of("auto", "apache", "embedded"),
        "which broker make demo and make infra start",
    )
    local_kafka_port: int = _setting(
        "LOCAL_KAFKA_PORT", 9092, _between(int, 1, 65_535), "port of the local Kafka"
    )
    local_postgres_port: int = _setting(
        "LOCAL_POSTGRES_PORT", 5432, _between(int, 1, 65_535), "port of the local PostgreSQL"
    )
    # Process
    log_level: str = _setting(
        "LOG_LEVEL",
        "INFO",
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "least severe log line that is written",
    )
    log_format: str = _setting(
        "LOG_FORMAT", "text", _one_of("text", "json"), "text: key=value, json: an object a line"
    )
    metrics_port: int = _setting(
        "METRICS_PORT",
        0,
        _between(int, 0, 65_530),
        "Prometheus metrics: producer on this port, consumer +1, stream_processor +2,"
        " ml_detector +3; 0 = off",
    )
    # From KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_*: KAFKA_SSL_CA_LOCATION is
    # librdkafka's ssl.ca.location, and so on.
    kafka_security: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def kafka_client(self) -> dict[str, Any]:
        """Properties that every librdkafka client needs."""
        return {"bootstrap.servers": self.kafka_bootstrap_servers, **self.kafka_security}

    @property
    def dashboard_url(self) -> str:
        """Database address of the dashboard: as the SELECT-only role unless set."""
        return self.dashboard_database_url or with_user(
            self.database_url, "iot_dashboard", "iot_dashboard"
        )


def with_user(database_url: str, user: str, password: str) -> str:
    """Return ``database_url`` with another user and password."""
    url = urlsplit(database_url)
    host = url.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(url._replace(netloc=f"{login}@{host}"))


def without_password(text: str) -> str:
    """Return ``text`` (an address, or a message holding one) with passwords replaced by ``***``."""
    return re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)


def read_environment() -> dict[str, str]:
    """Return the environment over ``.env`` in the working directory; empty counts as unset."""
    merged = {**dotenv_values(Path(".env")), **os.environ}
    return {name: value for name, value in merged.items() if value}


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read and validate all settings.

    Raises
    ------
    SettingError
        Naming the first setting whose value is not allowed.
    """
    source = read_environment() if environment is None else environment
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        name = setting.metadata.get("name")
        if name is None or name not in source:
            continue
        try:
            values[setting.name] = setting.metadata["parse"](source[name].strip())
        except ValueError as problem:
            raise SettingError(
                f"{name}={without_password(source[name])!r} is not allowed: use {problem}"
            ) from None
    raw, made = values.get("retention_days", 0), values.get("aggregate_retention_days", 0)
    if made and not 0 < raw <= made:
        raise SettingError(
            f"AGGREGATE_RETENTION_DAYS={made} is not allowed: use 0, or RETENTION_DAYS (now {raw},"
            " 0 = for ever) or more, so that aggregates outlive what they are made of"
        )
    security = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in source.items()
        if name == "KAFKA_SECURITY_PROTOCOL" or name.startswith(("KAFKA_SASL_", "KAFKA_SSL_"))
    }
    return Settings(**values, kafka_security=security)


def load_settings_or_exit() -> Settings:
    """Return the settings, or print one line that names the wrong one and exit with status 2."""
    try:
        return load_settings()
    except SettingError as problem:
        sys.stderr.write(f"error: {problem}\n")
        raise SystemExit(2) from None


def database_parts(database_url: str) -> dict[str, str]:
    """Return user, password, host, port and database of an address."""
    url = urlsplit(database_url)
    return {
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "host": url.hostname or "",
        "port": str(url.port or 5432),
        "database": unquote(url.path.strip("/")),
    }
