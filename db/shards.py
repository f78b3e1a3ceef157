"""Table detector_shards: sixteen shares of the sensor types, each scored by one detector at a time.

A row is all there is to know of a shard: who works on it, how far it has come, and the state to go
on with. ``version`` is the fence: it moves with every batch and every new owner, so a process that
lost a shard without knowing matches no row, and rolls back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5

from psycopg2.extras import Json, execute_values

from db.connection import Cursor, StaleCheckpoint
from db.statements import statements

SQL = statements(__file__)
SHARDS = 16

# First offset not yet scored, per source_id.
Offsets = dict[int, int]


@dataclass
class Shard:
    """A shard as last read or written.

    Attributes
    ----------
    positions : dict
        How far its readings are scored.
    state, state_positions : bytes or None, dict
        What was learnt, and how far that reaches.
    """

    number: int
    version: int
    positions: Offsets = field(default_factory=dict)
    state: bytes | None = None
    state_positions: Offsets = field(default_factory=dict)

    def follow(self, move: Move) -> None:
        """Note a move that was committed; the state itself is not kept in memory."""
        self.version += 1
        self.positions = move.positions
        if move.state or move.carries_state:
            self.state_positions = move.positions


@dataclass(frozen=True)
class Move:
    """Where a shard is to go.

    Attributes
    ----------
    positions : dict
        As of ``Shard``.
    owner : str or None
        Who works on it from now on.
    state : bytes, optional
        What was learnt up to ``positions``; without it the old one stays.
    carries_state : bool
        Whether the old state stands for the new positions too: no reading lies between.
    """

    positions: Offsets
    owner: str | None
    state: bytes | None = None
    carries_state: bool = False


def shard_of(sensor_type: str) -> int:
    """Return the shard of a sensor type, as the function ``detector_shard`` of the schema does."""
    return md5(sensor_type.encode(), usedforsecurity=False).digest()[0] % SHARDS


def owners(tx: Cursor) -> dict[int, tuple[str | None, int]]:
    """Return owner and version of each shard."""
    tx.execute("SELECT shard, owner, version FROM detector_shards")
    return {shard: (owner, version) for shard, owner, version in tx.fetchall()}


def positions(tx: Cursor) -> dict[int, Offsets]:
    """Return how far each shard is scored."""
    tx.execute("SELECT shard, positions FROM detector_shards")
    return {shard: _offsets(at) for shard, at in tx.fetchall()}


def take(tx: Cursor, owner: str, seen: Mapping[int, int]) -> None:
    """Take shards as far as they still have the versions that were seen."""
    if seen:
        given = {"owner": owner, "shards": list(seen), "versions": list(seen.values())}
        tx.execute(SQL["take"], given)


def leave(tx: Cursor, owner: str) -> None:
    """Give back what was taken, or given by a peer, and never loaded: nothing of it is to save."""
    tx.execute("UPDATE detector_shards SET owner = NULL WHERE owner = %s", (owner,))


def load(tx: Cursor, owner: str, number: int) -> Shard | None:
    """Return a shard with its state, or None if another has taken it meanwhile."""
    tx.execute(SQL["load"], {"owner": owner, "shard": number})
    row = tx.fetchone()
    if row is None:
        return None
    version, at, state, state_at = row
    return Shard(number, version, _offsets(at), state and bytes(state), _offsets(state_at))


def advance(tx: Cursor, moves: Sequence[tuple[Shard, Move]]) -> None:
    """Move shards; the last statement before COMMIT.

    Last, so that a process that sleeps in its transaction holds no lock on them.

    Raises
    ------
    StaleCheckpoint
        When another process has moved one of them: the transaction must be rolled back.
    """
    rows = [
        (
            *(shard.number, shard.version, move.owner, _json(move.positions), move.state),
            _json(move.positions) if move.state or move.carries_state else None,
        )
        for shard, move in moves
    ]
    rows.sort(key=lambda row: row[0])  # in one order everywhere, or two processes deadlock
    execute_values(tx, SQL["advance"], rows, "(%s, %s, %s, %s, %s::bytea, %s)", page_size=SHARDS)
    if tx.rowcount != len(rows):
        raise StaleCheckpoint(f"shards={len(rows)} moved={tx.rowcount}")


def _json(at: Offsets) -> Json:
    return Json({str(source): offset for source, offset in at.items()})


def _offsets(stored: Mapping[str, int]) -> Offsets:
    return {int(source): offset for source, offset in stored.items()}
