"""Tables sources and stream_offsets: how far each service's results reach, moved with the rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from db.connection import Cursor, StaleCheckpoint
from db.statements import statements
from db.times import to_microseconds, to_timestamp

log = logging.getLogger(__name__)

SQL = statements(__file__)


@dataclass(frozen=True)
class Position:
    """First offset not yet processed, the watermark (us since the epoch) if there is one.

    ``is_idle``: its reader has seen it at its end for a while.
    """

    next_offset: int
    watermark_us: int | None = None
    is_idle: bool = False


def register_sources(
    tx: Cursor, cluster_id: str, topic_id: str, topic: str, partitions: int
) -> dict[int, int]:
    """Return the source_id of each partition of this identity of the topic, adding what is new."""
    identity = {"cluster_id": cluster_id, "topic_id": topic_id}
    tx.execute(SQL["register_sources"], identity | {"topic": topic, "partitions": partitions})
    tx.execute(SQL["sources"], identity)
    return dict(tx.fetchall())


def load(tx: Cursor, group: str, source_ids: list[int]) -> dict[int, Position]:
    """Return where a group stands in each of these sources that it has met."""
    tx.execute(SQL["load"], {"group": group, "source_ids": source_ids})
    return {
        source_id: Position(offset, None if mark is None else to_microseconds(mark), is_idle)
        for source_id, offset, mark, is_idle in tx.fetchall()
    }


class Checkpoint:
    """The offsets of one consumer group that this process last read or wrote.

    Parameters
    ----------
    group : str
        Consumer group.

    Attributes
    ----------
    source_ids : mapping
        Source id of every partition of the topic.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.source_ids: Mapping[int, int] = {}
        self.next_offsets: dict[int, int] = {}

    def load(self, tx: Cursor, first_offsets: Mapping[int, int]) -> dict[int, Position]:
        """Return where partitions stand; one that was never met begins where its log does now."""
        source_ids = {self.source_ids[p]: p for p in first_offsets}
        self._log_if_recreated(tx)
        mine = {"group": self.group, "source_ids": list(source_ids)}
        tx.execute(SQL["begin"], mine | {"first_offsets": list(first_offsets.values())})
        tx.execute(SQL["wake"], mine)
        found = load(tx, self.group, list(source_ids))
        positions = {source_ids[s]: position for s, position in found.items()}
        self.next_offsets |= {p: position.next_offset for p, position in positions.items()}
        return positions

    def _log_if_recreated(self, tx: Cursor) -> None:
        now = list(self.source_ids.values())
        tx.execute(SQL["recreated"], {"group": self.group, "now": now})
        for topic, topic_id in tx.fetchall():
            log.warning("topic_recreated topic=%s topic_id=%s read_from=start", topic, topic_id)

    def stored(self, tx: Cursor) -> dict[int, int]:
        """Return where every partition of the topic stands, whoever reads it."""
        at = load(tx, self.group, list(self.source_ids.values()))
        return {p: at[s].next_offset for p, s in self.source_ids.items() if s in at}

    def lost_messages(self, tx: Cursor) -> int:
        """Return how many messages the service could never read."""
        tx.execute(SQL["lost_messages"], {"group": self.group})
        lost: int = tx.fetchone()[0]
        return lost

    def advance(
        self, tx: Cursor, moves: Mapping[int, Position], end_offsets: Mapping[int, int | None]
    ) -> None:
        """Move the offsets; the last statement before the commit.

        Conditional, so that a process that lost its partitions without knowing (stopped, cut off)
        cannot write; last, so that one stopped in its transaction holds no lock on them.

        Raises
        ------
        StaleCheckpoint
            When a stored offset is not the expected one: the transaction must be rolled back.
        """
        for partition in sorted(moves):  # in one order everywhere, or two processes deadlock
            move, expected = moves[partition], self.next_offsets[partition]
            if move.next_offset < expected:
                raise StaleCheckpoint(
                    f"partition={partition} next_offset={move.next_offset} stored={expected}"
                )
            mark = None if move.watermark_us is None else to_timestamp(move.watermark_us)
            tx.execute(
                SQL["advance"],
                {
                    "next": move.next_offset,
                    "end": end_offsets.get(partition),
                    "watermark": mark,
                    "idle": move.is_idle,
                    "group": self.group,
                    "source": self.source_ids[partition],
                    "expected": expected,
                },
            )
            if tx.rowcount != 1:
                raise StaleCheckpoint(f"partition={partition} expected_next_offset={expected}")
        self.next_offsets |= {p: move.next_offset for p, move in moves.items()}

    def skip(
        self, tx: Cursor, at: Mapping[int, Position], to: Mapping[int, int], reason: str
    ) -> dict[int, Position]:
        """Move offsets past messages that nobody can read any more, and note which they are.

        Parameters
        ----------
        at : mapping
            Where the partitions stand.
        to : mapping
            First offset behind what may be a gap; where a partition is as far, there is none.

        Returns
        -------
        dict
            Where those with a gap stand then.

        Raises
        ------
        StaleCheckpoint
            As ``advance``.
        """
        gaps = {p: first for p, first in to.items() if p in at and at[p].next_offset < first}
        for partition, first_behind in gaps.items():
            source = {"group": self.group, "source": self.source_ids[partition]}
            lost = {"first": at[partition].next_offset, "last": first_behind - 1, "reason": reason}
            tx.execute(SQL["lost"], source | lost)
            log.error(
                "messages_lost partition=%d first_offset=%d last_offset=%d reason=%s",
                *(partition, lost["first"], lost["last"], reason),
            )
        moves = {p: replace(at[p], next_offset=first_behind) for p, first_behind in gaps.items()}
        self.advance(tx, moves, {})
        return moves
