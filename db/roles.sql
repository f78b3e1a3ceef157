-- The two roles and the database, created by a superuser with psql; safe to run again.
-- docker-compose.yml runs it when the volume is new, local_stack/postgres.py at every start. Another
-- password, name or database: psql -v owner_password=... -v database=... -f db/roles.sql
\if :{?owner}
\else
    \set owner iot_user
\endif
\if :{?owner_password}
\else
    \set owner_password iot_password
\endif
\if :{?reader_password}
\else
    \set reader_password iot_dashboard
\endif
\if :{?database}
\else
    \set database iot_db
\endif

-- Owns the database and writes; no superuser. It may create databases: a replayed recording wants one of its own.
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'owner', :'owner_password')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
ALTER ROLE :"owner" CREATEDB;
-- The dashboard's: gets SELECT, and nothing else, in db/schema.sql.
SELECT format('CREATE ROLE iot_dashboard LOGIN PASSWORD %L', :'reader_password')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iot_dashboard') \gexec
SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', :'database', :'owner')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
