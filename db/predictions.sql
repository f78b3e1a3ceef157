-- The detector's reading: what is to be scored, and what was, to be learnt again.

-- name: stored
-- Each source for itself: joined, the whole table would be read.
SELECT r.* FROM unnest(%(sources)s::int[], %(low)s::bigint[], %(high)s::bigint[])
    AS s (source_id, low, high)
CROSS JOIN LATERAL (
    SELECT id, source_id, log_offset, sensor_id, sensor_type, location, (value * 100)::bigint,
        (extract(epoch FROM timestamp) * 1000000)::bigint, anomaly, ingested_on, unit,
        1000 * date_part('epoch', now() AT TIME ZONE 'UTC' - created_at)
    FROM sensor_readings
    WHERE source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high
        AND ingested_on >= %(since)s
        AND (%(all)s OR detector_shard(sensor_type) = ANY(%(shards)s::int[]))
    ORDER BY log_offset LIMIT %(limit)s
) AS r

-- name: scored
SELECT r.* FROM unnest(%(sources)s::int[], %(low)s::bigint[], %(high)s::bigint[])
    AS s (source_id, low, high)
CROSS JOIN LATERAL (
    SELECT id, source_id, log_offset, sensor_id, sensor_type, location, (value * 100)::bigint,
        (extract(epoch FROM timestamp) * 1000000)::bigint, rule_based_anomaly, ingested_on, '',
        0.0
    FROM ml_anomaly_predictions
    WHERE source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high
        AND ingested_on >= %(since)s
        AND (%(all)s OR detector_shard(sensor_type) = ANY(%(shards)s::int[]))
    ORDER BY log_offset LIMIT %(limit)s
) AS r

-- name: hidden_since
-- A date only narrows what is read. Where fewer messages were found than offsets passed, it may hide
-- some (PostgreSQL's clock was set back), and they are looked for without it.
SELECT min(hidden.ingested_on)
FROM unnest(%(sources)s::int[], %(low)s::bigint[], %(high)s::bigint[]) AS s (source_id, low, high)
CROSS JOIN LATERAL (
    SELECT count(*) AS messages FROM sensor_readings
    WHERE source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high
        AND ingested_on >= %(since)s
) AS found
CROSS JOIN LATERAL (
    SELECT count(*) AS messages FROM dead_letters
    WHERE source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high
) AS rejected
CROSS JOIN LATERAL (
    SELECT ingested_on FROM sensor_readings
    WHERE source_id = s.source_id AND log_offset >= s.low AND log_offset < s.high
        AND ingested_on < %(since)s
) AS hidden
WHERE found.messages + rejected.messages < s.high - s.low

-- name: insert_trainings
INSERT INTO model_runs (sensor_type, fitted_at, training_rows, duration_seconds, threshold,
    flagged_share, drift)
VALUES %s

-- name: verdicts
SELECT partition, log_offset, is_anomaly, rule_based_anomaly FROM ml_anomaly_predictions
JOIN sources USING (source_id)
JOIN unnest(%(partitions)s::int[], %(low)s::bigint[]) AS b (partition, low) USING (partition)
WHERE topic_id = %(topic_id)s AND log_offset >= low AND is_anomaly IS NOT NULL
