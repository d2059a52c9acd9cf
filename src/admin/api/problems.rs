//! Which problems a call may answer with, for its entry in the OpenAPI document.
//!
//! A set of problems is one line with `problems!`, and stands in the `responses(...)` of a handler's
//! `#[utoipa::path]`. What every call with a key may answer is in each set by itself.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::problem::{self, Kind};

/// What every call with a key may answer.
const COMMON: [Kind; 14] = [
    Kind::BadRequest,
    Kind::AmbiguousCredential,
    Kind::MissingCredential,
    Kind::InvalidKey,
    Kind::ExpiredKey,
    Kind::DisabledKey,
    Kind::SuspendedTenant,
    Kind::InsufficientScope,
    Kind::AddressNotAllowed,
    Kind::RequestTimeout,
    Kind::InvalidFields,
    Kind::TooManyFailures,
    Kind::Internal,
    Kind::TemporaryReducedCapacity,
];

/// The answer, without a body, to a request that is not read to its end.
const UNREAD: (&str, &str) = (
    "431",
    "The request's target or header is too long, or has too many fields.",
);

/// Declares a set of problems: `problems!(Name: Kind, ...)`.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident: $($kind:ident),*) => {
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                with_common(&[$(Kind::$kind),*])
            }
        }
    };
}

problems!(
    /// Of a call that only reads what is there for everyone who may read.
    ListProblems:
);
problems!(
    /// Of a call that reads one thing.
    ReadProblems: NotFound
);
problems!(
    /// Of a creation.
    CreateProblems: NotFound, IdempotencyKeyReused, Conflict, TooManyKeys, BodyTooLarge, UnsupportedMediaType
);
problems!(
    /// Of a change with a body.
    ChangeProblems: NotFound, Conflict, PreconditionFailed, BodyTooLarge, UnsupportedMediaType
);
problems!(
    /// Of a change without a body.
    EndProblems: NotFound, Conflict, PreconditionFailed
);
problems!(
    /// Of an import.
    ImportProblems: BodyTooLarge, UnsupportedMediaType
);
problems!(
    /// Of a tenant's setting.
    PutTenantProblems: Conflict, PreconditionFailed, BodyTooLarge, UnsupportedMediaType
);
problems!(
    /// Of a tenant's suspension.
    StandingProblems: NotFound, Conflict
);
problems!(
    /// Of the end of an overlap.
    OverlapProblems: NotFound, Conflict
);

/// Of a call that takes no key and reads nothing.
pub struct OpenProblems;

impl IntoResponses for OpenProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        with_unread(by_status(&[Kind::RequestTimeout, Kind::Internal]))
    }
}

/// What a call that needs no key, but has parameters, may answer.
pub struct OpenQueryProblems;

impl IntoResponses for OpenQueryProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let kinds = [Kind::RequestTimeout, Kind::Internal, Kind::InvalidFields];
        with_unread(by_status(&kinds))
    }
}

/// The answers for `kinds` and for what every call with a key may answer.
pub fn with_common(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    with_unread(by_status(&[&COMMON[..], kinds].concat()))
}

type Responses = BTreeMap<String, RefOr<Response>>;

fn with_unread(mut responses: Responses) -> Responses {
    let (status, description) = UNREAD;
    responses.insert(status.to_owned(), Response::new(description).into());
    responses
}

fn by_status(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        statuses.entry(kind.status()).or_default().push(*kind);
    }
    statuses
        .into_iter()
        .map(|(status, kinds)| (status.to_string(), of_status(status, &kinds).into()))
        .collect()
}

/// The answer of a status, which any of `kinds` has.
pub fn of_status(status: u16, kinds: &[Kind]) -> Response {
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let kind = text.enum_values(Some(kinds.iter().map(|kind| kind.uri())));
    let base = match status {
        422 => "InvalidFieldsProblem",
        _ => "Problem",
    };
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(base))
        .item(ObjectBuilder::new().property("type", kind));
    let examples = kinds.iter().map(|kind| {
        let name = kind.uri().rsplit([':', '#']).next().unwrap_or_default();
        (name, ExampleBuilder::new().value(Some(example(*kind))))
    });
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples);
    let response = ResponseBuilder::new()
        .description(format!("{}.", titles.join("; or: ")))
        .content(problem::MEDIA_TYPE, content.build());
    let response = headers(status)
        .into_iter()
        .fold(response, |response, header| {
            let (name, description) = header;
            let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
            let header = HeaderBuilder::new()
                .schema(Some(text))
                .description(Some(description));
            response.header(name, header.build())
        });
    response.build()
}

/// The header fields of a status that say what to do.
fn headers(status: u16) -> Vec<(&'static str, &'static str)> {
    match status {
        401 => vec![(
            "WWW-Authenticate",
            "How to authenticate (RFC 6750), with `error=\"invalid_token\"` where the key is the reason.",
        )],
        403 => vec![(
            "WWW-Authenticate",
            "`Bearer error=\"insufficient_scope\"` with the scope that is missing; absent where the \
             client's address is the reason.",
        )],
        405 => vec![("Allow", "The methods of this path.")],
        429 | 503 => vec![("Retry-After", "When to come back, in whole seconds.")],
        _ => vec![],
    }
}

fn example(kind: Kind) -> serde_json::Value {
    let mut example = json!({
        "type": kind.uri(),
        "title": kind.title(),
        "status": kind.status(),
        "detail": "What is wrong with this request, and what to do.",
        "request_id": "0af7651916cd43dd8448eb211c80319c",
    });
    if kind == Kind::InvalidFields {
        example["errors"] = json!([{"field": "name", "detail": "is missing"}]);
    }
    example
}
