"""Tables dead_letters and dead_letter_counts: messages that are no readings.

The consumer alone writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg2

from db.connection import Cursor
from db.statements import statements
from pipeline.decoding import Rejected

SQL = statements(__file__)

# Enough to see what was sent; the whole payload is in Kafka for as long as the topic keeps it.
KEPT_PAYLOAD_BYTES = 4_096
# Rows of one statement.
PAGE_ROWS = 500

Page = dict[str, Any]


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
        "payloads": [t if t is None else psycopg2.Binary(t[:KEPT_PAYLOAD_BYTES]) for t in texts],
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
