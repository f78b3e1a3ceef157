-- The whole schema, version 4. Safe to apply again; applied by whichever service comes first (db/versions.py).
-- All TIMESTAMP columns hold UTC. "Reading" is one measured value of one sensor at one event time.

-- --------------------------------------------------------------------------------------------- identity

CREATE TABLE IF NOT EXISTS database_identity (
    is_only   BOOLEAN PRIMARY KEY DEFAULT true CHECK (is_only),
    identity  TEXT NOT NULL DEFAULT left(replace(gen_random_uuid()::text, '-', ''), 12)
);
INSERT INTO database_identity DEFAULT VALUES ON CONFLICT DO NOTHING;
COMMENT ON TABLE database_identity IS
    'One row: what tells this database from another that reads the same topic. python -m db.schema --new-identity changes it.';
COMMENT ON COLUMN database_identity.is_only IS 'True: there is one row.';
COMMENT ON COLUMN database_identity.identity IS
    'End of the names of the consumer groups in Kafka: two databases share no partitions, each gets every message.';

CREATE TABLE IF NOT EXISTS kept_settings (
    name   TEXT PRIMARY KEY,
    value  TEXT NOT NULL
);
COMMENT ON TABLE kept_settings IS
    'One row per setting that rows depend on, written with the first of them: a service with another value ends instead of mixing two kinds.';
COMMENT ON COLUMN kept_settings.name IS 'The setting, e.g. WINDOW_SECONDS.';
COMMENT ON COLUMN kept_settings.value IS 'What the rows were made with.';

-- ---------------------------------------------------------------------------------------------- sources

-- One row per partition of one identity of the topic: a topic that was deleted and created again has a new
-- topic_id, so its offsets, which begin at 0 again, never meet those of the old one.
CREATE TABLE IF NOT EXISTS sources (
    source_id   INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id  TEXT NOT NULL,
    topic_id    TEXT NOT NULL,
    topic       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    created_at  TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    CONSTRAINT sources_identity UNIQUE (cluster_id, topic_id, partition)
);
COMMENT ON TABLE sources IS 'One row per partition of one identity (cluster id, topic id) of the topic.';
COMMENT ON COLUMN sources.source_id IS 'Short name of this partition in the other tables.';
COMMENT ON COLUMN sources.cluster_id IS 'Id of the Kafka cluster.';
COMMENT ON COLUMN sources.topic_id IS 'Id that Kafka gave the topic when it was created.';
COMMENT ON COLUMN sources.topic IS 'Name of the topic.';
COMMENT ON COLUMN sources.partition IS 'Number of the partition, from 0.';
COMMENT ON COLUMN sources.created_at IS 'When a service first met the partition.';

CREATE TABLE IF NOT EXISTS stream_offsets (
    consumer_group  TEXT NOT NULL,
    source_id       INTEGER NOT NULL REFERENCES sources,
    next_offset     BIGINT NOT NULL DEFAULT 0,
    end_offset      BIGINT,
    watermark       TIMESTAMP,
    is_idle         BOOLEAN NOT NULL DEFAULT false,
    updated_at      TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    CONSTRAINT stream_offsets_pkey PRIMARY KEY (consumer_group, source_id)
);
COMMENT ON TABLE stream_offsets IS
    'One row per service and partition: how far its results in this database reach. Moves in the transaction of the rows.';
COMMENT ON COLUMN stream_offsets.consumer_group IS 'The service; its consumer group in Kafka is this, a hyphen and database_identity.identity.';
COMMENT ON COLUMN stream_offsets.source_id IS 'The partition.';
COMMENT ON COLUMN stream_offsets.next_offset IS 'First offset not yet processed.';
COMMENT ON COLUMN stream_offsets.end_offset IS 'End of the log as last seen; lag = end_offset - next_offset.';
COMMENT ON COLUMN stream_offsets.watermark IS
    'Stream processor: event time up to which the partition is believed complete; NULL before its first reading.';
COMMENT ON COLUMN stream_offsets.is_idle IS
    'Stream processor: its reader has seen the partition at its end for a while; it holds no window open.';
COMMENT ON COLUMN stream_offsets.updated_at IS 'When the row last moved.';

CREATE TABLE IF NOT EXISTS lost_messages (
    consumer_group  TEXT NOT NULL,
    source_id       INTEGER NOT NULL REFERENCES sources,
    first_offset    BIGINT NOT NULL,
    last_offset     BIGINT NOT NULL,
    reason          TEXT NOT NULL,
    noticed_at      TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    CONSTRAINT lost_messages_pkey PRIMARY KEY (consumer_group, source_id, first_offset)
);
COMMENT ON TABLE lost_messages IS
    'One row per gap that a service found: messages that were in the log, and that it could never read. Moves with its offset.';
COMMENT ON COLUMN lost_messages.consumer_group IS 'The service, as in stream_offsets.';
COMMENT ON COLUMN lost_messages.source_id IS 'The partition.';
COMMENT ON COLUMN lost_messages.first_offset IS 'First offset lost.';
COMMENT ON COLUMN lost_messages.last_offset IS 'Last offset lost.';
COMMENT ON COLUMN lost_messages.reason IS 'Why they could not be read.';
COMMENT ON COLUMN lost_messages.noticed_at IS 'When the service noticed, UTC.';

-- --------------------------------------------------------------------------------------------- readings

-- Other programs may insert into sensor_readings too; each of their rows gets a number of its own.
CREATE SEQUENCE IF NOT EXISTS other_programs;

CREATE TABLE IF NOT EXISTS sensor_readings (
    id           BIGINT GENERATED ALWAYS AS IDENTITY,
    sensor_id    VARCHAR(100) NOT NULL,
    sensor_type  VARCHAR(50) NOT NULL,
    location     VARCHAR(100) NOT NULL,
    value        NUMERIC(10,2) NOT NULL,
    timestamp    TIMESTAMP NOT NULL,
    anomaly      BOOLEAN NOT NULL,
    unit         VARCHAR(20) NOT NULL,
    created_at   TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    source_id    INTEGER NOT NULL DEFAULT 0,
    log_offset   BIGINT NOT NULL DEFAULT nextval('other_programs'),
    ingested_on  DATE NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date
) PARTITION BY RANGE (ingested_on);
-- The partitions, one a day, are made by db/partitions.py. Each has the primary key (source_id,
-- log_offset): it serves the detector's cursor, and makes a second copy of a message impossible.
-- Serves the dashboard's time ranges, its latest readings, and one sensor's surroundings.
CREATE INDEX IF NOT EXISTS sensor_readings_time ON sensor_readings (timestamp, sensor_id);
COMMENT ON TABLE sensor_readings IS 'One row per valid message of the topic.';
COMMENT ON COLUMN sensor_readings.id IS 'Number of the row; gaps are normal, order of commit is not order of id.';
COMMENT ON COLUMN sensor_readings.sensor_id IS 'Stable name of the sensor.';
COMMENT ON COLUMN sensor_readings.sensor_type IS 'What it measures: temperature, humidity, air_quality, pressure, co2 or another.';
COMMENT ON COLUMN sensor_readings.location IS 'Where it is.';
COMMENT ON COLUMN sensor_readings.value IS 'Measured value in unit, rounded half even to hundredths.';
COMMENT ON COLUMN sensor_readings.timestamp IS 'Event time, UTC.';
COMMENT ON COLUMN sensor_readings.anomaly IS 'Rule-based flag set at the sensor.';
COMMENT ON COLUMN sensor_readings.unit IS 'Unit of value; may be empty.';
COMMENT ON COLUMN sensor_readings.created_at IS 'When the row was written, UTC.';
COMMENT ON COLUMN sensor_readings.source_id IS 'Partition the message came from (sources); 0 = another program inserted the row.';
COMMENT ON COLUMN sensor_readings.log_offset IS 'Offset of the message in that partition; of source 0 a number of its own.';
COMMENT ON COLUMN sensor_readings.ingested_on IS 'Date (UTC) on which the row was written; the table is partitioned by it.';

CREATE OR REPLACE VIEW distinct_readings AS
SELECT DISTINCT ON (location, sensor_type, sensor_id, timestamp, value) * FROM sensor_readings
ORDER BY location, sensor_type, sensor_id, timestamp, value, id;
COMMENT ON VIEW distinct_readings IS
    'sensor_readings without what was sent twice: of rows of one series, time and value the first.';

CREATE OR REPLACE VIEW kept_readings AS
WITH days AS (
    SELECT substring(bound FROM 'FROM \(''([^'']*)''\)')::date AS low, substring(bound FROM 'TO \(''([^'']*)''\)')::date AS high
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid CROSS JOIN pg_get_expr(c.relpartbound, c.oid) AS bound
    WHERE i.inhparent = 'sensor_readings'::regclass AND NOT i.inhdetachpending
)
SELECT max(low) + interval '5 minutes' AS complete_from FROM days
WHERE NOT EXISTS (SELECT FROM days AS before WHERE before.high = days.low);
COMMENT ON VIEW kept_readings IS
    'One row: of windows that begin at complete_from or later sensor_readings still has all readings, which are stored five minutes before their timestamp at the earliest; NULL = no day was ever let go.';

CREATE TABLE IF NOT EXISTS sensors (
    sensor_id    VARCHAR(100) NOT NULL,
    sensor_type  VARCHAR(50) NOT NULL,
    location     VARCHAR(100) NOT NULL,
    value        NUMERIC(10,2) NOT NULL,
    timestamp    TIMESTAMP NOT NULL,
    anomaly      BOOLEAN NOT NULL,
    unit         VARCHAR(20) NOT NULL,
    interval_seconds REAL,
    updated_at   TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    -- A series: one device may measure several quantities, two places may use one name.
    CONSTRAINT sensors_pkey PRIMARY KEY (location, sensor_type, sensor_id)
);
COMMENT ON TABLE sensors IS
    'One row per series (location, sensor type, sensor): its latest reading, as of some seconds ago. Taken from all readings in the order of their offsets (noted_offsets), so a sensor that falls silent stays known.';
COMMENT ON COLUMN sensors.sensor_id IS 'Stable name of the sensor.';
COMMENT ON COLUMN sensors.sensor_type IS 'What it measures.';
COMMENT ON COLUMN sensors.location IS 'Where it is.';
COMMENT ON COLUMN sensors.value IS 'Last known value in unit.';
COMMENT ON COLUMN sensors.timestamp IS 'Event time of that value, UTC.';
COMMENT ON COLUMN sensors.anomaly IS 'Rule-based flag of that reading.';
COMMENT ON COLUMN sensors.unit IS 'Unit of value; may be empty.';
COMMENT ON COLUMN sensors.interval_seconds IS
    'How long it usually is from one reading to the next, event time, seconds; NULL until there are two.';
COMMENT ON COLUMN sensors.updated_at IS 'When the row was last written, UTC.';

CREATE TABLE IF NOT EXISTS noted_offsets (
    source_id    INTEGER NOT NULL REFERENCES sources,
    next_offset  BIGINT NOT NULL,
    CONSTRAINT noted_offsets_pkey PRIMARY KEY (source_id)
);
COMMENT ON TABLE noted_offsets IS 'One row per partition: up to which reading sensors has been brought.';
COMMENT ON COLUMN noted_offsets.source_id IS 'The partition.';
COMMENT ON COLUMN noted_offsets.next_offset IS 'First offset whose reading is not in sensors yet.';

CREATE TABLE IF NOT EXISTS dead_letters (
    id             BIGINT GENERATED ALWAYS AS IDENTITY,
    source_id      INTEGER NOT NULL REFERENCES sources,
    topic          TEXT NOT NULL,
    partition      INTEGER NOT NULL,
    log_offset     BIGINT NOT NULL,
    reason_code    TEXT NOT NULL,
    reason         TEXT NOT NULL,
    payload        BYTEA,
    payload_bytes  INTEGER NOT NULL,
    created_at     TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    sending_since  TIMESTAMP,
    sent_again_at  TIMESTAMP,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (source_id, log_offset)
);
-- Serves the dashboard's latest dead letters.
CREATE INDEX IF NOT EXISTS dead_letters_created_at ON dead_letters (created_at);
-- Serves python -m service.dead_letters: what a run that was killed left.
CREATE INDEX IF NOT EXISTS dead_letters_pending ON dead_letters (id)
    WHERE sending_since IS NOT NULL AND sent_again_at IS NULL;
COMMENT ON TABLE dead_letters IS 'One row per rejected message, up to a cap per partition and hour; see dead_letter_counts.';
COMMENT ON COLUMN dead_letters.id IS 'Number of the row.';
COMMENT ON COLUMN dead_letters.source_id IS 'Partition the message came from (sources).';
COMMENT ON COLUMN dead_letters.topic IS 'Name of the topic.';
COMMENT ON COLUMN dead_letters.partition IS 'Number of the partition.';
COMMENT ON COLUMN dead_letters.log_offset IS 'Offset of the message in that partition.';
COMMENT ON COLUMN dead_letters.reason_code IS 'Kind of fault in one word, e.g. not_json, missing_field, future_timestamp.';
COMMENT ON COLUMN dead_letters.reason IS 'What is wrong, in words.';
COMMENT ON COLUMN dead_letters.payload IS 'First 4096 bytes of the message as received; NULL for a tombstone.';
COMMENT ON COLUMN dead_letters.payload_bytes IS 'Size of the whole message, bytes.';
COMMENT ON COLUMN dead_letters.created_at IS 'When the row was written, UTC.';
COMMENT ON COLUMN dead_letters.sending_since IS
    'When python -m service.dead_letters was about to send it to the topic again, UTC; NULL = never.';
COMMENT ON COLUMN dead_letters.sent_again_at IS
    'When it had been sent, UTC; the message in the topic names this row in its header dead_letter.';

CREATE TABLE IF NOT EXISTS dead_letter_sends (
    source_id   INTEGER NOT NULL REFERENCES sources,
    end_offset  BIGINT NOT NULL,
    CONSTRAINT dead_letter_sends_pkey PRIMARY KEY (source_id)
);
COMMENT ON TABLE dead_letter_sends IS
    'One row per partition: where it ended before the dead letters were sent that are not known to have arrived.';
COMMENT ON COLUMN dead_letter_sends.source_id IS 'The partition.';
COMMENT ON COLUMN dead_letter_sends.end_offset IS 'Nothing that was sent lies before it.';

CREATE TABLE IF NOT EXISTS dead_letter_counts (
    source_id     INTEGER NOT NULL REFERENCES sources,
    hour          TIMESTAMP NOT NULL,
    reason_code   TEXT NOT NULL,
    kept          BIGINT NOT NULL DEFAULT 0,
    counted_only  BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT dead_letter_counts_pkey PRIMARY KEY (source_id, hour, reason_code)
);
COMMENT ON TABLE dead_letter_counts IS 'One row per partition, hour and reason: every rejected message is counted here.';
COMMENT ON COLUMN dead_letter_counts.source_id IS 'Partition the messages came from.';
COMMENT ON COLUMN dead_letter_counts.hour IS 'Hour (UTC) in which they were rejected.';
COMMENT ON COLUMN dead_letter_counts.reason_code IS 'As in dead_letters.';
COMMENT ON COLUMN dead_letter_counts.kept IS 'Messages that have a row in dead_letters.';
COMMENT ON COLUMN dead_letter_counts.counted_only IS 'Messages beyond the cap: counted here, kept nowhere.';

-- ---------------------------------------------------------------------------------------------- windows

CREATE TABLE IF NOT EXISTS sensor_aggregates (
    id                     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_start           TIMESTAMP NOT NULL,
    window_end             TIMESTAMP NOT NULL,
    location               VARCHAR(100) NOT NULL,
    sensor_type            VARCHAR(50) NOT NULL,
    avg_value              NUMERIC(10,2) NOT NULL,
    min_value              NUMERIC(10,2) NOT NULL,
    max_value              NUMERIC(10,2) NOT NULL,
    stddev_value           NUMERIC(10,2) NOT NULL,
    count_readings         INTEGER NOT NULL,
    anomaly_count          INTEGER NOT NULL,
    statistical_anomalies  INTEGER NOT NULL,
    created_at             TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    updated_at             TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    is_closed              BOOLEAN NOT NULL DEFAULT false,
    is_final               BOOLEAN NOT NULL DEFAULT false,
    has_mixed_units        BOOLEAN NOT NULL DEFAULT false,
    revised_at             TIMESTAMP,
    -- Serves the upsert and the dashboard's time ranges.
    CONSTRAINT sensor_aggregates_window UNIQUE (window_start, location, sensor_type)
);
-- Serves the search for windows to close or finalize: few rows, whatever the history.
CREATE INDEX IF NOT EXISTS sensor_aggregates_open ON sensor_aggregates (window_end) WHERE NOT is_final;
-- Serves the correlations: the types of a place, and the latest windows of one of them.
CREATE INDEX IF NOT EXISTS sensor_aggregates_series ON sensor_aggregates (location, sensor_type, window_start);
COMMENT ON TABLE sensor_aggregates IS 'One row per window, location and sensor type: refined until is_final.';
COMMENT ON COLUMN sensor_aggregates.id IS 'Number of the row.';
COMMENT ON COLUMN sensor_aggregates.window_start IS 'Start of the window, inclusive, UTC, aligned to the epoch.';
COMMENT ON COLUMN sensor_aggregates.window_end IS 'End of the window, exclusive, UTC.';
COMMENT ON COLUMN sensor_aggregates.location IS 'Where the sensors are.';
COMMENT ON COLUMN sensor_aggregates.sensor_type IS 'What they measure.';
COMMENT ON COLUMN sensor_aggregates.avg_value IS 'Mean of the values, correctly rounded (half even).';
COMMENT ON COLUMN sensor_aggregates.min_value IS 'Smallest value.';
COMMENT ON COLUMN sensor_aggregates.max_value IS 'Largest value.';
COMMENT ON COLUMN sensor_aggregates.stddev_value IS 'Population standard deviation, correctly rounded (half even).';
COMMENT ON COLUMN sensor_aggregates.count_readings IS 'Readings in the window.';
COMMENT ON COLUMN sensor_aggregates.anomaly_count IS 'Readings with the rule-based flag set.';
COMMENT ON COLUMN sensor_aggregates.statistical_anomalies IS 'Readings beyond 3 sigma of the preceding windows.';
COMMENT ON COLUMN sensor_aggregates.created_at IS 'When the row first appeared, UTC.';
COMMENT ON COLUMN sensor_aggregates.updated_at IS 'When the row last changed, UTC.';
COMMENT ON COLUMN sensor_aggregates.is_closed IS 'The watermark has passed window_end: readings may still come late.';
COMMENT ON COLUMN sensor_aggregates.is_final IS 'The watermark has passed window_end + allowed lateness: the row changes no more, but by python -m service.backfill.';
COMMENT ON COLUMN sensor_aggregates.has_mixed_units IS
    'The readings are of several units, °C and °F say: the figures mean nothing. The readings stay as they are.';
COMMENT ON COLUMN sensor_aggregates.revised_at IS
    'When python -m service.backfill last counted late readings in this final row, UTC; NULL = never.';

CREATE TABLE IF NOT EXISTS window_rollups (
    window_start           TIMESTAMP NOT NULL,
    location               VARCHAR(100) NOT NULL,
    sensor_type            VARCHAR(50) NOT NULL,
    readings               BIGINT NOT NULL,
    total                  NUMERIC NOT NULL,
    squares                NUMERIC NOT NULL,
    low                    NUMERIC(10,2) NOT NULL,
    high                   NUMERIC(10,2) NOT NULL,
    rule_anomalies         INTEGER NOT NULL,
    statistical_anomalies  INTEGER NOT NULL,
    windows                INTEGER NOT NULL,
    -- Serves the upsert and the dashboard's ranges of a day and more.
    CONSTRAINT window_rollups_pkey PRIMARY KEY (window_start, location, sensor_type)
);
COMMENT ON TABLE window_rollups IS
    'One row per ten minutes, location and sensor type: final windows that start in them, added up in the statement that makes them final. A week of windows takes a tenth of a second to add up, a week of these some milliseconds.';
COMMENT ON COLUMN window_rollups.window_start IS 'Start of the ten minutes, UTC; a window of more than ten minutes belongs to those it starts in.';
COMMENT ON COLUMN window_rollups.location IS 'Where the sensors are.';
COMMENT ON COLUMN window_rollups.sensor_type IS 'What they measure.';
COMMENT ON COLUMN window_rollups.readings IS 'Readings in the windows.';
COMMENT ON COLUMN window_rollups.total IS 'Sum of the values: of count_readings * avg_value.';
COMMENT ON COLUMN window_rollups.squares IS 'Sum of the squared values: of count_readings * (avg_value squared + stddev_value squared).';
COMMENT ON COLUMN window_rollups.low IS 'Smallest value.';
COMMENT ON COLUMN window_rollups.high IS 'Largest value.';
COMMENT ON COLUMN window_rollups.rule_anomalies IS 'Readings with the rule-based flag set.';
COMMENT ON COLUMN window_rollups.statistical_anomalies IS 'Readings beyond 3 sigma of the windows before theirs.';
COMMENT ON COLUMN window_rollups.windows IS 'Windows added up.';

CREATE OR REPLACE VIEW single_windows AS
SELECT window_start, location, sensor_type, count_readings::bigint AS readings,
    avg_value::float8 * count_readings AS total,
    (avg_value::float8 ^ 2 + stddev_value::float8 ^ 2) * count_readings AS squares,
    min_value::float8 AS low, max_value::float8 AS high, anomaly_count AS rule_anomalies,
    statistical_anomalies, 1 AS windows, is_closed, is_final
FROM sensor_aggregates;
COMMENT ON VIEW single_windows IS
    'One row per window, location and sensor type: sensor_aggregates with columns that add up, as in window_rollups.';

-- Versioned by its name: old and new code may meet one database. One SELECT and STABLE, so that it
-- is planned as if it stood in the statement itself; in_tens reads final windows ten minutes a row,
-- at both ends and where they are not final window by window.
CREATE OR REPLACE FUNCTION windows_between_v1(begins timestamp, ends timestamp, place text, kind text, in_tens boolean)
RETURNS TABLE (window_start timestamp, location varchar, sensor_type varchar, readings bigint, total float8,
    squares float8, low float8, high float8, rule_anomalies int, statistical_anomalies int, windows int, is_closed boolean)
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT w.window_start, w.location, w.sensor_type, w.readings, w.total, w.squares, w.low, w.high,
        w.rule_anomalies, w.statistical_anomalies, w.windows, w.is_closed
    FROM single_windows w
    WHERE NOT in_tens AND w.window_start >= begins AND w.window_start < ends
        AND (place IS NULL OR w.location = place) AND (kind IS NULL OR w.sensor_type = kind)
    UNION ALL
    SELECT w.window_start, w.location, w.sensor_type, w.readings, w.total, w.squares, w.low, w.high,
        w.rule_anomalies, w.statistical_anomalies, w.windows, w.is_closed
    FROM single_windows w
    WHERE in_tens AND w.window_start >= begins
        AND w.window_start < date_bin('10 minutes', begins + interval '9 minutes 59.999999 seconds', '2000-01-01')
        AND (place IS NULL OR w.location = place) AND (kind IS NULL OR w.sensor_type = kind)
    UNION ALL
    SELECT r.window_start, r.location, r.sensor_type, r.readings, r.total::float8, r.squares::float8, r.low::float8,
        r.high::float8, r.rule_anomalies, r.statistical_anomalies, r.windows, true
    FROM window_rollups r
    WHERE in_tens AND r.window_start >= date_bin('10 minutes', begins + interval '9 minutes 59.999999 seconds', '2000-01-01')
        AND r.window_start < date_bin('10 minutes', ends, '2000-01-01')
        AND (place IS NULL OR r.location = place) AND (kind IS NULL OR r.sensor_type = kind)
    UNION ALL
    SELECT w.window_start, w.location, w.sensor_type, w.readings, w.total, w.squares, w.low, w.high,
        w.rule_anomalies, w.statistical_anomalies, w.windows, w.is_closed
    FROM single_windows w
    WHERE in_tens AND NOT w.is_final
        AND w.window_start >= date_bin('10 minutes', begins + interval '9 minutes 59.999999 seconds', '2000-01-01')
        AND w.window_start < date_bin('10 minutes', ends, '2000-01-01')
        AND (place IS NULL OR w.location = place) AND (kind IS NULL OR w.sensor_type = kind)
    UNION ALL
    SELECT w.window_start, w.location, w.sensor_type, w.readings, w.total, w.squares, w.low, w.high,
        w.rule_anomalies, w.statistical_anomalies, w.windows, w.is_closed
    FROM single_windows w
    WHERE in_tens AND w.window_start >= date_bin('10 minutes', ends, '2000-01-01') AND w.window_start < ends
        AND (place IS NULL OR w.location = place) AND (kind IS NULL OR w.sensor_type = kind);
END;
COMMENT ON FUNCTION windows_between_v1 IS
    'Windows that start in [begins, ends), of one location or sensor type where those are given; what in_tens adds up to ten minutes counts in the column windows.';

CREATE OR REPLACE VIEW hourly_aggregates AS
SELECT date_trunc('hour', window_start) AS hour, location, sensor_type,
    round(sum(total) / sum(readings), 2) AS avg_value, min(low) AS min_value, max(high) AS max_value,
    round(sqrt(sum(squares) * sum(readings) - sum(total) * sum(total)) / sum(readings), 2) AS stddev_value,
    sum(readings)::bigint AS count_readings, sum(rule_anomalies)::int AS anomaly_count,
    sum(statistical_anomalies)::int AS statistical_anomalies, sum(windows)::int AS windows
FROM window_rollups GROUP BY 1, 2, 3;
COMMENT ON VIEW hourly_aggregates IS
    'One row per hour (its start, UTC), location and sensor type: the final windows that start in it as one, columns as in sensor_aggregates; windows says how many.';

CREATE OR REPLACE VIEW daily_aggregates AS
SELECT date_trunc('day', window_start)::date AS day, location, sensor_type,
    round(sum(total) / sum(readings), 2) AS avg_value, min(low) AS min_value, max(high) AS max_value,
    round(sqrt(sum(squares) * sum(readings) - sum(total) * sum(total)) / sum(readings), 2) AS stddev_value,
    sum(readings)::bigint AS count_readings, sum(rule_anomalies)::int AS anomaly_count,
    sum(statistical_anomalies)::int AS statistical_anomalies, sum(windows)::int AS windows
FROM window_rollups GROUP BY 1, 2, 3;
COMMENT ON VIEW daily_aggregates IS
    'One row per UTC day, location and sensor type: the final windows that start in it as one, columns as in sensor_aggregates; windows says how many.';

CREATE TABLE IF NOT EXISTS window_partials (
    source_id              INTEGER NOT NULL REFERENCES sources,
    window_start           TIMESTAMP NOT NULL,
    location               VARCHAR(100) NOT NULL,
    sensor_type            VARCHAR(50) NOT NULL,
    readings               BIGINT NOT NULL,
    sum_hundredths         NUMERIC NOT NULL,
    sum_squares            NUMERIC NOT NULL,
    min_hundredths         BIGINT NOT NULL,
    max_hundredths         BIGINT NOT NULL,
    anomalies              BIGINT NOT NULL,
    statistical_anomalies  BIGINT NOT NULL,
    usual_readings         BIGINT NOT NULL,
    usual_sum              NUMERIC NOT NULL,
    usual_squares          NUMERIC NOT NULL,
    baseline_readings      BIGINT NOT NULL,
    baseline_sum           NUMERIC NOT NULL,
    baseline_squares       NUMERIC NOT NULL,
    first_unit             VARCHAR(20) NOT NULL DEFAULT '',
    last_unit              VARCHAR(20) NOT NULL DEFAULT '',
    -- Serves the merge of a window's partials of all partitions, and the search for all windows of a group.
    CONSTRAINT window_partials_pkey PRIMARY KEY (location, sensor_type, window_start, source_id)
);
COMMENT ON TABLE window_partials IS
    'State of the stream processor: one row per partition, window, location and sensor type; kept while it may still be needed.';
COMMENT ON COLUMN window_partials.source_id IS 'Partition the readings came from.';
COMMENT ON COLUMN window_partials.window_start IS 'Start of the window, UTC.';
COMMENT ON COLUMN window_partials.location IS 'Where the sensors are.';
COMMENT ON COLUMN window_partials.sensor_type IS 'What they measure.';
COMMENT ON COLUMN window_partials.readings IS 'Readings of this partition in the window.';
COMMENT ON COLUMN window_partials.sum_hundredths IS 'Exact sum of the values, hundredths.';
COMMENT ON COLUMN window_partials.sum_squares IS 'Exact sum of the squared values, hundredths squared.';
COMMENT ON COLUMN window_partials.min_hundredths IS 'Smallest value, hundredths.';
COMMENT ON COLUMN window_partials.max_hundredths IS 'Largest value, hundredths.';
COMMENT ON COLUMN window_partials.anomalies IS 'Readings with the rule-based flag set.';
COMMENT ON COLUMN window_partials.statistical_anomalies IS 'Readings beyond 3 sigma of the baseline.';
COMMENT ON COLUMN window_partials.usual_readings IS 'Readings flagged by neither rule nor z-score: they feed later baselines.';
COMMENT ON COLUMN window_partials.usual_sum IS 'Their sum, hundredths.';
COMMENT ON COLUMN window_partials.usual_squares IS 'Their sum of squares, hundredths squared.';
COMMENT ON COLUMN window_partials.baseline_readings IS 'Readings in the baseline frozen when the window opened.';
COMMENT ON COLUMN window_partials.baseline_sum IS 'Their sum, hundredths.';
COMMENT ON COLUMN window_partials.baseline_squares IS 'Their sum of squares, hundredths squared.';
COMMENT ON COLUMN window_partials.first_unit IS 'Of the units of the readings the first in alphabetical order.';
COMMENT ON COLUMN window_partials.last_unit IS 'Of the units of the readings the last in alphabetical order.';

CREATE TABLE IF NOT EXISTS late_readings (
    source_id    INTEGER NOT NULL REFERENCES sources,
    log_offset   BIGINT NOT NULL,
    sensor_id    VARCHAR(100) NOT NULL,
    sensor_type  VARCHAR(50) NOT NULL,
    location     VARCHAR(100) NOT NULL,
    value        NUMERIC(10,2) NOT NULL,
    timestamp    TIMESTAMP NOT NULL,
    anomaly      BOOLEAN NOT NULL,
    unit         VARCHAR(20) NOT NULL,
    window_start TIMESTAMP NOT NULL,
    watermark    TIMESTAMP NOT NULL,
    late_by_seconds NUMERIC NOT NULL,
    created_at   TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    CONSTRAINT late_readings_pkey PRIMARY KEY (source_id, log_offset)
);
-- Serves the dashboard's latest late readings.
CREATE INDEX IF NOT EXISTS late_readings_created_at ON late_readings (created_at);
-- Serves python -m service.backfill.
CREATE INDEX IF NOT EXISTS late_readings_window ON late_readings (window_start, location, sensor_type);
COMMENT ON TABLE late_readings IS
    'One row per reading that came too late for its window and is not counted in it; it is in sensor_readings all the same.';
COMMENT ON COLUMN late_readings.source_id IS 'Partition the message came from.';
COMMENT ON COLUMN late_readings.log_offset IS 'Offset of the message in that partition.';
COMMENT ON COLUMN late_readings.sensor_id IS 'Stable name of the sensor.';
COMMENT ON COLUMN late_readings.sensor_type IS 'What it measures.';
COMMENT ON COLUMN late_readings.location IS 'Where it is.';
COMMENT ON COLUMN late_readings.value IS 'Measured value in unit.';
COMMENT ON COLUMN late_readings.timestamp IS 'Event time, UTC.';
COMMENT ON COLUMN late_readings.anomaly IS 'Rule-based flag set at the sensor.';
COMMENT ON COLUMN late_readings.unit IS 'Unit of value.';
COMMENT ON COLUMN late_readings.window_start IS 'Start of the window it missed, UTC.';
COMMENT ON COLUMN late_readings.watermark IS 'Watermark of its partition when it came, UTC.';
COMMENT ON COLUMN late_readings.late_by_seconds IS 'How far that watermark was past the window''s end, seconds; more than the allowed lateness, or the window was final.';
COMMENT ON COLUMN late_readings.created_at IS 'When the row was written, UTC.';

CREATE TABLE IF NOT EXISTS sensor_correlations (
    window_end     TIMESTAMP NOT NULL,
    location       VARCHAR(100) NOT NULL,
    sensor_type_a  VARCHAR(50) NOT NULL,
    sensor_type_b  VARCHAR(50) NOT NULL,
    correlation    NUMERIC(6,5),
    window_count   INTEGER NOT NULL,
    is_final       BOOLEAN NOT NULL,
    created_at     TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    CONSTRAINT sensor_correlations_pkey PRIMARY KEY (window_end, location, sensor_type_a, sensor_type_b)
);
COMMENT ON TABLE sensor_correlations IS
    'One row per window end, location and pair of sensor types (a < b): Pearson correlation of their window means.';
COMMENT ON COLUMN sensor_correlations.window_end IS 'End of the window that closed, UTC; none later is taken in.';
COMMENT ON COLUMN sensor_correlations.location IS 'Where the sensors are.';
COMMENT ON COLUMN sensor_correlations.sensor_type_a IS 'First sensor type, alphabetically.';
COMMENT ON COLUMN sensor_correlations.sensor_type_b IS 'Second sensor type.';
COMMENT ON COLUMN sensor_correlations.correlation IS 'Pearson correlation, -1..1; NULL when a series is constant or too short.';
COMMENT ON COLUMN sensor_correlations.window_count IS 'Windows taken in: the latest in which both types have a mean, CORRELATION_WINDOWS at most, sought one day back.';
COMMENT ON COLUMN sensor_correlations.is_final IS 'Computed from final windows.';
COMMENT ON COLUMN sensor_correlations.created_at IS 'When the row was last written, UTC.';

CREATE TABLE IF NOT EXISTS correlations_due (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    window_start  TIMESTAMP NOT NULL,
    window_end    TIMESTAMP NOT NULL,
    location      VARCHAR(100) NOT NULL
);
COMMENT ON TABLE correlations_due IS
    'One row per closing of windows at a location, written with it: its correlations are still to be computed. Normally empty.';
COMMENT ON COLUMN correlations_due.id IS 'Number of the row.';
COMMENT ON COLUMN correlations_due.window_start IS 'Start of the windows that closed or became final, UTC.';
COMMENT ON COLUMN correlations_due.window_end IS 'Their end, UTC.';
COMMENT ON COLUMN correlations_due.location IS 'Where the sensors are.';

-- --------------------------------------------------------------------------------------------- detector

CREATE TABLE IF NOT EXISTS ml_anomaly_predictions (
    id                  BIGINT GENERATED ALWAYS AS IDENTITY,
    sensor_id           VARCHAR(100) NOT NULL,
    sensor_type         VARCHAR(50) NOT NULL,
    location            VARCHAR(100) NOT NULL,
    value               NUMERIC(10,2) NOT NULL,
    timestamp           TIMESTAMP NOT NULL,
    is_anomaly          BOOLEAN,
    anomaly_score       NUMERIC(10,6),
    rule_based_anomaly  BOOLEAN NOT NULL,
    created_at          TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    reason              TEXT,
    lower               DOUBLE PRECISION,
    upper               DOUBLE PRECISION,
    source_id           INTEGER NOT NULL,
    log_offset          BIGINT NOT NULL,
    ingested_on         DATE NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date
) PARTITION BY RANGE (ingested_on);
-- Partitioned like sensor_readings, by the date on which the reading was written, so that a reading
-- and its prediction go on the same day. The primary key of each partition, (source_id, log_offset),
-- makes a second prediction of one reading impossible, and joins predictions to readings.
-- Serves the dashboard's time ranges.
CREATE INDEX IF NOT EXISTS ml_anomaly_predictions_timestamp ON ml_anomaly_predictions (timestamp);
-- Serves the latest anomalies: few rows, whatever the history.
CREATE INDEX IF NOT EXISTS ml_anomaly_predictions_anomalies ON ml_anomaly_predictions (timestamp) WHERE is_anomaly;
COMMENT ON TABLE ml_anomaly_predictions IS 'One row per reading: the detector''s verdict beside the sensor''s own rule.';
COMMENT ON COLUMN ml_anomaly_predictions.id IS 'Number of the row.';
COMMENT ON COLUMN ml_anomaly_predictions.sensor_id IS 'Stable name of the sensor.';
COMMENT ON COLUMN ml_anomaly_predictions.sensor_type IS 'What it measures.';
COMMENT ON COLUMN ml_anomaly_predictions.location IS 'Where it is.';
COMMENT ON COLUMN ml_anomaly_predictions.value IS 'Measured value.';
COMMENT ON COLUMN ml_anomaly_predictions.timestamp IS 'Event time, UTC.';
COMMENT ON COLUMN ml_anomaly_predictions.is_anomaly IS 'The detector''s verdict; NULL until a model of the type is fitted.';
COMMENT ON COLUMN ml_anomaly_predictions.anomaly_score IS 'score_samples of the forest, -1..0, lower = more anomalous; NULL until fitted.';
COMMENT ON COLUMN ml_anomaly_predictions.rule_based_anomaly IS 'The sensor''s own flag (sensor_readings.anomaly).';
COMMENT ON COLUMN ml_anomaly_predictions.created_at IS 'When the row was written, UTC.';
COMMENT ON COLUMN ml_anomaly_predictions.reason IS 'For an anomaly: what is furthest from usual, in words, with its unit.';
COMMENT ON COLUMN ml_anomaly_predictions.lower IS 'Lower end of the band the value was judged by, in its unit; NULL until the series is known.';
COMMENT ON COLUMN ml_anomaly_predictions.upper IS 'Upper end of that band.';
COMMENT ON COLUMN ml_anomaly_predictions.source_id IS 'Partition the reading came from.';
COMMENT ON COLUMN ml_anomaly_predictions.log_offset IS 'Offset of the reading in that partition.';
COMMENT ON COLUMN ml_anomaly_predictions.ingested_on IS 'Date (UTC) on which the reading was written (sensor_readings).';

CREATE TABLE IF NOT EXISTS verdict_counts (
    minute           TIMESTAMP NOT NULL,
    location         VARCHAR(100) NOT NULL,
    sensor_type      VARCHAR(50) NOT NULL,
    neither          INTEGER NOT NULL,
    rule_only        INTEGER NOT NULL,
    ml_only          INTEGER NOT NULL,
    both_flag        INTEGER NOT NULL,
    without_verdict  INTEGER NOT NULL,
    -- The only index: it serves the dashboard's time ranges and the detector's upsert.
    CONSTRAINT verdict_counts_pkey PRIMARY KEY (minute, location, sensor_type)
);
COMMENT ON TABLE verdict_counts IS
    'One row per minute of event time, location and sensor type: how many predictions there are of each kind. Written with them: counting the predictions of a day takes a second, adding these up some milliseconds.';
COMMENT ON COLUMN verdict_counts.minute IS 'Start of the minute, UTC.';
COMMENT ON COLUMN verdict_counts.location IS 'Where the sensors are.';
COMMENT ON COLUMN verdict_counts.sensor_type IS 'What they measure.';
COMMENT ON COLUMN verdict_counts.neither IS 'Readings flagged by neither detector nor rule.';
COMMENT ON COLUMN verdict_counts.rule_only IS 'Readings flagged by the sensor''s rule only.';
COMMENT ON COLUMN verdict_counts.ml_only IS 'Readings flagged by the detector only.';
COMMENT ON COLUMN verdict_counts.both_flag IS 'Readings flagged by both.';
COMMENT ON COLUMN verdict_counts.without_verdict IS 'Readings that came before a model of their type was fitted.';

CREATE TABLE IF NOT EXISTS merged_verdicts (LIKE verdict_counts INCLUDING ALL);
COMMENT ON TABLE merged_verdicts IS
    'One row per ten minutes of event time, location and sensor type: verdict_counts added up. Written with them: two weeks of minutes take a tenth of a second to add up, two weeks of these some milliseconds.';
COMMENT ON COLUMN merged_verdicts.minute IS 'Start of the ten minutes, UTC.';

CREATE OR REPLACE FUNCTION verdicts_between_v1(begins timestamp, ends timestamp, place text, kind text, in_tens boolean)
RETURNS SETOF verdict_counts
LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT v.* FROM verdict_counts v
    WHERE v.minute >= begins AND v.minute < ends
        AND (NOT in_tens OR v.minute < date_bin('10 minutes', begins + interval '9 minutes 59.999999 seconds', '2000-01-01'))
        AND (place IS NULL OR v.location = place) AND (kind IS NULL OR v.sensor_type = kind)
    UNION ALL
    SELECT m.* FROM merged_verdicts m
    WHERE in_tens AND m.minute >= date_bin('10 minutes', begins + interval '9 minutes 59.999999 seconds', '2000-01-01')
        AND m.minute < date_bin('10 minutes', ends, '2000-01-01')
        AND (place IS NULL OR m.location = place) AND (kind IS NULL OR m.sensor_type = kind)
    UNION ALL
    SELECT v.* FROM verdict_counts v
    WHERE in_tens AND v.minute >= date_bin('10 minutes', ends, '2000-01-01') AND v.minute < ends
        AND (place IS NULL OR v.location = place) AND (kind IS NULL OR v.sensor_type = kind);
END;
COMMENT ON FUNCTION verdicts_between_v1 IS
    'Verdicts of [begins, ends) by the minute, or where in_tens by ten minutes between the first and the last; as windows_between_v1.';

-- Which shard a sensor type belongs to; db/shards.py has the same in Python.
CREATE OR REPLACE FUNCTION detector_shard(sensor_type VARCHAR) RETURNS INTEGER
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN get_byte(decode(md5(sensor_type), 'hex'), 0) % 16;

CREATE TABLE IF NOT EXISTS detector_shards (
    shard            INTEGER PRIMARY KEY,
    owner            TEXT,
    version          BIGINT NOT NULL DEFAULT 0,
    positions        JSONB NOT NULL DEFAULT '{}',
    state            BYTEA,
    state_positions  JSONB NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);  -- rows move with every batch: room for the new beside the old
INSERT INTO detector_shards (shard) SELECT generate_series(0, 15) ON CONFLICT DO NOTHING;
COMMENT ON TABLE detector_shards IS
    'One row per sixteenth of the sensor types (detector_shard): who scores it, how far it is, what it has learnt.';
COMMENT ON COLUMN detector_shards.shard IS 'Number of the shard.';
COMMENT ON COLUMN detector_shards.owner IS 'Detector that works on it, as in lease_owners; NULL: nobody.';
COMMENT ON COLUMN detector_shards.version IS 'Moves with every batch and every new owner: the fence.';
COMMENT ON COLUMN detector_shards.positions IS 'First offset not yet scored, per source_id. Moves in the transaction of the predictions.';
COMMENT ON COLUMN detector_shards.state IS 'What was learnt up to state_positions: per type what AnomalyDetector.save returns, no pickle, together as msgpack.';
COMMENT ON COLUMN detector_shards.state_positions IS 'As positions; what was scored since is learnt again after a restart.';

CREATE TABLE IF NOT EXISTS model_runs (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sensor_type       VARCHAR(50) NOT NULL,
    fitted_at         TIMESTAMP NOT NULL,
    training_rows     INTEGER NOT NULL,
    duration_seconds  NUMERIC(10,3) NOT NULL,
    threshold         NUMERIC(10,6) NOT NULL,
    flagged_share     NUMERIC(6,5) NOT NULL,
    drift             NUMERIC(10,4),
    created_at        TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')
);
-- Serves the latest training of each type.
CREATE INDEX IF NOT EXISTS model_runs_type ON model_runs (sensor_type, id);
COMMENT ON TABLE model_runs IS 'One row per training of a sensor type''s forest.';
COMMENT ON COLUMN model_runs.id IS 'Number of the training.';
COMMENT ON COLUMN model_runs.sensor_type IS 'The sensor type.';
COMMENT ON COLUMN model_runs.fitted_at IS 'Event time of the last reading trained on, UTC.';
COMMENT ON COLUMN model_runs.training_rows IS 'Readings trained on.';
COMMENT ON COLUMN model_runs.duration_seconds IS 'Wall time of the training, seconds.';
COMMENT ON COLUMN model_runs.threshold IS 'Score below which a reading may be an anomaly.';
COMMENT ON COLUMN model_runs.flagged_share IS 'Share of the training readings below the threshold.';
COMMENT ON COLUMN model_runs.drift IS 'Population stability index of the features against the previous training; above 0.25 they moved.';
COMMENT ON COLUMN model_runs.created_at IS 'When the row was written, UTC.';

-- ---------------------------------------------------------------------------------------------- process

CREATE TABLE IF NOT EXISTS service_status (
    service     TEXT NOT NULL,
    instance    TEXT NOT NULL,
    state       TEXT NOT NULL,
    started_at  TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    updated_at  TIMESTAMP NOT NULL DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'),
    details     JSONB NOT NULL DEFAULT '{}',
    CONSTRAINT service_status_pkey PRIMARY KEY (service, instance)
);
COMMENT ON TABLE service_status IS 'One row per service process: its last heartbeat. Rows a day old are removed.';
COMMENT ON COLUMN service_status.service IS 'producer, consumer, stream_processor or ml_detector.';
COMMENT ON COLUMN service_status.instance IS 'Host and process id.';
COMMENT ON COLUMN service_status.state IS 'running or stopped; a row that is not renewed is a service that died.';
COMMENT ON COLUMN service_status.started_at IS 'When the process started, UTC.';
COMMENT ON COLUMN service_status.updated_at IS 'When it last reported, UTC; every 5 seconds while it runs.';
COMMENT ON COLUMN service_status.details IS 'readings (since start), readings_per_s, lag, last_error and others of the service.';

-- Leases: what only one process may do at a time. No time is stored: service/leases.py judges by counters that move.
CREATE TABLE IF NOT EXISTS lease_owners (
    service  TEXT NOT NULL,
    owner    TEXT NOT NULL,
    counter  BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT lease_owners_pkey PRIMARY KEY (service, owner)
);
COMMENT ON TABLE lease_owners IS 'One row per process that may hold leases: the counter by which others see that it lives.';
COMMENT ON COLUMN lease_owners.service IS 'consumer or ml_detector.';
COMMENT ON COLUMN lease_owners.owner IS 'Host, process id and a random part, so that no name is ever used twice.';
COMMENT ON COLUMN lease_owners.counter IS 'Moved by its owner every 2 seconds; others, who see it unmoved for 8 seconds of their own, take what it held.';

CREATE TABLE IF NOT EXISTS leases (
    name     TEXT PRIMARY KEY,
    owner    TEXT,
    version  BIGINT NOT NULL DEFAULT 0
);
INSERT INTO leases (name) VALUES ('upkeep') ON CONFLICT DO NOTHING;
COMMENT ON TABLE leases IS 'One row per task of which one process at a time takes care. upkeep: days made and dropped, sensors noted.';
COMMENT ON COLUMN leases.name IS 'The task.';
COMMENT ON COLUMN leases.owner IS 'Who has it, as in lease_owners.';
COMMENT ON COLUMN leases.version IS 'Moves with every new owner.';

-- ------------------------------------------------------------------------------------------------ roles

-- The dashboard's role may only read. Create it first where the owner may not create roles (docs/operations.md).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_dashboard')
       AND EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreaterole)) THEN
        CREATE ROLE iot_dashboard LOGIN PASSWORD 'iot_dashboard';
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_dashboard') THEN
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO iot_dashboard', current_database());
        GRANT USAGE ON SCHEMA public TO iot_dashboard;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO iot_dashboard;
    END IF;
END
$$;
