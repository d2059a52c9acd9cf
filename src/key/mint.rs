//! How a key is minted and its check made, and what else is derived from a deployment's mint keys.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::format::{
    CHECK_LEN, Environment, KEY_LEN_MAX, KeyId, Prefix, Presented, RandomnessError, SECRET_LEN,
    base62, random_base62,
};

/// Bytes of a mint key.
pub const MINT_KEY_LEN: usize = 32;
/// Characters of a key that a hint shows at its end.
const HINT_TAIL_LEN: usize = 4;

/// One key with which checks are made, prepared for use.
#[derive(Clone)]
pub struct MintKey {
    mac: Hmac<Sha256>,
}

impl MintKey {
    /// Prepares a mint key from its bytes.
    pub fn new(bytes: &[u8; MINT_KEY_LEN]) -> Self {
        // HMAC takes a key of any length, so this can't fail.
        let mac = Hmac::<Sha256>::new_from_slice(bytes).unwrap_or_else(|_| unreachable!());
        MintKey { mac }
    }

    fn derive(&self, context: &[&[u8]]) -> Zeroizing<[u8; MINT_KEY_LEN]> {
        let mut mac = self.mac.clone();
        for part in context {
            mac.update(part);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    fn check(&self, signed: &[u8]) -> [u8; CHECK_LEN] {
        let mut mac = self.mac.clone();
        mac.update(signed);
        let tag = mac.finalize().into_bytes();
        let mut head = [0u8; 8];
        head.copy_from_slice(&tag[..8]);
        base62(u64::from_be_bytes(head))
    }
}

/// The mint keys of a deployment: new keys get their check from the first, and keys that any of
/// them minted are genuine. More than one stand here only while a mint key is being rotated.
#[derive(Clone)]
pub struct MintKeys {
    current: MintKey,
    previous: Vec<MintKey>,
}

impl fmt::Debug for MintKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MintKeys({})", 1 + self.previous.len())
    }
}

/// A new key, on its way to its owner.
pub struct MintedKey {
    pub id: KeyId,
    /// The whole key. Shown once, stored nowhere.
    pub text: SecretString,
    /// What may be shown later: `sk_live_4fzN8cQ2pLrT_...a1B2`.
    pub hint: String,
}

impl MintedKey {
    /// The part that bcrypt hashes.
    pub fn secret(&self) -> Zeroizing<String> {
        let text = self.text.expose_secret();
        let end = text.len() - CHECK_LEN;
        Zeroizing::new(text[end - SECRET_LEN..end].to_owned())
    }
}

impl MintKeys {
    /// `current` mints; `previous` are still believed.
    pub fn new(current: MintKey, previous: Vec<MintKey>) -> Self {
        MintKeys { current, previous }
    }

    /// Keys for another purpose, which `context` names: one of each mint key, newest first. The context's
    /// first part, which is fixed, may not have the form of a key, so that no check of a key tells anything
    /// about them; only its last part may vary.
    pub fn derive(&self, context: &[&[u8]]) -> Vec<Zeroizing<[u8; MINT_KEY_LEN]>> {
        self.iter()
            .map(|mint_key| mint_key.derive(context))
            .collect()
    }

    /// All of them, the one that mints first.
    pub fn iter(&self) -> impl Iterator<Item = &MintKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// Makes a new key with a new id.
    pub fn mint(
        &self,
        prefix: &Prefix,
        environment: Environment,
    ) -> Result<MintedKey, RandomnessError> {
        self.mint_again(prefix, environment, KeyId::random()?)
    }

    /// Makes a new secret for the key `id`.
    pub fn mint_again(
        &self,
        prefix: &Prefix,
        environment: Environment,
        id: KeyId,
    ) -> Result<MintedKey, RandomnessError> {
        let mut secret = Zeroizing::new([0u8; SECRET_LEN]);
        random_base62(secret.as_mut_slice())?;
        let head = format!("{}_{}_{}_", prefix.as_str(), environment.as_str(), id);
        let mut text = Zeroizing::new(String::with_capacity(KEY_LEN_MAX));
        text.push_str(&head);
        text.extend(secret.iter().map(|b| char::from(*b)));
        let check = self.current.check(text.as_bytes());
        text.extend(check.iter().map(|b| char::from(*b)));
        let hint = format!("{head}...{}", &text[text.len() - HINT_TAIL_LEN..]);
        Ok(MintedKey {
            id,
            text: SecretString::from(text.as_str()),
            hint,
        })
    }

    /// Whether this deployment minted `presented`. Takes the same time for every wrong check.
    pub fn minted(&self, presented: &Presented<'_>) -> bool {
        let (signed, check) = (presented.signed(), presented.check());
        self.iter()
            .any(|mint_key| bool::from(mint_key.check(signed).as_slice().ct_eq(check)))
    }
}

/// New random bytes for a mint key.
pub fn random_mint_key() -> Result<Zeroizing<[u8; MINT_KEY_LEN]>, RandomnessError> {
    let mut bytes = Zeroizing::new([0u8; MINT_KEY_LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| RandomnessError)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::format::BASE62;
    use proptest::prelude::*;

    pub(crate) fn mint_keys() -> MintKeys {
        MintKeys::new(MintKey::new(&[7; MINT_KEY_LEN]), vec![])
    }

    pub(crate) fn minted() -> String {
        let key = mint_keys()
            .mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap();
        key.text.expose_secret().to_owned()
    }

    #[test]
    fn the_check_is_the_head_of_an_hmac() {
        // Computed independently: HMAC-SHA-256(key = 32 bytes of 7, "abc"), first 8 bytes, base62.
        use hmac::digest::Output;
        let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        mac.update(b"abc");
        let tag: Output<Sha256> = mac.finalize().into_bytes();
        let mut number = u64::from_be_bytes(tag[..8].try_into().unwrap());
        let mut expected = Vec::new();
        for _ in 0..11 {
            expected.push(BASE62[(number % 62) as usize]);
            number /= 62;
        }
        expected.reverse();
        assert_eq!(MintKey::new(&[7; 32]).check(b"abc").to_vec(), expected);
    }

    #[test]
    fn a_key_of_another_deployment_is_not_ours() {
        let theirs = MintKeys::new(MintKey::new(&[8; MINT_KEY_LEN]), vec![]);
        assert!(!theirs.minted(&Presented::parse(&minted()).unwrap()));
    }

    #[test]
    fn a_previous_mint_key_is_still_believed() {
        let rotated = MintKeys::new(
            MintKey::new(&[8; MINT_KEY_LEN]),
            vec![MintKey::new(&[7; MINT_KEY_LEN])],
        );
        assert!(rotated.minted(&Presented::parse(&minted()).unwrap()));
    }

    #[test]
    fn ids_do_not_repeat() {
        let keys = mint_keys();
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|_| {
                keys.mint(&"sk".parse().unwrap(), Environment::Live)
                    .unwrap()
                    .id
            })
            .collect();
        assert_eq!(ids.len(), 1000);
    }

    proptest! {
        #[test]
        fn what_is_minted_parses(prefix in "[a-z][a-z0-9]{1,15}", live: bool) {
            let environment = if live { Environment::Live } else { Environment::Test };
            let keys = mint_keys();
            let key = keys.mint(&prefix.parse().unwrap(), environment).unwrap();
            let presented = Presented::parse(key.text.expose_secret()).unwrap();
            prop_assert_eq!(presented.id(), key.id);
            prop_assert_eq!(presented.environment(), environment);
            prop_assert!(keys.minted(&presented));
        }

        #[test]
        fn any_changed_character_is_refused(at in 0usize..75, to in any::<char>()) {
            let text = minted();
            let mut changed: Vec<char> = text.chars().collect();
            prop_assume!(changed[at] != to);
            changed[at] = to;
            let changed: String = changed.into_iter().collect();
            let genuine = Presented::parse(&changed).is_some_and(|p| mint_keys().minted(&p));
            prop_assert!(!genuine, "{}", changed);
        }
    }
}
