# What Keyswitch's credential service may do in Vault, and nothing beyond it. Each line is used; a test takes each
# right away in turn and shows what breaks, and tries what is not here.
#
#   vault policy write keyswitch keyswitch.hcl
#   vault write auth/approle/role/keyswitch token_policies=keyswitch token_no_default_policy=true token_ttl=20m token_max_ttl=24h
#
# The mounts that it speaks of, set up once by an operator:
#
#   vault secrets enable -path=keyswitch -version=2 kv
#   vault write keyswitch/config max_versions=1 cas_required=true
#   vault secrets enable -path=keyswitch-transit transit
#
# max_versions=1 is not a matter of taste: with more, a destroyed credential stays readable as an earlier version.

# Documents. Secrets in them are ciphertext of the transit keys below, so this right alone gives none away.
path "keyswitch/data/*" {
  capabilities = ["create", "read", "update"]
}

# Names of documents, and their removal with all versions. Not their metadata: nothing is kept there.
path "keyswitch/metadata/*" {
  capabilities = ["list", "delete"]
}

# To see that max_versions is 1.
path "keyswitch/config" {
  capabilities = ["read"]
}

# A key for each tenant, and those that sign tokens and checkpoints. "+" is one step of a path, so keys/<name>/config, /rotate and
# /trim are not meant; exportable keys and plaintext backups cannot be asked for.
path "keyswitch-transit/keys/+" {
  capabilities = ["update"]
  allowed_parameters = {
    "type" = ["aes256-gcm96", "ed25519"]
  }
}

# No "create": encrypting under a name without a key must not make one.
path "keyswitch-transit/encrypt/+" {
  capabilities = ["update"]
}

path "keyswitch-transit/decrypt/+" {
  capabilities = ["update"]
}

# The public halves of the signing key.
path "keyswitch-transit/keys/keyswitch-signing" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "type" = ["ed25519"]
  }
}

path "keyswitch-transit/sign/keyswitch-signing" {
  capabilities = ["update"]
}

# The key that signs checkpoints of the audit log. A key of its own, so that the right to sign tokens is none to vouch
# for the log. Rotating it is the operator's: vault write -f keyswitch-transit/keys/keyswitch-audit/rotate
path "keyswitch-transit/keys/keyswitch-audit" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "type" = ["ed25519"]
  }
}

path "keyswitch-transit/sign/keyswitch-audit" {
  capabilities = ["update"]
}

# Its own token; the role needs no default policy.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
