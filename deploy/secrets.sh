#!/usr/bin/env bash
# Makes the secrets of deploy/compose.yaml, in deploy/secrets: passwords, the certificate of OpenBao and
# the key that unseals it. Only what is missing is made, so it can be run again; to replace something,
# remove its files first.
#
#     deploy/secrets.sh [FOLDER]
#
# The folder is readable by its owner alone. The files in it have to be readable by the users inside the
# containers, each of which is shown no others than its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly folder=${1:-$here/secrets}
# Certificates are watched by an alert (SidekeyCertificateExpiring).
readonly certificate_days=1825

command -v openssl >/dev/null || {
    echo "secrets.sh: openssl is missing: install it, then run this again." >&2
    exit 1
}
mkdir -p "$folder"
chmod 0700 "$folder"
cd "$folder"
scratch=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# keep NAME: makes a file of what comes in, all or nothing.
keep() {
    cat >"$scratch/$1"
    chmod 0644 "$scratch/$1"
    mv "$scratch/$1" "$1"
    echo "secrets.sh: made $folder/$1" >&2
}

# 192 random bits, in letters that no URL has to write in another way.
password() { openssl rand -hex 24; }

for name in postgres-password database-password redis-password grafana-password; do
    [ -s "$name" ] || password | keep "$name"
done
[ -s database-url ] ||
    printf 'postgres://sidekey:%s@postgres/sidekey\n' "$(<database-password)" | keep database-url
[ -s redis-url ] ||
    printf 'redis://sidekey:%s@redis:6379\n' "$(<redis-password)" | keep redis-url

# Redis gets the password's hash, and nobody else may do anything there.
if [ ! -s redis-users ]; then
    hash=$(printf %s "$(<redis-password)" | openssl dgst -sha256 -r | cut -d' ' -f1)
    rights=$(sed -n "s/^user sidekey on >[^ ]* /user sidekey on #$hash /p" "$here/../config/redis-users.conf")
    [ -n "$rights" ] || {
        echo "secrets.sh: config/redis-users.conf has no user sidekey." >&2
        exit 1
    }
    printf 'user default off\n%s\n' "$rights" | keep redis-users
fi

[ -s openbao-unseal-key ] || openssl rand 32 | keep openbao-unseal-key

# An authority for this one certificate: its key is thrown away.
if [ ! -s openbao-ca.pem ] || [ ! -s openbao-key.pem ] || [ ! -s openbao.pem ]; then
    rm -f openbao-ca.pem openbao.pem openbao-key.pem
    curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc)
    openssl req -x509 "${curve[@]}" -days "$certificate_days" -subj "/CN=Sidekey's OpenBao" \
        -addext keyUsage=critical,keyCertSign -keyout "$scratch/ca-key.pem" -out "$scratch/ca.pem" 2>/dev/null
    openssl req "${curve[@]}" -subj /CN=openbao -keyout "$scratch/key.pem" -out "$scratch/request.pem" 2>/dev/null
    printf 'subjectAltName=DNS:openbao,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$scratch/names"
    openssl x509 -req -in "$scratch/request.pem" -CA "$scratch/ca.pem" -CAkey "$scratch/ca-key.pem" \
        -CAcreateserial -days "$certificate_days" -extfile "$scratch/names" -out "$scratch/leaf.pem" 2>/dev/null
    keep openbao-key.pem <"$scratch/key.pem"
    keep openbao.pem <"$scratch/leaf.pem"
    keep openbao-ca.pem <"$scratch/ca.pem"
fi
