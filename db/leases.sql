-- Who is alive, and who holds what only one may do; service/leases.py judges.

-- name: move_counter
INSERT INTO lease_owners AS l (service, owner) VALUES (%(service)s, %(owner)s)
ON CONFLICT (service, owner) DO UPDATE SET counter = l.counter + 1

-- name: take
-- Conditional: of two that saw it free one gets it.
UPDATE leases SET owner = %(owner)s, version = version + 1
WHERE name = %(name)s AND version = %(version)s
