"""What the dashboard reads about the pipeline itself: bounded SELECTs; nothing large is counted.

Each returns rows as dictionaries. Times are naive datetimes in UTC, as in the tables.
"""

from __future__ import annotations

from db.connection import Database
from db.selecting import Rows, fetch


def services(database: Database) -> Rows:
    """Return the newest heartbeat of each process of the last ten minutes, or a service's last."""
    return fetch(
        database,
        "SELECT service, instance, state, details, started_at,"
        " extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - updated_at)::float AS age_s"
        " FROM service_status s WHERE updated_at > clock_timestamp() AT TIME ZONE 'UTC'"
        " - interval '10 minutes' OR updated_at = (SELECT max(updated_at) FROM service_status"
        " WHERE service = s.service) ORDER BY service, updated_at DESC LIMIT 100",
    )


def verdict_latency(database: Database) -> Rows:
    """Return how long after their storing the newest 500 readings were judged, milliseconds."""
    return fetch(
        database,
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms) AS p50,"
        " percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) AS p99 FROM (SELECT"
        " (1000 * extract(epoch FROM p.created_at - r.created_at))::float AS ms"
        " FROM (SELECT ingested_on, source_id, log_offset, created_at FROM ml_anomaly_predictions"
        " ORDER BY timestamp DESC LIMIT 500) AS p CROSS JOIN LATERAL ("
        "SELECT created_at FROM sensor_readings r WHERE r.ingested_on = p.ingested_on"
        " AND r.source_id = p.source_id AND r.log_offset = p.log_offset) AS r) AS newest",
    )


def dead_letters(database: Database) -> Rows:
    """Return the newest dead letters."""
    return fetch(
        database,
        "SELECT created_at, partition, log_offset, reason_code, reason, payload_bytes,"
        " substring(payload FROM 1 FOR 200) AS payload"
        " FROM dead_letters ORDER BY created_at DESC LIMIT 100",
    )


def dead_letter_total(database: Database) -> Rows:
    """Return how many messages were rejected, and how many of them only counted."""
    return fetch(
        database,
        "SELECT coalesce(sum(kept + counted_only), 0)::float AS rejected,"
        " coalesce(sum(counted_only), 0)::float AS counted_only FROM dead_letter_counts",
    )


def offsets(database: Database) -> Rows:
    """Return where each service stands in each partition."""
    return fetch(
        database,
        "SELECT consumer_group, topic, partition, next_offset, end_offset,"
        " end_offset - next_offset AS lag, watermark, o.updated_at"
        " FROM stream_offsets o JOIN sources USING (source_id)"
        " ORDER BY o.updated_at > clock_timestamp() AT TIME ZONE 'UTC' - interval '1 hour' DESC,"
        " consumer_group, topic, partition LIMIT 200",
    )


def database_size(database: Database) -> Rows:
    """Return the size of the database in bytes."""
    return fetch(database, "SELECT pg_database_size(current_database())::float AS bytes")


def table_sizes(database: Database) -> Rows:
    """Return estimated rows and size of each table, all partitions in one; nothing is counted."""
    return fetch(
        database,
        "SELECT coalesce(pg_partition_root(relid), relid)::regclass::text AS table_name,"
        " sum(greatest(n_live_tup, 0))::float AS rows,"
        " sum(pg_total_relation_size(relid))::float AS bytes FROM pg_stat_user_tables"
        " GROUP BY 1 ORDER BY bytes DESC LIMIT 40",
    )
