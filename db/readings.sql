-- name: rows_ahead
SELECT o.source_id, r.log_offset FROM stream_offsets o CROSS JOIN LATERAL (
    SELECT log_offset FROM sensor_readings r WHERE r.source_id = o.source_id AND r.log_offset >= o.next_offset
    ORDER BY log_offset LIMIT 1
) AS r
WHERE consumer_group = %(group)s AND source_id = ANY(%(source_ids)s)

-- name: note_sensors
INSERT INTO sensors AS s (sensor_id, sensor_type, location, value, timestamp, anomaly, unit)
SELECT DISTINCT ON (location, sensor_type, sensor_id) sensor_id, sensor_type, location, value, timestamp, anomaly, unit FROM (
    SELECT * FROM sensor_readings WHERE ingested_on >= %(since)s ORDER BY timestamp DESC LIMIT %(newest)s
) AS newest
ORDER BY location, sensor_type, sensor_id, timestamp DESC
ON CONFLICT ON CONSTRAINT sensors_pkey DO UPDATE SET value = EXCLUDED.value, timestamp = EXCLUDED.timestamp,
    anomaly = EXCLUDED.anomaly, unit = EXCLUDED.unit,
    updated_at = EXCLUDED.updated_at
WHERE EXCLUDED.timestamp > s.timestamp
