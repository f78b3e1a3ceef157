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

-- name: by_reason
SELECT reason_code, count(*), count(sent_again_at), count(*) FILTER (WHERE payload_bytes > octet_length(payload)),
    min(created_at), max(created_at), (array_agg(reason ORDER BY id DESC))[1],
    (array_agg(substr(payload, 1, 200) ORDER BY id DESC))[1]
FROM dead_letters
WHERE topic = %(topic)s AND reason_code = coalesce(%(reason)s, reason_code)
    AND created_at >= coalesce(%(since)s::timestamp, '-infinity') AND created_at < coalesce(%(until)s::timestamp, 'infinity')
GROUP BY reason_code ORDER BY 2 DESC, 1

-- name: unsent
SELECT id, source_id, log_offset, payload, payload_bytes FROM dead_letters
WHERE id > %(after)s AND sending_since IS NULL
    AND topic = %(topic)s AND reason_code = coalesce(%(reason)s, reason_code)
    AND created_at >= coalesce(%(since)s::timestamp, '-infinity') AND created_at < coalesce(%(until)s::timestamp, 'infinity')
ORDER BY id LIMIT %(most)s

-- name: prepare
UPDATE dead_letters SET sending_since = clock_timestamp() AT TIME ZONE 'UTC'
WHERE id = ANY(%(ids)s) AND sending_since IS NULL

-- name: keep_ends
INSERT INTO dead_letter_sends AS s (source_id, end_offset)
SELECT source_id, end_offset FROM unnest(%(source_ids)s::int[], %(end_offsets)s::bigint[]) AS e (source_id, end_offset)
ORDER BY source_id
ON CONFLICT ON CONSTRAINT dead_letter_sends_pkey DO UPDATE SET end_offset = EXCLUDED.end_offset

-- name: pending
SELECT id, source_id, log_offset, payload, payload_bytes FROM dead_letters
WHERE sending_since IS NOT NULL AND sent_again_at IS NULL ORDER BY id

-- name: ends
SELECT source_id, end_offset FROM dead_letter_sends

-- name: sent
UPDATE dead_letters SET sent_again_at = clock_timestamp() AT TIME ZONE 'UTC' WHERE id = ANY(%(ids)s)
