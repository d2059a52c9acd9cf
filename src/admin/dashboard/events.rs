//! What happened, as people read it: an entry of the audit log in words, for every page that shows some.
//!
//! An entry is outside input: names and metadata are what people typed, and whoever can write the database
//! may have written anything. So everything here is text that the templates escape, and addresses are made
//! of what was read as an id alone.

mod values;

use serde_json::{Map, Value};

use super::KEYS_PATH;
use super::moment::Moment;
use crate::admin::access::{Caller, Permission};
use crate::audit::Action;
use crate::audit::entry::Entry;
use crate::clock::Timestamp;
use crate::key::{KeyId, TenantId};
use crate::problem::Kind;
pub use values::Shown;
use values::{heading, shorten, shown};

/// Of an entry as it was hashed, a page shows this many bytes. What is longer is whole in an export.
const LINE_LEN_MAX: usize = 4 << 10;
/// Fields of a change that a page shows.
const CHANGES_MAX: usize = 40;
/// Fields that the line of an entry names; the others are counted.
const FIELDS_NAMED_MAX: usize = 4;

/// What is said of an action, in one place.
pub fn words(action: Action) -> &'static str {
    match action {
        Action::KeyCreated => "API key created",
        Action::KeyChanged => "API key changed",
        Action::KeyRegenerated => "Secret replaced",
        Action::KeyOverlapEnded => "Old secret ended",
        Action::KeyRevoked => "API key revoked",
        Action::KeyImported => "API key imported",
        Action::KeyReminderSent => "Reminder of rotation sent",
        Action::KeyReminderFailed => "Reminder of rotation not sent",
        Action::TenantCreated => "Tenant created",
        Action::TenantChanged => "Tenant changed",
        Action::TenantSuspended => "Tenant suspended",
        Action::TenantResumed => "Tenant resumed",
        Action::AdminSignedIn => "Signed in from a new address",
        Action::AdminSignedOut => "Signed out",
        Action::AdminCallRefused => "Call refused",
    }
}

/// The look of an action; its words say the same.
fn tone(action: Action) -> &'static str {
    match action {
        Action::KeyCreated
        | Action::KeyImported
        | Action::TenantCreated
        | Action::TenantResumed => "ok",
        Action::KeyChanged
        | Action::KeyReminderSent
        | Action::TenantChanged
        | Action::AdminSignedIn
        | Action::AdminSignedOut => "info",
        Action::KeyRegenerated | Action::KeyOverlapEnded => "warn",
        Action::KeyRevoked
        | Action::KeyReminderFailed
        | Action::TenantSuspended
        | Action::AdminCallRefused => "bad",
    }
}

/// Somebody or something that an entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub text: String,
    /// Where it is looked at, for whom that is allowed.
    pub path: Option<String>,
}

impl Named {
    fn plain(text: impl Into<String>) -> Self {
        Named {
            text: text.into(),
            path: None,
        }
    }
}

/// What an entry was refused with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub status: String,
    pub problem: String,
    /// Method and path, where they were noted.
    pub call: Option<String>,
}

/// A field before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub field: String,
    pub from: Option<Shown>,
    pub to: Option<Shown>,
}

/// Something else that an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    pub value: Shown,
}

/// An entry as a page shows it.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub seq: i64,
    pub at: Moment,
    pub words: String,
    pub tone: &'static str,
    /// What of it is worth a word beside its name.
    pub summary: Option<String>,
    pub actor: Named,
    pub key: Option<Named>,
    pub tenant: Option<Named>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub refused: Option<Refused>,
    /// Whether something was there before what changed.
    pub has_before: bool,
    pub changes: Vec<Change>,
    pub facts: Vec<Fact>,
    /// As it was hashed, or the beginning of it.
    pub line: String,
    pub is_cut: bool,
    pub previous_hash: String,
    pub hash: String,
}

/// Whom events are shown to: links lead where that caller may go.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    may_read_keys: bool,
    is_admin: bool,
}

impl From<&Caller> for Reader {
    fn from(caller: &Caller) -> Self {
        Reader {
            may_read_keys: caller.holds(Permission::KeysRead),
            is_admin: caller.holds(Permission::Admin),
        }
    }
}

impl Reader {
    fn key(self, id: &str) -> Named {
        let path = id.parse::<KeyId>().ok().filter(|_| self.may_read_keys);
        Named {
            text: id.to_owned(),
            path: path.map(|id| format!("{KEYS_PATH}/{id}")),
        }
    }

    fn tenant(self, id: &str) -> Named {
        let path = id.parse::<TenantId>().ok().filter(|_| self.may_read_keys);
        Named {
            text: id.to_owned(),
            path: path.map(|id| format!("{KEYS_PATH}?tenant_id={id}")),
        }
    }

    /// Another tenant may have the key of whoever did it: a tenant is led to those alone that an entry of
    /// its own is about.
    fn actor(self, entry: &Entry) -> Named {
        match entry.actor.split_once(':') {
            Some(("key", id)) if self.is_admin || entry.key_id.as_deref() == Some(id) => {
                self.key(id)
            }
            Some(("key", id)) => Named::plain(id),
            _ if entry.actor == "system" => Named::plain("Sidekey itself"),
            _ if entry.actor == "unknown" => Named::plain("somebody unknown"),
            _ => Named::plain(&*entry.actor),
        }
    }
}

/// `entries` as `reader` is shown them.
pub fn rows(entries: &[Entry], reader: Reader) -> Vec<EventRow> {
    entries.iter().map(|entry| row(entry, reader)).collect()
}

fn row(entry: &Entry, reader: Reader) -> EventRow {
    let action = Action::from_name(&entry.action);
    let details = serde_json::from_str(&entry.details);
    let mut details: Map<String, Value> = details.unwrap_or_default();
    let refused = take_refused(&mut details);
    let (mut changes, facts) = split(details);
    let has_before = changes.iter().any(|change| change.from.is_some());
    // Of something new it is enough to say what it has.
    let has_something = |change: &Change| change.to.as_ref().is_some_and(|to| !to.is_nothing);
    changes.retain(|change| has_before || has_something(change));
    let (line, is_cut) = shorten(entry.line(), LINE_LEN_MAX);
    let is_of_call = |refused: &Refused| refused.call.clone();
    let summary = match action {
        Some(Action::AdminCallRefused) => refused.as_ref().and_then(is_of_call),
        Some(Action::KeyCreated | Action::KeyImported | Action::TenantCreated) => {
            name_of_new(&changes)
        }
        _ => fields_named(&changes),
    };
    EventRow {
        seq: entry.seq,
        at: Timestamp::from_millis(entry.at).into(),
        // One of a later version, or one that somebody made up.
        words: action.map_or_else(|| entry.action.clone(), |action| words(action).to_owned()),
        tone: action.map_or("muted", tone),
        summary,
        actor: reader.actor(entry),
        key: entry.key_id.as_deref().map(|id| reader.key(id)),
        tenant: entry.tenant_id.as_deref().map(|id| reader.tenant(id)),
        address: entry.address.clone(),
        request_id: entry.request_id.clone(),
        refused,
        has_before,
        changes,
        facts,
        line,
        is_cut,
        previous_hash: entry.previous_hash.clone(),
        hash: entry.hash.clone(),
    }
}

/// What a call was refused with, taken out of `details`.
fn take_refused(details: &mut Map<String, Value>) -> Option<Refused> {
    let mut take = |name: &str| {
        let value = details.shift_remove(name)?;
        Some(shown(name, &value).text)
    };
    let (status, problem) = (take("status")?, take("problem")?);
    let kind = Kind::ALL.iter().find(|kind| kind.uri() == problem);
    let call = match (take("method"), take("path")) {
        (Some(method), Some(path)) => Some(format!("{method} {path}")),
        (method, path) => method.or(path),
    };
    Some(Refused {
        status,
        problem: kind.map_or(problem, |kind| kind.title().to_owned()),
        call,
    })
}

/// What was changed, and what else there is to say.
fn split(details: Map<String, Value>) -> (Vec<Change>, Vec<Fact>) {
    let (mut changes, mut facts) = (Vec::new(), Vec::new());
    for (name, value) in details.into_iter().take(CHANGES_MAX) {
        let change = value.as_object().filter(|object| {
            let mut names = object.keys();
            !object.is_empty() && names.all(|name| name == "from" || name == "to")
        });
        match change {
            Some(change) => changes.push(Change {
                field: heading(&name),
                from: change.get("from").map(|value| shown(&name, value)),
                to: change.get("to").map(|value| shown(&name, value)),
            }),
            None => facts.push(Fact {
                name: heading(&name),
                value: shown(&name, &value),
            }),
        }
    }
    (changes, facts)
}

/// What something new is called.
fn name_of_new(changes: &[Change]) -> Option<String> {
    let is_name = |change: &&Change| matches!(&*change.field, "name" | "display name");
    let name = changes.iter().find(is_name)?.to.as_ref()?;
    Some(name.text.clone())
}

/// `name, scopes and 3 more`
fn fields_named(changes: &[Change]) -> Option<String> {
    let named: Vec<&str> = changes
        .iter()
        .take(FIELDS_NAMED_MAX)
        .map(|change| &*change.field)
        .collect();
    let more = changes.len() - named.len();
    let named = named.join(", ");
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named),
        (false, more) => Some(format!("{named} and {more} more")),
    }
}

#[cfg(test)]
mod tests;
