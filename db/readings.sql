-- name: rows_ahead
SELECT o.source_id, r.log_offset FROM stream_offsets o CROSS JOIN LATERAL (
    SELECT log_offset FROM sensor_readings r WHERE r.source_id = o.source_id AND r.log_offset >= o.next_offset
    ORDER BY log_offset LIMIT 1
) AS r
WHERE consumer_group = %(group)s AND source_id = ANY(%(source_ids)s)

-- name: unnoted
-- The partition furthest behind.
SELECT source_id, coalesce(n.next_offset, 0) AS first, o.next_offset AS stored
FROM stream_offsets o LEFT JOIN noted_offsets n USING (source_id)
WHERE consumer_group = 'consumer' AND o.next_offset > coalesce(n.next_offset, 0)
ORDER BY o.next_offset - coalesce(n.next_offset, 0) DESC LIMIT 1

-- name: page_end
SELECT log_offset FROM sensor_readings
WHERE source_id = %(source)s AND log_offset >= %(first)s AND log_offset < %(stored)s
ORDER BY log_offset LIMIT 1 OFFSET %(rows)s

-- name: note_sensors
INSERT INTO sensors AS s (sensor_id, sensor_type, location, value, timestamp, anomaly, unit, interval_seconds)
SELECT DISTINCT ON (location, sensor_type, sensor_id) sensor_id, sensor_type, location, value, timestamp, anomaly, unit,
    extract(epoch FROM timestamp - min(timestamp) OVER series) / nullif(count(*) OVER series - 1, 0)
FROM sensor_readings
WHERE source_id = %(source)s AND log_offset >= %(first)s AND log_offset < %(end)s
WINDOW series AS (PARTITION BY location, sensor_type, sensor_id)
ORDER BY location, sensor_type, sensor_id, timestamp DESC
ON CONFLICT ON CONSTRAINT sensors_pkey DO UPDATE SET value = EXCLUDED.value, timestamp = EXCLUDED.timestamp,
    anomaly = EXCLUDED.anomaly, unit = EXCLUDED.unit,
    -- Followed slowly, and by at most three times itself: one silence is no new habit.
    interval_seconds = coalesce(0.7 * s.interval_seconds, 0) + CASE WHEN s.interval_seconds IS NULL THEN 1 ELSE 0.3 END
        * least(3 * s.interval_seconds,
            coalesce(EXCLUDED.interval_seconds, extract(epoch FROM EXCLUDED.timestamp - s.timestamp))),
    updated_at = EXCLUDED.updated_at
WHERE EXCLUDED.timestamp > s.timestamp

-- name: noted
INSERT INTO noted_offsets AS n (source_id, next_offset) VALUES (%(source)s, %(end)s)
ON CONFLICT (source_id) DO UPDATE SET next_offset = EXCLUDED.next_offset WHERE n.next_offset < EXCLUDED.next_offset

