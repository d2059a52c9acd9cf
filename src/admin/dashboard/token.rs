//! What a browser holds of a session: a random text in a cookie. Stored is its digest, and what a form
//! brings back is made from it, so nothing that is kept here or shown on a page can stand for it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::audit::entry::hexadecimal;
use crate::key::format::RandomnessError;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Their characters.
const TOKEN_LEN: usize = (TOKEN_BYTES * 4).div_ceil(3);
/// What a form's proof is made with. A token has no spaces.
const CSRF_LABEL: &[u8] = b"sidekey dashboard form 1";

/// A session's token. It can't be printed.
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new one.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut bytes = Zeroizing::new([0u8; TOKEN_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| RandomnessError)?;
        Ok(Token(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// What a browser has sent, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == TOKEN_LEN
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        is_token.then(|| Token(Zeroizing::new(text.to_owned())))
    }

    /// For the browser alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the session is stored under.
    pub fn id(&self) -> String {
        hexadecimal(&Sha256::digest(self.0.as_bytes()))
    }

    /// What the session's forms have to bring back.
    pub fn csrf(&self) -> String {
        // HMAC takes a key of any length, so this can't fail.
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes());
        let mut mac = mac.unwrap_or_else(|_| unreachable!());
        mac.update(CSRF_LABEL);
        hexadecimal(&mac.finalize().into_bytes())
    }

    /// Whether a form has brought it back.
    pub fn accepts(&self, csrf: &str) -> bool {
        self.csrf().as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_itself_and_shows_nothing_of_itself() {
        let token = Token::random().unwrap();
        assert_eq!(token.reveal().len(), TOKEN_LEN);
        let again = Token::parse(token.reveal()).unwrap();
        assert_eq!(again.id(), token.id());
        assert!(token.accepts(&again.csrf()));
        for shown in [token.id(), token.csrf()] {
            assert_eq!(shown.len(), 64);
            assert!(!shown.contains(token.reveal()));
        }
        assert_ne!(token.id(), token.csrf());
    }

    #[test]
    fn each_token_has_forms_of_its_own() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert!(!one.accepts(&other.csrf()));
        assert!(!one.accepts(""));
        assert!(!one.accepts(&one.csrf()[1..]));
        assert!(!one.accepts(&one.id()));
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        let token = Token::random().unwrap();
        let text = token.reveal();
        for wrong in [
            "",
            &text[1..],
            &format!("{text}a"),
            &format!("{}=", &text[1..]),
        ] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }
}
