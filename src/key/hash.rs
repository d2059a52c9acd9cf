//! bcrypt, and nothing else: what is stored in place of a secret.
//!
//! Slow by design. Call it from the bcrypt pool, never from a proxy thread.

use std::fmt;

/// The least cost that bcrypt knows; only tests should use it.
pub const COST_MIN: u32 = 4;
/// The highest cost that a configuration may ask for: about 30 seconds a hash.
pub const COST_MAX: u32 = 19;

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
    /// Hashes `secret` with a new salt.
    pub fn create(secret: &str, cost: u32) -> Result<Self, HashError> {
        bcrypt::non_truncating_hash(secret, cost)
            .map(SecretHash)
            .map_err(|error| HashError::Failed(error.to_string()))
    }

    /// Whether `secret` is the one that was hashed.
    pub fn verify(&self, secret: &str) -> Result<bool, HashError> {
        match bcrypt::non_truncating_verify(secret, &self.0) {
            Ok(matches) => Ok(matches),
            // Longer than any secret of ours, so not the one that was hashed.
            Err(bcrypt::BcryptError::Truncation(_)) => Ok(false),
            Err(bcrypt::BcryptError::Rand(error)) => Err(HashError::Failed(error.to_string())),
            Err(_) => Err(HashError::Malformed),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    #[test]
    fn the_right_secret_verifies_and_no_other() {
        let hash = SecretHash::create(SECRET, COST_MIN).unwrap();
        assert!(hash.verify(SECRET).unwrap());
        assert!(!hash.verify(&SECRET[1..]).unwrap());
        assert!(!hash.verify(&SECRET.replace('G', "H")).unwrap());
        assert!(!hash.verify(&"x".repeat(100)).unwrap());
    }

    #[test]
    fn two_hashes_of_one_secret_differ() {
        let (a, b) = (
            SecretHash::create(SECRET, 4).unwrap(),
            SecretHash::create(SECRET, 4).unwrap(),
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
            assert!(
                matches!(stored.verify(SECRET), Err(HashError::Malformed)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_hash_is_not_printed() {
        let hash = SecretHash::create(SECRET, COST_MIN).unwrap();
        assert!(!format!("{hash:?}").contains("$2"));
    }
}
