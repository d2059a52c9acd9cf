//! How an imported secret is found: by a keyed index, because it says nothing of whose it is.
//!
//! The index is HMAC-SHA-256 (RFC 2104) of what is presented, with a key that is derived from a mint
//! key: who reads the database without it can't try out texts. Bearer texts and user names have each
//! a domain of their own. Where mint keys were rotated there is one index for each: an import is found
//! by the one that was the first when it was made.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use smallvec::SmallVec;

use super::MintKeys;

/// What the keys of the index are derived for.
const LABEL: &str = "sidekey: index of imported keys, 1";
/// Bytes of an index: half of the HMAC. Nobody can look for two texts with the same one without its key.
const LOOKUP_LEN: usize = 16;

/// What an index is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain {
    Key,
    User,
}

/// The place of an imported secret in the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lookup([u8; LOOKUP_LEN]);

/// A text that is no place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {} hexadecimal digits", 2 * LOOKUP_LEN)]
pub struct LookupError;

impl Lookup {
    /// Evenly spread bits, for a filter.
    pub fn head(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(head)
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup(..)")
    }
}

impl FromStr for Lookup {
    type Err = LookupError;

    fn from_str(text: &str) -> Result<Self, LookupError> {
        if text.len() != 2 * LOOKUP_LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(LookupError);
        }
        let mut bytes = [0; LOOKUP_LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let digits = &text[2 * i..2 * i + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| LookupError)?;
        }
        Ok(Lookup(bytes))
    }
}

/// One place for each mint key; the first is that of new imports.
pub type Lookups = SmallVec<[Lookup; 2]>;

/// Computes places in the index.
#[derive(Clone)]
pub struct LookupKeys(SmallVec<[Hmac<Sha256>; 2]>);

impl fmt::Debug for LookupKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupKeys({})", self.0.len())
    }
}

impl LookupKeys {
    pub fn new(mint_keys: &MintKeys) -> Self {
        let derived = mint_keys.derive(&[LABEL.as_bytes()]).into_iter();
        let ready = derived.map(|key| {
            // HMAC takes a key of any length, so this can't fail.
            Hmac::<Sha256>::new_from_slice(key.as_slice()).unwrap_or_else(|_| unreachable!())
        });
        LookupKeys(ready.collect())
    }

    /// Where a key is found that is presented as it is.
    pub fn of_key(&self, text: &str) -> Lookups {
        self.all(Domain::Key, text)
    }

    /// Where a key is found that is presented as user and password.
    pub fn of_user(&self, user: &str) -> Lookups {
        self.all(Domain::User, user)
    }

    fn all(&self, domain: Domain, text: &str) -> Lookups {
        let domain: &[u8] = match domain {
            Domain::Key => b"key:",
            Domain::User => b"user:",
        };
        let place = |mac: &Hmac<Sha256>| {
            let mut mac = mac.clone();
            mac.update(domain);
            mac.update(text.as_bytes());
            let tag = mac.finalize().into_bytes();
            let mut head = [0; LOOKUP_LEN];
            head.copy_from_slice(&tag[..LOOKUP_LEN]);
            Lookup(head)
        };
        self.0.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> LookupKeys {
        let mut keys = bytes.iter().map(|byte| MintKey::new(&[*byte; 32]));
        let first = keys.next().unwrap();
        LookupKeys::new(&MintKeys::new(first, keys.collect()))
    }

    #[test]
    fn a_place_is_an_hmac_under_a_derived_key() {
        let mac = |key: &[u8], text: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(text);
            <[u8; 32]>::from(mac.finalize().into_bytes())
        };
        let derived = mac(&[7; 32], LABEL.as_bytes());
        let expected = mac(&derived, b"key:abc");
        assert_eq!(keys(&[7]).of_key("abc")[0].0, expected[..16]);
        let direct = mac(&[7; 32], b"key:abc");
        assert_ne!(keys(&[7]).of_key("abc")[0].0, direct[..16]);
    }

    #[test]
    fn after_a_rotation_old_places_are_still_tried() {
        let (old, both) = (keys(&[1]), keys(&[2, 1]));
        let found = both.of_key("some text");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], old.of_key("some text")[0]);
        assert_eq!(found[0], keys(&[2]).of_key("some text")[0]);
    }

    #[test]
    fn a_place_is_not_printed_by_accident() {
        let place = keys(&[1]).of_key("some text")[0];
        assert!(!format!("{place:?}").contains(&place.to_string()[..4]));
    }

    proptest! {
        #[test]
        fn texts_differ_and_so_do_domains(a in "[ -~]{0,40}", b in "[ -~]{0,40}") {
            let keys = keys(&[1]);
            prop_assert_ne!(keys.of_key(&a), keys.of_user(&a));
            prop_assert_eq!(a == b, keys.of_key(&a) == keys.of_key(&b));
        }

        #[test]
        fn a_place_survives_its_text(text in "[ -~]{0,40}") {
            let place = keys(&[1]).of_user(&text)[0];
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }
    }

    #[test]
    fn what_is_no_place() {
        for text in [
            "",
            "00",
            &"g".repeat(32),
            &"0".repeat(33),
            "+0000000000000000000000000000000",
        ] {
            assert_eq!(text.parse::<Lookup>(), Err(LookupError), "{text}");
        }
    }
}
