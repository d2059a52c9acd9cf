//! What Sidekey's values in Vault look like, and where they lie. Pure.
//!
//! `api_keys/{tenant}/{key}`: `{"hashes": {"1": "$2b$...", "2": "$2b$..."}}`, all secrets of one key by
//! generation. `mint_keys`: `{"keys": ["<64 hex digits>", ...]}`, the newest first. Anything else is not
//! ours: it is never read in part, and never quoted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::key::hash::SecretHash;
use crate::key::{Generation, KeyId, TenantId};
use crate::secrets::mint::{MINT_KEYS_MAX, MintMaterial};
use crate::secrets::{Holder, StoredHash};

/// The folder of hashes.
pub const HASHES: &str = "api_keys";
/// Where the mint keys lie.
pub const MINT_KEYS: &str = "mint_keys";

/// All hashes of one key.
pub type Hashes = BTreeMap<Generation, SecretHash>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HashesShape {
    hashes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MintKeysShape {
    keys: Vec<String>,
}

/// The hashes that `value` holds; `None` where it is not ours.
pub fn read_hashes(value: Value) -> Option<Hashes> {
    // Serde's error would quote the value.
    let shape: HashesShape = serde_json::from_value(value).ok()?;
    let entry = |(generation, hash): (String, String)| {
        let number: i64 = generation.parse().ok()?;
        let hash = SecretHash::from_stored(hash);
        let is_ours = number >= Generation::FIRST.0
            && number.to_string() == generation
            && hash.is_well_formed();
        is_ours.then_some((Generation(number), hash))
    };
    shape.hashes.into_iter().map(entry).collect()
}

/// The value that holds `hashes`.
pub fn write_hashes(hashes: &Hashes) -> Value {
    let entries: serde_json::Map<String, Value> = hashes
        .iter()
        .map(|(generation, hash)| (generation.0.to_string(), hash.to_stored().into()))
        .collect();
    json!({"hashes": entries})
}

/// `hashes` as a secret store gives them, newest first.
pub fn newest_first(hashes: Hashes) -> Vec<StoredHash> {
    let stored = |(generation, hash)| StoredHash { generation, hash };
    hashes.into_iter().rev().map(stored).collect()
}

/// The mint keys that `value` holds; `None` where it is not ours.
pub fn read_mint_keys(value: Value) -> Option<Vec<MintMaterial>> {
    let shape: MintKeysShape = serde_json::from_value(value).ok()?;
    if shape.keys.is_empty() || shape.keys.len() > MINT_KEYS_MAX {
        return None;
    }
    let keys = shape.keys.iter();
    keys.map(|text| MintMaterial::from_hex(text)).collect()
}

/// The value that holds `keys`.
pub fn write_mint_keys(keys: &[MintMaterial]) -> Value {
    let keys: Vec<String> = keys.iter().map(|key| key.to_hex().to_string()).collect();
    json!({"keys": keys})
}

/// Where the hashes of a key lie.
pub fn path(tenant: &TenantId, key: KeyId) -> String {
    format!("{}/{key}", folder(tenant))
}

/// Where a tenant's hashes lie.
pub fn folder(tenant: &TenantId) -> String {
    format!("{HASHES}/{}", encode(tenant))
}

/// A tenant as a segment of a path. Vault takes two dots in a row for a way up, and refuses them;
/// `~` is in no tenant's id.
fn encode(tenant: &TenantId) -> String {
    tenant.as_str().replace("..", ".~")
}

/// The tenant whose folder has that name in a list; `None` for what is not ours.
pub fn tenant_of(name: &str) -> Option<TenantId> {
    let name = name.strip_suffix('/')?;
    let tenant: TenantId = name.replace(".~", "..").parse().ok()?;
    (encode(&tenant) == name).then_some(tenant)
}

/// The key of that name in a tenant's folder; `None` for what is not ours.
pub fn holder_of(tenant: &TenantId, name: &str) -> Option<Holder> {
    Some(Holder {
        tenant: tenant.clone(),
        key: name.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuuVB9vJ5nDG7MzrXfe3bVDw7R3z5D1yG";

    #[test]
    fn hashes_survive_writing_and_reading() {
        let value = json!({"hashes": {"1": HASH, "10": HASH, "2": HASH}});
        let hashes = read_hashes(value).unwrap();
        let order = newest_first(hashes.clone());
        let order: Vec<i64> = order.iter().map(|hash| hash.generation.0).collect();
        assert_eq!(order, [10, 2, 1]);
        assert_eq!(read_hashes(write_hashes(&hashes)), Some(hashes));
        assert_eq!(read_hashes(json!({"hashes": {}})), Some(Hashes::new()));
    }

    #[test]
    fn what_is_not_ours_is_not_read_in_part() {
        for value in [
            json!(null),
            json!("text"),
            json!({}),
            json!({"hash": HASH}),
            json!({"hashes": [HASH]}),
            json!({"hashes": {"1": HASH}, "note": "by hand"}),
            json!({"hashes": {"1": HASH, "x": HASH}}),
            json!({"hashes": {"1": HASH, "0": HASH}}),
            json!({"hashes": {"1": HASH, "02": HASH}}),
            json!({"hashes": {"1": HASH, "2": "secret"}}),
            json!({"hashes": {"1": HASH, "2": &HASH[..59]}}),
            json!({"hashes": {"1": HASH, "2": 7}}),
        ] {
            assert_eq!(read_hashes(value.clone()), None, "{value}");
        }
        let good = "ab".repeat(32);
        assert!(read_mint_keys(json!({"keys": [good]})).is_some());
        for value in [
            json!({"keys": []}),
            json!({"keys": [good, "ab"]}),
            json!({"keys": [good], "more": 1}),
            json!({"keys": vec![good.clone(); MINT_KEYS_MAX + 1]}),
        ] {
            assert!(read_mint_keys(value.clone()).is_none(), "{value}");
        }
    }

    #[test]
    fn every_tenant_has_a_folder_of_its_own() {
        for text in ["a", "A-1.eu_west", "a..b", "a...b", "a....", "a."] {
            let tenant: TenantId = text.parse().unwrap();
            let name = format!("{}/", encode(&tenant));
            assert!(!name.contains(".."), "{name}");
            assert_eq!(tenant_of(&name), Some(tenant));
        }
        for name in ["a", "/", ".hidden/", "a..b/", "a~b/", "ä/"] {
            assert_eq!(tenant_of(name), None, "{name}");
        }
    }
}
