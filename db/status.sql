-- name: report
INSERT INTO service_status (service, instance, state, details)
VALUES (%(service)s, %(instance)s, %(state)s, %(details)s)
ON CONFLICT (service, instance) DO UPDATE SET state = EXCLUDED.state, details = EXCLUDED.details,
    updated_at = EXCLUDED.updated_at

-- name: forget_silent
DELETE FROM service_status WHERE updated_at < (clock_timestamp() AT TIME ZONE 'UTC') - interval '1 day'
