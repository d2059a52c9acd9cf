//! The key API over HTTP, and the endpoints for machines: health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::AdminState;
use super::access::{Actor, Caller, Permission};
use super::answer::{ApiError, PROPAGATION, key_json, propagation_field, propagation_json};
use super::input::{self, FieldError};
use super::keys::IssuedKey;
use crate::clock::Timestamp;
use crate::cluster::Propagation;
use crate::key::{KeyId, KeyRecord, Status, TenantId};
use crate::problem::Kind;
use crate::store::{KeyFilter, PAGE_LEN_MAX, Position};

/// Where the key API stands.
pub const KEYS_PATH: &str = "/api/v1/platform/api-keys";
/// A request's body has at most this many bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long one request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys in a page where the request doesn't say.
const PAGE_LEN_DEFAULT: usize = 50;
/// A search text has at most this many characters.
const SEARCH_LEN_MAX: usize = 200;

type Shared = State<Arc<AdminState>>;

/// All routes.
pub fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route(KEYS_PATH, get(list).post(create))
        .route(
            &format!("{KEYS_PATH}/{{key_id}}"),
            get(show).patch(change).delete(revoke),
        )
        .route(
            &format!("{KEYS_PATH}/{{key_id}}/regenerate"),
            post(regenerate),
        )
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { ApiError::new(Kind::NotFound, "There is nothing at this path.") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(Kind::MethodNotAllowed, "Use one of the methods in Allow.")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(limit_time))
}

/// Ends a request whose body does not come.
async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            Kind::RequestTimeout,
            "Send the whole request without pauses.",
        )
        .into_response(),
    }
}

/// A JSON object in the body; an empty body is an empty object.
struct Body(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let media_type = request.headers().get(CONTENT_TYPE).map(|value| {
            let text = value.to_str().unwrap_or_default();
            text.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection {
                    BytesRejection::FailedToBufferBody(cause)
                        if cause.status() == StatusCode::PAYLOAD_TOO_LARGE =>
                    {
                        ApiError::new(
                            Kind::BodyTooLarge,
                            format!("The body may have at most {BODY_BYTES_MAX} bytes."),
                        )
                    }
                    _ => ApiError::new(Kind::BadRequest, "The body could not be read."),
                })?;
        if bytes.is_empty() {
            return Ok(Body(Map::new()));
        }
        let is_json = media_type.is_some_and(|text| {
            text == "application/json" || text == "application/merge-patch+json"
        });
        if !is_json {
            return Err(ApiError::new(
                Kind::UnsupportedMediaType,
                "Send Content-Type: application/json.",
            ));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Body(object)),
            Ok(_) => Err(ApiError::new(
                Kind::BadRequest,
                "The body must be a JSON object.",
            )),
            // Where it broke, not what stood there.
            Err(error) => Err(ApiError::new(
                Kind::BadRequest,
                format!(
                    "The body is not JSON: line {}, column {}.",
                    error.line(),
                    error.column()
                ),
            )),
        }
    }
}

/// The key id of a path, as it was written. What can't even be read names no key.
struct IdText(String);

impl<S: Send + Sync> FromRequestParts<S> for IdText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(IdText(id)),
            Err(_) => Err(ApiError::not_found()),
        }
    }
}

/// An answer that no cache may keep.
fn private(status: StatusCode, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `answer` to a change, with how far that has come.
fn confirmed(mut answer: Response, propagation: &Propagation) -> Response {
    if let Some(field) = propagation_field(propagation) {
        answer.headers_mut().insert(PROPAGATION, field);
    }
    answer
}

fn issued_json(key: &IssuedKey, now: Timestamp) -> Value {
    json!({"api_key": key_json(&key.record, now), "key": key.text.expose_secret()})
}

fn created(key: &IssuedKey, now: Timestamp) -> Response {
    let mut response = private(StatusCode::CREATED, issued_json(key, now));
    if let Ok(location) = HeaderValue::from_str(&format!("{KEYS_PATH}/{}", key.record.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Carries `work` out to its end, also when the client goes away meanwhile: half of an operation
/// would be written and not acted upon.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let internal = |_| {
        ApiError::new(
            Kind::Internal,
            "The operation ended early. Look at the key again.",
        )
    };
    tokio::spawn(work).await.map_err(internal)?
}

async fn create(
    State(state): Shared,
    caller: Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let now = state.clock.now();
    let own_tenant = (!actor.is_admin()).then_some(&actor.tenant_id);
    let new = input::new_key(body, own_tenant, &state.keys.catalogue, now)
        .map_err(|errors| ApiError::fields(&errors))?;
    if !actor.sees(&new.tenant_id) {
        return Err(ApiError::new(Kind::NotFound, "There is no such tenant."));
    }
    actor.require_power_over(&new.scopes)?;
    to_the_end(async move {
        let key = state.keys.create(new).await?;
        tracing::info!(key_id = %key.record.id, actor = %actor.key_id, "key created");
        Ok(created(&key, now))
    })
    .await
}

/// The key of a path, if the actor may know of it.
async fn find(state: &AdminState, actor: &Actor, id: &str) -> Result<KeyRecord, ApiError> {
    let id: KeyId = id.parse().map_err(|_| ApiError::not_found())?;
    let record = state.keys.get(id).await?;
    if actor.sees(&record.tenant_id) {
        Ok(record)
    } else {
        Err(ApiError::not_found())
    }
}

async fn show(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let record = find(&state, &actor, &id).await?;
    Ok(private(
        StatusCode::OK,
        key_json(&record, state.clock.now()),
    ))
}

async fn change(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_over(&found.scopes)?;
    let change = input::key_change(body, &state.keys.catalogue)
        .map_err(|errors| ApiError::fields(&errors))?;
    actor.require_power_over(change.scopes.as_deref().unwrap_or_default())?;
    to_the_end(async move {
        let record = state.keys.change(&found, &change).await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "key changed");
        let propagation = state.confirmations.wait().await;
        let mut body = key_json(&record, state.clock.now());
        body["propagation"] = propagation_json(&propagation);
        Ok(confirmed(private(StatusCode::OK, body), &propagation))
    })
    .await
}

async fn regenerate(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    let seconds = input::grace_period_seconds(body).map_err(|errors| ApiError::fields(&errors))?;
    to_the_end(async move {
        let key = state
            .keys
            .regenerate(&found, Duration::from_secs(seconds))
            .await?;
        let (key_id, actor) = (key.record.id, actor.key_id);
        tracing::info!(%key_id, %actor, grace_period_seconds = seconds, "key regenerated");
        let propagation = state.confirmations.wait().await;
        let answer = private(StatusCode::OK, issued_json(&key, state.clock.now()));
        Ok(confirmed(answer, &propagation))
    })
    .await
}

async fn revoke(
    State(state): Shared,
    caller: Caller,
    IdText(id): IdText,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let found = find(&state, &actor, &id).await?;
    actor.require_power_to_end(&found)?;
    to_the_end(async move {
        let record = state.keys.revoke(&found).await?;
        tracing::info!(key_id = %record.id, actor = %actor.key_id, "key revoked");
        let propagation = state.confirmations.wait().await;
        let answer = StatusCode::NO_CONTENT.into_response();
        Ok(confirmed(answer, &propagation))
    })
    .await
}

/// What a list is asked for.
struct ListQuery {
    filter: KeyFilter,
    after: Option<Position>,
    limit: usize,
}

fn list_query(pairs: Vec<(String, String)>, now: Timestamp) -> Result<ListQuery, Vec<FieldError>> {
    let mut query = ListQuery {
        filter: KeyFilter::default(),
        after: None,
        limit: PAGE_LEN_DEFAULT,
    };
    let mut errors = Vec::new();
    for (name, value) in pairs {
        let result = match name.as_str() {
            "limit" => value
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_LEN_MAX).contains(limit))
                .map(|limit| query.limit = limit)
                .ok_or_else(|| format!("must be 1 to {PAGE_LEN_MAX}")),
            "cursor" => read_cursor(&value)
                .map(|position| query.after = Some(position))
                .ok_or_else(|| "must be the next_cursor of an earlier answer".to_owned()),
            "tenant_id" => value
                .parse::<TenantId>()
                .map(|tenant| query.filter.tenant_id = Some(tenant))
                .map_err(|error| error.to_string()),
            "status" => Status::from_name(&value)
                .map(|status| query.filter.status = Some((status, now)))
                .ok_or_else(|| "must be active, disabled, expired or revoked".to_owned()),
            "q" if value.chars().count() <= SEARCH_LEN_MAX => {
                query.filter.text = Some(value);
                Ok(())
            }
            "q" => Err(format!("has more than {SEARCH_LEN_MAX} characters")),
            _ => Err("is not known here; leave it out".to_owned()),
        };
        if let Err(detail) = result {
            errors.push(FieldError {
                field: name,
                detail,
            });
        }
    }
    if errors.is_empty() {
        Ok(query)
    } else {
        Err(errors)
    }
}

fn write_cursor(position: Position) -> String {
    URL_SAFE_NO_PAD.encode(format!(
        "{}:{}",
        position.created_at.as_millis(),
        position.id
    ))
}

fn read_cursor(text: &str) -> Option<Position> {
    let decoded = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (millis, id) = decoded.split_once(':')?;
    Some(Position {
        created_at: Timestamp::from_millis(millis.parse().ok()?),
        id: id.parse().ok()?,
    })
}

async fn list(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysRead)?;
    let now = state.clock.now();
    let mut query = list_query(pairs, now).map_err(|errors| ApiError::fields(&errors))?;
    if !actor.is_admin() {
        if query
            .filter
            .tenant_id
            .as_ref()
            .is_some_and(|tenant| *tenant != actor.tenant_id)
        {
            // Another tenant's keys are not there.
            return Ok(private(
                StatusCode::OK,
                json!({"data": [], "next_cursor": null}),
            ));
        }
        query.filter.tenant_id = Some(actor.tenant_id.clone());
    }
    let page = state.keys.page(&query.filter, query.after, query.limit);
    let page = page.await?;
    let next_cursor = page.next.map(write_cursor);
    let data: Vec<Value> = page
        .keys
        .iter()
        .map(|record| key_json(record, now))
        .collect();
    Ok(private(
        StatusCode::OK,
        json!({"data": data, "next_cursor": next_cursor}),
    ))
}

/// Whether this instance can verify keys that it has not seen yet.
async fn ready(State(state): Shared) -> Response {
    let (store, secrets) = tokio::join!(state.keys.store.ping(), state.keys.secrets.ping());
    let word = |is_ok: bool| if is_ok { "ok" } else { "away" };
    let is_ready = store.is_ok() && secrets.is_ok();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    private(
        status,
        json!({
            "status": word(is_ready),
            "checks": {"database": word(store.is_ok()), "secret_store": word(secrets.is_ok())},
        }),
    )
}

async fn metrics(State(state): Shared) -> Response {
    match state.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            ApiError::new(Kind::Internal, "The metrics can't be written.").into_response()
        }
    }
}
