//! What is told of instances that have not confirmed a change: they may hold to what was before it.

use super::words;
use crate::admin::AdminState;
use crate::admin::dashboard::KEYS_PATH;
use crate::cluster::Propagation;
use crate::key::KeyId;

/// Instances that are named, at most.
const NAMES_MAX: usize = 20;
/// Says in an address that somebody had not confirmed a change. Who it is now is asked again: nothing is
/// told because an address says so.
const PARAMETER: &str = "unconfirmed";

/// Instances that have not confirmed a change.
#[derive(Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    pub names: String,
    pub is_one: bool,
    /// How long they may serve what the database does not confirm.
    pub within: String,
}

impl Unconfirmed {
    /// Those of a change that was just made.
    pub fn of(state: &AdminState, propagation: &Propagation) -> Option<Self> {
        Self::named(&propagation.unconfirmed, state)
    }

    /// Those that there are by now, where `query` says that there were some.
    pub async fn after(state: &AdminState, query: &[(String, String)]) -> Option<Self> {
        if !query.iter().any(|(name, _)| name == PARAMETER) {
            return None;
        }
        Self::named(&state.confirmations.unconfirmed_now().await, state)
    }

    fn named(names: &[String], state: &AdminState) -> Option<Self> {
        let shown = &names[..names.len().min(NAMES_MAX)];
        let others = names.len() - shown.len();
        let mut text = shown.join(", ");
        if others > 0 {
            text.push_str(&format!(" and {others} more"));
        }
        (!names.is_empty()).then(|| Unconfirmed {
            names: text,
            is_one: names.len() == 1,
            within: words::period(state.deployment.max_stale),
        })
    }
}

/// The page of a key after something was done to it: `done` is one of [`super::page`]'s words.
pub fn done_path(id: KeyId, done: &str, propagation: &Propagation) -> String {
    if propagation.unconfirmed.is_empty() {
        format!("{KEYS_PATH}/{id}?done={done}")
    } else {
        format!("{KEYS_PATH}/{id}?done={done}&{PARAMETER}=1")
    }
}
