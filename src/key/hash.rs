//! bcrypt (Provos and Mazieres, 1999), and nothing else: what is stored in place of a secret.
//!
//! Slow by design. Call it from the bcrypt pool, never from a proxy thread. The rounds are counted
//! here and not in a library, because between two of them the pool has to be able to step aside:
//! no scheduler takes a CPU away as promptly as who gives it back. The cipher is a library's, and
//! the tests compare every result with another library's.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use bcrypt::HashParts;
use blowfish::Blowfish;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The least cost that bcrypt knows; only tests should use it.
pub const COST_MIN: u32 = 4;
/// The highest cost that a configuration may ask for: about 30 seconds a hash.
pub const COST_MAX: u32 = 19;
/// bcrypt reads 72 bytes, of which the last of ours is the NUL at the end.
const SECRET_LEN_MAX: usize = 71;
const SALT_LEN: usize = 16;
/// Characters of a hash in modular crypt format.
const HASH_LEN: usize = 60;
/// Of the 24 bytes that the cipher gives, bcrypt has always stored one less.
const OUTPUT_LEN: usize = 23;
/// What is encrypted: `OrpheanBeholderScryDoubt`.
const TEXT: [[u32; 2]; 3] = [
    [0x4f72_7068, 0x6561_6e42],
    [0x6568_6f6c, 0x6465_7253],
    [0x6372_7944, 0x6f75_6274],
];
const ENCRYPTIONS: usize = 64;
const BASE64: GeneralPurpose = GeneralPurpose::new(&BCRYPT, NO_PAD);

/// A bcrypt hash in modular crypt format. Not secret enough to be a key, too secret to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(String);

/// bcrypt could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("the stored hash is not a bcrypt hash")]
    Malformed,
    #[error("bcrypt failed: {0}")]
    Failed(String),
}

impl SecretHash {
    /// Hashes `secret` with a new salt; `pause` is called about every 50 us.
    pub fn create(secret: &str, cost: u32, pause: &mut dyn FnMut()) -> Result<Self, HashError> {
        if secret.len() > SECRET_LEN_MAX {
            return Err(HashError::Failed(format!(
                "a secret may have at most {SECRET_LEN_MAX} bytes"
            )));
        }
        if !(COST_MIN..=COST_MAX).contains(&cost) {
            return Err(HashError::Failed(format!("{cost} is no cost")));
        }
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|error| HashError::Failed(error.to_string()))?;
        let output = BASE64.encode(compute(secret, cost, &salt, pause));
        let salt = BASE64.encode(salt);
        Ok(SecretHash(format!("$2b${cost:02}${salt}{output}")))
    }

    /// Whether `secret` is the one that was hashed; `pause` is called about every 50 us.
    pub fn verify(&self, secret: &str, pause: &mut dyn FnMut()) -> Result<bool, HashError> {
        let (cost, salt) = self.parts()?;
        if secret.len() > SECRET_LEN_MAX {
            // Longer than any secret of ours, so not the one that was hashed.
            return Ok(false);
        }
        self.matches(secret, cost, &salt, pause)
    }

    /// The same for a password that somebody else has hashed. Of one of 72 bytes or more only those
    /// count, as everywhere where such hashes are used.
    pub fn verify_password(
        &self,
        password: &str,
        pause: &mut dyn FnMut(),
    ) -> Result<bool, HashError> {
        let (cost, salt) = self.parts()?;
        self.matches(password, cost, &salt, pause)
    }

    /// Cost and salt.
    fn parts(&self) -> Result<(u32, [u8; SALT_LEN]), HashError> {
        let parts = HashParts::from_str(&self.0).map_err(|_| HashError::Malformed)?;
        let cost = parts.get_cost();
        if (COST_MIN..=COST_MAX).contains(&cost) {
            Ok((cost, parts.get_salt_raw()))
        } else {
            Err(HashError::Malformed)
        }
    }

    fn matches(
        &self,
        secret: &str,
        cost: u32,
        salt: &[u8; SALT_LEN],
        pause: &mut dyn FnMut(),
    ) -> Result<bool, HashError> {
        let output = BASE64.encode(compute(secret, cost, salt, pause));
        let stored = self.0.get(self.0.len() - output.len()..);
        let stored = stored.ok_or(HashError::Malformed)?;
        Ok(stored.as_bytes().ct_eq(output.as_bytes()).into())
    }

    /// The cost with which it was made; `None` where it is no bcrypt hash at all.
    pub fn cost(&self) -> Option<u32> {
        let parts = HashParts::from_str(&self.0).ok()?;
        let cost = parts.get_cost();
        let is_hash = self.0.len() == HASH_LEN && (COST_MIN..=COST_MAX).contains(&cost);
        is_hash.then_some(cost)
    }

    /// Whether this is a bcrypt hash at all.
    pub fn is_well_formed(&self) -> bool {
        self.cost().is_some()
    }

    /// Takes a hash from a store as it stands; [`SecretHash::verify`] finds out if it is none.
    pub fn from_stored(text: String) -> Self {
        SecretHash(text)
    }

    /// The text for a store. Never for a log, an answer or a page.
    pub fn to_stored(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// The bytes that bcrypt makes of `secret`.
fn compute(
    secret: &str,
    cost: u32,
    salt: &[u8; SALT_LEN],
    pause: &mut dyn FnMut(),
) -> [u8; OUTPUT_LEN] {
    let mut key = Zeroizing::new(Vec::with_capacity(secret.len() + 1));
    key.extend_from_slice(secret.as_bytes());
    key.push(0);
    let mut cipher: Blowfish = Blowfish::bc_init_state();
    cipher.salted_expand_key(salt, &key);
    for _ in 0..1_u32 << cost {
        cipher.bc_expand_key(&key);
        cipher.bc_expand_key(salt);
        pause();
    }
    let mut output = [0; OUTPUT_LEN];
    for (block, bytes) in TEXT.into_iter().zip(output.chunks_mut(8)) {
        let block = (0..ENCRYPTIONS).fold(block, |block, _| cipher.bc_encrypt(block));
        let both = u64::from(block[0]) << 32 | u64::from(block[1]);
        bytes.copy_from_slice(&both.to_be_bytes()[..bytes.len()]);
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    #[test]
    fn the_right_secret_verifies_and_no_other() {
        let hash = SecretHash::create(SECRET, COST_MIN, &mut || ()).unwrap();
        assert!(hash.is_well_formed());
        assert!(hash.verify(SECRET, &mut || ()).unwrap());
        assert!(!hash.verify(&SECRET[1..], &mut || ()).unwrap());
        assert!(!hash.verify(&SECRET.replace('G', "H"), &mut || ()).unwrap());
        assert!(!hash.verify(&"x".repeat(100), &mut || ()).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Another library verifies what we hash, and we what it hashes: every length, also bytes
        /// that are no letters.
        #[test]
        fn both_libraries_agree(secret in "[ -~é]{1,35}", cost in 4u32..6, version in 0..3usize) {
            let hash = SecretHash::create(&secret, cost, &mut || ()).unwrap();
            prop_assert!(bcrypt::non_truncating_verify(&secret, hash.to_stored()).unwrap());
            let theirs = bcrypt::non_truncating_hash(&secret, cost).unwrap();
            let version = ["$2a$", "$2b$", "$2y$"][version];
            let theirs = SecretHash::from_stored(theirs.replacen("$2b$", version, 1));
            prop_assert!(theirs.verify(&secret, &mut || ()).unwrap());
            prop_assert!(!theirs.verify(&(secret + "x"), &mut || ()).unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// As the other library does where it is told to truncate.
        #[test]
        #[allow(clippy::disallowed_methods)]
        fn of_a_long_password_the_beginning_counts(password in "[ -~é]{1,120}", len in 60..90usize) {
            let theirs = bcrypt::hash(&password, 4).unwrap();
            let hash = SecretHash::from_stored(theirs.clone());
            prop_assert!(hash.verify_password(&password, &mut || ()).unwrap());
            let other = format!("{password}x");
            let agreed = bcrypt::verify(&other, &theirs).unwrap();
            prop_assert_eq!(hash.verify_password(&other, &mut || ()).unwrap(), agreed);
            let long = "p".repeat(len);
            let theirs = bcrypt::hash(&long, 4).unwrap();
            let ours = SecretHash::from_stored(theirs).verify_password(&"p".repeat(72), &mut || ());
            prop_assert_eq!(ours.unwrap(), len >= 72);
        }
    }

    #[test]
    fn a_long_hash_pauses_in_every_round() {
        let mut pauses = 0;
        let hash = SecretHash::create(SECRET, 6, &mut || pauses += 1).unwrap();
        assert_eq!(pauses, 64);
        assert!(hash.verify(SECRET, &mut || pauses += 1).unwrap());
        assert_eq!(pauses, 128);
    }

    #[test]
    fn two_hashes_of_one_secret_differ() {
        let (a, b) = (
            SecretHash::create(SECRET, 4, &mut || ()).unwrap(),
            SecretHash::create(SECRET, 4, &mut || ()).unwrap(),
        );
        assert_ne!(a, b);
    }

    #[test]
    fn a_stored_text_that_is_no_hash_is_an_error() {
        for text in [
            "",
            "x",
            "$2b$10$",
            "$2b$99$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            let stored = SecretHash::from_stored(text.to_owned());
            assert!(!stored.is_well_formed(), "{text}");
            assert!(
                matches!(stored.verify(SECRET, &mut || ()), Err(HashError::Malformed)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_hash_is_not_printed() {
        let hash = SecretHash::create(SECRET, COST_MIN, &mut || ()).unwrap();
        assert!(!format!("{hash:?}").contains("$2"));
    }
}
