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

-- name: abandoned_partials
-- State of a topic that was deleted and created again, once nothing can be added to its windows any more.
DELETE FROM window_partials WHERE (source_id, window_start, location, sensor_type) IN (
    SELECT p.source_id, p.window_start, p.location, p.sensor_type FROM window_partials p
    LEFT JOIN sensor_aggregates a USING (window_start, location, sensor_type)
    WHERE coalesce(a.is_final, true) AND p.source_id IN (
        SELECT source_id FROM sources old WHERE EXISTS (
            SELECT FROM sources s WHERE (s.cluster_id, s.topic) = (old.cluster_id, old.topic)
                AND s.topic_id <> old.topic_id AND s.source_id > old.source_id
        )
    )
    LIMIT %(rows)s
)
