-- name: partitions
-- And the day before which their rows were stored, in order; without one that a crash left half detached.
SELECT c.relname, substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''(.*)''\)')::date AS until
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(table)s::regclass AND NOT i.inhdetachpending ORDER BY until

-- name: owns_tables
SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE oid = ANY(%(tables)s::text[]::regclass[])
