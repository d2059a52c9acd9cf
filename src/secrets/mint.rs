//! Mint keys as they are stored. A [`MintKey`] can only be used; this is for the stores, which keep
//! them, and for moving and rotating.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::SecretError;
use crate::key::mint::{MINT_KEY_LEN, random_mint_key};
use crate::key::{MintKey, MintKeys};

/// The most mint keys of a deployment: each is one more HMAC for every forged key.
pub const MINT_KEYS_MAX: usize = 16;

/// The bytes of a mint key.
#[derive(Clone)]
pub struct MintMaterial(Zeroizing<[u8; MINT_KEY_LEN]>);

impl MintMaterial {
    /// New random bytes.
    pub fn random() -> Result<Self, SecretError> {
        let bytes = random_mint_key();
        let bytes = bytes.map_err(|error| SecretError::Unavailable(error.to_string()))?;
        Ok(MintMaterial(bytes))
    }

    /// Reads two hex digits a byte.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0u8; MINT_KEY_LEN]);
        if text.len() != 2 * MINT_KEY_LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(MintMaterial(bytes))
    }

    /// Two hex digits a byte.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl PartialEq for MintMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for MintMaterial {}

impl std::fmt::Debug for MintMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MintMaterial(..)")
    }
}

/// Mint keys, newest first, ready for use; `None` where there are none.
pub fn ready(keys: &[MintMaterial]) -> Option<MintKeys> {
    let mut ready = keys.iter().map(|key| MintKey::new(&key.0));
    Some(MintKeys::new(ready.next()?, ready.collect()))
}

/// `keys` with a new one in front. The others are still believed. Never the first: the keys of a store
/// without one may have been minted with one that is somewhere else.
pub fn rotated(keys: &[MintMaterial]) -> Result<Vec<MintMaterial>, SecretError> {
    if keys.is_empty() {
        return Err(SecretError::Misplaced(
            "there is no mint key here to be rotated: start Sidekey once, or run `sidekey secrets move` first",
        ));
    }
    if keys.len() >= MINT_KEYS_MAX {
        return Err(SecretError::Damaged(
            "there are as many mint keys as there may be; regenerate the keys that the oldest has minted and remove it",
        ));
    }
    let mut all = vec![MintMaterial::random()?];
    all.extend_from_slice(keys);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mint_key_is_never_made_by_a_rotation() {
        assert!(matches!(rotated(&[]), Err(SecretError::Misplaced(_))));
        let first = MintMaterial::random().unwrap();
        let both = rotated(std::slice::from_ref(&first)).unwrap();
        assert!(both.len() == 2 && both[1] == first && both[0] != first);
    }
}
