//! What pages tell of the deployment: what keys can be granted and are held to, how one is sent, and which
//! parts Sidekey runs with.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::config::settings::{
    Auth, CredentialSettings, DescribedScope, Mode, RouteSettings, SecretsSettings, Source,
};
use crate::key::{Policy, Scope, ScopePattern};

/// A path that needs a key.
#[derive(Debug, Clone)]
struct GuardedPath {
    path: String,
    scopes: Vec<Scope>,
}

/// What only the configuration knows.
#[derive(Debug, Clone)]
pub struct Deployment {
    pub catalogue: Vec<DescribedScope>,
    /// Of keys that have no limits of their own.
    pub default_limits: Vec<Arc<Policy>>,
    /// Where examples carry their key.
    pub source: Source,
    paths: Vec<GuardedPath>,
    /// Nobody is refused.
    pub is_shadow: bool,
    pub uses_redis: bool,
    pub uses_vault: bool,
    /// How long an instance serves what the database does not confirm.
    pub max_stale: Duration,
}

impl Deployment {
    pub fn new(settings: &Settings) -> Self {
        Deployment {
            catalogue: settings.described_scopes.clone(),
            default_limits: settings.limits.default.clone(),
            source: preferred(&settings.credentials),
            paths: settings.routes.iter().filter_map(guarded).collect(),
            is_shadow: settings.proxy.mode == Mode::Shadow,
            uses_redis: settings.limits.redis.is_some(),
            uses_vault: matches!(settings.secrets, SecretsSettings::Vault(_)),
            max_stale: settings.store.max_stale,
        }
    }

    /// A path that somebody with these grants can ask for, or one that needs a key, or any.
    pub fn example_path(&self, grants: &[ScopePattern]) -> &str {
        let holds = |scope: &Scope| grants.iter().any(|grant| grant.covers(scope.as_str()));
        let open = |path: &&GuardedPath| path.scopes.iter().all(holds);
        let found = self.paths.iter().find(open).or(self.paths.first());
        found.map_or("/", |found| &found.path)
    }
}

/// The first source that is written as a plain header; what else there is where there is none.
fn preferred(credentials: &CredentialSettings) -> Source {
    let is_plain = |source: &&Source| matches!(source, Source::Bearer | Source::Header(_));
    let sources = &credentials.sources;
    let chosen = sources.iter().find(is_plain).or(sources.first());
    chosen.cloned().unwrap_or(Source::Bearer)
}

/// What an example can call by GET.
fn guarded(route: &RouteSettings) -> Option<GuardedPath> {
    let is_read = route.methods.is_empty() || route.methods.contains(&http::Method::GET);
    (is_read && route.auth != Auth::Off).then(|| GuardedPath {
        path: match &*route.path {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        scopes: route.scopes.clone(),
    })
}
