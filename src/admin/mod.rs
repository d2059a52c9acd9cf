//! The admin port: the key API, health, metrics, the dashboard.
//!
//! `api` speaks HTTP and `dashboard` shows pages; `operations`, `listing`, `audit_log`,
//! `audit_verification` and `usage_report` are what both do. `access` knows who may do what, `input` reads
//! bodies and reports every bad field at once, `import_lines` lists of existing keys; `client` finds
//! out their address, `counted` counts what is answered, `watch` notes sign-ins and refused calls, `serve` has the port's connections. What is done, [`crate::manage`] does.

pub mod access;
pub mod answer;
pub mod api;
mod audit_log;
pub mod audit_verification;
mod client;
mod counted;
pub mod dashboard;
pub mod deployment;
mod import_lines;
pub mod input;
pub mod listing;
mod long_work;
mod operations;
mod request_id;
pub mod serve;
pub mod usage_report;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use audit_verification::Verifications;
use deployment::Deployment;

use crate::audit::recorder::Recorder;
use crate::audit::seal::Sealer;
use crate::clock::SharedClock;
use crate::cluster::Confirmations;
use crate::limit::AddressLimiter;
use crate::manage::{KeyService, TenantService};
use crate::store::AuditStore;
use crate::store::{OverviewStore, UsageStore};
use crate::telemetry::Metrics;
use crate::telemetry::admin::AdminMetrics;
use crate::verify::Verifier;
use dashboard::state::DashboardState;

/// What every handler can reach.
pub struct AdminState {
    pub keys: KeyService,
    pub audit: Arc<dyn AuditStore>,
    /// For verifications.
    pub sealer: Sealer,
    /// Notes what is not a write.
    pub recorder: Arc<Recorder>,
    /// Imports that may run at the same time.
    pub imports: Arc<Semaphore>,
    /// Exports of the audit log that may run at the same time.
    pub exports: Arc<Semaphore>,
    /// Verifications of it, and what they have found.
    pub verifications: Arc<Verifications>,
    pub tenants: TenantService,
    /// Who has confirmed what was changed.
    pub confirmations: Confirmations,
    pub verifier: Arc<Verifier>,
    pub usage: Arc<dyn UsageStore>,
    pub overview: Arc<dyn OverviewStore>,
    /// How long hours of usage are kept.
    pub usage_retention: Duration,
    /// The admin port's own: what fails on the proxy locks nobody out here.
    pub failed_auth: AddressLimiter,
    pub dashboard: DashboardState,
    /// Whose word for the client's address is taken.
    pub trusted_proxies: Vec<IpNet>,
    pub realm: String,
    pub deployment: Deployment,
    pub counted: AdminMetrics,
    /// Whoever asks whether to send requests here is told no.
    pub is_stopping: AtomicBool,
    pub metrics: Arc<Metrics>,
    pub clock: SharedClock,
}

/// All routes of the admin port.
pub fn router(state: Arc<AdminState>) -> Router {
    api::router(&state).with_state(state)
}
