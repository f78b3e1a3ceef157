"""Tables dead_letters and dead_letter_counts: messages that are no readings.

The consumer writes them; python -m service.dead_letters notes what it has sent to the topic again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from db.connection import Cursor
from db.statements import statements
from pipeline.decoding import Rejected

SQL = statements(__file__)

# Enough to see what was sent; the whole payload is in Kafka for as long as the topic keeps it.
KEPT_PAYLOAD_BYTES = 4_096
# Rows of one statement.
PAGE_ROWS = 500

Page = dict[str, Any]


class Which(NamedTuple):
    """Dead letters of a topic: with a reason code, rejected in a range of time; None = any."""

    topic: str
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Reason(NamedTuple):
    """Dead letters of one reason code, and one of them: its reason and the payload's beginning."""

    code: str
    kept: int
    sent: int
    cut: int
    first: datetime
    last: datetime
    reason: str
    payload: bytes | None


class Kept(NamedTuple):
    """A dead letter as it is kept."""

    id: int
    source_id: int
    log_offset: int
    payload: bytes | None
    payload_bytes: int

    @property
    def name(self) -> str:
        """What the header of the message says when it is sent again."""
        return f"{self.source_id}/{self.log_offset}"

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning is kept."""
        return self.payload_bytes > len(self.payload or b"")


def to_pages(
    offsets: npt.NDArray[np.int64],
    payloads: Sequence[bytes | None],
    rejected: Sequence[Rejected],
    rows_per_hour: int,
) -> list[Page]:
    """Return what was rejected as ``insert`` takes it; beyond ``rows_per_hour`` it only counts.

    Parameters
    ----------
    offsets, payloads : sequence
        Of all messages of the batch.
    """
    return [
        _page(offsets, payloads, rejected[begin : begin + PAGE_ROWS], rows_per_hour - begin)
        for begin in range(0, len(rejected), PAGE_ROWS)
    ]


def _page(
    offsets: npt.NDArray[np.int64],
    payloads: Sequence[bytes | None],
    rejected: Sequence[Rejected],
    most: int,
) -> Page:
    counts = Counter(each.reason_code for each in rejected)
    kept = rejected[: max(0, most)]
    texts = [payloads[each.position] for each in kept]
    return {
        "offsets": [int(offsets[each.position]) for each in kept],
        "codes": [each.reason_code for each in kept],
        "reasons": [each.reason for each in kept],
        "payloads": [t if t is None else t[:KEPT_PAYLOAD_BYTES] for t in texts],
        "bytes": [len(text or b"") for text in texts],
        "counted_codes": list(counts),
        "counts": list(counts.values()),
    }


def insert(
    tx: Cursor,
    source_id: int,
    topic: str,
    partition: int,
    pages: Sequence[Page],
    rows_per_hour: int,
) -> None:
    """Keep those of one partition up to ``rows_per_hour``, count all."""
    of = {
        "source": source_id,
        "topic": topic,
        "partition": partition,
        "rows_per_hour": rows_per_hour,
    }
    for page in pages:
        tx.execute(SQL["insert"], of | page)


def counts(page: Page) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many messages of a page have which reason code, and the words of one of each."""
    examples = dict(zip(page["codes"], page["reasons"], strict=True))
    return dict(zip(page["counted_codes"], page["counts"], strict=True)), examples


def by_reason(tx: Cursor, which: Which) -> list[Reason]:
    """Return what is kept, reason by reason, the most frequent first."""
    tx.execute(SQL["by_reason"], which._asdict())
    return [Reason._make((*row[:7], row[7] and bytes(row[7]))) for row in tx.fetchall()]


def unsent(tx: Cursor, which: Which, after: int, most: int) -> list[Kept]:
    """Return what was never to be sent again, in order of id, behind the id ``after``."""
    tx.execute(SQL["unsent"], which._asdict() | {"after": after, "most": most})
    return _kept(tx)


def prepare(tx: Cursor, ids: Sequence[int], ends: Mapping[int, int]) -> None:
    """Note what will be sent, and by source where the log ends before that."""
    tx.execute(SQL["prepare"], {"ids": list(ids)})
    of = {"source_ids": list(ends), "end_offsets": list(ends.values())}
    tx.execute(SQL["keep_ends"], of)


def pending(tx: Cursor) -> tuple[list[Kept], dict[int, int]]:
    """Return what was to be sent and is not known to have arrived, and where the log ended then."""
    tx.execute(SQL["pending"])
    kept = _kept(tx)
    tx.execute(SQL["ends"])
    return kept, dict(tx.fetchall())


def _kept(tx: Cursor) -> list[Kept]:
    return [
        Kept(number, source_id, offset, None if payload is None else bytes(payload), length)
        for number, source_id, offset, payload, length in tx.fetchall()
    ]


def sent(tx: Cursor, ids: Sequence[int]) -> None:
    """Note what is in the topic again."""
    tx.execute(SQL["sent"], {"ids": list(ids)})
