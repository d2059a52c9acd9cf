//! How what Sidekey depends on is, as this instance sees it: what it knows anyway, nothing is asked for.

use crate::admin::AdminState;
use crate::telemetry::metrics::Dependency;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Well,
    Watch,
    Bad,
    Unused,
}

impl Condition {
    /// The badge's class.
    pub fn class(&self) -> &'static str {
        match self {
            Condition::Well => "ok",
            Condition::Watch => "warn",
            Condition::Bad => "bad",
            Condition::Unused => "muted",
        }
    }
}

/// Something that can be well or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub condition: Condition,
    pub word: &'static str,
    pub note: String,
}

/// All of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    pub parts: Vec<Part>,
}

/// Something that answers or does not.
fn dependency(name: &'static str, is_up: bool, is_held_back: bool) -> Part {
    let (condition, word) = match (is_up, is_held_back) {
        (true, false) => (Condition::Well, "answers"),
        (true, true) => (Condition::Watch, "held back"),
        (false, _) => (Condition::Bad, "away"),
    };
    let note = match condition {
        Condition::Watch => "Its last calls failed; it is asked again twice a second.",
        _ => "",
    };
    Part {
        name,
        condition,
        word,
        note: note.to_owned(),
    }
}

fn unused(name: &'static str, note: &str) -> Part {
    Part {
        name,
        condition: Condition::Unused,
        word: "not used",
        note: note.to_owned(),
    }
}

impl Health {
    pub fn of(state: &AdminState) -> Self {
        let (metrics, deployment) = (&state.metrics, &state.deployment);
        let is_open = |dependency| metrics.breaker_open(dependency).get() != 0;
        let database = dependency(
            "Database",
            metrics.store_up.get() != 0,
            is_open(Dependency::Database),
        );
        let vault = if deployment.uses_vault {
            dependency(
                "Vault",
                metrics.vault_up.get() != 0,
                is_open(Dependency::Vault),
            )
        } else {
            unused("Vault", "Hashes are in the database.")
        };
        let redis = if deployment.uses_redis {
            dependency(
                "Redis",
                metrics.redis_up.get() != 0,
                is_open(Dependency::Redis),
            )
        } else {
            unused("Redis", "Each instance has its own limits.")
        };
        Health {
            parts: vec![database, redis, vault, instances(state), usage(state)],
        }
    }
}

fn instances(state: &AdminState) -> Part {
    let all = state.confirmations.known();
    let silent = all.iter().filter(|(_, is_live)| !is_live);
    let silent: Vec<&str> = silent.map(|(name, _)| name.as_str()).collect();
    let live = u64::try_from(all.len() - silent.len()).unwrap_or_default();
    let note = super::of_many(live.max(1), "instance", "instances");
    if silent.is_empty() {
        Part {
            name: "Instances",
            condition: Condition::Well,
            word: "all heard of",
            note,
        }
    } else {
        Part {
            name: "Instances",
            condition: Condition::Watch,
            word: "some silent",
            note: format!("{note}; not heard of: {}", silent.join(", ")),
        }
    }
}

/// Whether what was counted gets where it belongs.
fn usage(state: &AdminState) -> Part {
    let dropped = state.metrics.usage_rows_dropped.get();
    let (condition, word, note) = if dropped > 0 {
        let note = super::of_many(dropped, "row is lost", "rows are lost");
        (Condition::Bad, "incomplete", note)
    } else {
        (Condition::Well, "complete", String::new())
    };
    Part {
        name: "Usage",
        condition,
        word,
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_away_is_bad_and_what_is_held_back_is_to_be_watched() {
        let condition = |is_up, is_held_back| dependency("it", is_up, is_held_back).condition;
        assert_eq!(condition(true, false), Condition::Well);
        assert_eq!(condition(true, true), Condition::Watch);
        assert_eq!(condition(false, false), Condition::Bad);
        assert_eq!(condition(false, true), Condition::Bad);
    }
}
