-- name: half_detached
SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %(table)s::regclass AND inhdetachpending

-- name: detached
SELECT c.oid::regclass::text FROM pg_class c
WHERE relkind = 'r' AND NOT relispartition
    AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %(table)s::regclass)
    AND starts_with(relname, %(table)s || '_') AND obj_description(oid, 'pg_class') = %(comment)s

-- name: delete
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE {column} < %(limit)s LIMIT %(rows)s FOR UPDATE SKIP LOCKED))

-- name: delete_windows
-- One that may still change stays.
DELETE FROM sensor_aggregates WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM sensor_aggregates WHERE window_start < %(limit)s AND is_final
    LIMIT %(rows)s FOR UPDATE SKIP LOCKED))

-- name: unscored
-- Only what lies behind the least of the shards is looked at.
WITH at AS (
    SELECT shard, source_id, coalesce((positions ->> source_id::text)::bigint, 0) AS next_offset
    FROM detector_shards CROSS JOIN sources
), least AS (
    SELECT source_id, min(next_offset) AS next_offset FROM at GROUP BY source_id
)
SELECT count(*) FROM least CROSS JOIN LATERAL (
    SELECT r.log_offset, detector_shard(r.sensor_type) AS shard FROM {partition} r
    WHERE r.source_id = least.source_id AND r.log_offset >= least.next_offset OFFSET 0
) AS stored
JOIN at USING (source_id, shard) WHERE stored.log_offset >= at.next_offset

-- name: spent_partials
-- What no processor holds in memory and nothing can need: state of a topic that was deleted and created again, and of
-- groups long silent. Baselines reach 7 days back, from a window of at most a day that is late by 7 days at most.
DELETE FROM window_partials WHERE (location, sensor_type, window_start, source_id) IN (
    SELECT p.location, p.sensor_type, p.window_start, p.source_id FROM window_partials p
    LEFT JOIN stream_offsets o ON o.consumer_group = 'stream_processor' AND o.source_id = p.source_id
    WHERE (p.window_start < o.watermark - interval '15 days' OR p.source_id IN (
            SELECT source_id FROM sources old WHERE EXISTS (
                SELECT FROM sources s WHERE (s.cluster_id, s.topic) = (old.cluster_id, old.topic)
                    AND s.topic_id <> old.topic_id AND s.source_id > old.source_id
            )
        )) AND NOT EXISTS (
            SELECT FROM sensor_aggregates a WHERE a.window_start = p.window_start AND a.location = p.location
                AND a.sensor_type = p.sensor_type AND NOT a.is_final
        )
    LIMIT %(rows)s FOR UPDATE OF p SKIP LOCKED
)
