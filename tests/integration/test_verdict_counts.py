"""Verdicts are counted with the predictions, each once, and older databases catch up."""

import numpy as np
import pytest

from db import schema, verdict_counts
from db.connection import Database

pytestmark = pytest.mark.integration

PREDICTIONS = """
INSERT INTO ml_anomaly_predictions (sensor_id, sensor_type, location, value, timestamp, is_anomaly,
 anomaly_score, rule_based_anomaly, source_id, log_offset) VALUES
 ('s', 'co2', 'Lab', 1, '2026-01-01 10:00:59', NULL, NULL, false, 1, 0),
 ('s', 'co2', 'Lab', 1, '2026-01-01 10:01:00', true, -0.6, true, 1, 1),
 ('s', 'co2', 'Lab', 1, '2026-01-01 10:01:59', true, -0.6, false, 1, 2),
 ('s', 'co2', 'Lab', 1, '2026-01-01 10:01:59', false, -0.4, true, 1, 3),
 ('s', 'co2', 'Lab', 1, '2026-01-01 10:01:59', false, -0.4, false, 1, 4)
"""


def test_a_database_of_version_1_gets_the_counts_of_what_it_holds(database_url, query):
    query("DROP TABLE verdict_counts, merged_verdicts")
    query("UPDATE schema_version SET version = 1")
    query(PREDICTIONS)
    with Database(database_url, "test") as database:
        schema.apply_schema(database)
    counts = "SELECT neither, rule_only, ml_only, both_flag, without_verdict FROM verdict_counts"
    assert query(f"{counts} ORDER BY minute") == [(0, 0, 0, 0, 1), (1, 1, 1, 1, 0)]
    merged = counts.replace("verdict_counts", "merged_verdicts")
    assert query(merged) == [(1, 1, 1, 1, 1)]
    for table in ("verdict_counts", "merged_verdicts"):
        granted = "SELECT has_table_privilege('iot_dashboard', %s, 'SELECT')"
        assert query(granted, table) == [(True,)]


def test_counts_add_up_over_batches_and_kinds(database):
    known = np.array([True, True, True, True, False])
    flagged = np.array([False, False, True, True, True])
    rule = np.array([False, True, False, True, True])
    kinds = verdict_counts.kinds(known, flagged, rule)
    assert [verdict_counts.KINDS[k] for k in kinds] == list(verdict_counts.KINDS)
    times = np.full(5, 1_700_000_000_000_000)
    for _ in range(2):
        with database.transaction() as tx:
            verdict_counts.add(tx, times, ["Lab"] * 5, ["co2"] * 5, kinds)
    with database.transaction() as tx:
        tx.execute(
            "SELECT neither, rule_only, ml_only, both_flag, without_verdict FROM verdict_counts"
        )
        assert tx.fetchall() == [(2, 2, 2, 2, 2)]


def test_counts_are_kept_per_minute_place_and_type(database):
    minutes = np.array([3, 1, 3, 3, 1]) * 60_000_000
    places, types = ["B", "A", "B", "A", "A"], ["co2", "co2", "co2", "co2", "power"]
    with database.transaction() as tx:
        verdict_counts.add(tx, minutes, places, types, np.array([0, 4, 0, 2, 1]))
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
