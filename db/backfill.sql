-- name: choose
-- A page of final windows, in the order of their key, after the last of the page before. In one snapshot with the
-- offsets that consumer and processor both have behind them: what a window counts lies before the processor's.
WITH behind AS MATERIALIZED (
    SELECT source_id, min(next_offset) AS next_offset FROM stream_offsets
    WHERE consumer_group IN ('consumer', 'stream_processor') GROUP BY 1 HAVING count(*) = 2
), final AS MATERIALIZED (
    SELECT window_end FROM sensor_aggregates WHERE is_final ORDER BY window_start DESC LIMIT 1
)
SELECT l.window_start, l.location, l.sensor_type, count(*) AS late, a.count_readings AS counted,
    (SELECT array_agg(source_id ORDER BY source_id) FROM behind) AS sources,
    (SELECT array_agg(next_offset ORDER BY source_id) FROM behind) AS ends
FROM late_readings l
JOIN behind b ON b.source_id = l.source_id AND l.log_offset < b.next_offset
CROSS JOIN kept_readings LEFT JOIN LATERAL (
    SELECT is_final, count_readings FROM sensor_aggregates a
    WHERE (a.window_start, a.location, a.sensor_type) = (l.window_start, l.location, l.sensor_type) LIMIT 1
) AS a ON true
WHERE l.window_start >= coalesce(complete_from, '-infinity')
    AND l.window_start >= coalesce(%(since)s::timestamp, '-infinity')
    AND l.window_start < coalesce(%(until)s::timestamp, 'infinity')
    AND (l.window_start, l.location, l.sensor_type) > (%(start)s::timestamp, %(location)s, %(type)s)
    AND coalesce(a.is_final, l.window_start + %(window)s <= (SELECT window_end FROM final))
GROUP BY l.window_start, l.location, l.sensor_type, a.count_readings ORDER BY 1, 2, 3 LIMIT %(rows)s

-- name: sums
-- Of windows that begin together, in hundredths: whole numbers, so the sums are those of pipeline/windows.py.
SELECT location, sensor_type, count(*), sum(value * 100), sum((value * 100) * (value * 100)), min(value * 100),
    max(value * 100), count(*) FILTER (WHERE anomaly), min(unit) <> max(unit) AS has_mixed_units
FROM sensor_readings r
JOIN unnest(%(sources)s::int[], %(ends)s::bigint[]) AS b (source_id, next_offset)
    ON r.source_id = b.source_id AND r.log_offset < b.next_offset
JOIN unnest(%(locations)s::varchar[], %(types)s::varchar[]) AS k (location, sensor_type) USING (location, sensor_type)
WHERE timestamp >= %(start)s AND timestamp < %(start)s + %(window)s
GROUP BY location, sensor_type

-- name: as_they_are
-- In the statement after the one that locks them; also whether retention has come so far meanwhile.
SELECT a.id, window_start, location, sensor_type, count_readings, is_final, window_start < complete_from AS is_let_go
FROM unnest(%(starts)s::timestamp[], %(locations)s::varchar[], %(types)s::varchar[])
    AS k (window_start, location, sensor_type)
JOIN sensor_aggregates a USING (window_start, location, sensor_type) CROSS JOIN kept_readings

-- name: fold
-- The roll-up gets what has been added, since other windows of its ten minutes may just become final. Correlations are
-- due wherever they look back at one of these windows, a day; what is due already and not being worked at stands for
-- itself.
WITH revised AS (
    UPDATE sensor_aggregates a SET avg_value = mean * 0.01, stddev_value = stddev * 0.01, min_value = low * 0.01,
        max_value = high * 0.01, count_readings = readings, anomaly_count = flagged, has_mixed_units = mixed,
        is_closed = true, is_final = true,
        updated_at = clock_timestamp() AT TIME ZONE 'UTC', revised_at = clock_timestamp() AT TIME ZONE 'UTC'
    FROM unnest(%(id)s::bigint[], %(mean)s::bigint[], %(stddev)s::bigint[], %(low)s::bigint[], %(high)s::bigint[],
        %(readings)s::int[], %(flagged)s::int[], %(mixed)s::boolean[])
        AS v (id, mean, stddev, low, high, readings, flagged, mixed)
    WHERE a.id = v.id RETURNING a.*
), rolled_up AS (
    INSERT INTO window_rollups AS r (window_start, location, sensor_type, readings, total, squares, low, high,
        rule_anomalies, statistical_anomalies, windows)
    SELECT date_bin('10 minutes', n.window_start, '2000-01-01'), n.location, n.sensor_type,
        sum(n.count_readings - b.count_readings),
        sum(n.count_readings * n.avg_value - b.count_readings * b.avg_value),
        sum(n.count_readings * (n.avg_value * n.avg_value + n.stddev_value * n.stddev_value)
            - b.count_readings * (b.avg_value * b.avg_value + b.stddev_value * b.stddev_value)),
        min(n.min_value), max(n.max_value), sum(n.anomaly_count - b.anomaly_count), 0,
        count(*) FILTER (WHERE NOT b.is_final)
    FROM revised n JOIN sensor_aggregates b USING (id) -- as it was before this statement
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT window_rollups_pkey DO UPDATE SET
        readings = r.readings + EXCLUDED.readings, total = r.total + EXCLUDED.total,
        squares = r.squares + EXCLUDED.squares, low = least(r.low, EXCLUDED.low), high = greatest(r.high, EXCLUDED.high),
        rule_anomalies = r.rule_anomalies + EXCLUDED.rule_anomalies, windows = r.windows + EXCLUDED.windows
), spans AS MATERIALIZED (
    SELECT location, unnest(range_agg(tsrange(window_start, window_start + interval '1 day'))) AS span
    FROM revised m
    WHERE (SELECT min(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
        < (SELECT max(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
    GROUP BY location
), known AS MATERIALIZED (
    SELECT d.window_start, d.window_end, d.location FROM correlations_due d
    WHERE EXISTS (SELECT FROM spans WHERE spans.location = d.location AND d.window_start <@ span)
    FOR UPDATE OF d SKIP LOCKED
), due AS (
    INSERT INTO correlations_due (window_start, window_end, location)
    SELECT a.window_start, a.window_end, a.location FROM spans CROSS JOIN LATERAL (
        SELECT id, window_start, window_end, location, is_closed FROM sensor_aggregates a
        WHERE a.window_start >= lower(span) AND a.window_start < upper(span) AND a.location = spans.location OFFSET 0
    ) AS a
    WHERE a.is_closed OR EXISTS (SELECT FROM revised WHERE revised.id = a.id)
    EXCEPT SELECT window_start, window_end, location FROM known
    ORDER BY 1, 3
)
DELETE FROM late_readings l USING revised n, unnest(%(sources)s::int[], %(ends)s::bigint[]) AS b (source_id, next_offset)
WHERE (l.window_start, l.location, l.sensor_type) = (n.window_start, n.location, n.sensor_type)
    AND l.source_id = b.source_id AND l.log_offset < b.next_offset

-- name: left
SELECT count(*) FILTER (WHERE window_start < complete_from), count(*) FROM late_readings CROSS JOIN kept_readings
WHERE window_start >= coalesce(%(since)s::timestamp, '-infinity')
    AND window_start < coalesce(%(until)s::timestamp, 'infinity')
