//! Secrets that Sidekey did not make: plain texts of any look, and passwords that somebody else has
//! hashed. They carry no keyed check; see [`super::lookup`] for how they are found.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::entropy::{ENTROPY_BITS_MIN, estimate_bits};
use super::hash::SecretHash;
use super::{MintKeys, Presented};

/// An imported key has at least this many characters.
pub const PLAIN_LEN_MIN: usize = 8;
/// And at most this many.
pub const PLAIN_LEN_MAX: usize = 256;
/// A user name has at most this many bytes, as `htpasswd` has it.
pub const USER_LEN_MAX: usize = 255;
/// A password has at most this many bytes; bcrypt reads the first 72.
pub const PASSWORD_LEN_MAX: usize = 256;
/// The highest cost of a hash that is imported, about a second a check: a dearer one would hold up
/// everybody else's.
pub const IMPORTED_COST_MAX: u32 = 14;
/// Characters of an imported key that a hint shows at its end.
const HINT_TAIL_LEN: usize = 4;
/// Characters of a user name that a hint shows.
const HINT_USER_LEN: usize = 32;
/// What a plain text is hashed with before bcrypt sees it, so that no other hash of it is the same.
const DIGEST_LABEL: &[u8] = b"sidekey: imported key, 1\0";

/// Why a text can't be imported as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlainKeyError {
    #[error("must be {PLAIN_LEN_MIN} to {PLAIN_LEN_MAX} visible ASCII characters, without spaces")]
    Form,
    #[error("is a key that this deployment has made: it works already, or was revoked for good")]
    Minted,
    #[error("has the form of a key that Sidekey makes, and this deployment has not made it")]
    Forged,
    #[error(
        "is too easy to guess (about {0} bits; at least {ENTROPY_BITS_MIN} are expected); replace it, or import it with allow_weak=true"
    )]
    Weak(u32),
}

/// An existing key as plain text, sound and not one of ours.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainKey {
    text: Zeroizing<String>,
    bits: u32,
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(..)")
    }
}

impl PlainKey {
    /// Reads `text` as a key that may be imported.
    pub fn new(text: &str, mint_keys: &MintKeys, allow_weak: bool) -> Result<Self, PlainKeyError> {
        if let Some(ours) = Presented::parse(text) {
            return Err(if mint_keys.minted(&ours) {
                PlainKeyError::Minted
            } else {
                PlainKeyError::Forged
            });
        }
        if !is_plain(text) {
            return Err(PlainKeyError::Form);
        }
        let bits = estimate_bits(text);
        if bits < ENTROPY_BITS_MIN && !allow_weak {
            return Err(PlainKeyError::Weak(bits));
        }
        Ok(PlainKey {
            text: Zeroizing::new(text.to_owned()),
            bits,
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is easy to guess, and was let in all the same.
    pub fn is_weak(&self) -> bool {
        self.bits < ENTROPY_BITS_MIN
    }

    /// What may be shown of it: its last characters where the rest alone is hard enough to guess.
    pub fn hint(&self) -> String {
        let (head, tail) = self.text.split_at(self.text.len() - HINT_TAIL_LEN);
        if estimate_bits(head) < ENTROPY_BITS_MIN {
            return "...".to_owned();
        }
        format!("...{tail}")
    }
}

/// Whether `text` can be an imported key: what every way of presenting a key can carry.
pub fn is_plain(text: &str) -> bool {
    (PLAIN_LEN_MIN..=PLAIN_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// What bcrypt hashes of an imported key: bcrypt reads 72 bytes, and a key may be longer.
pub fn digest(text: &str) -> Zeroizing<String> {
    let mut sha = Sha256::new();
    sha.update(DIGEST_LABEL);
    sha.update(text.as_bytes());
    Zeroizing::new(STANDARD_NO_PAD.encode(sha.finalize()))
}

/// Why a user and the hash of a password can't be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("must be 1 to {USER_LEN_MAX} bytes, without colons and control characters")]
    User,
    #[error("is not a bcrypt hash ($2a$, $2b$ or $2y$)")]
    Hash,
    #[error("has a cost of {0}; at most {IMPORTED_COST_MAX} can be checked in reasonable time")]
    Cost(u32),
}

/// A user and the hash of a password, as `htpasswd -B` writes them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    hash: SecretHash,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

impl Login {
    pub fn new(user: &str, hash: &str) -> Result<Self, LoginError> {
        if !is_user(user) {
            return Err(LoginError::User);
        }
        let is_known = ["$2a$", "$2b$", "$2y$"].iter().any(|v| hash.starts_with(v));
        let hash = SecretHash::from_stored(hash.to_owned());
        match hash.cost() {
            Some(cost) if is_known && cost > IMPORTED_COST_MAX => Err(LoginError::Cost(cost)),
            Some(_) if is_known => Ok(Login {
                user: user.to_owned(),
                hash,
            }),
            _ => Err(LoginError::Hash),
        }
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn hash(&self) -> &SecretHash {
        &self.hash
    }

    /// What may be shown of it.
    pub fn hint(&self) -> String {
        let shown: String = self.user.chars().take(HINT_USER_LEN).collect();
        format!("{shown}:...")
    }
}

fn is_user(user: &str) -> bool {
    (1..=USER_LEN_MAX).contains(&user.len())
        && !user.contains(':')
        && !user.chars().any(char::is_control)
}

/// A user and a password as presented (RFC 7617): what an imported login may answer to.
#[derive(Clone)]
pub struct Pair {
    text: Zeroizing<String>,
    user_len: usize,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl Pair {
    /// Reads `user:password`; `None` where it can't be that of any login.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        let is_password = (1..=PASSWORD_LEN_MAX).contains(&password.len())
            && !password.chars().any(char::is_control);
        (is_user(user) && is_password).then(|| Pair {
            text: Zeroizing::new(text.to_owned()),
            user_len: user.len(),
        })
    }

    /// Both, with the colon.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn user(&self) -> &str {
        &self.text[..self.user_len]
    }

    pub fn password(&self) -> &str {
        &self.text[self.user_len + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Environment, MintKey};
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const STRONG: &str = "kq83nd02mxp5w7vz1rt6uy4HJ";

    fn mint_keys(byte: u8) -> MintKeys {
        MintKeys::new(MintKey::new(&[byte; 32]), vec![])
    }

    fn plain(text: &str) -> Result<PlainKey, PlainKeyError> {
        PlainKey::new(text, &mint_keys(1), false)
    }

    #[test]
    fn a_key_may_look_however_it_looks() {
        for text in [
            STRONG,
            "pk:!\"#$%&'()*+,-./<=>?@[]^_`{|}~8Kd0",
            "a=b&c=d;e:f/Q9Zx7Wv3\\KpLm",
        ] {
            assert!(plain(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "short77",
            &format!("{STRONG} x"),
            &format!("{STRONG}é"),
            &"x".repeat(257),
        ] {
            assert_eq!(plain(text), Err(PlainKeyError::Form), "{text}");
        }
    }

    #[test]
    fn a_weak_key_needs_a_word() {
        assert!(matches!(plain("password1"), Err(PlainKeyError::Weak(_))));
        let weak = PlainKey::new("password1", &mint_keys(1), true).unwrap();
        assert!(weak.is_weak());
        assert_eq!(weak.hint(), "...");
    }

    #[test]
    fn our_own_keys_are_told_apart() {
        let ours = mint_keys(1)
            .mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap();
        let text = ours.text.expose_secret();
        assert_eq!(plain(text), Err(PlainKeyError::Minted));
        let theirs = PlainKey::new(text, &mint_keys(2), true);
        assert_eq!(theirs, Err(PlainKeyError::Forged));
    }

    #[test]
    fn a_hint_gives_little_away() {
        assert_eq!(plain(STRONG).unwrap().hint(), "...y4HJ");
        let just_enough = plain("kq83nd02mxp5w7").unwrap();
        assert_eq!(just_enough.hint(), "...");
        let login = Login::new(
            &"u".repeat(40),
            &bcrypt::non_truncating_hash("x", 4).unwrap(),
        )
        .unwrap();
        assert_eq!(login.hint(), format!("{}:...", "u".repeat(32)));
    }

    #[test]
    fn hashes_of_other_kinds_are_refused() {
        let good = bcrypt::non_truncating_hash("x", 4).unwrap();
        for version in ["$2a$", "$2b$", "$2y$"] {
            assert!(Login::new("u", &good.replacen("$2b$", version, 1)).is_ok());
        }
        for bad in [
            "",
            "x",
            "$apr1$abcdefgh$0123456789012345678901",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            &good.replacen("$2b$", "$2x$", 1),
            &good[..59],
            &format!("{good}x"),
            &good.replacen("$04$", "$03$", 1),
        ] {
            assert_eq!(Login::new("u", bad), Err(LoginError::Hash), "{bad}");
        }
        let dear = good.replacen("$04$", "$15$", 1);
        assert_eq!(Login::new("u", &dear), Err(LoginError::Cost(15)));
        for user in ["", "a:b", "a\nb", &"u".repeat(256)] {
            assert_eq!(Login::new(user, &good), Err(LoginError::User), "{user}");
        }
    }

    #[test]
    fn a_pair_is_taken_apart_at_its_first_colon() {
        let pair = Pair::parse("user:pass:word").unwrap();
        assert_eq!((pair.user(), pair.password()), ("user", "pass:word"));
        for text in ["", "user", ":", "user:", ":password", "a:b\0"] {
            assert!(Pair::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_hint_never_has_more_than_the_end(text in "[!-~]{8,80}") {
            if let Ok(key) = PlainKey::new(&text, &mint_keys(1), true) {
                let shown = key.hint().replacen("...", "", 1);
                prop_assert!(shown.is_empty() || (shown.len() == 4 && text.ends_with(&shown)));
            }
        }

        #[test]
        fn long_keys_differ_at_their_end_too(text in "[!-~]{200}", a in "[!-~]", b in "[!-~]") {
            let (one, other) = (digest(&format!("{text}{a}")), digest(&format!("{text}{b}")));
            prop_assert_eq!(one.len(), 43);
            prop_assert_eq!(a == b, one == other);
        }
    }
}
