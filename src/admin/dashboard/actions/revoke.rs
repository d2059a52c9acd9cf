//! Revoking a key, by who writes its name.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::flaws::Flaws;
use super::refusal;
use super::{KeyHead, Shared, expected};
use crate::admin::AdminState;
use crate::admin::access::Permission;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::form::{Form, value};
use crate::admin::dashboard::moment::Moment;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section, marked, status_of};
use crate::admin::dashboard::path::IdText;
use crate::admin::dashboard::session::Visitor;
use crate::admin::dashboard::unconfirmed::done_path;
use crate::admin::input::FieldError;
use crate::admin::operations::{Uses, keys};
use crate::cluster::Propagation;
use crate::key::KeyRecord;
use crate::key::record::Standing;
use crate::manage::KeyError;
use crate::usage::Subject;
use crate::usage::span::{Interval, Span};

const TITLE: &str = "Revoke the key";
/// The field in which the name is written.
const NAME: &str = "confirm_name";

#[derive(Template)]
#[template(path = "keys/revoke.html")]
struct RevokeForm<'a> {
    csrf: &'a str,
    key: KeyHead,
    revision: String,
    /// Requests of the last 24 hours, for who may know.
    requests: Option<u64>,
    last_used: Option<Moment>,
    written: &'a str,
    flaws: Flaws,
}

impl<'a> RevokeForm<'a> {
    async fn new(
        state: &AdminState,
        visitor: &'a Visitor,
        key: &KeyRecord,
    ) -> Result<Self, ApiError> {
        let uses = Uses::of(state, std::slice::from_ref(key)).await?;
        let may_know = visitor.caller.holds(Permission::UsageRead);
        Ok(RevokeForm {
            csrf: &visitor.csrf,
            key: KeyHead::new(key, visitor.caller.key_id()),
            revision: key.revision.to_string(),
            requests: match may_know {
                true => Some(recent_requests(state, key).await?),
                false => None,
            },
            last_used: uses.latest(key.id).map(|last| last.at.into()),
            written: "",
            flaws: Flaws::default(),
        })
    }

    fn answer(
        &self,
        status: StatusCode,
        visitor: &Visitor,
        fragment: Fragment,
    ) -> Result<Response, PageError> {
        let page = Page::new(visitor, TITLE, Section::Keys);
        page::dialog(status, fragment, page, self)
    }
}

/// Requests with the key in the last 24 hours, as far as they are counted.
async fn recent_requests(state: &AdminState, key: &KeyRecord) -> Result<u64, ApiError> {
    let Ok(span) = Span::new(Interval::Hour, None, state.clock.now()) else {
        return Ok(0);
    };
    let (subject, usage) = (Subject::Key(key.id), &state.usage);
    let rows = usage.usage(&subject, span.interval, span.from, span.to);
    let rows = rows.await.map_err(KeyError::from)?;
    Ok(rows.iter().map(|(_, counts)| counts.requests).sum())
}

/// Whether somebody has written `name`. How many spaces stand in it can't be seen.
fn is_name(written: &str, name: &str) -> bool {
    written.split_whitespace().eq(name.split_whitespace())
}

/// The question.
pub async fn show(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let ending = keys::ending(&state, &visitor.caller, &id).await?;
    refusal::if_revoked(&visitor, fragment, &ending.record)?;
    let content = RevokeForm::new(&state, &visitor, &ending.record).await?;
    content.answer(StatusCode::OK, &visitor, fragment)
}

/// Revokes the key if its name is written.
pub async fn revoke(
    State(state): Shared,
    fragment: Fragment,
    IdText(id): IdText,
    Form { visitor, pairs }: Form,
) -> Result<Response, PageError> {
    let ending = keys::ending(&state, &visitor.caller, &id).await?;
    let record = ending.record.clone();
    let revoked = |propagation: &Propagation| {
        page::go(fragment, &done_path(record.id, "revoked", propagation))
    };
    if record.standing == Standing::Revoked {
        // By this very form, sent twice, or by somebody who wanted the same.
        return Ok(revoked(&state.confirmations.wait().await));
    }
    let written = value(&pairs, NAME);
    if is_name(written, &record.name) {
        return match ending.revoke(expected(&pairs)).await {
            Ok(propagation) => Ok(revoked(&propagation)),
            Err(error) => refusal::of_error(&visitor, fragment, &record, "revoke", error),
        };
    }
    let error = ApiError::fields(&[FieldError {
        field: NAME.to_owned(),
        detail: "must be the name of the key, as it stands above".to_owned(),
    }]);
    let mut content = RevokeForm::new(&state, &visitor, &record).await?;
    content.revision = value(&pairs, "revision").to_owned();
    content.written = written;
    content.flaws = Flaws::of_error(&error, &[NAME.to_owned()]);
    let response = content.answer(status_of(&error), &visitor, fragment)?;
    Ok(marked(response, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_is_seen() {
        assert!(is_name(" Orders  of ACME ", "Orders of  ACME"));
        for other in ["", "orders of ACME", "Orders of", "OrdersofACME"] {
            assert!(!is_name(other, "Orders of ACME"), "{other}");
        }
    }
}
