"""What may be set of PostgreSQL; .env.example says what it means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Meta

# As libpq reads it: what has a meaning in an address stands encoded, %40 for @.
_TEXT = r"(?:[^\s:/?#@%\[\]]|%[0-9A-Fa-f]{2})"
_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|{_TEXT}+)(?::\d{{1,5}})?"
_NAMED_HOST = r"(?=/[^?]*\?(?:\S*&)?host=)"
DatabaseUrl = Annotated[
    str,
    Meta(
        pattern=rf"postgres(?:ql)?://(?:{_TEXT}*(?::(?:{_TEXT}|:)*)?@)?"
        rf"(?:{_HOST}(?:,{_HOST})*|{_NAMED_HOST})/{_TEXT}+(?:\?[^\s#]*)?",
        description="postgresql://user:password@host:port/database",
    ),
]


@dataclass(frozen=True)
class Retention:
    """What is kept: whole days after the day it was stored on; 0 = for ever."""

    dead_letter_rows_per_hour: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    aggregate_retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 0


def with_user(database_url: str, user: str, password: str) -> str:
    """Return ``database_url`` with another user and password."""
    url = urlsplit(database_url)
    host = url.netloc.rpartition("@")[2]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    # There they would win over those before the host.
    others = [(k, v) for k, v in parse_qsl(url.query) if k not in ("user", "password", "passfile")]
    query = urlencode(others, quote_via=quote)
    return urlunsplit(url._replace(netloc=f"{login}@{host}", query=query))


def without_password(text: str) -> str:
    """Return an address, whole or broken, with ``***`` for what may be a password, or more."""
    text = re.sub(r":(?!//).*@", ":***@", text, flags=re.DOTALL)
    return re.sub(r"(?i)(pass\w*\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])+)", r"\1***", text)
