#!/bin/sh
# Run by PostgreSQL's image when it makes its database: a user and a database for Sidekey, which may do
# nothing with others.
set -eu

# The password is read by psql itself, so that it stands in no list of processes.
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
\set password \`cat ${DATABASE_PASSWORD_FILE:-/run/secrets/database-password}\`
CREATE USER sidekey PASSWORD :'password';
CREATE DATABASE sidekey OWNER sidekey;
REVOKE CONNECT ON DATABASE sidekey, postgres FROM PUBLIC;
SQL
