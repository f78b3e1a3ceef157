"""How detectors share the shards of the sensor types; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def share_out(
    owners: Mapping[int, str | None], me: str, alive: Collection[str], moving: Collection[str]
) -> tuple[list[int], dict[int, str]]:
    """Return which shards to take, and which of mine to hand to whom.

    A shard whose owner is dead is taken whatever one's share: better too much work than work that
    nobody does. What is too much goes straight to one who has too little, so none lies idle.

    Parameters
    ----------
    owners : mapping
        Owner of each shard.
    alive, moving : collection of str
        Owners not known to be dead; owners whose counters were seen to move, who get a share.
    """
    free = [shard for shard, o in owners.items() if o is None or (o != me and o not in alive)]
    members = sorted({me, *moving})
    least, odd = divmod(len(owners), len(members))
    room = {member: least + (place < odd) for place, member in enumerate(members)}
    mine = []
    for shard, owner in sorted(owners.items()):
        if owner in room:
            room[owner] -= 1
        if owner == me:
            mine.append(shard)
    gifts: dict[int, str] = {}
    while mine and room[me] + len(gifts) < 0:
        poorest = max(members, key=room.__getitem__)
        if room[poorest] <= 0:
            break
        room[poorest] -= 1
        gifts[mine.pop()] = poorest
    return free, gifts
