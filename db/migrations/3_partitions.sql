-- Makes partitioned tables of sensor_readings and ml_anomaly_predictions. What they hold becomes their first
-- partition as it is: it is read once, to check the bounds, and indexed, but no row is written again.
CREATE TABLE IF NOT EXISTS merged_aggregates (
    window_start           TIMESTAMP NOT NULL,
    location               VARCHAR(100) NOT NULL,
    sensor_type            VARCHAR(50) NOT NULL,
    avg_value              DOUBLE PRECISION NOT NULL,
    min_value              DOUBLE PRECISION NOT NULL,
    max_value              DOUBLE PRECISION NOT NULL,
    stddev_value           DOUBLE PRECISION NOT NULL,
    count_readings         INTEGER NOT NULL,
    anomaly_count          INTEGER NOT NULL,
    statistical_anomalies  INTEGER NOT NULL,
    windows                INTEGER NOT NULL,
    -- Serves the dashboard's ranges of a day and more.
    CONSTRAINT merged_aggregates_pkey PRIMARY KEY (window_start, location, sensor_type)
);
COMMENT ON TABLE merged_aggregates IS
    'One row per ten minutes, location and sensor type: final windows made one. Made of sensor_aggregates every minute, may lag behind it, and may be emptied: a week of windows takes a tenth of a second to add up, a week of these some milliseconds.';
COMMENT ON COLUMN merged_aggregates.window_start IS 'Start of the ten minutes, UTC.';
COMMENT ON COLUMN merged_aggregates.location IS 'Where the sensors are.';
COMMENT ON COLUMN merged_aggregates.sensor_type IS 'What they measure.';
COMMENT ON COLUMN merged_aggregates.avg_value IS 'Mean of the values.';
COMMENT ON COLUMN merged_aggregates.min_value IS 'Smallest value.';
COMMENT ON COLUMN merged_aggregates.max_value IS 'Largest value.';
COMMENT ON COLUMN merged_aggregates.stddev_value IS 'Population standard deviation.';
COMMENT ON COLUMN merged_aggregates.count_readings IS 'Readings in the windows.';
COMMENT ON COLUMN merged_aggregates.anomaly_count IS 'Readings with the rule-based flag set.';
COMMENT ON COLUMN merged_aggregates.statistical_anomalies IS 'Readings beyond 3 sigma of the windows before theirs.';
COMMENT ON COLUMN merged_aggregates.windows IS 'Windows made one.';
CREATE TABLE IF NOT EXISTS merged_verdicts (
    minute           TIMESTAMP NOT NULL,
    location         VARCHAR(100) NOT NULL,
    sensor_type      VARCHAR(50) NOT NULL,
    neither          INTEGER NOT NULL,
    rule_only        INTEGER NOT NULL,
    ml_only          INTEGER NOT NULL,
    both_flag        INTEGER NOT NULL,
    without_verdict  INTEGER NOT NULL,
    -- Serves the dashboard's ranges of a day and more.
    CONSTRAINT merged_verdicts_pkey PRIMARY KEY (minute, location, sensor_type)
);
COMMENT ON TABLE merged_verdicts IS
    'One row per ten minutes of event time, location and sensor type: verdict_counts added up. Written with them: two weeks of minutes take a tenth of a second to add up, two weeks of these some milliseconds.';
COMMENT ON COLUMN merged_verdicts.minute IS 'Start of the ten minutes, UTC.';
COMMENT ON COLUMN merged_verdicts.location IS 'Where the sensors are.';
COMMENT ON COLUMN merged_verdicts.sensor_type IS 'What they measure.';
COMMENT ON COLUMN merged_verdicts.neither IS 'Readings flagged by neither detector nor rule.';
COMMENT ON COLUMN merged_verdicts.rule_only IS 'Readings flagged by the sensor''s rule only.';
COMMENT ON COLUMN merged_verdicts.ml_only IS 'Readings flagged by the detector only.';
COMMENT ON COLUMN merged_verdicts.both_flag IS 'Readings flagged by both.';
COMMENT ON COLUMN merged_verdicts.without_verdict IS 'Readings that came before a model of their type was fitted.';
INSERT INTO merged_verdicts
SELECT date_bin('10 minutes', minute, '2000-01-01'), location, sensor_type, sum(neither), sum(rule_only),
    sum(ml_only), sum(both_flag), sum(without_verdict)
FROM verdict_counts GROUP BY 1, 2, 3 ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS sensors (
    sensor_id    VARCHAR(100) PRIMARY KEY,
    sensor_type  VARCHAR(50) NOT NULL,
    location     VARCHAR(100) NOT NULL,
    value        NUMERIC(10,2) NOT NULL,
    timestamp    TIMESTAMP NOT NULL,
    anomaly      BOOLEAN NOT NULL,
    unit         VARCHAR(20) NOT NULL,
    updated_at   TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
COMMENT ON TABLE sensors IS
    'One row per sensor: its latest reading as of some minute. Taken from the newest readings every minute, so a sensor that falls silent stays known.';
COMMENT ON COLUMN sensors.sensor_id IS 'Stable name of the sensor.';
COMMENT ON COLUMN sensors.sensor_type IS 'What it measures.';
COMMENT ON COLUMN sensors.location IS 'Where it is.';
COMMENT ON COLUMN sensors.value IS 'Last known value in unit.';
COMMENT ON COLUMN sensors.timestamp IS 'Event time of that value, UTC.';
COMMENT ON COLUMN sensors.anomaly IS 'Rule-based flag of that reading.';
COMMENT ON COLUMN sensors.unit IS 'Unit of value; may be empty.';
COMMENT ON COLUMN sensors.updated_at IS 'When the row was last written, UTC.';
DO $$
DECLARE
    today  DATE := (now() AT TIME ZONE 'UTC')::date;
    tab    TEXT;
    part   TEXT;
    next   BIGINT;
BEGIN
    FOREACH tab IN ARRAY ARRAY['sensor_readings', 'ml_anomaly_predictions'] LOOP
        CONTINUE WHEN (SELECT relkind FROM pg_class WHERE oid = tab::regclass) = 'p';
        part := tab || to_char(today, '_YYYYMMDD');
        EXECUTE format('SELECT nextval(pg_get_serial_sequence(%L, %L))', tab, 'id') INTO next;
        EXECUTE format('ALTER TABLE %I ALTER id DROP IDENTITY', tab);
        -- The same for all rows there are, so it is noted once.
        EXECUTE format('ALTER TABLE %I ADD ingested_on DATE NOT NULL'
            ' DEFAULT (now() AT TIME ZONE ''UTC'')::date', tab);
        EXECUTE format('ALTER TABLE %I RENAME TO %I', tab, part);
        EXECUTE format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I', part, tab || '_pkey', part || '_pkey');
        IF tab = 'sensor_readings' THEN
            -- Each sensor once, while there is the index to hop along.
            EXECUTE format('WITH RECURSIVE s AS ((SELECT sensor_id FROM %1$I ORDER BY 1 LIMIT 1)'
                ' UNION ALL SELECT (SELECT r.sensor_id FROM %1$I r WHERE r.sensor_id > s.sensor_id ORDER BY 1 LIMIT 1)'
                ' FROM s WHERE s.sensor_id IS NOT NULL) INSERT INTO sensors'
                ' SELECT last.* FROM s, LATERAL (SELECT sensor_id, sensor_type, location, value, timestamp, anomaly, unit'
                ' FROM %1$I r WHERE r.sensor_id = s.sensor_id ORDER BY timestamp DESC LIMIT 1) AS last'
                ' ON CONFLICT DO NOTHING', part);
            DROP INDEX sensor_readings_timestamp, sensor_readings_sensor;
        ELSE
            EXECUTE format('ALTER INDEX %I RENAME TO %I', tab || '_timestamp', part || '_timestamp');
            EXECUTE format('ALTER INDEX %I RENAME TO %I', tab || '_anomalies', part || '_anomalies');
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING COMMENTS)'
            ' PARTITION BY RANGE (ingested_on)', tab, part);
        EXECUTE format('ALTER TABLE %I ALTER id ADD GENERATED ALWAYS AS IDENTITY (START %s)', tab, next);
        EXECUTE format('COMMENT ON TABLE %I IS %L', tab, obj_description(part::regclass, 'pg_class'));
        EXECUTE format('COMMENT ON TABLE %I IS NULL', part);
    END LOOP;
END
$$;
CREATE INDEX IF NOT EXISTS sensor_readings_time ON sensor_readings (timestamp, sensor_id);
CREATE INDEX IF NOT EXISTS ml_anomaly_predictions_timestamp ON ml_anomaly_predictions (timestamp);
CREATE INDEX IF NOT EXISTS ml_anomaly_predictions_anomalies ON ml_anomaly_predictions (timestamp) WHERE is_anomaly;
DO $$
DECLARE
    today  DATE := (now() AT TIME ZONE 'UTC')::date;
    tab    TEXT;
BEGIN
    FOREACH tab IN ARRAY ARRAY['sensor_readings', 'ml_anomaly_predictions'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits WHERE inhparent = tab::regclass);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
            tab, tab || to_char(today, '_YYYYMMDD'), today + 1);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_dashboard') THEN
        GRANT SELECT ON sensor_readings, ml_anomaly_predictions, sensors, merged_aggregates, merged_verdicts TO iot_dashboard;
    END IF;
END
$$;
COMMENT ON COLUMN sensor_readings.ingested_on IS 'Date (UTC) on which the row was written; the table is partitioned by it.';
COMMENT ON COLUMN ml_anomaly_predictions.ingested_on IS 'Date (UTC) on which the reading was written (sensor_readings).';
