# OpenBao of deploy/compose.yaml: one server that keeps its data and unseals itself.

ui           = false
api_addr     = "https://openbao:8200"
cluster_addr = "https://127.0.0.1:8201"

storage "raft" {
  path    = "/openbao/file"
  node_id = "one"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "127.0.0.1:8201"
  tls_cert_file   = "/run/secrets/openbao.pem"
  tls_key_file    = "/run/secrets/openbao-key.pem"
  tls_min_version = "tls13"
}

# Who has this file and the data can read everything, so keep backups of the two apart. Where there is a
# key management service, or an HSM, name it in place of this. To replace the key: the new one here under
# a new id, the old one as previous_key and previous_key_id.
seal "static" {
  current_key_id = "1"
  current_key    = "file:///run/secrets/openbao-unseal-key"
}
