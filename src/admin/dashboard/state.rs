//! What the dashboard has of its own; everything else it shares with the API.

use std::sync::Arc;

use super::sessions::{Sessions, keep_forgetting};
use crate::clock::SharedClock;
use crate::config::settings::DashboardSettings;
use crate::limit::AddressLimiter;
use crate::store::SessionStore;
use crate::verify::Records;

/// What its handlers can reach beside [`crate::admin::AdminState`].
pub struct DashboardState {
    pub settings: DashboardSettings,
    /// What examples of code call, without a slash at its end.
    pub proxy_url: String,
    pub(super) sessions: Arc<Sessions>,
    /// Failed sign-ins.
    pub(in crate::admin) failures: AddressLimiter,
    /// Records of who is signed in.
    pub(super) records: Records,
}

/// What it is made of.
pub struct Parts {
    pub settings: DashboardSettings,
    /// Where the proxy listens, for who has not said what clients call.
    pub proxy_url: String,
    pub sessions: Arc<dyn SessionStore>,
    pub records: Records,
    /// Addresses whose failed sign-ins are remembered.
    pub addresses_max: u64,
    pub clock: SharedClock,
}

impl DashboardState {
    /// Starts the housekeeping of sessions, too.
    pub fn start(parts: Parts) -> Self {
        let settings = parts.settings;
        let sessions = Arc::new(Sessions::new(parts.sessions, &settings, parts.clock));
        if settings.is_enabled {
            tokio::spawn(keep_forgetting(sessions.clone()));
        }
        DashboardState {
            failures: AddressLimiter::new(vec![settings.sign_in.clone()], parts.addresses_max),
            proxy_url: settings.proxy_url.clone().unwrap_or(parts.proxy_url),
            sessions,
            records: parts.records,
            settings,
        }
    }
}
