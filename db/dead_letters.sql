-- name: insert
-- Keeps as many of them as the hour has room for, in order, and counts all.
WITH this AS (
    SELECT date_trunc('hour', now() AT TIME ZONE 'UTC') AS hour
), room AS (
    SELECT greatest(0, %(rows_per_hour)s - coalesce(sum(kept), 0)) AS rows FROM dead_letter_counts
    WHERE source_id = %(source)s AND hour = (SELECT hour FROM this)
), kept AS (
    INSERT INTO dead_letters (source_id, topic, partition, log_offset, reason_code, reason, payload, payload_bytes)
    SELECT %(source)s, %(topic)s, %(partition)s, log_offset, reason_code, reason, payload, payload_bytes
    FROM unnest(%(offsets)s::bigint[], %(codes)s::text[], %(reasons)s::text[], %(payloads)s::bytea[], %(bytes)s::int[])
        WITH ORDINALITY AS l (log_offset, reason_code, reason, payload, payload_bytes, place)
    WHERE place <= (SELECT rows FROM room)
    ORDER BY place
    RETURNING reason_code
)
INSERT INTO dead_letter_counts AS c (source_id, hour, reason_code, kept, counted_only)
SELECT %(source)s, hour, code, k.letters, all_letters - k.letters
FROM this, unnest(%(counted_codes)s::text[], %(counts)s::bigint[]) AS a (code, all_letters),
    LATERAL (SELECT count(*) AS letters FROM kept WHERE reason_code = code) AS k
ORDER BY code
ON CONFLICT ON CONSTRAINT dead_letter_counts_pkey DO UPDATE SET
    kept = c.kept + EXCLUDED.kept, counted_only = c.counted_only + EXCLUDED.counted_only
