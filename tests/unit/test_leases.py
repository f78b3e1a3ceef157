"""Who is taken for dead, and who gets which shard: by what counters did, never by a date."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.leases import DEAD_AFTER_SECONDS, MAX_LOOK_SECONDS, Observer
from service.sharing import share_out

OWNERS = st.lists(st.sampled_from("abcde"), unique=True, min_size=1)
GAPS = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30)


def looks(observer, counters, gaps, start_s=0.0):
    """Let time pass between looks at counters that stand still."""
    for gap_s in gaps:
        start_s += gap_s
        observer.look(counters, start_s)
    return start_s


def test_an_owner_seen_unmoved_for_eight_seconds_is_dead():
    observer = Observer()
    observer.look({"a": 5}, 100.0)
    observer.look({"a": 6}, 102.0)
    looks(observer, {"a": 6}, [0.5] * 15, 102.0)
    assert observer.alive == {"a"}
    observer.look({"a": 6}, 110.0)
    assert observer.alive == frozenset()


@given(st.lists(st.floats(0.01, 1e9), min_size=1, max_size=3), st.floats(-1e6, 1e6))
def test_fewer_than_four_looks_never_make_a_death_however_long_the_observer_slept(gaps, start_s):
    observer = Observer()
    observer.look({"a": 1}, start_s)
    looks(observer, {"a": 1}, gaps, start_s)
    assert observer.alive == {"a"}


@given(st.lists(st.tuples(st.floats(0.01, 1e5), st.booleans()), min_size=1, max_size=40))
def test_who_moves_between_any_four_looks_lives(steps):
    observer, counter, now_s, unmoved = Observer(), 0, 0.0, 0
    for gap_s, moves in steps:
        unmoved = 0 if moves or unmoved == 3 else unmoved + 1
        counter += unmoved == 0
        now_s += gap_s
        observer.look({"a": counter}, now_s)
        assert observer.alive == {"a"}


@given(GAPS)
def test_who_stands_still_is_dead_when_the_looks_add_up_to_eight_seconds(gaps):
    observer = Observer()
    observer.look({"a": 1}, 0.0)
    looks(observer, {"a": 1}, gaps)
    counted_s = sum(min(gap_s, MAX_LOOK_SECONDS) for gap_s in gaps)
    if abs(counted_s - DEAD_AFTER_SECONDS) > 0.01:
        assert ("a" not in observer.alive) == (counted_s > DEAD_AFTER_SECONDS)


@given(GAPS, st.integers(-5, 5).filter(bool))
def test_a_counter_that_was_set_back_has_moved_too(gaps, change):
    observer = Observer()
    observer.look({"a": 1}, 0.0)
    now_s = looks(observer, {"a": 1}, gaps)
    observer.look({"a": 1 + change}, now_s + 1)
    assert observer.alive == observer.moving == {"a"}


def test_a_newcomer_counts_once_it_has_moved_and_one_that_was_dead_before_never_does():
    observer = Observer()
    observer.look({"dead": 7}, 0.0)
    observer.look({"dead": 7, "new": 0}, 1.0)
    assert observer.alive == {"dead", "new"} and observer.moving == frozenset()
    observer.look({"dead": 7, "new": 1}, 2.0)
    assert observer.moving == {"new"}
    looks(observer, {"new": 1}, [2.0] * 4, 2.0)
    assert observer.moving == observer.alive == frozenset()


SHARDS = st.lists(st.sampled_from([None, *"abcde"]), min_size=16, max_size=16)


@given(SHARDS, OWNERS)
def test_every_shard_of_nobody_and_of_the_dead_is_taken_and_no_other(owners, alive):
    free, _ = share_out(dict(enumerate(owners)), alive[0], alive, alive)
    assert free == [shard for shard, owner in enumerate(owners) if owner not in alive]


@given(SHARDS, OWNERS, st.integers())
def test_whatever_the_beginning_all_come_to_equal_shares_and_rest_there(owners, alive, seed):
    """Each step is made by one of them, in any order, and none ever gives to itself or the dead."""
    shards, chance, history = dict(enumerate(owners)), random.Random(seed), []
    for _ in range(20 * len(alive)):
        me = chance.choice(alive)
        free, gifts = share_out(shards, me, alive, alive)
        assert all(shards[shard] == me and to in alive and to != me for shard, to in gifts.items())
        shards |= dict.fromkeys(free, me) | gifts
        history.append(dict(shards))
    counts = [list(shards.values()).count(member) for member in alive]
    assert max(counts) - min(counts) <= 1 and sum(counts) == 16
    assert all(a == b for a, b in pairwise(history[-3:]))


@given(OWNERS)
def test_one_whose_counter_was_never_seen_to_move_gets_nothing(alive):
    shards = dict.fromkeys(range(16), alive[0])
    assert share_out(shards, alive[0], alive, moving=[]) == ([], {})
