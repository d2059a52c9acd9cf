//! What handlers take from a request.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde_json::{Map, Value};

use super::BODY_BYTES_MAX;
use crate::admin::answer::ApiError;
use crate::admin::input::FieldError;
use crate::problem::Kind;

/// What is said of a query parameter that a call does not have.
pub const UNKNOWN_PARAMETER: &str = "is not known here; leave it out";

/// A JSON object in the body; an empty body is an empty object.
pub struct Body(pub Map<String, Value>);

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
pub struct IdText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(IdText(id)),
            Err(_) => Err(ApiError::not_found()),
        }
    }
}

/// A request without query parameters: there are none that the call could mean.
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let errors: Vec<FieldError> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, _)| FieldError {
                field: name.into_owned(),
                detail: UNKNOWN_PARAMETER.to_owned(),
            })
            .collect();
        if errors.is_empty() {
            Ok(NoQuery)
        } else {
            Err(ApiError::fields(&errors))
        }
    }
}
