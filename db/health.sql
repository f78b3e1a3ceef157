-- What the dashboard reads about the pipeline itself.

-- name: services
SELECT service, instance, state, details, started_at,
    extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - updated_at)::float AS age_s
FROM service_status s
WHERE updated_at > clock_timestamp() AT TIME ZONE 'UTC' - interval '10 minutes'
    OR updated_at = (SELECT max(updated_at) FROM service_status WHERE service = s.service)
ORDER BY service, updated_at DESC LIMIT 100

-- name: verdict_latency
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ms) AS p50,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) AS p99
FROM (
    SELECT (1000 * extract(epoch FROM p.created_at - r.created_at))::float AS ms
    FROM (
        SELECT ingested_on, source_id, log_offset, created_at FROM ml_anomaly_predictions
        ORDER BY timestamp DESC LIMIT 500
    ) AS p CROSS JOIN LATERAL (
        SELECT created_at FROM sensor_readings r
        WHERE (r.ingested_on, r.source_id, r.log_offset)
            = (p.ingested_on, p.source_id, p.log_offset)
    ) AS r
) AS newest

-- name: dead_letters
SELECT created_at, partition, log_offset, reason_code, reason, payload_bytes,
    substring(payload FROM 1 FOR 200) AS payload
FROM dead_letters ORDER BY created_at DESC LIMIT %(most)s

-- name: dead_letter_total
SELECT coalesce(sum(kept + counted_only), 0)::float AS rejected,
    coalesce(sum(counted_only), 0)::float AS counted_only
FROM dead_letter_counts

-- name: rejected_since
-- Counted by the hour: those of the hour in which the time lies, too.
SELECT reason_code, sum(kept + counted_only)::float AS messages FROM dead_letter_counts
WHERE hour >= date_trunc('hour', %(since)s::timestamp) GROUP BY 1 ORDER BY 2 DESC LIMIT 20

-- name: lost_messages
-- A row a service; the first few of its gaps, newest first.
SELECT consumer_group, sum(last_offset - first_offset + 1)::float AS messages, max(noticed_at) AS noticed_at,
    (array_agg(first_offset || '..' || last_offset || ' of partition ' || partition ORDER BY noticed_at DESC))[:3] AS offsets,
    min(reason) AS reason
FROM lost_messages JOIN sources USING (source_id) GROUP BY 1 ORDER BY 1

-- name: late_to_fold
SELECT count(*)::int AS readings FROM (
    SELECT FROM late_readings CROSS JOIN kept_readings
    WHERE window_start >= coalesce(complete_from, '-infinity') LIMIT 100000
) AS waiting

-- name: offsets
SELECT consumer_group, identity, topic, partition, next_offset, end_offset,
    end_offset - next_offset AS lag, watermark, o.updated_at
FROM stream_offsets o JOIN sources USING (source_id) CROSS JOIN database_identity
ORDER BY o.updated_at > clock_timestamp() AT TIME ZONE 'UTC' - interval '1 hour' DESC,
    consumer_group, topic, partition
LIMIT 1000

-- name: table_sizes
SELECT coalesce(pg_partition_root(relid), relid)::regclass::text AS table_name,
    sum(greatest(n_live_tup, 0))::float AS rows,
    sum(pg_total_relation_size(relid))::float AS bytes
FROM pg_stat_user_tables GROUP BY 1 ORDER BY bytes DESC LIMIT 100
