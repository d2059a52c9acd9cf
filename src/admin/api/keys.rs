//! Keys over HTTP: create, see, change, regenerate, revoke.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::etag::{expected, tagged};
use super::extract::{Body, IdText, NoQuery};
use super::idempotency::{REPLAYED, idempotency_key};
use super::problems::{ChangeProblems, CreateProblems, EndProblems, OverlapProblems, ReadProblems};
use super::schemas::{
    ChangedKey, IdempotencyKeyParameter, IfMatchParameter, KeyChangeBody, KeyIdParameter,
    NewKeyBody, RegenerationBody, ShownKey,
};
use super::{KEYS_PATH, Shared, confirmed, private, usage};
use crate::admin::access::{Caller, Permission};
use crate::admin::answer::{ApiError, ApiKey, propagation_json};
use crate::admin::operations::Uses;
use crate::admin::operations::keys::{self, Created, find, value_of};
use crate::manage::fields::FIRST_REVISION;

/// A key and its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct IssuedKey {
    #[schema(value_type = ApiKey)]
    api_key: Value,
    #[schema(pattern = "^[a-z][a-z0-9]{1,15}_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{54}$")]
    key: String,
}

fn issued(key: Value, secret: &SecretString) -> IssuedKey {
    IssuedKey {
        api_key: key,
        key: secret.expose_secret().to_owned(),
    }
}

/// The answer to a creation.
fn answer_created(created: Created) -> Response {
    let id = created.key["id"].as_str().unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{KEYS_PATH}/{id}"));
    let is_repeated = created.is_repeated;
    let answer = private(StatusCode::CREATED, issued(created.key, &created.secret));
    let mut answer = tagged(answer, FIRST_REVISION);
    let headers = answer.headers_mut();
    if let Ok(location) = location {
        headers.insert(LOCATION, location);
    }
    if is_repeated {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

/// Create a key
///
/// The answer is the only one that ever has the secret, but for its repetition: with `Idempotency-Key` the
/// same call gets the same answer for 24 hours. Needs `sidekey:keys:write`; only `sidekey:admin` grants
/// scopes that begin with `sidekey:`, and makes keys for other tenants.
#[utoipa::path(post, path = "/api/v1/platform/api-keys", operation_id = "create_key", tag = "keys",
    params(IdempotencyKeyParameter),
    request_body = NewKeyBody,
    responses(
        (status = 201, body = IssuedKey, description = "It is made, or was made by the same call before.",
            headers(
                ("Location", description = "Its path."),
                ("ETag", description = "Its version: `\"r1\"`."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."),
            )),
        CreateProblems,
    ))]
pub async fn create(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let creation = keys::creation(&state, &caller)?;
    let key = idempotency_key(&headers)?;
    Ok(answer_created(creation.carry_out(body, key).await?))
}

/// Show a key
///
/// Needs `sidekey:keys:read`. Another tenant's key is not there.
#[utoipa::path(get, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "show_key", tag = "keys",
    params(KeyIdParameter),
    responses(
        (status = 200, body = ShownKey, description = "The key.",
            headers(("ETag", description = "Its version, for `If-Match`."))),
        ReadProblems,
    ))]
pub async fn show(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let record = find(&state, &actor, &id).await?;
    let uses = Uses::of(&state, std::slice::from_ref(&record)).await?;
    let body = ShownKey {
        key: uses.key_json(&record, state.clock.now()),
        usage: usage::total(&state, record.id).await?,
    };
    Ok(tagged(private(StatusCode::OK, body), record.revision))
}

/// Change a key
///
/// What is absent stays as it is. A revoked key can't be changed (409). Needs `sidekey:keys:write`.
#[utoipa::path(patch, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "change_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    request_body(content((KeyChangeBody = "application/json"), (KeyChangeBody = "application/merge-patch+json"))),
    responses(
        (status = 200, body = ChangedKey, description = "The key as it is now.",
            headers(
                ("ETag", description = "Its new version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651): \
                    `instances=2, confirmed=2, unconfirmed=()`."),
            )),
        ChangeProblems,
    ))]
pub async fn change(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let change = keys::change(&state, &caller, &id).await?;
    let changed = change.carry_out(body, expected(&headers)?).await?;
    let record = &changed.record;
    let body = ChangedKey {
        key: changed.uses.key_json(record, state.clock.now()),
        propagation: propagation_json(&changed.propagation),
    };
    let answer = tagged(private(StatusCode::OK, body), record.revision);
    Ok(confirmed(answer, &changed.propagation))
}

/// Replace a key's secret
///
/// The new secret is in this answer and nowhere else. The old one works until the grace period is over.
/// Needs `sidekey:keys:write`; every key that holds it may replace its own secret.
#[utoipa::path(post, path = "/api/v1/platform/api-keys/{key_id}/regenerate",
    operation_id = "regenerate_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    request_body = RegenerationBody,
    responses(
        (status = 200, body = IssuedKey, description = "The key and its new secret.",
            headers(
                ("ETag", description = "Its new version."),
                ("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."),
            )),
        ChangeProblems,
    ))]
pub async fn regenerate(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let ending = keys::ending(&state, &caller, &id).await?;
    let made = ending.regenerate(body, expected(&headers)?).await?;
    let (record, secret) = (&made.key.record, &made.key.text);
    let shown = value_of(&made.uses.key_json(record, state.clock.now()));
    let answer = private(StatusCode::OK, issued(shown, secret));
    Ok(confirmed(
        tagged(answer, record.revision),
        &made.propagation,
    ))
}

/// Revoke a key, for good
///
/// It stays in lists, for the record. Revoking a revoked key is 204 too. Needs `sidekey:keys:write`; every
/// key that holds it may revoke itself.
#[utoipa::path(delete, path = "/api/v1/platform/api-keys/{key_id}", operation_id = "revoke_key", tag = "keys",
    params(KeyIdParameter, IfMatchParameter),
    responses(
        (status = 204, description = "It is revoked.",
            headers(("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."))),
        EndProblems,
    ))]
pub async fn revoke(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ending = keys::ending(&state, &caller, &id).await?;
    let propagation = ending.revoke(expected(&headers)?).await?;
    Ok(confirmed(
        StatusCode::NO_CONTENT.into_response(),
        &propagation,
    ))
}

/// End the grace period of a replaced secret now
///
/// Its next request is refused. 204 too where there is none. Needs `sidekey:keys:write`; every key that
/// holds it may end its own.
#[utoipa::path(delete, path = "/api/v1/platform/api-keys/{key_id}/previous-secret",
    operation_id = "end_previous_secret", tag = "keys",
    params(KeyIdParameter),
    responses(
        (status = 204, description = "Only the current secret works.",
            headers(("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."))),
        OverlapProblems,
    ))]
pub async fn end_overlap(
    State(state): Shared,
    caller: Caller,
    _: NoQuery,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let ending = keys::ending(&state, &caller, &id).await?;
    let propagation = ending.end_overlap().await?;
    Ok(confirmed(
        StatusCode::NO_CONTENT.into_response(),
        &propagation,
    ))
}
