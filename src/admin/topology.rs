//! Which parts Sidekey runs with, as far as people are told.

use crate::config::Settings;
use crate::config::settings::{Mode, SecretsSettings};

/// What the configuration says of it.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Nobody is refused.
    pub is_shadow: bool,
    pub uses_redis: bool,
    pub uses_vault: bool,
}

impl Topology {
    pub fn of(settings: &Settings) -> Self {
        Topology {
            is_shadow: settings.proxy.mode == Mode::Shadow,
            uses_redis: settings.limits.redis.is_some(),
            uses_vault: matches!(settings.secrets, SecretsSettings::Vault(_)),
        }
    }
}
