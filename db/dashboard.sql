-- What the dashboard reads about readings, windows and verdicts. A range is [start, end) of event
-- time; ``since`` is a date before which no reading of it was stored, so that days are skipped.

-- name: newest_reading
SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now, timestamp, created_at
FROM (SELECT) AS one_row LEFT JOIN (
    SELECT timestamp, created_at FROM sensor_readings ORDER BY timestamp DESC LIMIT 1
) AS newest ON true

-- name: choices
-- The readings for those of other programs, which are in no window.
SELECT DISTINCT location, sensor_type FROM (
    (SELECT location, sensor_type FROM sensor_aggregates ORDER BY window_start DESC LIMIT 5000)
    UNION ALL (SELECT location, sensor_type FROM sensor_readings ORDER BY timestamp DESC LIMIT 1000)
) AS newest

-- name: totals
SELECT window_start >= %(start)s AS is_current, sum(readings)::float AS readings,
    min(window_start) AS first_window
FROM windows_between_v1(%(before)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
GROUP BY is_current

-- name: ml_totals
SELECT minute >= %(start)s AS is_current, sum(ml_only + both_flag)::float AS anomalies
FROM verdicts_between_v1(%(before)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
GROUP BY is_current

-- name: latest_readings
-- One row per location and type: its newest sensor, which one that has fallen silent may be too.
WITH newest_first AS (
    SELECT *, row_number() OVER (
        PARTITION BY location, sensor_type, sensor_id ORDER BY timestamp DESC
    ) AS back
    FROM (
        SELECT sensor_id, sensor_type, location, unit, value, timestamp, anomaly
        FROM sensor_readings WHERE ingested_on >= %(since)s AND timestamp < %(end)s
        ORDER BY timestamp DESC LIMIT %(newest)s
    ) AS newest
), recent AS (
    SELECT location, sensor_type, sensor_id, min(unit) AS unit, max(timestamp) AS timestamp,
        array_agg(value::float ORDER BY timestamp) AS recent,
        bool_or(anomaly) FILTER (WHERE back = 1) AS anomaly
    FROM newest_first WHERE back <= 30 GROUP BY 1, 2, 3
), known AS (
    SELECT * FROM recent
    UNION ALL SELECT location, sensor_type, sensor_id, unit, timestamp, ARRAY[value::float], anomaly
    FROM sensors s WHERE timestamp < %(end)s AND NOT EXISTS (
        SELECT FROM recent r WHERE (r.location, r.sensor_type, r.sensor_id)
            = (s.location, s.sensor_type, s.sensor_id)
    )
), judged AS (
    SELECT known.*, known.timestamp >= %(now)s::timestamp
        - make_interval(secs => greatest(60, 3 * coalesce(interval_seconds, 0))) AS is_active
    FROM known LEFT JOIN sensors USING (location, sensor_type, sensor_id)
)
SELECT DISTINCT ON (location, sensor_type) *, count(*) OVER place AS sensors,
    count(*) FILTER (WHERE is_active) OVER place AS active
FROM judged
WHERE (%(location)s::text IS NULL OR location = %(location)s)
    AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
WINDOW place AS (PARTITION BY location, sensor_type)
ORDER BY location, sensor_type, timestamp DESC
LIMIT 5000

-- name: units
SELECT DISTINCT sensor_type, unit FROM (
    (SELECT sensor_type, unit FROM sensors ORDER BY sensor_id LIMIT 1000)
    UNION ALL (SELECT sensor_type, unit FROM sensor_readings ORDER BY timestamp DESC LIMIT 1000)
) AS last
LIMIT 1000

-- name: series
SELECT sensor_type, location,
    date_bin(make_interval(secs => %(step)s), timestamp, '2000-01-01') AS time,
    avg(value::float8) AS mean
FROM sensor_readings
WHERE ingested_on >= %(since)s AND timestamp >= %(start)s AND timestamp < %(end)s
    AND (%(location)s::text IS NULL OR location = %(location)s)
    AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- name: window_series
-- A step that is not over stands at its newest window: the newest minutes are not missing.
SELECT sensor_type, location, CASE WHEN step + make_interval(secs => %(step)s) > %(end)s
    THEN max(window_start) ELSE step END AS time, (sum(total) / sum(readings))::float AS mean
FROM (
    SELECT *, date_bin(make_interval(secs => %(step)s), window_start, '2000-01-01') AS step
    FROM windows_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
) AS stepped
GROUP BY sensor_type, location, step ORDER BY 1, 2, 3

-- name: anomalies
SELECT timestamp, sensor_id, sensor_type, location, value::float AS value,
    anomaly_score::float AS score, rule_based_anomaly, reason
FROM ml_anomaly_predictions
WHERE is_anomaly AND ingested_on >= %(since)s AND timestamp >= %(start)s AND timestamp < %(end)s
    AND (%(location)s::text IS NULL OR location = %(location)s)
    AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
ORDER BY timestamp DESC LIMIT %(most)s

-- name: anomaly_marks
-- Evenly over the range: the newest few of each step, so that no step is empty that had some.
SELECT marks.* FROM generate_series(
    %(start)s::timestamp, %(end)s::timestamp, make_interval(secs => %(step)s)
) AS step CROSS JOIN LATERAL (
    SELECT timestamp, sensor_id, sensor_type, location, value::float AS value, reason
    FROM ml_anomaly_predictions
    WHERE is_anomaly AND ingested_on >= %(since)s
        AND timestamp >= step AND timestamp < step + make_interval(secs => %(step)s)
        AND timestamp < %(end)s
        AND (%(location)s::text IS NULL OR location = %(location)s)
        AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
    ORDER BY timestamp DESC LIMIT %(most)s
) AS marks

-- name: verdicts_by_place
SELECT location, sensor_type, sum(ml_only + both_flag)::int AS anomalies,
    sum(neither + rule_only + ml_only + both_flag)::int AS judged
FROM verdicts_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000

-- name: windows
-- Of several places together stddev is what readings of one place differ by: what places differ by is no noise.
SELECT sensor_type, CASE WHEN step + make_interval(secs => %(step)s) > %(end)s
    THEN max(window_start) ELSE step END AS time,
    sum(readings)::bigint AS readings, (sum(total) / sum(readings))::float AS mean,
    sqrt(greatest(0, sum(squares - total * total / readings) / sum(readings)))::float AS stddev,
    min(low)::float AS low, max(high)::float AS high, sum(rule_anomalies)::int AS rule_anomalies,
    sum(statistical_anomalies)::int AS statistical_anomalies, bool_and(is_closed) AS is_closed,
    sum(windows)::int AS windows
FROM (
    SELECT date_bin(make_interval(secs => %(step)s), window_start, '2000-01-01') AS step, sensor_type,
        max(window_start) AS window_start, sum(readings) AS readings, sum(total) AS total, sum(squares) AS squares,
        min(low) AS low, max(high) AS high, sum(rule_anomalies) AS rule_anomalies,
        sum(statistical_anomalies) AS statistical_anomalies, bool_and(is_closed) AS is_closed, sum(windows) AS windows
    FROM windows_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s) GROUP BY 1, 2, location
) AS of_places
GROUP BY sensor_type, step ORDER BY 1, 2

-- name: window_table
SELECT window_start, location, sensor_type, avg_value::float AS mean,
    stddev_value::float AS stddev, min_value::float AS low, max_value::float AS high,
    count_readings AS readings, anomaly_count AS rule_anomalies, statistical_anomalies,
    CASE WHEN revised_at IS NOT NULL THEN 'revised' WHEN is_final THEN 'final' WHEN is_closed THEN 'closed' ELSE 'open' END AS state,
    has_mixed_units
FROM sensor_aggregates
WHERE window_start >= %(start)s AND window_start < %(end)s
    AND (%(location)s::text IS NULL OR location = %(location)s)
    AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
ORDER BY window_start DESC, location, sensor_type LIMIT %(most)s

-- name: mixed_units
SELECT DISTINCT location, sensor_type FROM (
    SELECT location, sensor_type, has_mixed_units FROM sensor_aggregates
    WHERE window_start < %(end)s ORDER BY window_start DESC LIMIT 5000
) AS newest
WHERE has_mixed_units AND (%(location)s::text IS NULL OR location = %(location)s)
    AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
ORDER BY 1, 2 LIMIT 20

-- name: late_readings
SELECT created_at AS arrived, timestamp, sensor_id, location, sensor_type,
    value::float AS value, late_by_seconds::float AS late_by_seconds
FROM late_readings ORDER BY created_at DESC LIMIT %(most)s

-- name: agreement
SELECT date_bin(make_interval(secs => %(step)s), minute, '2000-01-01') AS time,
    sum(both_flag)::float AS both, sum(ml_only)::float AS ml_only,
    sum(rule_only)::float AS rule_only, sum(neither)::float AS neither,
    sum(without_verdict)::float AS without_verdict
FROM verdicts_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
GROUP BY 1 ORDER BY 1

-- name: score_histogram
-- Of the newest readings, whatever the range: their course is the same as that of more.
SELECT sensor_type, round(anomaly_score, 2)::float AS score, count(*)::int AS readings
FROM (
    SELECT sensor_type, anomaly_score FROM ml_anomaly_predictions
    WHERE ingested_on >= %(since)s AND timestamp >= %(start)s AND timestamp < %(end)s
        AND (%(location)s::text IS NULL OR location = %(location)s)
        AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
    ORDER BY timestamp DESC LIMIT %(most)s
) AS newest
WHERE anomaly_score IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000

-- name: sensor_history
SELECT timestamp, r.value::float AS value, lower, upper, is_anomaly,
    anomaly_score::float AS score, reason
FROM (
    (SELECT * FROM sensor_readings
        WHERE ingested_on >= %(since)s AND sensor_id = %(sensor_id)s AND location = %(location)s
            AND sensor_type = %(sensor_type)s
            AND timestamp >= %(around)s::timestamp - interval '15 minutes'
            AND timestamp <= %(around)s
        ORDER BY timestamp DESC LIMIT 300)
    UNION ALL
    (SELECT * FROM sensor_readings
        WHERE ingested_on >= %(since)s AND sensor_id = %(sensor_id)s AND location = %(location)s
            AND sensor_type = %(sensor_type)s AND timestamp > %(around)s
            AND timestamp <= %(around)s::timestamp + interval '5 minutes'
        ORDER BY timestamp LIMIT 100)
) AS r LEFT JOIN LATERAL (
    SELECT is_anomaly, anomaly_score, reason, lower, upper FROM ml_anomaly_predictions p
    WHERE (p.ingested_on, p.source_id, p.log_offset) = (r.ingested_on, r.source_id, r.log_offset)
) AS verdict ON true
ORDER BY timestamp

-- name: models
WITH RECURSIVE sensor_types AS (
    (SELECT sensor_type FROM model_runs ORDER BY sensor_type LIMIT 1)
    UNION ALL SELECT (SELECT m.sensor_type FROM model_runs m WHERE m.sensor_type > k.sensor_type
        ORDER BY m.sensor_type LIMIT 1)
    FROM sensor_types k WHERE k.sensor_type IS NOT NULL
)
SELECT k.sensor_type, last.* FROM (SELECT * FROM sensor_types LIMIT 500) AS k CROSS JOIN LATERAL (
    SELECT fitted_at, training_rows, duration_seconds::float AS duration_s,
        threshold::float AS threshold, flagged_share::float AS flagged_share,
        drift::float AS drift
    FROM model_runs m WHERE m.sensor_type = k.sensor_type ORDER BY id DESC LIMIT 1
) AS last
ORDER BY k.sensor_type

-- name: correlations
SELECT location, sensor_type_a, sensor_type_b, correlation::float AS correlation,
    window_count, window_end, is_final
FROM (
    SELECT *, max(window_end) OVER (PARTITION BY location) AS last_end
    FROM (SELECT * FROM sensor_correlations ORDER BY window_end DESC LIMIT 10000) AS newest
) AS ended
WHERE window_end = last_end AND (%(location)s::text IS NULL OR location = %(location)s)
ORDER BY location, sensor_type_a, sensor_type_b LIMIT 10000

-- name: location_statistics
-- The quantiles are those of windows evenly spaced: sorting all those of a week takes longer than
-- everything else.
WITH quantile AS (
    SELECT location, sensor_type, percentile_cont(ARRAY[0.05, 0.25, 0.5, 0.75, 0.95]::float[])
        WITHIN GROUP (ORDER BY avg_value::float) AS quantiles
    FROM sensor_aggregates
    WHERE window_start = ANY(ARRAY(SELECT generate_series(
            date_bin(make_interval(secs => %(step)s), %(start)s, '2000-01-01'),
            %(end)s, make_interval(secs => %(step)s))))
        AND window_start >= %(start)s AND window_start < %(end)s
        AND (%(location)s::text IS NULL OR location = %(location)s)
        AND (%(sensor_type)s::text IS NULL OR sensor_type = %(sensor_type)s)
    GROUP BY 1, 2
), whole AS (
    SELECT location, sensor_type, sum(readings)::bigint AS readings,
        (sum(total) / sum(readings))::float AS mean,
        sqrt(greatest(0, sum(squares) / sum(readings) - (sum(total) / sum(readings)) ^ 2))::float
            AS stddev,
        min(low)::float AS low, max(high)::float AS high,
        sum(rule_anomalies)::int AS rule_anomalies,
        sum(statistical_anomalies)::int AS statistical_anomalies, sum(windows)::int AS windows
    FROM windows_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
    GROUP BY 1, 2
)
SELECT * FROM whole LEFT JOIN quantile USING (location, sensor_type)
ORDER BY location, sensor_type LIMIT 5000

-- name: hour_profile
SELECT sensor_type, extract(hour FROM time)::int AS hour,
    (sum(total) / sum(readings))::float AS mean,
    sqrt(greatest(0, sum(squares) / sum(readings) - (sum(total) / sum(readings)) ^ 2))::float AS stddev
FROM (
    SELECT sensor_type, date_bin('1 hour', window_start, '2000-01-01') AS time,
        sum(total) AS total, sum(readings) AS readings, sum(squares) AS squares
    FROM windows_between_v1(%(start)s, %(end)s, %(location)s, %(sensor_type)s, %(in_tens)s)
    GROUP BY 1, 2
) AS hours
GROUP BY 1, 2 ORDER BY 1, 2
