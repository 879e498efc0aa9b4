# What `python -m vault_service.maintenance` needs in Vault besides keyswitch.hcl. It is for the operator's own login, and
# never for a running service: these rights can make every secret of a tenant unreadable.
#
#   vault policy write keyswitch-maintenance keyswitch-maintenance.hcl
#   vault write auth/approle/role/keyswitch-maintenance token_policies=keyswitch,keyswitch-maintenance \
#       token_no_default_policy=true token_ttl=1h token_max_ttl=1h secret_id_num_uses=1

# Which version of a tenant's key is the newest, and its deletion. The signing key has a path of its own in
# keyswitch.hcl, which comes first: it can not be deleted.
path "keyswitch-transit/keys/+" {
  capabilities = ["read", "delete"]
}

path "keyswitch-transit/keys/+/rotate" {
  capabilities = ["update"]
}

# To retire old versions, and to allow the deletion. Parameters that would let a key out cannot be set.
path "keyswitch-transit/keys/+/config" {
  capabilities = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
    "deletion_allowed" = []
    "exportable" = [false]
    "allow_plaintext_backup" = [false]
  }
}

path "keyswitch-transit/keys/keyswitch-signing/config" {
  capabilities = ["deny"]
}

# The tokens' signing key of an embedded store, wrapped for Vault.
path "keyswitch-transit/wrapping_key" {
  capabilities = ["read"]
}

path "keyswitch-transit/keys/keyswitch-signing/import" {
  capabilities = ["update"]
}
