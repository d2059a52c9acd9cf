//! The OpenAPI document, made from the handlers, and a page to read it in a browser.
//!
//! A new call is a `#[utoipa::path]` on its handler and a line in [`Document`]. Everything is served from
//! the program: no other host is asked, and the browser is told to ask none.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, RefOr, Required, SecurityRequirement};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::{
    audit, audit_verification, imports, keys, list, machines, problems, schemas, tenants, usage,
};
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::problem::Kind;

/// Where the document is.
pub const DOCUMENT_PATH: &str = "/api/v1/openapi.json";
/// Where it can be read.
const PAGE_PATH: &str = "/api/v1/docs/";
/// What the page may load: what this host serves, and nothing else.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sidekey",
        description = "API keys in front of HTTP services. Times are RFC 3339, UTC. Errors are problems \
            (RFC 9457); their `type` says which. Unknown parameters and members are errors (422), and \
            all of them are named at once. Paths that are not here are 404, methods 405 with `Allow`; \
            OPTIONS is 204 with `Allow`, and HEAD is GET without the body.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The admin port of this instance")),
    tags(
        (name = "keys", description = "API keys"),
        (name = "tenants", description = "Whom keys belong to"),
        (name = "usage", description = "What keys were used for"),
        (name = "audit", description = "Who did what"),
        (name = "machines", description = "For monitoring, without a key"),
    ),
    paths(
        list::list,
        keys::create,
        keys::show,
        keys::change,
        keys::revoke,
        keys::regenerate,
        keys::end_overlap,
        imports::import,
        tenants::list,
        tenants::show,
        tenants::put,
        tenants::suspend,
        tenants::resume,
        usage::of_key,
        usage::of_all,
        audit::list,
        audit::export,
        audit_verification::verification,
        machines::health,
        machines::ready,
        machines::metrics,
        document,
    ),
    components(schemas(schemas::Problem, schemas::InvalidFieldsProblem)),
    modifiers(&Everywhere),
)]
struct Document;

/// Calls that may come without a body: an empty one stands for an empty object.
const OPTIONAL_BODIES: [&str; 2] = ["change_key", "regenerate_key"];

/// What holds for all calls.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("sk_live_...")
            .description(Some(
                "An admin key: an API key with one of the scopes `sidekey:admin` (everything, all \
                 tenants), `sidekey:keys:read`, `sidekey:keys:write`, `sidekey:usage:read`, \
                 `sidekey:audit:read` (own tenant).",
            ));
        let scheme = SecurityScheme::Http(scheme.build());
        components.add_security_scheme("admin_key", scheme);
        let other_method = problems::of_status(405, &[Kind::MethodNotAllowed]);
        let name = "MethodNotAllowed".to_owned();
        components.responses.insert(name, other_method.into());
        api.security = Some(vec![SecurityRequirement::new("admin_key", [""; 0])]);
        for item in api.paths.paths.values_mut() {
            for operation in operations(item) {
                let id = operation.operation_id.as_deref().unwrap_or_default();
                if let Some(RefOr::T(body)) = &mut operation.request_body {
                    let is_optional = OPTIONAL_BODIES.contains(&id);
                    body.required = Some(if is_optional {
                        Required::False
                    } else {
                        Required::True
                    });
                }
                for response in operation.responses.responses.values_mut() {
                    name_request(response);
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut openapi::path::Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ];
    all.into_iter().flatten()
}

/// Every answer that Sidekey writes itself has the request's id.
fn name_request(response: &mut RefOr<openapi::Response>) {
    let RefOr::T(response) = response else { return };
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let header = HeaderBuilder::new()
        .schema(Some(text))
        .description(Some("The request's id, as in logs."));
    let header = RefOr::T(header.build());
    response.headers.insert("X-Request-Id".to_owned(), header);
}

/// The document as it is served.
static TEXT: LazyLock<Bytes> =
    LazyLock::new(|| Document::openapi().to_json().unwrap_or_default().into());

pub fn routes() -> Router<Arc<AdminState>> {
    let config = Config::from(DOCUMENT_PATH)
        .validator_url("none")
        .persist_authorization(false);
    let config = Arc::new(config);
    let page = move |tail: Option<Path<String>>| {
        let config = config.clone();
        async move { page(tail.as_deref().map_or("", String::as_str), config) }
    };
    Router::new()
        .route(DOCUMENT_PATH, get(document))
        .route(
            PAGE_PATH.trim_end_matches('/'),
            get(|| async { Redirect::permanent(PAGE_PATH) }),
        )
        .route(PAGE_PATH, get(page.clone()))
        .route(&format!("{PAGE_PATH}{{*file}}"), get(page))
}

/// This document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "machines", security(()),
    responses((status = 200, body = Object, description = "OpenAPI 3.1."), problems::OpenProblems))]
async fn document() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, TEXT.clone()).into_response()
}

/// A file of the page.
fn page(name: &str, config: Arc<Config<'static>>) -> Response {
    let file = match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => file,
        Ok(None) => {
            return ApiError::new(Kind::NotFound, "There is nothing at this path.").into_response();
        }
        Err(error) => {
            tracing::error!(%error, "a page can't be made");
            return ApiError::new(Kind::Internal, "The page can't be made.").into_response();
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(kind) = HeaderValue::from_str(&file.content_type) {
        headers.insert(CONTENT_TYPE, kind);
    }
    if file.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (headers, file.bytes.into_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::admin::answer::key_json;
    use crate::admin::api::routes as all_routes;
    use crate::clock::Timestamp;
    use crate::key::record::tests::record;

    /// What only the proxy answers, or the dashboard.
    const OF_OTHERS: [Kind; 7] = [
        Kind::UntrustedForm,
        Kind::QuotaExceeded,
        Kind::AmbiguousPath,
        Kind::HeadersTooLarge,
        Kind::NoRoute,
        Kind::UpstreamFailed,
        Kind::UpstreamTimedOut,
    ];
    const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

    fn parsed() -> Value {
        serde_json::from_slice(&TEXT).unwrap()
    }

    /// What stands in `text` between `start` and `end`.
    fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
        let (_, rest) = text.split_once(start)?;
        Some(rest.split_once(end)?.0)
    }

    /// Every call of the router, as its own description tells them: `get /healthz`.
    fn routed() -> BTreeSet<String> {
        let text = format!("{:?}", all_routes());
        let (text, _) = text.split_once("fallback_router").unwrap();
        let parts = || {
            text.split("RouteId(").skip(1).map(|part| {
                let (id, rest) = part.split_once(')').unwrap();
                (id, rest)
            })
        };
        let mut calls = BTreeSet::new();
        for (id, rest) in parts() {
            let Some(path) = rest.strip_prefix(": \"") else {
                continue;
            };
            let (path, _) = path.split_once('"').unwrap();
            let (_, route) = parts()
                .find(|(other, rest)| *other == id && !rest.contains(": \"/"))
                .unwrap();
            let allowed = between(route, "allow_header: Bytes(b\"", "\"").unwrap();
            for method in allowed.split(',').filter(|method| *method != "HEAD") {
                calls.insert(format!("{} {path}", method.to_lowercase()));
            }
        }
        calls
    }

    #[test]
    fn every_call_is_in_the_document_and_the_other_way_round() {
        let api = parsed();
        let mut documented = BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            let methods = item.as_object().unwrap().keys();
            documented.extend(methods.map(|method| format!("{method} {path}")));
        }
        let page = PAGE_PATH.trim_end_matches('/');
        let is_call = |call: &String| !call.contains(page);
        let routed: BTreeSet<String> = routed().into_iter().filter(is_call).collect();
        assert!(routed.len() >= 11, "{routed:?}");
        assert_eq!(routed, documented);
    }

    #[test]
    fn every_problem_is_in_the_document() {
        let text = String::from_utf8_lossy(&TEXT);
        for kind in Kind::ALL {
            let is_there = text.contains(&format!("\"{}\"", kind.uri()));
            assert_eq!(is_there, !OF_OTHERS.contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn every_call_is_described() {
        let api = parsed();
        assert_eq!(api["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            for method in METHODS.iter().filter(|method| item[**method].is_object()) {
                let call = &item[*method];
                let name = format!("{method} {path}");
                assert!(ids.insert(call["operationId"].as_str().unwrap()), "{name}");
                assert!(
                    call["summary"].is_string() && call["tags"].is_array(),
                    "{name}"
                );
                let parameters = call["parameters"].as_array().into_iter().flatten();
                for parameter in parameters {
                    assert!(
                        parameter["schema"]["type"].is_string(),
                        "{name}: {parameter}"
                    );
                }
                for (status, response) in call["responses"].as_object().unwrap() {
                    let description = response["description"].as_str().unwrap();
                    assert!(!description.is_empty(), "{name} {status}");
                    let has_body = !["204", "431"].contains(&status.as_str());
                    assert_eq!(response["content"].is_object(), has_body, "{name} {status}");
                }
            }
        }
    }

    /// The members that are written are those that are described.
    #[test]
    fn a_key_is_what_the_document_says() {
        let key = serde_json::to_value(key_json(&record(), Timestamp::from_millis(5000))).unwrap();
        let written: BTreeSet<&String> = key.as_object().unwrap().keys().collect();
        let api = parsed();
        let schema = &api["components"]["schemas"]["ApiKey"];
        let described: BTreeSet<&String> =
            schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(written, described);
        let required = schema["required"].as_array().unwrap();
        assert_eq!(
            required.len(),
            written.len(),
            "all of them always are there"
        );
        let example = schema["examples"][0].as_object().unwrap();
        assert_eq!(example.keys().collect::<BTreeSet<_>>(), written);
    }
}
