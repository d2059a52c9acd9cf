//! Small texts that only this deployment can read: encrypted under keys that are derived from the mint
//! keys. What was sealed before the mint key was rotated still opens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::key::MintKeys;

/// Bytes of a nonce: many enough to be drawn at random.
const NONCE_LEN: usize = 24;

/// What a text is sealed for: who opens it has to say the same.
pub struct Purpose<'a> {
    /// The key is derived with these. The first begins with NUL, as no text does that has a key's check.
    pub context: &'a [&'a [u8]],
    /// It belongs to this.
    pub belongs_to: &'a [u8],
}

impl Purpose<'_> {
    /// One for each mint key, that of the current one first.
    fn ciphers(&self, mint_keys: &MintKeys) -> impl Iterator<Item = XChaCha20Poly1305> {
        let keys = mint_keys.derive(self.context).into_iter();
        keys.map(|key| XChaCha20Poly1305::new((&*key).into()))
    }

    /// `text`, sealed; `None` where the system has no random bytes.
    pub fn seal(&self, mint_keys: &MintKeys, text: &str) -> Option<String> {
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let payload = Payload {
            msg: text.as_bytes(),
            aad: self.belongs_to,
        };
        let cipher = self.ciphers(mint_keys).next()?;
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed, if it was.
    pub fn open(&self, mint_keys: &MintKeys, sealed: &str) -> Option<Zeroizing<String>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let opened = self.ciphers(mint_keys).find_map(|cipher| {
            let payload = Payload {
                msg: sealed,
                aad: self.belongs_to,
            };
            cipher.decrypt(&XNonce::from(*nonce), payload).ok()
        });
        let text = String::from_utf8(opened?).ok()?;
        Some(Zeroizing::new(text))
    }
}
