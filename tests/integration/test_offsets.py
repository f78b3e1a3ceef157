import pytest

from db.connection import StaleCheckpoint
from db.offsets import Checkpoint, Position, register_sources

pytestmark = pytest.mark.integration


@pytest.fixture
def sources(database):
    with database.transaction() as tx:
        return register_sources(tx, "cluster", "topic-id", "topic", 3)


def checkpoint(database, sources, partitions=(0, 1, 2), group="g"):
    """Return a checkpoint as a process holds it that has just loaded these partitions."""
    fresh = Checkpoint(group)
    fresh.source_ids = sources
    with database.transaction() as tx:
        fresh.positions = fresh.load(tx, dict.fromkeys(partitions, 0))
    return fresh


def advance(database, checkpoint, **moves):
    with database.transaction() as tx:
        checkpoint.advance(tx, {int(p[1:]): Position(o) for p, o in moves.items()}, {})


def test_sources_of_one_identity_are_registered_once(database, sources):
    with database.transaction() as tx:
        assert register_sources(tx, "cluster", "topic-id", "topic", 3) == sources


def test_a_recreated_topic_has_sources_of_its_own(database, sources):
    with database.transaction() as tx:
        again = register_sources(tx, "cluster", "another-id", "topic", 3)
    assert not set(again.values()) & set(sources.values())


def test_a_recreated_topic_starts_at_its_beginning_with_a_log_line(database, sources, caplog):
    advance(database, checkpoint(database, sources), p0=7)
    with database.transaction() as tx:
        again = register_sources(tx, "cluster", "another-id", "topic", 3)
    fresh = checkpoint(database, again)
    assert fresh.positions == {p: Position(0) for p in range(3)}
    assert "topic_recreated topic=topic" in caplog.text


def test_a_new_topic_is_no_recreated_one(database, sources, caplog):
    checkpoint(database, sources)
    checkpoint(database, sources)
    assert "topic_recreated" not in caplog.text


def test_a_partition_never_read_stands_at_its_beginning(database, sources):
    assert checkpoint(database, sources).positions == {p: Position(0) for p in range(3)}


def test_offsets_and_watermarks_come_back_as_they_were_written(database, sources):
    first = checkpoint(database, sources)
    with database.transaction() as tx:
        first.advance(tx, {1: Position(10, 1_769_860_800_123_456)}, {1: 12})
    assert checkpoint(database, sources).positions[1] == Position(10, 1_769_860_800_123_456)


def test_the_second_of_two_owners_cannot_advance(database, sources):
    first, second = checkpoint(database, sources), checkpoint(database, sources)
    advance(database, first, p0=10)
    with pytest.raises(StaleCheckpoint):
        advance(database, second, p0=8)
    assert checkpoint(database, sources).positions[0] == Position(10)


def test_a_stale_owner_of_one_partition_advances_none_of_its_others(database, sources):
    first, second = checkpoint(database, sources, [0]), checkpoint(database, sources)
    advance(database, first, p0=10)
    with pytest.raises(StaleCheckpoint):
        advance(database, second, p0=10, p1=5)
    assert checkpoint(database, sources).positions[1] == Position(0)


def test_an_offset_set_by_an_operator_makes_the_owner_stale(database, sources, query):
    owner = checkpoint(database, sources)
    advance(database, owner, p0=10)
    query("UPDATE stream_offsets SET next_offset = 3 WHERE source_id = %s", sources[0])
    with pytest.raises(StaleCheckpoint):
        advance(database, owner, p0=20)


def test_an_offset_never_goes_back(database, sources):
    owner = checkpoint(database, sources)
    advance(database, owner, p0=10)
    with pytest.raises(StaleCheckpoint):
        advance(database, owner, p0=9)


def test_an_advance_without_messages_is_allowed(database, sources):
    owner = checkpoint(database, sources)
    advance(database, owner, p0=10)
    advance(database, owner, p0=10)


def test_groups_stand_each_for_itself(database, sources):
    advance(database, checkpoint(database, sources, group="a"), p0=10)
    assert checkpoint(database, sources, group="b").positions[0] == Position(0)
