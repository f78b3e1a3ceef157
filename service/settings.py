"""What may be set of every service's process; .env.example says what it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from db.settings import DatabaseUrl


@dataclass(frozen=True)
class ServiceSettings:
    """Where a service writes, and how it tells what it does."""

    database_url: DatabaseUrl = field(
        default="postgresql://iot_user:iot_password@localhost:5432/iot_db", repr=False
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    metrics_port: Annotated[int, Meta(ge=0, le=65_530)] = 0
