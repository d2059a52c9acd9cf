#!/bin/sh
# Sets OpenBao up for Sidekey: initialises it, and makes the engine, the policy and the login that
# docs/operations.md describes. It runs at each start, and does what is left to do.
#
# What it leaves: in STATE the recovery key (and, until all is done, the root token, which is then
# revoked), in LOGIN the secret id that Sidekey logs in with.
set -eu
umask 077

STATE=${STATE:-/state}
LOGIN=${LOGIN:-/login}
POLICY=${POLICY:-/etc/sidekey/vault-policy.hcl}
ATTEMPTS_MAX=${ATTEMPTS_MAX:-90}

say() { echo "openbao-init: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# 0: unsealed. 2: sealed, or not initialised. Anything else: it can't be reached.
seal_status() {
    if bao status >/dev/null 2>&1; then echo 0; else echo $?; fi
}

# wait_for CODE...: until the status is one of them.
wait_for() {
    attempt=0
    while :; do
        status=$(seal_status)
        case " $* " in *" $status "*) return ;; esac
        attempt=$((attempt + 1))
        [ "$attempt" -lt "$ATTEMPTS_MAX" ] ||
            die "OpenBao is not there, or stays sealed: look at its log."
        sleep 1
    done
}

wait_for 0 2
if ! bao operator init -status >/dev/null 2>&1; then
    say "initialising"
    bao operator init -recovery-shares=1 -recovery-threshold=1 >"$STATE/init.new"
    mv "$STATE/init.new" "$STATE/init.txt"
fi
wait_for 0

token=$(sed -n 's/^Initial Root Token: *//p' "$STATE/init.txt" 2>/dev/null || true)
if [ ! -s "$LOGIN/secret-id" ]; then
    [ -n "$token" ] || die "Sidekey's login is gone, and so is the root token: make a token with 'bao operator generate-root' and the recovery key, and put a new secret id of the role sidekey into $LOGIN/secret-id."
    export BAO_TOKEN="$token"
    bao secrets list | grep -q '^secret/' || bao secrets enable -path=secret -version=2 kv
    bao policy write sidekey "$POLICY"
    bao auth list | grep -q '^approle/' || bao auth enable approle
    bao write auth/approle/role/sidekey role_id=sidekey token_policies=sidekey \
        token_no_default_policy=true token_ttl=1h
    bao write -f -field=secret_id auth/approle/role/sidekey/secret-id >"$LOGIN/secret-id.new"
    # Sidekey is another user, and the only one who is shown this folder.
    chmod 0755 "$LOGIN"
    chmod 0644 "$LOGIN/secret-id.new"
    mv "$LOGIN/secret-id.new" "$LOGIN/secret-id"
fi
# It has done its work; the recovery key can make another one.
if [ -n "$token" ]; then
    BAO_TOKEN="$token" bao token revoke -self
    sed -i '/^Initial Root Token:/d' "$STATE/init.txt"
fi
say "ready"
