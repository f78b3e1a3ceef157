-- name: blocker
-- Who waits for a lock itself is not to blame; nor can another role's session be ended.
SELECT blocker.pid
FROM pg_stat_activity AS waiting
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid
WHERE waiting.pid = %(pid)s AND waiting.wait_event_type = 'Lock'
  AND blocker.datname = current_database() AND blocker.usename = current_user
  AND blocker.wait_event_type IS DISTINCT FROM 'Lock'
LIMIT 1
