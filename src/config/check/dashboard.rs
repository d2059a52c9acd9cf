//! `[dashboard]`.

use std::sync::Arc;
use std::time::Duration;

use super::{Checker, SECONDS_MAX};
use crate::config::{parse, raw, settings::*};

impl Checker<'_> {
    pub(super) fn dashboard(&mut self, raw: &raw::Dashboard) -> DashboardSettings {
        let url = self.web_address("dashboard.url", &raw.url, parse::origin);
        let proxy_url = self.web_address("dashboard.proxy_url", &raw.proxy_url, parse::base_url);
        let (idle, max) = (raw.session_idle_seconds, raw.session_max_seconds);
        self.number("dashboard.session_max_seconds", max, 1, SECONDS_MAX);
        self.number("dashboard.session_idle_seconds", idle, 1, SECONDS_MAX);
        self.policy("dashboard.sign_in", &raw.sign_in);
        DashboardSettings {
            is_enabled: raw.enabled,
            url,
            proxy_url,
            session_idle: Duration::from_secs(idle),
            session_max: Duration::from_secs(max),
            sign_in: Arc::new(raw.sign_in.clone()),
        }
    }

    /// `None` where there is none.
    pub(super) fn web_address(
        &mut self,
        path: &str,
        text: &str,
        read: fn(&str) -> Result<String, String>,
    ) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        read(text).map_err(|detail| self.report(path, detail)).ok()
    }
}
