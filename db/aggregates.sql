-- name: lock_rows
-- Locks a row of each window in the order given, which is the same everywhere, or two processors deadlock. A row that
-- is not there yet is made, and stands for nothing until it is written. The update never happens: to conflict is to lock.
INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type,
    avg_value, min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies)
SELECT window_start, window_start + %(window)s, location, sensor_type, 0, 0, 0, 0, 0, 0, 0
FROM unnest(%(starts)s::timestamp[], %(locations)s::varchar[], %(types)s::varchar[])
    WITH ORDINALITY AS k (window_start, location, sensor_type, place)
ORDER BY place
ON CONFLICT ON CONSTRAINT sensor_aggregates_window DO UPDATE SET is_final = true WHERE false

-- name: sum_partials
-- A statement after the one that locks, so it sees what was committed while that one waited.
SELECT a.id, a.window_start, a.location, a.sensor_type, a.is_final, sum(readings), sum(sum_hundredths),
    sum(sum_squares), min(min_hundredths), max(max_hundredths), sum(anomalies), sum(p.statistical_anomalies),
    bool_or(first_unit <> last_unit) OR min(first_unit) <> max(first_unit) AS has_mixed_units
FROM unnest(%(starts)s::timestamp[], %(locations)s::varchar[], %(types)s::varchar[])
    AS k (window_start, location, sensor_type)
JOIN sensor_aggregates a USING (window_start, location, sensor_type)
JOIN window_partials p USING (window_start, location, sensor_type)
GROUP BY a.id

-- name: write_rows
UPDATE sensor_aggregates a SET avg_value = mean * 0.01, stddev_value = stddev * 0.01,
    min_value = low * 0.01, max_value = high * 0.01, count_readings = readings, anomaly_count = flagged,
    statistical_anomalies = unusual, has_mixed_units = mixed, updated_at = clock_timestamp() AT TIME ZONE 'UTC'
FROM unnest(%(id)s::bigint[], %(mean)s::bigint[], %(stddev)s::bigint[], %(low)s::bigint[], %(high)s::bigint[],
    %(readings)s::int[], %(flagged)s::int[], %(unusual)s::int[], %(mixed)s::boolean[])
    AS v (id, mean, stddev, low, high, readings, flagged, unusual, mixed)
WHERE a.id = v.id

-- name: close
-- Rows that are being refined are left for the next time: waiting for them could deadlock. A place with two types
-- is due to be correlated (db/correlations.py).
WITH passed AS (
    SELECT id FROM sensor_aggregates WHERE NOT is_final AND NOT is_closed AND window_end <= %(until)s
    ORDER BY window_end LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), closed AS (
    UPDATE sensor_aggregates a SET is_closed = true FROM passed WHERE a.id = passed.id
    RETURNING a.window_start, a.window_end, a.location
), due AS (
    INSERT INTO correlations_due (window_start, window_end, location)
    SELECT DISTINCT window_start, window_end, location FROM closed m
    WHERE (SELECT min(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
        < (SELECT max(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
)
SELECT count(*) FROM closed

-- name: finalize
-- A window becomes final once, so here is where it is rolled up; in the order of the key, as two processors may do it.
WITH passed AS (
    SELECT id FROM sensor_aggregates WHERE NOT is_final AND window_end <= %(until)s
    ORDER BY window_end LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), final AS (
    UPDATE sensor_aggregates a SET is_closed = true, is_final = true FROM passed WHERE a.id = passed.id RETURNING a.*
), rolled_up AS (
    INSERT INTO window_rollups AS r (window_start, location, sensor_type, readings, total, squares, low, high,
        rule_anomalies, statistical_anomalies, windows)
    SELECT date_bin('10 minutes', window_start, '2000-01-01'), location, sensor_type, sum(count_readings),
        sum(count_readings * avg_value), sum(count_readings * (avg_value * avg_value + stddev_value * stddev_value)),
        min(min_value), max(max_value), sum(anomaly_count), sum(statistical_anomalies), count(*)
    FROM final GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT window_rollups_pkey DO UPDATE SET
        readings = r.readings + EXCLUDED.readings, total = r.total + EXCLUDED.total,
        squares = r.squares + EXCLUDED.squares, low = least(r.low, EXCLUDED.low), high = greatest(r.high, EXCLUDED.high),
        rule_anomalies = r.rule_anomalies + EXCLUDED.rule_anomalies,
        statistical_anomalies = r.statistical_anomalies + EXCLUDED.statistical_anomalies,
        windows = r.windows + EXCLUDED.windows
), due AS (
    INSERT INTO correlations_due (window_start, window_end, location)
    SELECT DISTINCT window_start, window_end, location FROM final m
    WHERE (SELECT min(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
        < (SELECT max(sensor_type) FROM sensor_aggregates a WHERE a.location = m.location)
)
SELECT count(*) FROM final

-- name: oldest_open
SELECT min(window_end) FROM sensor_aggregates WHERE NOT is_final
