//! The admin port: the key API, health, metrics; later the dashboard.
//!
//! `api` speaks HTTP, `access` knows who may do what, `input` reads bodies and reports every bad field at
//! once, `import_lines` lists of existing keys, `serve` has the port's connections. What is done, [`crate::manage`] does.

pub mod access;
pub mod answer;
pub mod api;
mod import_lines;
pub mod input;
mod request_id;
pub mod serve;

use std::sync::Arc;

use axum::Router;

use crate::clock::SharedClock;
use crate::cluster::Confirmations;
use crate::limit::AddressLimiter;
use crate::manage::KeyService;
use crate::telemetry::Metrics;
use crate::verify::Verifier;

/// What every handler can reach.
pub struct AdminState {
    pub keys: KeyService,
    /// Who has confirmed what was changed.
    pub confirmations: Confirmations,
    pub verifier: Arc<Verifier>,
    /// The admin port's own: what fails on the proxy locks nobody out here.
    pub failed_auth: AddressLimiter,
    pub realm: String,
    pub metrics: Arc<Metrics>,
    pub clock: SharedClock,
}

/// All routes of the admin port.
pub fn router(state: Arc<AdminState>) -> Router {
    api::router().with_state(state)
}
