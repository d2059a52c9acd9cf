//! Calls that are carried out once, however often they are sent (the `Idempotency-Key` of
//! draft-ietf-httpapi-idempotency-key-header).
//!
//! Who lost the answer to a creation can't use what was made: its secret was in that answer. So the same
//! answer is given again, secret included, for as long as [`crate::store::answers::KEPT`]. Until then
//! the secret is stored encrypted, under a key made from the mint key and the text of the caller's
//! idempotency key. Of that text only a digest is kept, so whoever reads the database can't open it, not
//! even with the mint key, as long as the text can't be guessed.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::fields::{NewKey, note_of_new};
use super::keys::{IssuedKey, KeyError, KeyService};
use super::sealed::Purpose;
use crate::audit::Origin;
use crate::audit::entry::hexadecimal;
use crate::key::{KeyId, KeyRecord, MintKeys};
use crate::store::answers::Answer;

/// What the digest of an idempotency key begins with.
const DIGEST_LABEL: &[u8] = b"sidekey idempotency key v1\0";
const SEALING_LABEL: &[u8] = b"\0sidekey idempotent answer v1\0";

/// A call that is to be carried out once.
pub struct Once {
    actor: KeyId,
    /// The caller's idempotency key: it opens what is stored, so it is a secret.
    key: SecretString,
    body_digest: String,
}

/// An answer that was given before.
pub struct Given {
    /// The answer without the secret.
    pub text: String,
    pub secret: SecretString,
}

/// What a call has led to.
pub enum Made {
    Now(Box<IssuedKey>),
    /// By the same call, sent before.
    Before(Given),
}

impl Once {
    /// The call of `actor` with `body` that the actor calls `key`.
    pub fn new(actor: KeyId, key: SecretString, body: &Map<String, Value>) -> Self {
        let mut canonical = String::new();
        write_canonical(&Value::Object(body.clone()), &mut canonical);
        Once {
            actor,
            key,
            body_digest: hexadecimal(&Sha256::digest(canonical)),
        }
    }

    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(DIGEST_LABEL);
        digest.update(self.actor.as_str());
        digest.update(self.key.expose_secret());
        hexadecimal(&digest.finalize())
    }

    fn seal(&self, mint_keys: &MintKeys, secret: &SecretString) -> Option<String> {
        self.sealing(|purpose| purpose.seal(mint_keys, secret.expose_secret()))
    }

    fn open(&self, mint_keys: &MintKeys, sealed: &str) -> Option<SecretString> {
        let opened = self.sealing(|purpose| purpose.open(mint_keys, sealed))?;
        Some(SecretString::from(opened.as_str()))
    }

    fn sealing<T>(&self, work: impl FnOnce(Purpose<'_>) -> T) -> T {
        let (actor, key) = (self.actor.as_str(), self.key.expose_secret());
        work(Purpose {
            context: &[SEALING_LABEL, actor.as_bytes(), key.as_bytes()],
            belongs_to: self.body_digest.as_bytes(),
        })
    }
}

/// `value` with all members of its objects in one order: bodies that say the same are the same.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

impl KeyService {
    /// The answer to this call, if it was carried out before.
    pub async fn given(&self, once: &Once) -> Result<Option<Given>, KeyError> {
        let now = self.clock.now();
        let answer = self.answers.answer(once.actor, &once.digest(), now).await?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        if answer.body_digest != once.body_digest {
            return Err(KeyError::IdempotencyKeyReused);
        }
        let secret = once.open(&self.mint_keys, &answer.sealed_secret);
        let secret = secret.ok_or(KeyError::Conflict(
            "the call was carried out before, and its answer can't be read any more",
        ))?;
        Ok(Some(Given {
            text: answer.text,
            secret,
        }))
    }

    /// Mints and stores a key, unless the same call has done so: then what that one was answered. `answer`
    /// writes the answer, without the secret.
    pub async fn create_once(
        &self,
        new: NewKey,
        once: &Once,
        answer: impl Fn(&KeyRecord) -> String,
        origin: &Origin,
    ) -> Result<Made, KeyError> {
        let minted = self.mint(new.environment, None)?;
        let (issued, unnamed) = self.prepare(new, minted).await?;
        let record = &issued.record;
        let sealed_secret = once.seal(&self.mint_keys, &issued.text);
        let sealed_secret = sealed_secret.ok_or_else(|| {
            KeyError::Unavailable("the answer could not be kept for later".to_owned())
        })?;
        let kept = Answer {
            actor: once.actor,
            digest: once.digest(),
            body_digest: once.body_digest.clone(),
            text: answer(record),
            sealed_secret,
            given_at: record.created_at,
        };
        self.check_in_time(&unnamed)?;
        let note = note_of_new(record, origin);
        let is_first = match self.answers.insert_once(record, &note, &kept).await {
            Ok(is_first) => is_first,
            Err(error) => return Err(self.not_stored(record, error).await),
        };
        if is_first {
            self.live.apply(record.clone());
            self.keep(record, &unnamed).await?;
            self.announcer.announce();
            return Ok(Made::Now(Box::new(issued)));
        }
        // The same call was faster, here or at another instance.
        self.remove_hashes(record, &[record.generation]).await;
        let given = self.given(once).await?;
        let given = given.ok_or(KeyError::Conflict(
            "the same call was sent at the same time, and its answer is gone",
        ))?;
        Ok(Made::Before(given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;
    use serde_json::json;

    fn once(key: &str, body: Value) -> Once {
        let actor = "4fzN8cQ2pLrT".parse().unwrap();
        Once::new(actor, key.into(), body.as_object().unwrap())
    }

    fn mint_keys(bytes: &[u8]) -> MintKeys {
        let mut keys = bytes.iter().map(|byte| MintKey::new(&[*byte; 32]));
        MintKeys::new(keys.next().unwrap(), keys.collect())
    }

    #[test]
    fn bodies_that_say_the_same_are_the_same() {
        let digest = |text: &str| once("k", serde_json::from_str(text).unwrap()).body_digest;
        let first = digest(r#"{"a": 1, "b": {"c": [1, {"d": 2, "e": null}], "f": "x"}}"#);
        assert_eq!(
            first,
            digest(r#"{ "b":{"f":"\u0078","c":[1,{"e":null,"d":2}]}, "a":1}"#)
        );
        for other in [
            r#"{"a": 1}"#,
            r#"{"a": 1, "b": {"c": [{"d": 2, "e": null}, 1], "f": "x"}}"#,
            r#"{"a": 1, "b": {"c": [1, {"d": 2}], "f": "x"}}"#,
            r#"{"a": "1", "b": {"c": [1, {"d": 2, "e": null}], "f": "x"}}"#,
        ] {
            assert_ne!(first, digest(other), "{other}");
        }
    }

    #[test]
    fn a_secret_opens_with_both_keys_and_the_same_body_only() {
        let (mint, secret) = (mint_keys(&[1]), SecretString::from("sk_test_secret"));
        let call = once("first", json!({"a": 1}));
        let sealed = call.seal(&mint, &secret).unwrap();
        assert_ne!(sealed, call.seal(&mint, &secret).unwrap());
        let opened = |call: &Once, mint: &MintKeys| {
            let opened = call.open(mint, &sealed);
            opened.map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(opened(&call, &mint).unwrap(), "sk_test_secret");
        // The mint key was rotated meanwhile.
        assert!(opened(&call, &mint_keys(&[2, 1])).is_some());
        assert!(opened(&call, &mint_keys(&[2])).is_none());
        assert!(opened(&once("other", json!({"a": 1})), &mint).is_none());
        assert!(opened(&once("first", json!({"a": 2})), &mint).is_none());
        let mut damaged = sealed.clone();
        damaged.replace_range(40..41, if &sealed[40..41] == "A" { "B" } else { "A" });
        assert!(call.open(&mint, &damaged).is_none());
        assert!(call.open(&mint, "").is_none());
    }
}
