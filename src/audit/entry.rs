//! An entry of the chain, as it is stored, shown and hashed.
//!
//! **The hash** of an entry is the SHA-256, in hexadecimal, of its text in UTF-8. The text is the entry's
//! line in an export without the member `hash`, which is the last: one JSON object with the members `seq,
//! at, action, actor, key_id, tenant_id, address, request_id, details, previous_hash` in this order,
//! without spaces between them. So whoever has an export takes `,"hash":"..."` out of a line and has what
//! was hashed, with no rules for writing JSON to agree on. `details` is stored as the text that it has
//! there. Each text has one reading, as JSON has, so two entries that differ have two texts.

use std::borrow::Cow;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::seal::Sealer;
use super::{Actor, Note};
use crate::clock::Timestamp;
use crate::key::format::redact;

/// The hash that the first entry names as the one before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Digits of a hash.
pub const HASH_LEN: usize = GENESIS.len();
/// Details have at most this many bytes, so that no page of entries can be of any size. What can be
/// written into a key needs less.
pub const DETAILS_LEN_MAX: usize = 128 << 10;
/// An entry's time is not before that of the one before it, where clocks differ by no more than this.
const CLOCKS_DIFFER_MS_MAX: i64 = 60_000;

/// The end of a chain: as far as an entry that is to come needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub at: i64,
    pub hash: String,
    pub seal: String,
}

impl Head {
    /// That of a chain without entries.
    pub fn genesis() -> Self {
        Head {
            seq: 0,
            at: 0,
            hash: GENESIS.to_owned(),
            seal: String::new(),
        }
    }
}

/// An entry as it is stored. Texts and not types: an entry of a later version is shown and verified all
/// the same, and so is one that somebody has tampered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the chain, from 1, without gaps.
    pub seq: i64,
    pub at: i64,
    pub action: String,
    /// See [`Actor::text`].
    pub actor: String,
    pub key_id: Option<String>,
    pub tenant_id: Option<String>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    /// A JSON object.
    pub details: String,
    pub previous_hash: String,
    pub hash: String,
    pub seal: String,
}

impl Entry {
    /// The entry that comes after `head` and says `note`.
    pub fn after(head: &Head, note: &Note, sealer: &Sealer) -> Self {
        let noted = note.at.as_millis();
        let is_behind = noted < head.at && head.at - noted <= CLOCKS_DIFFER_MS_MAX;
        let mut entry = Entry {
            seq: head.seq + 1,
            at: if is_behind { head.at } else { noted },
            action: note.action.as_str().to_owned(),
            actor: note.origin.actor.text(),
            key_id: note.key_id.map(|id| id.to_string()),
            tenant_id: note.tenant_id.as_ref().map(ToString::to_string),
            address: note.origin.address.map(|address| address.to_string()),
            request_id: note.origin.request_id.clone(),
            details: details_text(&note.details),
            previous_hash: head.hash.clone(),
            hash: String::new(),
            seal: String::new(),
        };
        entry.hash = entry.computed_hash();
        entry.seal = sealer.seal(&entry.hash);
        entry
    }

    /// The end of a chain that ends with this entry.
    pub fn as_head(&self) -> Head {
        Head {
            seq: self.seq,
            at: self.at,
            hash: self.hash.clone(),
            seal: self.seal.clone(),
        }
    }

    /// What is hashed.
    pub fn text(&self) -> String {
        let actor = match self.actor.split_once(':') {
            Some((kind, id)) => format!(r#"{{"type":{},"key_id":{}}}"#, quoted(kind), quoted(id)),
            None => format!(r#"{{"type":{},"key_id":null}}"#, quoted(&self.actor)),
        };
        format!(
            r#"{{"seq":{},"at":{},"action":{},"actor":{actor},"key_id":{},"tenant_id":{},"address":{},"request_id":{},"details":{},"previous_hash":{}}}"#,
            self.seq,
            time(self.at),
            quoted(&self.action),
            optional(self.key_id.as_deref()),
            optional(self.tenant_id.as_deref()),
            optional(self.address.as_deref()),
            optional(self.request_id.as_deref()),
            self.details,
            quoted(&self.previous_hash),
        )
    }

    /// The hash that the entry should have.
    pub fn computed_hash(&self) -> String {
        hexadecimal(&Sha256::digest(self.text().as_bytes()))
    }

    /// The entry as answers and exports show it: one line of JSON.
    pub fn line(&self) -> String {
        let mut line = if self.has_sound_details() {
            self.text()
        } else {
            // What is no object would break the answer, or pass for other members of the entry.
            let shown = Entry {
                details: r#"{"unreadable":true}"#.to_owned(),
                ..self.clone()
            };
            shown.text()
        };
        line.pop();
        line.push_str(&format!(r#","hash":{}}}"#, quoted(&self.hash)));
        line
    }

    fn has_sound_details(&self) -> bool {
        serde_json::from_str::<Map<String, Value>>(&self.details).is_ok()
            && !self.details.contains(['\n', '\r'])
    }
}

/// Two hexadecimal digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quoted)
}

/// A moment in quotes; a number that is none as it is, so that it can't pass for another.
fn time(millis: i64) -> String {
    let moment = Timestamp::from_millis(millis);
    if moment.as_millis() == millis {
        quoted(&moment.to_string())
    } else {
        millis.to_string()
    }
}

/// Details as they are stored. Names and metadata are whatever people write, and somebody may have pasted
/// a key into one: what is noted is kept for ever.
fn details_text(details: &Map<String, Value>) -> String {
    let text = redacted_object(details).to_string();
    if text.len() > DETAILS_LEN_MAX {
        return format!(r#"{{"omitted_bytes":{}}}"#, text.len());
    }
    text
}

fn redacted_object(object: &Map<String, Value>) -> Value {
    let members = object.iter();
    Value::Object(
        members
            .map(|(name, value)| (redact(name).into_owned(), redacted(value)))
            .collect(),
    )
}

fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => match redact(text) {
            Cow::Borrowed(_) => value.clone(),
            Cow::Owned(shown) => shown.into(),
        },
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(object) => redacted_object(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

impl Actor {
    /// The actor in the store and in filters: `system`, `unknown`, or `key:` and the key's id.
    pub fn text(self) -> String {
        match self {
            Actor::Key(id) => format!("key:{id}"),
            Actor::System => "system".to_owned(),
            Actor::Unknown => "unknown".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::noted;
    use crate::audit::{Action, Origin};
    use serde_json::json;

    fn entry(details: Value) -> Entry {
        let mut note = noted();
        note.details = details.as_object().cloned().unwrap_or_default();
        Entry::after(&Head::genesis(), &note, &Sealer::new(&[]))
    }

    #[test]
    fn the_text_is_what_the_documents_say() {
        let note = Note {
            at: Timestamp::from_millis(1_700_000_000_123),
            action: Action::KeyRevoked,
            origin: Origin {
                actor: Actor::Key("4fzN8cQ2pLrT".parse().unwrap()),
                address: Some("192.0.2.7".parse().unwrap()),
                request_id: Some("r\"1".to_owned()),
            },
            key_id: Some("000000000001".parse().unwrap()),
            tenant_id: Some("acme".parse().unwrap()),
            details: Map::from_iter([("n\n".to_owned(), json!([1.0, "ü"]))]),
        };
        let entry = Entry::after(&Head::genesis(), &note, &Sealer::new(&[]));
        let text = format!(
            r#"{{"seq":1,"at":"2023-11-14T22:13:20.123Z","action":"key.revoked","actor":{{"type":"key","key_id":"4fzN8cQ2pLrT"}},"key_id":"000000000001","tenant_id":"acme","address":"192.0.2.7","request_id":"r\"1","details":{{"n\n":[1.0,"ü"]}},"previous_hash":"{GENESIS}"}}"#
        );
        assert_eq!(entry.text(), text);
        assert_eq!(
            entry.line(),
            format!(r#"{},"hash":"{}"}}"#, &text[..text.len() - 1], entry.hash)
        );
        assert_eq!(entry.hash.len(), HASH_LEN);
    }

    #[test]
    fn times_are_in_order_unless_a_clock_is_far_off() {
        let head = |at| Head {
            at,
            ..Head::genesis()
        };
        let at = |head: Head| Entry::after(&head, &noted(), &Sealer::new(&[])).at;
        assert_eq!(at(head(0)), 1000);
        assert_eq!(at(head(2000)), 2000);
        assert_eq!(at(head(61_000)), 61_000);
        assert_eq!(at(head(61_001)), 1000);
    }

    #[test]
    fn a_pasted_key_is_not_kept() {
        let secret = "s".repeat(54);
        let key = format!("sk_live_4fzN8cQ2pLrT_{secret}");
        let details =
            json!({"name": {"to": key}, "metadata": [{key.clone(): [format!("x {key}")]}]});
        let entry = entry(details);
        assert!(!entry.details.contains("ssss"), "{}", entry.details);
        assert_eq!(entry.details.matches("4fzN8cQ2pLrT").count(), 3);
    }

    #[test]
    fn details_have_a_limit() {
        let long = entry(json!({"x": "y".repeat(DETAILS_LEN_MAX)}));
        assert_eq!(
            long.details,
            format!(r#"{{"omitted_bytes":{}}}"#, DETAILS_LEN_MAX + 8)
        );
    }

    #[test]
    fn what_is_no_object_does_not_pass_for_other_members() {
        for details in ["", "{", "[]", r#"{},"hash":"x""#, "{\n}", "1"] {
            let damaged = Entry {
                details: details.to_owned(),
                ..entry(json!({}))
            };
            let shown: Value = serde_json::from_str(&damaged.line()).unwrap();
            assert_eq!(shown["details"], json!({"unreadable": true}), "{details}");
            assert_eq!(shown["hash"], damaged.hash);
        }
    }
}
