//! Keys: create, find, change, regenerate, revoke, end an old secret.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};

use super::once::repeated;
use super::to_the_end;
use super::uses::{Uses, forget_old_uses};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey, NO_TENANT, key_json};
use crate::admin::input::{self, FieldError};
use crate::clock::Timestamp;
use crate::cluster::Propagation;
use crate::key::record::PreviousSecret;
use crate::key::{KeyId, KeyRecord, ScopePattern};
use crate::manage::{Expected, IssuedKey, KeyChange, Made, NewKey, Once};
use crate::problem::Kind;

/// The key of a path, if the actor may know of it.
pub async fn find(state: &AdminState, actor: &Actor, id: &str) -> Result<KeyRecord, ApiError> {
    let id: KeyId = id.parse().map_err(|_| ApiError::not_found())?;
    let record = state.keys.get(id).await?;
    if actor.sees(&record.tenant_id) {
        Ok(record)
    } else {
        Err(ApiError::not_found())
    }
}

/// A key as JSON.
pub fn value_of(key: &ApiKey) -> Value {
    // Texts, numbers and lists always are JSON.
    serde_json::to_value(key).unwrap_or_default()
}

/// Somebody who may create keys.
pub struct Creation {
    state: Arc<AdminState>,
    actor: Actor,
}

/// What a creation has led to.
pub struct Created {
    /// The key as the contract shows it.
    pub key: Value,
    pub secret: SecretString,
    /// Whether the same call made it before.
    pub is_repeated: bool,
}

/// A creation by `caller`.
pub fn creation(state: &Arc<AdminState>, caller: &Caller) -> Result<Creation, ApiError> {
    let actor = caller.authorize(state, Permission::KeysWrite)?;
    Ok(Creation {
        state: state.clone(),
        actor,
    })
}

impl Creation {
    /// Who creates.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Reads what is to be made.
    pub fn read(&self, body: Map<String, Value>) -> Result<NewKey, Vec<FieldError>> {
        let own_tenant = (!self.actor.is_admin()).then_some(&self.actor.tenant_id);
        let (catalogue, now) = (&self.state.keys.catalogue, self.state.clock.now());
        input::new_key(body, own_tenant, catalogue, now)
    }

    /// Makes the key that `body` says; only once, where the caller calls the call `idempotency_key`.
    pub async fn carry_out(
        self,
        body: Map<String, Value>,
        idempotency_key: Option<SecretString>,
    ) -> Result<Created, ApiError> {
        let once = idempotency_key.map(|key| Once::new(self.actor.key_id, key, &body));
        // Before the fields are looked at: what was right then may not be right now.
        if let Some(once) = &once
            && let Some(given) = self.state.keys.given(once).await?
        {
            return repeated(&self.actor, given);
        }
        let new = self
            .read(body)
            .map_err(|errors| ApiError::fields(&errors))?;
        if !self.actor.sees(&new.tenant_id) {
            return Err(ApiError::new(Kind::NotFound, NO_TENANT));
        }
        self.actor.require_power_over(&new.scopes)?;
        to_the_end(self.make(new, once)).await
    }

    async fn make(self, new: NewKey, once: Option<Once>) -> Result<Created, ApiError> {
        let Creation { state, actor } = self;
        let (keys, origin, now) = (&state.keys, &actor.origin, state.clock.now());
        let made = match &once {
            None => Made::Now(Box::new(keys.create(new, origin).await?)),
            Some(once) => {
                let answer = |record: &KeyRecord| value_of(&key_json(record, now)).to_string();
                keys.create_once(new, once, answer, origin).await?
            }
        };
        let key = match made {
            Made::Now(key) => key,
            Made::Before(given) => return repeated(&actor, given),
        };
        tracing::info!(key_id = %key.record.id, actor = %actor.key_id, "key created");
        Ok(Created {
            key: value_of(&key_json(&key.record, now)),
            secret: key.text,
            is_repeated: false,
        })
    }
}

/// A key that somebody may change.
pub struct Change {
    state: Arc<AdminState>,
    actor: Actor,
    pub record: KeyRecord,
}

/// A key as a change has left it.
pub struct Changed {
    pub record: KeyRecord,
    pub uses: Uses,
    pub propagation: Propagation,
}

/// A change by `caller` of the key of a path.
pub async fn change(
    state: &Arc<AdminState>,
    caller: &Caller,
    id: &str,
) -> Result<Change, ApiError> {
    let actor = caller.authorize(state, Permission::KeysWrite)?;
    let record = find(state, &actor, id).await?;
    actor.require_power_over(&record.scopes)?;
    Ok(Change {
        state: state.clone(),
        actor,
        record,
    })
}

impl Change {
    /// Who changes.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Reads what is to be changed.
    pub fn read(&self, body: Map<String, Value>) -> Result<KeyChange, Vec<FieldError>> {
        input::key_change(body, &self.state.keys.catalogue)
    }

    /// Changes what `body` says of what the caller means.
    pub async fn carry_out(
        self,
        body: Map<String, Value>,
        expected: Expected,
    ) -> Result<Changed, ApiError> {
        check_expected(&expected, &self.record)?;
        let change = self
            .read(body)
            .map_err(|errors| ApiError::fields(&errors))?;
        let Change {
            state,
            actor,
            record: found,
        } = self;
        let granted = change.scopes.as_deref().unwrap_or_default();
        actor.require_power_over(granted)?;
        check_strength(&found, granted, state.clock.now())?;
        // Before the change: afterwards, it could no longer fail.
        let uses = Uses::of(&state, std::slice::from_ref(&found)).await?;
        to_the_end(async move {
            let keys = &state.keys;
            let written = keys.change(&found, &expected, &change, &actor.origin);
            let record = written.await?;
            tracing::info!(key_id = %record.id, actor = %actor.key_id, "key changed");
            Ok(Changed {
                record,
                uses,
                propagation: state.confirmations.wait().await,
            })
        })
        .await
    }
}

/// Refuses who means another revision than what is there. The write has to hold to it as well: somebody
/// may write in between.
fn check_expected(expected: &Expected, found: &KeyRecord) -> Result<(), ApiError> {
    if expected.admits(found.revision) {
        Ok(())
    } else {
        Err(ApiError::precondition_failed())
    }
}

/// Only a secret that is hard to guess may administrate. What was imported may be easy; a check of that
/// is made when it is, and not any more.
fn check_strength(
    key: &KeyRecord,
    scopes: &[ScopePattern],
    now: Timestamp,
) -> Result<(), ApiError> {
    let is_new = !key.scopes.iter().any(ScopePattern::is_own);
    let works = |old: &PreviousSecret| now < old.valid_until && key.is_imported(old.generation);
    let has_imported = key.is_imported(key.generation) || key.previous.as_ref().is_some_and(works);
    if is_new && has_imported && scopes.iter().any(ScopePattern::is_own) {
        return Err(ApiError::fields(&[FieldError {
            field: "scopes".to_owned(),
            detail: "an imported secret can't be given scopes of Sidekey itself; regenerate the key first"
                .to_owned(),
        }]));
    }
    Ok(())
}

/// A key whose secrets somebody may end: all of them, or the present one for a new one.
pub struct Ending {
    state: Arc<AdminState>,
    actor: Actor,
    pub record: KeyRecord,
}

/// A key with its new secret.
pub struct Regenerated {
    pub key: IssuedKey,
    pub uses: Uses,
    pub propagation: Propagation,
}

/// An ending by `caller`, for the key of a path.
pub async fn ending(
    state: &Arc<AdminState>,
    caller: &Caller,
    id: &str,
) -> Result<Ending, ApiError> {
    let actor = caller.authorize(state, Permission::KeysWrite)?;
    let record = find(state, &actor, id).await?;
    actor.require_power_to_end(&record)?;
    Ok(Ending {
        state: state.clone(),
        actor,
        record,
    })
}

impl Ending {
    /// Replaces the secret; the old one works for as long as `body` says.
    pub async fn regenerate(
        self,
        body: Map<String, Value>,
        expected: Expected,
    ) -> Result<Regenerated, ApiError> {
        let Ending {
            state,
            actor,
            record: found,
        } = self;
        check_expected(&expected, &found)?;
        let seconds =
            input::grace_period_seconds(body).map_err(|errors| ApiError::fields(&errors))?;
        // Before the change: afterwards, it could no longer fail.
        let uses = Uses::of(&state, std::slice::from_ref(&found)).await?;
        to_the_end(async move {
            let (keys, grace) = (&state.keys, Duration::from_secs(seconds));
            let made = keys.regenerate(&found, &expected, grace, &actor.origin);
            let key = made.await?;
            let (key_id, actor) = (key.record.id, actor.key_id);
            forget_old_uses(&state, key_id, found.generation).await;
            tracing::info!(%key_id, %actor, grace_period_seconds = seconds, "key regenerated");
            Ok(Regenerated {
                key,
                uses,
                propagation: state.confirmations.wait().await,
            })
        })
        .await
    }

    /// Revokes the key, for good.
    pub async fn revoke(self, expected: Expected) -> Result<Propagation, ApiError> {
        let Ending {
            state,
            actor,
            record: found,
        } = self;
        check_expected(&expected, &found)?;
        to_the_end(async move {
            let revocation = state.keys.revoke(&found, &expected, &actor.origin);
            let record = revocation.await?;
            tracing::info!(key_id = %record.id, actor = %actor.key_id, "key revoked");
            Ok(state.confirmations.wait().await)
        })
        .await
    }

    /// Ends the grace period of a replaced secret.
    pub async fn end_overlap(self) -> Result<Propagation, ApiError> {
        let Ending {
            state,
            actor,
            record: found,
        } = self;
        to_the_end(async move {
            let record = state.keys.end_overlap(&found, &actor.origin).await?;
            tracing::info!(key_id = %record.id, actor = %actor.key_id, "the previous secret was ended");
            Ok(state.confirmations.wait().await)
        })
        .await
    }
}
