# The rights that Sidekey needs in Vault or OpenBao, and no more.
#
#     bao policy write sidekey config/vault-policy.hcl
#
# "secret" is the KV v2 mount, secrets.vault.mount in Sidekey's configuration. Where yours has
# another name, change it in every path.

# The hashes of one key: written when it is made or regenerated, read when it is first used.
path "secret/data/api_keys/+/+" {
  capabilities = ["create", "read", "update"]
}

# Replaced hashes go for good (update: only one version is kept), revoked keys with everything that
# was known of them (delete).
path "secret/metadata/api_keys/+/+" {
  capabilities = ["create", "update", "delete"]
}

# Which keys have hashes: looked through for those that were left behind.
path "secret/metadata/api_keys" {
  capabilities = ["list"]
}
path "secret/metadata/api_keys/+" {
  capabilities = ["list"]
}
# A tenant's folder, as a list names it; the rule for keys above would fit it too, and has no "list".
path "secret/metadata/api_keys/+/" {
  capabilities = ["list"]
}

# The mint keys. "create" is for the first start and for `sidekey secrets move`, "update" for
# `sidekey secrets rotate-mint-key`; an instance that only runs needs "read".
path "secret/data/mint_keys" {
  capabilities = ["create", "read", "update"]
}

# Its own token: whether it still holds, and for how long; longer, please.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
