"""Tables dead_letters and dead_letter_counts: messages that are no readings.

The consumer alone writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2.extras import execute_values

from db.connection import Cursor

# Enough to see what was sent; the whole payload is in Kafka for as long as the topic keeps it.
KEPT_PAYLOAD_BYTES = 4_096


@dataclass(frozen=True)
class DeadLetter:
    """A rejected message: where it stands in the log, what it was, why it was rejected."""

    log_offset: int
    payload: bytes | None
    reason_code: str
    reason: str


def insert(
    tx: Cursor,
    source_id: int,
    topic: str,
    partition: int,
    letters: Sequence[DeadLetter],
    rows_per_hour: int,
) -> None:
    """Keep dead letters of one partition up to ``rows_per_hour``, and count all of them."""
    tx.execute("SELECT date_trunc('hour', now() AT TIME ZONE 'UTC')")
    hour = tx.fetchone()[0]
    tx.execute(
        "SELECT coalesce(sum(kept), 0) FROM dead_letter_counts WHERE source_id = %s AND hour = %s",
        (source_id, hour),
    )
    room = max(0, rows_per_hour - int(tx.fetchone()[0]))
    execute_values(
        tx,
        "INSERT INTO dead_letters (source_id, topic, partition, log_offset,"
        " reason_code, reason, payload, payload_bytes) VALUES %s",
        [(source_id, topic, partition, *_columns(letter)) for letter in letters[:room]],
    )
    counts = Counter((x.reason_code, n < room) for n, x in enumerate(letters))
    execute_values(
        tx,
        "INSERT INTO dead_letter_counts AS c (source_id, hour, reason_code, kept, counted_only)"
        " VALUES %s ON CONFLICT ON CONSTRAINT dead_letter_counts_pkey DO UPDATE SET"
        " kept = c.kept + EXCLUDED.kept, counted_only = c.counted_only + EXCLUDED.counted_only",
        [
            (source_id, hour, code, counts[code, True], counts[code, False])
            for code in sorted({code for code, _ in counts})
        ],
    )


def _columns(letter: DeadLetter) -> tuple[object, ...]:
    payload = letter.payload
    cut = None if payload is None else psycopg2.Binary(payload[:KEPT_PAYLOAD_BYTES])
    return (letter.log_offset, letter.reason_code, letter.reason, cut, len(payload or b""))
