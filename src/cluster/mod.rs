//! What instances that share a database know of each other: who is there (`presence`), that something
//! has changed (`events`), and who has confirmed it (`confirm`).
//!
//! The database is the only authority: changes are numbered there, and each instance writes there how
//! far it has followed. An event through Redis says "look now" and nothing else, so none of them needs
//! to be believed, to be kept, or to arrive: what is lost is found by the next look.

pub mod confirm;
pub mod events;
pub mod presence;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::key::format::{RandomnessError, random_base62};
use crate::store::Heard;
use crate::telemetry::Metrics;

pub use confirm::{Confirmations, Propagation};
pub use events::Events;
pub use presence::Presence;

/// Characters of an instance's id.
const ID_LEN: usize = 12;
/// Characters of an instance's name, at most.
pub const NAME_LEN_MAX: usize = 64;

/// Who this instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// New at each start.
    pub id: Arc<str>,
    /// For people, who may have given it: plain ASCII without quotes.
    pub name: Arc<str>,
}

impl Identity {
    /// A new id, with the name `configured` or one that tells host and port.
    pub fn new(configured: Option<&str>, admin_port: u16) -> Result<Self, RandomnessError> {
        let mut id = [0u8; ID_LEN];
        random_base62(&mut id)?;
        let name = match configured {
            Some(name) => plain(name),
            None => {
                let system = rustix::system::uname();
                let host = system.nodename().to_string_lossy();
                // The port is what tells instances on one host from each other.
                let host: String = plain(&host).chars().take(NAME_LEN_MAX - 6).collect();
                format!("{host}:{admin_port}")
            }
        };
        Ok(Identity {
            id: String::from_utf8_lossy(&id).into(),
            name: name.into(),
        })
    }
}

/// `text` as it may stand in a header field and in a log, whoever wrote it.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    text.chars()
        .take(NAME_LEN_MAX)
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect()
}

/// Says that something has changed: to the follower of this instance, and to whoever tells the others.
/// Several words in a row are one.
#[derive(Debug, Clone, Default)]
pub struct Announcer {
    look: Arc<Notify>,
    tell: Arc<Notify>,
}

impl Announcer {
    /// This instance has changed a key.
    pub fn announce(&self) {
        self.look();
        self.tell.notify_one();
    }

    /// Another instance may have changed a key.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Notified when there is something to look for.
    pub fn on_look(&self) -> Arc<Notify> {
        self.look.clone()
    }

    async fn told(&self) {
        self.tell.notified().await;
    }
}

/// The instances that were last read, this one perhaps among them.
#[derive(Clone)]
pub struct Roster {
    all: Arc<Mutex<Arc<Vec<Heard>>>>,
    metrics: Arc<Metrics>,
}

impl Roster {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Roster {
            all: Arc::default(),
            metrics,
        }
    }

    fn set(&self, all: Arc<Vec<Heard>>) {
        let live = all.iter().filter(|instance| instance.is_live).count();
        self.metrics
            .instances
            .set(i64::try_from(live).unwrap_or(i64::MAX));
        *self.all.lock() = all;
    }

    fn get(&self) -> Arc<Vec<Heard>> {
        self.all.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        let named = Identity::new(Some("blue \"eins\"\u{1F511}"), 1).unwrap();
        assert_eq!(&*named.name, "blue--eins--");
        let unnamed = Identity::new(None, 65535).unwrap();
        assert!(unnamed.name.ends_with(":65535") && unnamed.name.len() <= NAME_LEN_MAX);
        assert_eq!(plain(&"x".repeat(100)).len(), NAME_LEN_MAX);
        assert!(named.id != unnamed.id && named.id.len() == ID_LEN);
    }
}
