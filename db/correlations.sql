-- name: take
-- The newest first, so that after a backlog the latest is soon there. What another processor has taken is left to it.
SELECT id, window_start, window_end, location FROM correlations_due
ORDER BY id DESC LIMIT %(rows)s FOR UPDATE SKIP LOCKED

-- name: write
-- A type that has had a window within a day belongs to its place; they are hopped along an index, so what they cost is
-- bounded by their number. Two of them are followed backwards from where the first of the two stopped. In hundredths,
-- whose sums are exact: corr() of a constant is NULL only then.
WITH due AS (
    SELECT DISTINCT * FROM unnest(%(starts)s::timestamp[], %(ends)s::timestamp[], %(locations)s::varchar[])
        AS d (window_start, window_end, location)
), types AS MATERIALIZED (
    SELECT due.*, t.* FROM due CROSS JOIN LATERAL (
        WITH RECURSIVE known AS (
            (SELECT sensor_type, 1 AS hops FROM sensor_aggregates a WHERE a.location = due.location
                ORDER BY sensor_type LIMIT 1)
            UNION ALL
            SELECT (SELECT a.sensor_type FROM sensor_aggregates a WHERE a.location = due.location
                AND a.sensor_type > known.sensor_type ORDER BY a.sensor_type LIMIT 1), hops + 1
            FROM known WHERE sensor_type IS NOT NULL AND hops < %(hops)s
        )
        SELECT sensor_type, last, row_number() OVER (ORDER BY sensor_type) AS place FROM known CROSS JOIN LATERAL (
            SELECT a.window_start AS last FROM sensor_aggregates a
            WHERE a.location = due.location AND a.sensor_type = known.sensor_type
                AND a.window_start > due.window_start - interval '1 day' AND a.window_start <= due.window_start
            ORDER BY a.window_start DESC LIMIT 1
        ) AS seen
        ORDER BY sensor_type LIMIT %(types)s + 1
    ) AS t
), written AS (
    INSERT INTO sensor_correlations AS c (window_end, location, sensor_type_a, sensor_type_b,
        correlation, window_count, is_final)
    SELECT a.window_end, a.location, a.sensor_type, b.sensor_type, r, n, NOT EXISTS (
            SELECT FROM sensor_aggregates o
            WHERE o.window_start = a.window_start AND o.location = a.location AND NOT o.is_final)
    FROM types a JOIN types b USING (window_start, location) CROSS JOIN LATERAL (
        SELECT CASE WHEN count(*) >= %(least)s THEN corr(va, vb) END AS r, count(*) AS n FROM (
            SELECT (x.avg_value * 100)::float8 AS va, (y.avg_value * 100)::float8 AS vb
            FROM sensor_aggregates x CROSS JOIN LATERAL (
                SELECT avg_value FROM sensor_aggregates y WHERE y.window_start = x.window_start
                    AND y.location = x.location AND y.sensor_type = b.sensor_type LIMIT 1
            ) AS y
            WHERE x.location = a.location AND x.sensor_type = a.sensor_type
                AND x.window_start > a.window_start - interval '1 day' AND x.window_start <= least(a.last, b.last)
            ORDER BY x.window_start DESC LIMIT %(windows)s
        ) AS common
    ) AS pair
    WHERE a.sensor_type < b.sensor_type AND a.place <= %(types)s AND b.place <= %(types)s
    ORDER BY 1, 2, 3, 4
    ON CONFLICT ON CONSTRAINT sensor_correlations_pkey DO UPDATE SET correlation = EXCLUDED.correlation,
        window_count = EXCLUDED.window_count, is_final = c.is_final OR EXCLUDED.is_final,
        created_at = EXCLUDED.created_at
)
SELECT DISTINCT location FROM types WHERE place > %(types)s
