//! Seals: what whoever can only write the database can't make. A hash can be computed by anybody, so one
//! who edits an entry could compute all hashes from there on again. A seal is an HMAC-SHA-256 (RFC 2104,
//! FIPS 180-4) over an entry's hash under a key that is derived from a mint key, which lives in the
//! secret store.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::entry::hexadecimal;
use crate::key::MintKeys;

/// What sealing keys are derived with. Nothing else that a mint key signs has spaces in it.
const LABEL: &str = "sidekey audit seal 1";

/// Makes seals with the newest key, and believes those of all.
#[derive(Clone, Default)]
pub struct Sealer {
    keys: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.keys.len())
    }
}

impl From<&MintKeys> for Sealer {
    fn from(mint_keys: &MintKeys) -> Self {
        let keys = mint_keys.derive(&[LABEL.as_bytes()]);
        Sealer::new(&keys.iter().map(|key| **key).collect::<Vec<_>>())
    }
}

impl Sealer {
    /// With these keys, newest first. Without any it makes empty seals, and believes none.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let keys = keys.iter();
        Sealer {
            // HMAC takes a key of any length, so none is left out.
            keys: keys
                .filter_map(|key| Hmac::new_from_slice(key).ok())
                .collect(),
        }
    }

    /// The seal of `hash`.
    pub fn seal(&self, hash: &str) -> String {
        self.keys
            .first()
            .map_or_else(String::new, |key| seal(key, hash))
    }

    /// Whether `sealed` is the seal of `hash` under any of the keys.
    pub fn accepts(&self, hash: &str, sealed: &str) -> bool {
        self.keys
            .iter()
            .any(|key| bool::from(seal(key, hash).as_bytes().ct_eq(sealed.as_bytes())))
    }
}

fn seal(key: &Hmac<Sha256>, hash: &str) -> String {
    let mut mac = key.clone();
    mac.update(hash.as_bytes());
    hexadecimal(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;

    #[test]
    fn seals_of_earlier_mint_keys_are_believed() {
        let (old, new) = (MintKey::new(&[1; 32]), MintKey::new(&[2; 32]));
        let before = Sealer::from(&MintKeys::new(old.clone(), vec![]));
        let after = Sealer::from(&MintKeys::new(new, vec![old]));
        assert!(after.accepts("a", &before.seal("a")));
        assert!(after.accepts("a", &after.seal("a")));
        assert!(!before.accepts("a", &after.seal("a")));
        assert!(!after.accepts("b", &before.seal("a")));
        assert!(!Sealer::default().accepts("a", &Sealer::default().seal("a")));
    }
}
