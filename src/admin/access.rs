//! Who is calling the admin port, and what they may do.
//!
//! Admin keys are ordinary keys with `sidekey:` scopes. Whoever lacks `sidekey:admin` sees only
//! their own tenant: other tenants' things are not there.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::AdminState;
use super::answer::ApiError;
use super::{client, request_id, watch};
use crate::audit::{self, Origin};
use crate::key::format::Presented;
use crate::key::{Denial, Generation, KeyId, KeyRecord, ScopePattern, TenantId};
use crate::limit::AddressLimiter;
use crate::manage::KeyError;
use crate::problem::Kind;
use crate::usage::LastUse;
use crate::verify::{Proof, Recall, Refusal};

/// Sidekey's own scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Admin,
    KeysRead,
    KeysWrite,
    UsageRead,
    AuditRead,
}

impl Permission {
    pub const ALL: [Permission; 5] = [
        Permission::Admin,
        Permission::KeysRead,
        Permission::KeysWrite,
        Permission::UsageRead,
        Permission::AuditRead,
    ];

    /// The scope's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Admin => "sidekey:admin",
            Permission::KeysRead => "sidekey:keys:read",
            Permission::KeysWrite => "sidekey:keys:write",
            Permission::UsageRead => "sidekey:usage:read",
            Permission::AuditRead => "sidekey:audit:read",
        }
    }

    /// What it lets its holder do, for people.
    pub fn purpose(self) -> &'static str {
        match self {
            Permission::Admin => "Everything, in all tenants",
            Permission::KeysRead => "See the keys of its tenant",
            Permission::KeysWrite => "Create, change and revoke keys of its tenant",
            Permission::UsageRead => "See what keys of its tenant are used for",
            Permission::AuditRead => "Read the audit log of its tenant",
        }
    }

    /// Whether `grant` covers any of Sidekey's own scopes.
    pub fn can_grant(grant: &ScopePattern) -> bool {
        Self::ALL
            .iter()
            .any(|permission| grant.covers(permission.as_str()))
    }
}

/// Whoever sent an admin request: a proven key. What it may do is asked for with
/// [`Caller::authorize`], by the handler, after the request's body has been read: a body can take
/// its time, and the key may have been revoked meanwhile.
#[derive(Debug)]
pub struct Caller {
    proof: Proof,
    client: IpAddr,
}

/// A caller who holds the permission that was asked for.
#[derive(Debug, Clone)]
pub struct Actor {
    pub key_id: KeyId,
    pub tenant_id: TenantId,
    /// For what is noted of the call.
    pub origin: Origin,
    scopes: Vec<ScopePattern>,
}

impl Caller {
    pub fn key_id(&self) -> KeyId {
        self.proof.key.id()
    }

    pub fn tenant_id(&self) -> TenantId {
        self.proof.key.view().tenant.id.clone()
    }

    /// Whether the key holds `permission`, to offer what needs it: what is asked for is asked for again.
    pub fn holds(&self, permission: Permission) -> bool {
        covers(&self.proof.key.view().grants.patterns, permission)
            || covers(&self.proof.key.view().grants.patterns, Permission::Admin)
    }

    /// Whether the secret that was proven is the key's current one.
    pub fn is_current(&self) -> bool {
        self.proof.generation == self.proof.key.view().authority.generation
    }

    /// Whether changes can be offered: an old secret in its grace period makes none.
    pub fn may_write(&self) -> bool {
        self.holds(Permission::KeysWrite) && self.is_current()
    }

    /// Whoever has proven `proof`, now or when they signed in.
    pub(super) fn proven(proof: Proof, client: IpAddr) -> Self {
        let view = proof.key.view_full();
        watch::proven(view.id, &view.tenant.id);
        Caller { proof, client }
    }

    /// Asks the key's live record for `permission`, which `sidekey:admin` includes.
    pub fn authorize(&self, state: &AdminState, permission: Permission) -> Result<Actor, ApiError> {
        let view = self.proof.key.view_full();
        view.admits(self.proof.generation, self.client, state.clock.now())
            .map_err(|denial| refused(state, denial, self.client, &state.failed_auth))?;
        self.note_use(state);
        if permission == Permission::KeysWrite && self.proof.generation != view.authority.generation
        {
            // In its grace period an old secret still reads, but whoever holds it can't use it to
            // take the key over.
            return Err(superseded(state));
        }
        let actor = Actor {
            key_id: view.id,
            tenant_id: view.tenant.id.clone(),
            origin: self.origin(view.id),
            scopes: view.grants.patterns.clone(),
        };
        if actor.is_admin() || actor.holds(permission) {
            watch::allowed(actor.is_admin());
            Ok(actor)
        } else {
            Err(lacks(permission))
        }
    }
}

impl Caller {
    /// For what only an administrator may change, and only with the key's current secret.
    pub fn authorize_admin_change(&self, state: &AdminState) -> Result<Actor, ApiError> {
        let actor = self.authorize(state, Permission::Admin)?;
        if self.is_current() {
            Ok(actor)
        } else {
            Err(superseded(state))
        }
    }

    /// For whoever signs in to the dashboard: with any of Sidekey's permissions. The generation of the
    /// secret that was proven.
    pub fn authorize_sign_in(&self, state: &AdminState) -> Result<Generation, ApiError> {
        let view = self.proof.key.view_full();
        view.admits(self.proof.generation, self.client, state.clock.now())
            .map_err(|denial| refused(state, denial, self.client, &state.dashboard.failures))?;
        self.note_use(state);
        if !Permission::ALL.iter().any(|each| self.holds(*each)) {
            return Err(ApiError::new(
                Kind::InsufficientScope,
                "This key may not use the dashboard. Sign in with one that has a scope such as \
                 sidekey:keys:read, or ask an administrator for it.",
            ));
        }
        watch::allowed(self.holds(Permission::Admin));
        Ok(self.proof.generation)
    }

    /// Notes that whoever was signed in with the key is so no more.
    pub fn note_sign_out(&self, state: &AdminState) {
        let view = self.proof.key.view_full();
        let tenant = view.tenant.id.clone();
        state.recorder.signed_out(tenant, self.origin(view.id));
    }

    fn origin(&self, key: KeyId) -> Origin {
        Origin {
            actor: audit::Actor::Key(key),
            address: Some(self.client),
            request_id: Some(request_id::current()),
        }
    }

    /// An admin key is in use as well, though nothing is counted here.
    fn note_use(&self, state: &AdminState) {
        let last = LastUse {
            at: state.clock.now(),
            address: self.client,
        };
        let live = &state.keys.live;
        live.note_use(self.proof.key.id(), self.proof.generation, last);
    }
}

impl Actor {
    pub fn is_admin(&self) -> bool {
        self.holds(Permission::Admin)
    }

    fn holds(&self, permission: Permission) -> bool {
        covers(&self.scopes, permission)
    }

    /// Whether the actor may see things of `tenant`.
    pub fn sees(&self, tenant: &TenantId) -> bool {
        self.is_admin() || self.tenant_id == *tenant
    }

    /// For what is of all tenants.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(lacks(Permission::Admin))
        }
    }

    /// Every key may replace and revoke itself; for others see [`Actor::require_power_over`].
    pub fn require_power_to_end(&self, key: &KeyRecord) -> Result<(), ApiError> {
        if key.id == self.key_id {
            Ok(())
        } else {
            self.require_power_over(&key.scopes)
        }
    }

    /// Only an administrator makes, changes or replaces a key that can administrate; anybody else
    /// could otherwise get hold of more than they have.
    pub fn require_power_over(&self, scopes: &[ScopePattern]) -> Result<(), ApiError> {
        if self.is_admin() || !scopes.iter().any(ScopePattern::is_own) {
            Ok(())
        } else {
            Err(lacks(Permission::Admin))
        }
    }
}

fn covers(scopes: &[ScopePattern], permission: Permission) -> bool {
    scopes.iter().any(|grant| grant.covers(permission.as_str()))
}

fn lacks(permission: Permission) -> ApiError {
    let scope = permission.as_str();
    let mut error = ApiError::new(Kind::InsufficientScope, format!("The key needs: {scope}."));
    error.challenge = Some(format!(
        "Bearer error=\"insufficient_scope\", scope=\"{scope}\""
    ));
    error
}

impl FromRequestParts<Arc<AdminState>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<AdminState>,
    ) -> Result<Self, ApiError> {
        let client = client::of(&parts.extensions);
        let mut lines = parts.headers.get_all(AUTHORIZATION).iter();
        let presented = match (lines.next(), lines.next()) {
            (None, _) => None,
            (Some(line), None) => line.to_str().ok().and_then(bearer),
            (Some(_), Some(_)) => {
                return Err(ApiError::new(
                    Kind::AmbiguousCredential,
                    "Send exactly one credential, once.",
                ));
            }
        };
        match presented {
            Some(presented) => prove(state, presented, client, &state.failed_auth).await,
            None => Err(unauthorized(state, Kind::MissingCredential, "")),
        }
    }
}

fn bearer(line: &str) -> Option<&str> {
    let (scheme, key) = line.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| key.trim())
}

fn unauthorized(state: &AdminState, kind: Kind, error: &str) -> ApiError {
    let detail = match kind {
        Kind::MissingCredential => "Send an admin key as Authorization: Bearer <key>.",
        Kind::ExpiredKey => "Ask for a new key.",
        Kind::DisabledKey => "Ask for the key to be enabled again.",
        Kind::SuspendedTenant => "Ask an administrator to resume the key's tenant.",
        _ => "Check the key, or ask for a new one.",
    };
    let mut answer = ApiError::new(kind, detail);
    answer.challenge = Some(format!("Bearer realm=\"{}\"{error}", state.realm));
    answer
}

fn denied(state: &AdminState, denial: Denial) -> ApiError {
    let kind = match denial {
        Denial::Revoked | Denial::Superseded => Kind::InvalidKey,
        Denial::Disabled => Kind::DisabledKey,
        Denial::Expired => Kind::ExpiredKey,
        Denial::Suspended => Kind::SuspendedTenant,
        Denial::Address => {
            return ApiError::new(
                Kind::AddressNotAllowed,
                "The key is limited to certain client addresses, and yours is not one of them.",
            );
        }
    };
    unauthorized(state, kind, ", error=\"invalid_token\"")
}

/// Refuses a change to whoever holds a secret that was replaced.
fn superseded(state: &AdminState) -> ApiError {
    let mut error = denied(state, Denial::Superseded);
    error.problem.detail =
        "The key's secret was replaced. Until its grace period is over the old one \
                            reads, but makes no changes: use the new one."
            .to_owned();
    error
}

/// Refuses a proven key that may not act. One that was revoked or replaced is a wrong key like any
/// other, and counts as one.
fn refused(
    state: &AdminState,
    denial: Denial,
    client: IpAddr,
    failures: &AddressLimiter,
) -> ApiError {
    if matches!(denial, Denial::Revoked | Denial::Superseded) {
        if let Err(limited) = check_failures(state, client, failures) {
            return limited;
        }
        count_failure(state, client, failures);
    }
    denied(state, denial)
}

fn count_failure(state: &AdminState, client: IpAddr, failures: &AddressLimiter) {
    let now_us = state.clock.monotonic_us();
    failures.count(client, now_us);
    state.metrics.failed_addresses.see(client, now_us);
}

/// An error where `client` has presented too many wrong keys, by `failures` or to the API.
fn check_failures(
    state: &AdminState,
    client: IpAddr,
    failures: &AddressLimiter,
) -> Result<(), ApiError> {
    let now_us = state.clock.monotonic_us();
    let limiters = [failures, &state.failed_auth];
    let mut decisions = limiters.iter().filter_map(|all| all.peek(client, now_us));
    let Some(decision) = decisions.find(|decision| !decision.allowed) else {
        return Ok(());
    };
    let mut error = ApiError::new(
        Kind::TooManyFailures,
        "Too many requests from your address had a wrong key. Wait, and check the key.",
    );
    error.retry_after_seconds = Some(decision.retry_after_seconds());
    Err(error)
}

/// Proves the presented key. An address with too many failures is only refused where its key is
/// not remembered as proven: nobody can lock an administrator out. `failures` counts what fails.
pub(super) async fn prove(
    state: &AdminState,
    presented: &str,
    client: IpAddr,
    failures: &AddressLimiter,
) -> Result<Caller, ApiError> {
    let recalled = state.verifier.recall(presented);
    if let Recall::Proven(proof) = recalled {
        return Ok(Caller::proven(proof, client));
    }
    if let Some(presented) = Presented::parse(presented) {
        watch::presented(presented.id());
    }
    check_failures(state, client, failures)?;
    let verified = match recalled {
        Recall::Unknown(digest) => state.verifier.verify(presented, digest).await,
        Recall::Proven(_) | Recall::Refused => Err(Refusal::Invalid),
    };
    match verified {
        Ok(proof) => Ok(Caller::proven(proof, client)),
        Err(Refusal::Unavailable) => {
            Err(KeyError::Unavailable("an admin key could not be verified".into()).into())
        }
        Err(Refusal::Invalid) => {
            count_failure(state, client, failures);
            Err(denied(state, Denial::Revoked))
        }
    }
}
