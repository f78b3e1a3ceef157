"""Tables dead_letters and dead_letter_counts: messages that are no readings.

The consumer alone writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2

from db.connection import Cursor
from db.statements import statements

SQL = statements(__file__)

# Enough to see what was sent; the whole payload is in Kafka for as long as the topic keeps it.
KEPT_PAYLOAD_BYTES = 4_096
# Rows of one statement.
PAGE_ROWS = 500

Page = dict[str, Any]


@dataclass(frozen=True)
class DeadLetter:
    """A rejected message: where it stands in the log, what it was, why it was rejected."""

    log_offset: int
    payload: bytes | None
    reason_code: str
    reason: str


def to_pages(letters: Sequence[DeadLetter], rows_per_hour: int) -> list[Page]:
    """Return dead letters as ``insert`` takes them; beyond ``rows_per_hour`` they only count."""
    return [
        _page(letters[begin : begin + PAGE_ROWS], max(0, rows_per_hour - begin))
        for begin in range(0, len(letters), PAGE_ROWS)
    ]


def _page(letters: Sequence[DeadLetter], most: int) -> Page:
    counts = Counter(letter.reason_code for letter in letters)
    kept = letters[:most]
    payloads = [letter.payload for letter in kept]
    return {
        "offsets": [letter.log_offset for letter in kept],
        "codes": [letter.reason_code for letter in kept],
        "reasons": [letter.reason for letter in kept],
        "payloads": [p if p is None else psycopg2.Binary(p[:KEPT_PAYLOAD_BYTES]) for p in payloads],
        "bytes": [len(payload or b"") for payload in payloads],
        "counted_codes": list(counts),
        "counts": list(counts.values()),
    }


def insert(
    tx: Cursor,
    source_id: int,
    topic: str,
    partition: int,
    pages: Iterable[Page],
    rows_per_hour: int,
) -> None:
    """Keep dead letters of one partition up to ``rows_per_hour``, and count all of them."""
    of = {
        "source": source_id,
        "topic": topic,
        "partition": partition,
        "rows_per_hour": rows_per_hour,
    }
    for page in pages:
        tx.execute(SQL["insert"], of | page)
