//! How a key is written and parsed.
//!
//! `<prefix>_<env>_<key id>_<secret><check>`: 12 characters of key id, 43 of secret (256 random
//! bits), 11 of check, all base62. The check is a truncated HMAC-SHA-256 (RFC 2104, FIPS 180-4)
//! over everything before it, keyed with the deployment's mint key: a key that this deployment
//! did not mint is refused for the price of one HMAC, before any store is asked.
//!
//! A plain key exists only in a [`super::mint::MintedKey`] on its way to its owner and in a request's buffer.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

pub(super) const BASE62: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of a key id: 71 random bits.
pub const KEY_ID_LEN: usize = 12;
/// Characters of a secret: 62^43 > 2^256.
pub const SECRET_LEN: usize = 43;
/// Characters of a check: 64 bits of the HMAC.
pub const CHECK_LEN: usize = 11;
/// A prefix has 2 to this many characters.
pub const PREFIX_LEN_MAX: usize = 16;
/// The longest text that can be a key.
pub const KEY_LEN_MAX: usize = PREFIX_LEN_MAX + 6 + KEY_ID_LEN + 1 + SECRET_LEN + CHECK_LEN;

/// The public name of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_LEN]);

/// A text that is not 12 base62 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {KEY_ID_LEN} letters and digits")]
pub struct KeyIdError;

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Base62 by construction, so the fallback is never seen.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A new id, for a key that is not minted.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut id = [0u8; KEY_ID_LEN];
        random_base62(&mut id)?;
        Ok(KeyId(id))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; KEY_ID_LEN] = bytes.try_into().ok()?;
        id.iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(KeyId(id))
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        Self::from_bytes(text.as_bytes()).ok_or(KeyIdError)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a key is meant for real use. Sidekey treats both alike; the name is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Environment {
    Live,
    Test,
}

impl Environment {
    /// The name as it stands in a key.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Live => "live",
            Environment::Test => "test",
        }
    }

    /// The environment of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "live" => Some(Environment::Live),
            "test" => Some(Environment::Test),
            _ => None,
        }
    }
}

/// What every key of a deployment starts with: `^[a-z][a-z0-9]{1,15}$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// A text that can't be a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 2 to {PREFIX_LEN_MAX} lower-case letters and digits, and start with a letter, such as \"sk\""
)]
pub struct PrefixError;

impl Prefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if is_prefix(text.as_bytes()) {
            Ok(Prefix(text.to_owned()))
        } else {
            Err(PrefixError)
        }
    }
}

fn is_prefix(bytes: &[u8]) -> bool {
    (2..=PREFIX_LEN_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// From this many characters on, what stands where a secret stands is hidden: a key that was cut
/// short, or damaged, still gives most of itself away.
const HIDDEN_LEN_MIN: usize = 8;

/// `text` for people and logs: of everything in it that looks like a key, only what stands before
/// the secret is left.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((start, end)) = next_secret(rest) {
        shown.push_str(&rest[..start]);
        shown.push_str("...");
        rest = &rest[end..];
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Whether a character would steer a terminal, or turn around the text after it.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A text from outside for a line in a log: [redacted](redact), without breaks and harmful characters, and of
/// at most so many characters, but for the dots that say that there were more.
pub fn shown(text: &str, chars_max: usize) -> String {
    // Keys go first: a part of one may not be known for what it is.
    let text = redact(text);
    let end = text.char_indices().nth(chars_max).map(|(at, _)| at);
    let (kept, dots) = end.map_or((&*text, ""), |end| (&text[..end], "..."));
    let mut line = String::with_capacity(kept.len() + dots.len());
    line.extend(kept.chars().map(|c| if is_harmful(c) { ' ' } else { c }));
    line.push_str(dots);
    line
}

/// Where the first `_live_ID_SECRET` or `_test_ID_SECRET` of `text` has its secret.
fn next_secret(text: &str) -> Option<(usize, usize)> {
    let run = |at: usize| {
        let bytes = text.as_bytes()[at..].iter();
        bytes.take_while(|b| b.is_ascii_alphanumeric()).count()
    };
    text.match_indices("_live_")
        .chain(text.match_indices("_test_"))
        .filter_map(|(at, mark)| {
            let id = at + mark.len();
            let start = id + KEY_ID_LEN + 1;
            let has_id = run(id) == KEY_ID_LEN && text.as_bytes().get(start - 1) == Some(&b'_');
            let len = if has_id { run(start) } else { 0 };
            (len >= HIDDEN_LEN_MIN).then_some((start, start + len))
        })
        .min()
}

/// A text that has the form of a key. Borrowed from the request; not yet known to be genuine.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    text: &'a str,
    environment: Environment,
    id: KeyId,
}

impl<'a> Presented<'a> {
    /// Reads `text` as a key of any prefix. `None` when it doesn't have the form of one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() > KEY_LEN_MAX {
            return None;
        }
        let body_start = bytes.len().checked_sub(SECRET_LEN + CHECK_LEN)?;
        let (head, body) = bytes.split_at(body_start);
        if !body.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let head = head.strip_suffix(b"_")?;
        let id_start = head.len().checked_sub(KEY_ID_LEN)?;
        let (head, id) = head.split_at(id_start);
        let id = KeyId::from_bytes(id)?;
        let head = head.strip_suffix(b"_")?;
        let (prefix, environment) = head.split_at(head.len().checked_sub(4)?);
        let environment = Environment::from_name(std::str::from_utf8(environment).ok()?)?;
        let prefix = prefix.strip_suffix(b"_")?;
        is_prefix(prefix).then_some(Presented {
            text,
            environment,
            id,
        })
    }

    /// The key id that the text names.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The environment that the text names.
    pub fn environment(&self) -> Environment {
        self.environment
    }

    /// The part that bcrypt hashes.
    pub fn secret(&self) -> &'a str {
        let end = self.text.len() - CHECK_LEN;
        &self.text[end - SECRET_LEN..end]
    }

    /// What the check is made of.
    pub(super) fn signed(&self) -> &'a [u8] {
        &self.text.as_bytes()[..self.text.len() - CHECK_LEN]
    }

    pub(super) fn check(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.text.len() - CHECK_LEN..]
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", self.id)
    }
}

/// The system's source of random bytes failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed; no key can be made")]
pub struct RandomnessError;

pub(super) fn base62(mut number: u64) -> [u8; CHECK_LEN] {
    let mut digits = [b'0'; CHECK_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(number % 62) as usize];
        number /= 62;
    }
    digits
}

/// Fills `out` with base62 characters, each of them equally likely.
pub fn random_base62(out: &mut [u8]) -> Result<(), RandomnessError> {
    // 248 is the largest multiple of 62 in a byte: larger bytes would favour some characters.
    const FAIR_BELOW: u8 = 248;
    let mut pool = Zeroizing::new([0u8; 64]);
    let mut filled = 0;
    while filled < out.len() {
        getrandom::fill(pool.as_mut_slice()).map_err(|_| RandomnessError)?;
        for byte in pool.iter().filter(|b| **b < FAIR_BELOW) {
            let Some(slot) = out.get_mut(filled) else {
                break;
            };
            *slot = BASE62[usize::from(byte % 62)];
            filled += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::mint::tests::{mint_keys, minted};
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    #[test]
    fn what_is_shown_is_one_short_line_without_secrets() {
        assert_eq!(shown("status code:\n401", 20), "status code: 401");
        assert_eq!(shown("a\u{202e}b\u{2028}c", 20), "a b c");
        let text = mint_keys()
            .mint(&"sk".parse().unwrap(), Environment::Live)
            .unwrap()
            .text;
        let secret = &text.expose_secret()["sk_live_".len() + KEY_ID_LEN + 1..];
        for chars_max in 0..100 {
            let line = shown(&format!("{} is refused", text.expose_secret()), chars_max);
            assert!(!line.contains(&secret[..4]), "{line}");
        }
        assert_eq!(
            shown(&"\u{e4}".repeat(9), 8),
            format!("{}...", "\u{e4}".repeat(8))
        );
        assert_eq!(shown("12345678", 8), "12345678");
    }

    #[test]
    fn a_key_has_the_promised_form() {
        let key = mint_keys()
            .mint(&"sk".parse().unwrap(), Environment::Test)
            .unwrap();
        let text = key.text.expose_secret();
        assert_eq!(text.len(), "sk_test_".len() + 12 + 1 + 54);
        assert!(text.starts_with(&format!("sk_test_{}_", key.id)));
        assert_eq!(
            key.hint,
            format!("sk_test_{}_...{}", key.id, &text[text.len() - 4..])
        );
        let presented = Presented::parse(text).unwrap();
        assert_eq!(presented.id(), key.id);
        assert_eq!(presented.environment(), Environment::Test);
        assert_eq!(presented.secret(), key.secret().as_str());
    }

    #[test]
    fn what_looks_like_a_key_is_shown_without_its_secret() {
        let start = "sk_live_4fzN8cQ2pLrT_";
        for (text, shown) in [
            (format!("{start}{}", "a".repeat(54)), format!("{start}...")),
            (format!("{start}{}", "a".repeat(9)), format!("{start}...")),
            (
                format!("/{start}aaaaaaaaa.json"),
                format!("/{start}....json"),
            ),
            (format!("{start}aaaaaaaaa%41"), format!("{start}...%41")),
            (
                format!("x{start}aaaaaaaaa {start}bbbbbbbbb"),
                format!("x{start}... {start}..."),
            ),
            (format!("{start}...a1B2"), format!("{start}...a1B2")),
            (
                "/a_live_show/my_test_file".to_owned(),
                "/a_live_show/my_test_file".to_owned(),
            ),
            (String::new(), String::new()),
        ] {
            assert_eq!(redact(&text), shown);
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = minted();
        let presented = Presented::parse(&text).unwrap();
        assert!(!format!("{presented:?}").contains(presented.secret()));
    }

    #[test]
    fn every_character_is_equally_likely() {
        let mut seen = [0u32; 256];
        let mut text = [0u8; 6200];
        random_base62(&mut text).unwrap();
        text.iter().for_each(|b| seen[usize::from(*b)] += 1);
        for digit in BASE62 {
            // 100 expected; six standard deviations either side.
            assert!(
                (40..160).contains(&seen[usize::from(*digit)]),
                "{}",
                char::from(*digit)
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_redacted_holds_no_secret(before in "\\PC{0,20}", after in "[^0-9A-Za-z]\\PC{0,20}") {
            let key = minted();
            let text = format!("{before}{key}{after}{key}");
            let shown = redact(&text);
            prop_assert!(!shown.contains(&key[21..29]), "{}", shown);
            prop_assert!(shown.contains(&key[..21]), "{}", shown);
        }

        #[test]
        fn no_text_makes_redaction_panic(text in "([_\\PC]|_live_|_test_|[0-9a-z]{12}_[0-9a-z]{9}){0,9}") {
            let _ = redact(&text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = Presented::parse(&text);
        }

        #[test]
        fn no_key_like_text_makes_the_parser_panic(text in "[a-z0-9_]{0,20}_(live|test)_[\\PC]{0,80}") {
            let _ = Presented::parse(&text);
        }

        #[test]
        fn ids_and_prefixes_never_panic(text in any::<String>()) {
            let _ = text.parse::<KeyId>();
            let _ = text.parse::<Prefix>();
        }
    }
}
