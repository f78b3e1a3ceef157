-- name: register_sources
INSERT INTO sources (cluster_id, topic_id, topic, partition)
SELECT %(cluster_id)s, %(topic_id)s, %(topic)s, partition FROM generate_series(0, %(partitions)s - 1) AS partition
ON CONFLICT ON CONSTRAINT sources_identity DO NOTHING

-- name: sources
SELECT partition, source_id FROM sources WHERE cluster_id = %(cluster_id)s AND topic_id = %(topic_id)s

-- name: begin
INSERT INTO stream_offsets (consumer_group, source_id, next_offset)
SELECT %(group)s, source_id, first_offset
FROM unnest(%(source_ids)s::int[], %(first_offsets)s::bigint[]) AS met (source_id, first_offset) ORDER BY source_id
ON CONFLICT DO NOTHING

-- name: wake
-- Whoever reads a partition from now on has not seen it silent yet.
UPDATE stream_offsets SET is_idle = false
WHERE consumer_group = %(group)s AND source_id = ANY(%(source_ids)s::int[]) AND is_idle

-- name: load
SELECT source_id, next_offset, watermark, is_idle FROM stream_offsets
WHERE consumer_group = %(group)s AND source_id = ANY(%(source_ids)s::int[])

-- name: recreated
-- The topic had another identity when this group read it, and the group has read nothing of this one yet.
SELECT DISTINCT s.topic, s.topic_id FROM sources s
JOIN sources old USING (topic)
JOIN stream_offsets o ON o.source_id = old.source_id AND o.consumer_group = %(group)s
WHERE s.source_id = ANY(%(now)s) AND NOT old.source_id = ANY(%(now)s)
    AND NOT EXISTS (SELECT FROM stream_offsets WHERE consumer_group = %(group)s AND source_id = ANY(%(now)s))

-- name: advance
UPDATE stream_offsets SET next_offset = %(next)s, end_offset = greatest(%(end)s, %(next)s), watermark = %(watermark)s,
    is_idle = %(idle)s, updated_at = clock_timestamp() AT TIME ZONE 'UTC'
WHERE consumer_group = %(group)s AND source_id = %(source)s AND next_offset = %(expected)s

-- name: lost
INSERT INTO lost_messages (consumer_group, source_id, first_offset, last_offset, reason)
VALUES (%(group)s, %(source)s, %(first)s, %(last)s, %(reason)s)

-- name: lost_messages
SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint FROM lost_messages WHERE consumer_group = %(group)s
