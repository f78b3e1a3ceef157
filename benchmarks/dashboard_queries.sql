-- What the tables are filled with.

-- name: fleet
-- Reading i is measured 25 to the second before the end: a larger table has older ones.
CREATE OR REPLACE FUNCTION bench_fleet(first bigint, last bigint, ends timestamp)
RETURNS TABLE (i bigint, sensor_id text, sensor_type text, unit text, location text, measured_at timestamp,
    value numeric, is_anomaly boolean, rule boolean, source_id integer)
LANGUAGE sql STABLE AS $$
WITH place AS (SELECT ARRAY['Server Room','Office Floor 3','Warehouse','Laboratory','Manufacturing']
    AS names),
kind AS (SELECT ARRAY['temperature','humidity','air_quality','pressure','co2'] AS names,
    ARRAY['°C','%','AQI','hPa','ppm'] AS units, ARRAY[22,45,50,1013,600] AS levels),
reading AS (SELECT i, i % 25 AS s, ends - make_interval(secs => i / 25.0) AS measured_at
    FROM generate_series(last, first, -1) AS i)
SELECT i, 'sensor-' || s, kind.names[1 + s % 5], kind.units[1 + s % 5], place.names[1 + s / 5],
    measured_at, round((kind.levels[1 + s % 5] * (1 + 0.02 * sin(extract(epoch FROM measured_at) / 13751)
        + 0.01 * (random() - 0.5)))::numeric, 2),
    (i + i / 25) % 20 = 0, (i + i / 25) % 33 = 0, (1 + s % 6)::integer
FROM reading, kind, place
$$

-- name: readings
INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp, anomaly, unit,
    created_at, source_id, log_offset, ingested_on)
SELECT sensor_id, sensor_type, location, value, measured_at, rule, unit, measured_at, source_id, 1000000000 - i,
    measured_at::date
FROM bench_fleet(%(first)s, %(last)s, %(end)s)

-- name: predictions
INSERT INTO ml_anomaly_predictions (sensor_id, sensor_type, location, value, timestamp, is_anomaly,
    anomaly_score, rule_based_anomaly, reason, lower, upper, source_id, log_offset, ingested_on)
SELECT sensor_id, sensor_type, location, value, measured_at, is_anomaly,
    CASE WHEN is_anomaly THEN -0.6 ELSE -0.4 END - 0.1 * random(), rule,
    CASE WHEN is_anomaly THEN '41.2 °C, usually 20.1 to 22.6' END, value - 1, value + 1, source_id,
    1000000000 - i, measured_at::date
FROM bench_fleet(%(first)s, %(last)s, %(end)s)

-- name: derived
TRUNCATE sensor_aggregates, window_rollups, verdict_counts, merged_verdicts, sensor_correlations,
 sources, model_runs, late_readings, dead_letters, service_status,
 stream_offsets
 RESTART IDENTITY CASCADE;
INSERT INTO sensor_aggregates (window_start, window_end, location, sensor_type, avg_value,
 min_value, max_value, stddev_value, count_readings, anomaly_count, statistical_anomalies,
 is_closed, is_final)
SELECT date_trunc('minute', timestamp), date_trunc('minute', timestamp) + interval '1 minute',
 location, sensor_type, avg(value), min(value), max(value), stddev_pop(value), count(*),
 count(*) FILTER (WHERE anomaly), 0, true, true FROM sensor_readings GROUP BY 1, 2, 3, 4;
INSERT INTO window_rollups SELECT date_bin('10 minutes', window_start, '2000-01-01'), location,
 sensor_type, sum(count_readings), sum(count_readings * avg_value),
 sum(count_readings * (avg_value * avg_value + stddev_value * stddev_value)), min(min_value),
 max(max_value), sum(anomaly_count), sum(statistical_anomalies), count(*)
 FROM sensor_aggregates GROUP BY 1, 2, 3;
INSERT INTO verdict_counts SELECT date_trunc('minute', timestamp), location, sensor_type,
 count(*) FILTER (WHERE NOT is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE NOT is_anomaly AND rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND NOT rule_based_anomaly),
 count(*) FILTER (WHERE is_anomaly AND rule_based_anomaly), 0
 FROM ml_anomaly_predictions GROUP BY 1, 2, 3;
INSERT INTO merged_verdicts SELECT date_bin('10 minutes', minute, '2000-01-01'), location,
 sensor_type, sum(neither), sum(rule_only), sum(ml_only), sum(both_flag), sum(without_verdict)
 FROM verdict_counts GROUP BY 1, 2, 3;
INSERT INTO sensor_correlations SELECT window_end, location, a.t, b.t, 0.5, 30, true
 FROM (SELECT DISTINCT window_end, location FROM sensor_aggregates) AS w,
 unnest(ARRAY['temperature','humidity','air_quality','pressure','co2']) AS a (t),
 unnest(ARRAY['temperature','humidity','air_quality','pressure','co2']) AS b (t) WHERE a.t < b.t;
INSERT INTO sources (cluster_id, topic_id, topic, partition)
 SELECT 'c', 't', 'iot_sensors', i FROM generate_series(0, 5) AS i;
INSERT INTO stream_offsets (consumer_group, source_id, next_offset)
 SELECT 'consumer', source_id, 1000000001 FROM sources;
INSERT INTO model_runs (sensor_type, fitted_at, training_rows, duration_seconds, threshold,
 flagged_share, drift) SELECT sensor_type, window_start, 1000, 0.3, -0.55, 0.05, 0.02
 FROM sensor_aggregates WHERE location = 'Laboratory' AND extract(minute FROM window_start)::int
 % 5 = 0 ORDER BY window_start;
INSERT INTO late_readings SELECT source_id, log_offset, sensor_id, sensor_type, location, value,
 timestamp, anomaly, unit, timestamp, timestamp, 400 FROM sensor_readings
 WHERE source_id = 1 ORDER BY log_offset LIMIT 10000;
INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason, payload,
 payload_bytes) SELECT 1, 'iot_sensors', 0, i, 'not_json', 'not JSON', '\x7b7b', 2
 FROM generate_series(1, 10000) AS i;
INSERT INTO service_status (service, instance, state, details) VALUES
 ('consumer', 'a-1', 'running', '{"readings_per_s": 25, "lag": 7, "latency_ms_p99": 120}');
