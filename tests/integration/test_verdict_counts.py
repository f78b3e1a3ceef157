"""Verdicts are counted with the predictions, each once."""

import numpy as np
import pytest

from db import verdict_counts

pytestmark = pytest.mark.integration


def test_counts_add_up_over_batches_and_kinds(database):
    known = np.array([True, True, True, True, False])
    flagged = np.array([False, False, True, True, True])
    rule = np.array([False, True, False, True, True])
    outcomes = verdict_counts.outcomes(known, flagged, rule)
    assert [verdict_counts.OUTCOMES[k] for k in outcomes] == list(verdict_counts.OUTCOMES)
    times = np.full(5, 1_700_000_000_000_000)
    for _ in range(2):
        with database.transaction() as tx:
            counts = verdict_counts.to_pages(times, ["Lab"] * 5, ["co2"] * 5, outcomes)
            verdict_counts.add(tx, counts)
    with database.transaction() as tx:
        tx.execute(
            "SELECT neither, rule_only, ml_only, both_flag, without_verdict FROM verdict_counts"
        )
        assert tx.fetchall() == [(2, 2, 2, 2, 2)]


def test_counts_are_kept_per_minute_place_and_type(database):
    minutes = np.array([3, 1, 3, 3, 1]) * 60_000_000
    places, types = ["B", "A", "B", "A", "A"], ["co2", "co2", "co2", "co2", "power"]
    with database.transaction() as tx:
        counts = verdict_counts.to_pages(minutes, places, types, np.array([0, 4, 0, 2, 1]))
        verdict_counts.add(tx, counts)
        tx.execute(
            "SELECT extract(minute FROM minute)::int, location, sensor_type, neither, rule_only,"
            " ml_only, both_flag, without_verdict FROM verdict_counts ORDER BY 1, 2, 3"
        )
        assert tx.fetchall() == [
            (1, "A", "co2", 0, 0, 0, 0, 1),
            (1, "A", "power", 0, 1, 0, 0, 0),
            (3, "A", "co2", 0, 0, 1, 0, 0),
            (3, "B", "co2", 2, 0, 0, 0, 0),
        ]
