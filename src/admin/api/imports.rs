//! Import of existing keys over HTTP: a list in, a report per line out.
//!
//! A list that takes longer than [`IMPORT_TIME_MAX`] is not carried out to its end: the answer says at
//! which line to go on. The same list can be sent again at any time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::problems::ImportProblems;
use super::schemas::{FieldProblem, ImportParameters, LineStatusName};
use super::{Shared, confirmed, private, query};
use crate::admin::AdminState;
use crate::admin::access::{Actor, Caller, Permission};
use crate::admin::answer::ApiError;
use crate::admin::import_lines::{self, LINES_MAX, Line, ListError, Rules};
use crate::admin::input::FieldError;
use crate::admin::long_work;
use crate::admin::operations::to_the_end;
use crate::key::{KeyId, Lookup, ScopePattern};
use crate::manage::{ImportOutcome, ImportedKey, KeyError};
use crate::problem::Kind;

/// A list has at most this many bytes.
const IMPORT_BYTES_MAX: usize = 1 << 20;
/// After so long no further line is begun: the answer has to come before the request's time is over.
const IMPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// The route's handler, with the limit of its body.
pub fn route() -> MethodRouter<Arc<AdminState>> {
    post(import).layer(DefaultBodyLimit::max(IMPORT_BYTES_MAX))
}

/// How a list is to be imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    dry_run: bool,
    allow_weak: bool,
}

fn options(pairs: Vec<(String, String)>) -> Result<Options, Vec<FieldError>> {
    let mut options = Options::default();
    query::read(&pairs, |name, value| {
        match name {
            "dry_run" => options.dry_run = query::flag(value)?,
            "allow_weak" => options.allow_weak = query::flag(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// The lines of a body.
pub struct Lines(Vec<Line>);

impl<S: Send + Sync> FromRequest<S> for Lines {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(CONTENT_TYPE);
        let media_type = content_type
            .and_then(|value| value.to_str().ok()?.split(';').next())
            .map(|text| text.trim().to_ascii_lowercase());
        let read = match media_type.as_deref() {
            Some("application/jsonl" | "application/x-ndjson") => import_lines::json_lines,
            Some("text/csv") => import_lines::csv_lines,
            _ => {
                return Err(ApiError::new(
                    Kind::UnsupportedMediaType,
                    "Send Content-Type: application/jsonl or text/csv.",
                ));
            }
        };
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => too_large(),
                    _ => ApiError::new(Kind::BadRequest, "The body could not be read."),
                })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| ApiError::new(Kind::BadRequest, "The body is not UTF-8."))?;
        match read(text) {
            Ok(lines) => Ok(Lines(lines)),
            Err(ListError::TooManyLines) => Err(too_large()),
            Err(error @ ListError::Header(_)) => Err(ApiError::new(
                Kind::BadRequest,
                format!("The list can't be read: {error}."),
            )),
        }
    }
}

fn too_large() -> ApiError {
    ApiError::new(
        Kind::BodyTooLarge,
        format!(
            "A list may have at most {LINES_MAX} keys and {IMPORT_BYTES_MAX} bytes; send several."
        ),
    )
}

/// What became of one line.
enum LineResult {
    Created(KeyId),
    Existing(KeyId),
    WouldCreate,
    Refused(Vec<FieldError>),
}

impl LineResult {
    fn refused(field: &str, detail: impl Into<String>) -> Self {
        LineResult::Refused(vec![FieldError {
            field: field.to_owned(),
            detail: detail.into(),
        }])
    }

    fn status(&self) -> &'static str {
        match self {
            LineResult::Created(_) => "created",
            LineResult::Existing(_) => "existing",
            LineResult::WouldCreate => "would_create",
            LineResult::Refused(_) => "refused",
        }
    }

    fn told(&self, line: u64) -> ImportedLine {
        let key_id = match self {
            LineResult::Created(id) | LineResult::Existing(id) => Some(id.to_string()),
            LineResult::WouldCreate | LineResult::Refused(_) => None,
        };
        let errors = match self {
            LineResult::Refused(errors) => errors.iter().map(FieldProblem::from).collect(),
            _ => Vec::new(),
        };
        ImportedLine {
            line,
            status: self.status(),
            key_id,
            errors,
        }
    }
}

/// What became of a line of a list.
#[derive(Serialize, ToSchema)]
pub struct ImportedLine {
    /// Its number in the body, from 1.
    line: u64,
    #[schema(value_type = LineStatusName, inline)]
    status: &'static str,
    /// The key, if there is one that the caller may see.
    #[schema(required = true)]
    key_id: Option<String>,
    /// Why it was refused.
    errors: Vec<FieldProblem>,
}

/// What became of a list.
#[derive(Serialize, ToSchema)]
pub struct ImportReport {
    dry_run: bool,
    /// Lines that were imported, or would be.
    created: usize,
    /// Lines whose key was there already.
    existing: usize,
    refused: usize,
    /// Where to go on: there was no time for all lines. Null where all were looked at.
    #[schema(required = true)]
    next_line: Option<u64>,
    results: Vec<ImportedLine>,
}

/// The report of a list.
#[derive(Default)]
struct Report {
    results: Vec<ImportedLine>,
    created: usize,
    existing: usize,
    refused: usize,
    next_line: Option<u64>,
}

impl Report {
    fn add(&mut self, line: u64, result: &LineResult) {
        match result {
            LineResult::Created(_) | LineResult::WouldCreate => self.created += 1,
            LineResult::Existing(_) => self.existing += 1,
            LineResult::Refused(_) => self.refused += 1,
        }
        self.results.push(result.told(line));
    }

    fn told(self, options: Options) -> ImportReport {
        ImportReport {
            dry_run: options.dry_run,
            created: self.created,
            existing: self.existing,
            refused: self.refused,
            next_line: self.next_line,
            results: self.results,
        }
    }
}

/// One list on its way.
struct Import {
    state: Arc<AdminState>,
    caller: Caller,
    options: Options,
    /// Where the secrets of earlier lines are found.
    seen: HashMap<Lookup, u64>,
}

impl Import {
    /// Carries out as many lines as there is time for.
    async fn run(&mut self, lines: Vec<Line>) -> Result<Report, ApiError> {
        let mut report = Report::default();
        let begun_us = self.state.clock.monotonic_us();
        for line in lines {
            let number = line.number;
            let passed_us = self.state.clock.monotonic_us().saturating_sub(begun_us);
            let is_late = Duration::from_micros(passed_us) >= IMPORT_TIME_MAX;
            let has_begun = !report.results.is_empty();
            if is_late && has_begun {
                report.next_line = Some(number);
                break;
            }
            match self.line(line).await {
                Ok(result) => report.add(number, &result),
                // What was done has to be told.
                Err(error) if has_begun => {
                    let status = error.problem.kind.status();
                    tracing::warn!(line = number, status, "an import stopped early");
                    report.next_line = Some(number);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    async fn line(&mut self, line: Line) -> Result<LineResult, ApiError> {
        // A list takes its time, and the caller's key may have been revoked meanwhile.
        let actor = self.caller.authorize(&self.state, Permission::KeysWrite)?;
        let fields = match line.fields {
            Ok(fields) => fields,
            Err(error) => return Ok(LineResult::Refused(vec![error])),
        };
        let keys = &self.state.keys;
        let rules = Rules {
            own_tenant: (!actor.is_admin()).then_some(&actor.tenant_id),
            catalogue: &keys.catalogue,
            mint_keys: &keys.mint_keys,
            allow_weak: self.options.allow_weak,
            now: self.state.clock.now(),
        };
        let key = match import_lines::imported_key(fields, &rules) {
            Ok(key) => key,
            Err(errors) => return Ok(LineResult::Refused(errors)),
        };
        if let Some(refused) = beyond(&actor, &key) {
            return Ok(refused);
        }
        let places = keys.places_of(&key.secret);
        if let Some(place) = places.first()
            && let Some(earlier) = self.seen.insert(*place, line.number)
        {
            self.seen.insert(*place, earlier);
            return Ok(LineResult::refused(
                "line",
                format!("has the same key or user as line {earlier}"),
            ));
        }
        let outcome = if self.options.dry_run {
            keys.find_imported(&places)
                .await?
                .map(ImportOutcome::Existing)
        } else {
            match keys.import(key, &actor.origin).await {
                Ok(outcome) => Some(outcome),
                Err(error @ KeyError::TooManyKeys(_)) => {
                    return Ok(LineResult::refused("tenant_id", error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        };
        Ok(match outcome {
            None => LineResult::WouldCreate,
            Some(ImportOutcome::Created(id)) => LineResult::Created(id),
            Some(ImportOutcome::Existing(id)) => self.existing(&actor, id).await?,
        })
    }

    /// A key that is there already. Another tenant's is not named.
    async fn existing(&self, actor: &Actor, id: KeyId) -> Result<LineResult, ApiError> {
        let is_seen = actor.is_admin()
            || match self.state.keys.get(id).await {
                Ok(record) => actor.sees(&record.tenant_id),
                Err(KeyError::NotFound) => false,
                Err(error) => return Err(error.into()),
            };
        if is_seen {
            return Ok(LineResult::Existing(id));
        }
        if self.options.dry_run {
            // A dry run costs nothing and leaves nothing behind, so with an answer it would be the place
            // to try out which keys other tenants have.
            return Ok(LineResult::WouldCreate);
        }
        tracing::warn!(actor = %actor.key_id, key_id = %id, "an import names a secret of another tenant");
        Ok(LineResult::refused(
            "line",
            "the key or the user is in use elsewhere",
        ))
    }
}

/// The refusal of a key that `actor` may not make.
fn beyond(actor: &Actor, key: &ImportedKey) -> Option<LineResult> {
    if !actor.sees(&key.new.tenant_id) {
        return Some(LineResult::refused("tenant_id", "there is no such tenant"));
    }
    let is_own = key.new.scopes.iter().any(ScopePattern::is_own);
    (is_own && !actor.is_admin()).then(|| {
        let admin = Permission::Admin.as_str();
        LineResult::refused("scopes", format!("to grant these you need {admin}"))
    })
}

/// Import existing keys
///
/// A list of keys as plain text, or of users with bcrypt hashes: JSON lines, or CSV with a header line; at
/// most 1,000 lines and 1 MiB. What is there already is left as it is, so a list can be sent again. A dry
/// run does not tell whether another tenant has a key or user already. Needs `sidekey:keys:write`.
#[utoipa::path(post, path = "/api/v1/platform/api-keys/import", operation_id = "import_keys", tag = "keys",
    params(ImportParameters),
    request_body(content((String = "application/jsonl"), (String = "application/x-ndjson"), (String = "text/csv"))),
    responses(
        (status = 200, body = ImportReport, description = "What became of each line.",
            headers(("Sidekey-Propagation", description = "How far the change has come (RFC 9651)."))),
        ImportProblems,
    ))]
pub async fn import(
    State(state): Shared,
    caller: Caller,
    Query(pairs): Query<Vec<(String, String)>>,
    Lines(lines): Lines,
) -> Result<Response, ApiError> {
    let actor = caller.authorize(&state, Permission::KeysWrite)?;
    let options = options(pairs).map_err(|errors| ApiError::fields(&errors))?;
    let permit = long_work::begin(&state.imports, &actor)?;
    to_the_end(async move {
        let mut import = Import {
            state: state.clone(),
            caller,
            options,
            seen: HashMap::new(),
        };
        let report = import.run(lines).await?;
        drop(permit);
        let (created, existing, refused) = (report.created, report.existing, report.refused);
        tracing::info!(actor = %actor.key_id, options.dry_run, created, existing, refused, "keys imported");
        let is_changed = created > 0 && !options.dry_run;
        let answer = private(StatusCode::OK, report.told(options));
        if !is_changed {
            return Ok(answer);
        }
        // Who imports keys wants to use them, wherever the next request goes.
        let propagation = state.confirmations.wait().await;
        Ok(confirmed(answer, &propagation))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            options(pairs.collect()).map_err(|errors| errors.len())
        };
        assert_eq!(read(&[]), Ok(Options::default()));
        let both = Options {
            dry_run: true,
            allow_weak: true,
        };
        assert_eq!(
            read(&[("dry_run", "true"), ("allow_weak", "true")]),
            Ok(both)
        );
        assert_eq!(read(&[("dry_run", "1"), ("weak", "true")]), Err(2));
    }
}
