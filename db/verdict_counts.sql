-- name: add
-- In the order of the keys, so that two detectors never deadlock; by the minute and by ten.
WITH counted AS (
    SELECT * FROM unnest(%(minutes)s::timestamp[], %(locations)s::varchar[], %(types)s::varchar[], %(neither)s::int[],
            %(rule_only)s::int[], %(ml_only)s::int[], %(both)s::int[], %(without_verdict)s::int[])
        AS c (minute, location, sensor_type, neither, rule_only, ml_only, both_flag, without_verdict)
), by_minute AS (
    INSERT INTO verdict_counts AS old (minute, location, sensor_type, neither, rule_only, ml_only, both_flag,
        without_verdict)
    SELECT * FROM counted ORDER BY minute, location, sensor_type
    ON CONFLICT (minute, location, sensor_type) DO UPDATE SET
        neither = old.neither + excluded.neither, rule_only = old.rule_only + excluded.rule_only,
        ml_only = old.ml_only + excluded.ml_only, both_flag = old.both_flag + excluded.both_flag,
        without_verdict = old.without_verdict + excluded.without_verdict
)
INSERT INTO merged_verdicts AS old (minute, location, sensor_type, neither, rule_only, ml_only, both_flag,
    without_verdict)
SELECT date_bin('10 minutes', minute, '2000-01-01'), location, sensor_type, sum(neither), sum(rule_only), sum(ml_only),
    sum(both_flag), sum(without_verdict)
FROM counted GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (minute, location, sensor_type) DO UPDATE SET
    neither = old.neither + excluded.neither, rule_only = old.rule_only + excluded.rule_only,
    ml_only = old.ml_only + excluded.ml_only, both_flag = old.both_flag + excluded.both_flag,
    without_verdict = old.without_verdict + excluded.without_verdict
