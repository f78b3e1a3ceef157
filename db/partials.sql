-- name: load
SELECT window_start, location, sensor_type, readings, sum_hundredths, sum_squares, min_hundredths, max_hundredths,
    anomalies, statistical_anomalies, usual_readings, usual_sum, usual_squares,
    baseline_readings, baseline_sum, baseline_squares, first_unit, last_unit
FROM unnest(%(locations)s::varchar[], %(types)s::varchar[]) AS g (location, sensor_type)
JOIN window_partials USING (location, sensor_type) WHERE source_id = %(source)s

-- name: save
INSERT INTO window_partials (source_id, window_start, location, sensor_type,
    readings, sum_hundredths, sum_squares, min_hundredths, max_hundredths, anomalies, statistical_anomalies,
    usual_readings, usual_sum, usual_squares, baseline_readings, baseline_sum, baseline_squares,
    first_unit, last_unit)
SELECT %(source)s, * FROM unnest(%(start)s::timestamp[], %(location)s::varchar[], %(type)s::varchar[],
    %(readings)s::bigint[], %(sum)s::numeric[], %(squares)s::numeric[], %(low)s::bigint[], %(high)s::bigint[],
    %(flagged)s::bigint[], %(unusual)s::bigint[],
    %(usual_readings)s::bigint[], %(usual_sum)s::numeric[], %(usual_squares)s::numeric[],
    %(baseline_readings)s::bigint[], %(baseline_sum)s::numeric[], %(baseline_squares)s::numeric[],
    %(first_unit)s::varchar[], %(last_unit)s::varchar[])
ON CONFLICT ON CONSTRAINT window_partials_pkey DO UPDATE SET
    readings = EXCLUDED.readings, sum_hundredths = EXCLUDED.sum_hundredths, sum_squares = EXCLUDED.sum_squares,
    min_hundredths = EXCLUDED.min_hundredths, max_hundredths = EXCLUDED.max_hundredths,
    anomalies = EXCLUDED.anomalies, statistical_anomalies = EXCLUDED.statistical_anomalies,
    usual_readings = EXCLUDED.usual_readings, usual_sum = EXCLUDED.usual_sum, usual_squares = EXCLUDED.usual_squares,
    baseline_readings = EXCLUDED.baseline_readings, baseline_sum = EXCLUDED.baseline_sum,
    baseline_squares = EXCLUDED.baseline_squares, first_unit = EXCLUDED.first_unit, last_unit = EXCLUDED.last_unit

-- name: delete
DELETE FROM window_partials p
USING unnest(%(start)s::timestamp[], %(location)s::varchar[], %(type)s::varchar[])
    AS k (window_start, location, sensor_type)
WHERE p.source_id = %(source)s AND p.window_start = k.window_start
    AND p.location = k.location AND p.sensor_type = k.sensor_type
