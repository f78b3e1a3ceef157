"""Settings of all services: read from the environment or ``.env``, validated before any start.

The rooms say in their settings.py what may be set of them, its default and what is allowed;
``.env.example`` says what it means. A name is its field in capitals, WINDOW_SECONDS; in a group
whose fields begin alike it has the group's name before it: ``settings.kafka.topic`` is KAFKA_TOPIC.
Only mains import this module: the rooms take a group as an argument.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from dotenv import dotenv_values
from msgspec import Meta

from broker.settings import PORT, KafkaSettings
from db.settings import DatabaseUrl, Retention, with_user, without_password
from pipeline.settings import DetectorSettings, WindowRules
from service.settings import ServiceSettings

Port = Annotated[int, Meta(ge=1, le=65_535)]


class SettingError(ValueError):
    """A setting cannot work; the text names it, its value and what is allowed."""


@dataclass(frozen=True)
class DashboardSettings:
    """The dashboard's; where it reads is ``Settings.dashboard_url``."""

    database_url: DatabaseUrl = field(default="", repr=False)
    refresh_seconds: Annotated[int, Meta(ge=1, le=3600)] = 10
    port: Port = 8501


@dataclass(frozen=True)
class ProducerSettings:
    """The simulated fleet's."""

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    rate: Annotated[float, Meta(ge=0, le=10_000_000)] = 25.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 42


@dataclass(frozen=True)
class MqttSettings:
    """The MQTT bridge's."""

    url: Annotated[
        str,
        Meta(
            pattern=rf"mqtts?://(?:[^\s/@]+@)?(?:[^\s/@:\[\]]+|\[[\da-fA-F:.]+\])(?::{PORT})?/?",
            description="mqtt://user:password@host:1883, mqtts:// with TLS; %40 for @ in them",
        ),
    ] = field(default="mqtt://localhost:1883", repr=False)


@dataclass(frozen=True)
class LocalSettings:
    """The local stack's."""

    kafka: Literal["auto", "apache", "embedded"] = "auto"
    kafka_port: Port = 9092
    postgres_port: Port = 5432


@dataclass(frozen=True)
class Settings:
    """All settings."""

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    retention: Retention = field(default_factory=Retention)
    windows: WindowRules = field(default_factory=WindowRules)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    dashboard: DashboardSettings = field(default_factory=DashboardSettings)
    producer: ProducerSettings = field(default_factory=ProducerSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    local: LocalSettings = field(default_factory=LocalSettings)

    @property
    def dashboard_url(self) -> str:
        """Database address of the dashboard: as the SELECT-only role unless set."""
        return self.dashboard.database_url or with_user(
            self.service.database_url, "iot_dashboard", "iot_dashboard"
        )


# Groups whose fields are whole names, and a field that is one: it tells of the types themselves.
_UNNAMED = ("service", "retention", "windows", "cumulative_types")


def names() -> Iterator[tuple[str, str, str, Any]]:
    """Yield each setting: its name, its group, its field and what is allowed."""
    for group, kind in get_type_hints(Settings).items():
        for name, allowed in get_type_hints(kind, include_extras=True).items():
            begin = "" if group in _UNNAMED or name in _UNNAMED else f"{group}_"
            if get_origin(allowed) in (Annotated, Literal):
                yield f"{begin}{name}".upper(), group, name, allowed


def _parse(text: str, kind: Any) -> Any:
    """Return the value that a text says, or raise ``ValueError`` with what is allowed."""
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if choice.lower() == text.lower():
                return choice
        raise ValueError("one of " + ", ".join(get_args(kind)))
    kind, limits = get_args(kind)
    if kind is str:
        if not re.fullmatch(limits.pattern, text):
            raise ValueError(limits.description)
        return text
    with suppress(ValueError):
        if limits.ge <= (value := kind(text)) <= limits.le:
            return value
    number = "a whole number" if kind is int else "a number"
    raise ValueError(f"{number} from {limits.ge} to {limits.le}")


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
    groups = get_type_hints(Settings)
    values: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for name, group, field_name, allowed in names():
        if name in source:
            try:
                values[group][field_name] = _parse(source[name].strip(), allowed)
            except ValueError as problem:
                shown = _shown(name, source[name])
                raise SettingError(f"{name}={shown!r} is not allowed: use {problem}") from None
    values["kafka"]["security"] = _security(source)
    settings = Settings(**{group: groups[group](**given) for group, given in values.items()})
    raw, made = settings.retention.retention_days, settings.retention.aggregate_retention_days
    if made and not 0 < raw <= made:
        raise SettingError(
            f"AGGREGATE_RETENTION_DAYS={made} is not allowed: use 0, or RETENTION_DAYS (now {raw},"
            " 0 = for ever) or more, so that aggregates outlive what they are made of"
        )
    return settings


def _security(source: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in source.items()
        if name == "KAFKA_SECURITY_PROTOCOL" or name.startswith(("KAFKA_SASL_", "KAFKA_SSL_"))
    }


def _shown(name: str, value: str) -> str:
    """Return a value as it may be shown: an address without whatever may be a password."""
    if not name.endswith("_URL"):
        return value
    if not re.match(r"\w+://", value):
        return "***"
    shown = without_password(value)
    # Without an @ what comes after a colon may be the port, or the password of a forgotten host.
    return shown if "@" in shown else re.sub(r":(?!//|\d{1,5}(?:[/,?]|$)).*", ":***", shown)


def load_settings_or_exit() -> Settings:
    """Return the settings, or print one line that names the wrong one and exit with status 2."""
    try:
        return load_settings()
    except SettingError as problem:
        sys.stderr.write(f"error: {problem}\n")
        raise SystemExit(2) from None
