-- The detector's shards: who works on them, how far they are, what was learnt.

-- name: take
-- Conditional: of two that saw a shard free one gets it.
UPDATE detector_shards AS s SET owner = %(owner)s, version = s.version + 1
FROM unnest(%(shards)s::int[], %(versions)s::bigint[]) AS seen (shard, version)
WHERE s.shard = seen.shard AND s.version = seen.version

-- name: load
SELECT version, positions, state, state_positions FROM detector_shards
WHERE shard = %(shard)s AND owner = %(owner)s

-- name: advance
-- The fence: of a shard that somebody has taken meanwhile no row matches.
UPDATE detector_shards AS s SET version = s.version + 1, positions = v.positions::jsonb,
    state = coalesce(v.state, s.state),
    state_positions = coalesce(v.state_positions::jsonb, s.state_positions),
    owner = v.owner
FROM (VALUES %s) AS v (shard, version, owner, positions, state, state_positions)
WHERE s.shard = v.shard AND s.version = v.version
