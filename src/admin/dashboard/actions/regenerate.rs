//! Giving a key a new secret: how long the old one works is chosen, and the new one is shown once.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::flaws::Flaws;
use super::issued::{self, Issued};
use super::refusal;
use super::{KeyHead, Shared, expected};
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::form::{Form, value};
use crate::admin::dashboard::moment::Moment;
use crate::admin::dashboard::page::{self, Fragment, Page, PageError, Section, marked, status_of};
use crate::admin::dashboard::path::IdText;
use crate::admin::dashboard::session::Visitor;
use crate::admin::input::GRACE_SECONDS_MAX;
use crate::admin::operations::keys::{self, Ending};
use crate::clock::Timestamp;
use crate::key::KeyRecord;
use crate::problem::Kind;

const TITLE: &str = "Regenerate the key";
/// The choice that a form begins with: long enough to bring the new secret everywhere.
const GRACE_DEFAULT: &str = "86400";
/// The choice of which the seconds are written.
const OWN: &str = "own";
/// The field, as the API calls it.
const GRACE: &str = "grace_period_seconds";

/// How long the old secret may work.
const PERIODS: [(u64, &str); 4] = [
    (3600, "1 hour"),
    (86_400, "24 hours"),
    (7 * 86_400, "7 days"),
    (30 * 86_400, "30 days"),
];

struct Period {
    value: String,
    label: &'static str,
    until: Moment,
}

#[derive(Template)]
#[template(path = "keys/regenerate.html")]
struct RegenerateForm<'a> {
    csrf: &'a str,
    key: KeyHead,
    revision: String,
    periods: Vec<Period>,
    grace: &'a str,
    grace_own: &'a str,
    grace_max: u64,
    flaws: Flaws,
    /// An older secret that works by now, and would not any more.
    older_until: Option<Moment>,
    /// Whether the secret is one that somebody else has made.
    is_imported: bool,
}

impl<'a> RegenerateForm<'a> {
    fn new(state: &AdminState, visitor: &'a Visitor, key: &KeyRecord) -> Self {
        let now = state.clock.now();
        RegenerateForm {
            csrf: &visitor.csrf,
            key: KeyHead::new(key, visitor.caller.key_id()),
            revision: key.revision.to_string(),
            periods: periods(now),
            grace: GRACE_DEFAULT,
            grace_own: "",
            grace_max: GRACE_SECONDS_MAX,
            flaws: Flaws::default(),
            older_until: older(key, now),
            is_imported: key.is_imported(key.generation),
        }
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

fn periods(now: Timestamp) -> Vec<Period> {
    let period = |(seconds, label): &(u64, &'static str)| Period {
        value: seconds.to_string(),
        label,
        until: now.plus(std::time::Duration::from_secs(*seconds)).into(),
    };
    PERIODS.iter().map(period).collect()
}

fn older(key: &KeyRecord, now: Timestamp) -> Option<Moment> {
    let works = key.previous.filter(|old| now < old.valid_until);
    works.map(|old| old.valid_until.into())
}

/// The choice of a grace period.
pub async fn show(
    State(state): Shared,
    fragment: Fragment,
    visitor: Visitor,
    IdText(id): IdText,
) -> Result<Response, PageError> {
    let ending = keys::ending(&state, &visitor.caller, &id).await?;
    refusal::if_revoked(&visitor, fragment, &ending.record)?;
    let content = RegenerateForm::new(&state, &visitor, &ending.record);
    content.answer(StatusCode::OK, &visitor, fragment)
}

/// Makes the new secret. A form that is sent twice makes one.
pub async fn regenerate(
    State(state): Shared,
    fragment: Fragment,
    IdText(id): IdText,
    Form { visitor, pairs }: Form,
) -> Result<Response, PageError> {
    let ending = keys::ending(&state, &visitor.caller, &id).await?;
    let record = ending.record.clone();
    refusal::if_revoked(&visitor, fragment, &record)?;
    let error = match carry_out(ending, &pairs).await {
        Ok(made) => {
            let content = Issued::of_regenerated(&state, &visitor, &made);
            return issued::answer(&visitor, fragment, &content);
        }
        Err(error) if error.problem.kind == Kind::InvalidFields => error,
        Err(error) => return refusal::of_error(&visitor, fragment, &record, "regenerate", error),
    };
    let mut content = RegenerateForm::new(&state, &visitor, &record);
    content.revision = value(&pairs, "revision").to_owned();
    content.grace = value(&pairs, "grace");
    content.grace_own = value(&pairs, "grace_own");
    content.flaws = Flaws::of_error(&error, &[GRACE.to_owned()]);
    let response = content.answer(status_of(&error), &visitor, fragment)?;
    Ok(marked(response, &error))
}

async fn carry_out(
    ending: Ending,
    pairs: &[(String, String)],
) -> Result<keys::Regenerated, ApiError> {
    ending.regenerate(body(pairs), expected(pairs)).await
}

/// The body that the API would get. A choice that is missing is none: nobody means to end a secret by
/// leaving something out.
fn body(pairs: &[(String, String)]) -> Map<String, Value> {
    let chosen = match value(pairs, "grace") {
        OWN => value(pairs, "grace_own"),
        chosen => chosen,
    };
    let chosen = chosen.trim();
    let seconds = chosen
        .parse::<u64>()
        .map_or(json!(chosen), |seconds| json!(seconds));
    Map::from_iter([(GRACE.to_owned(), seconds)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::input::grace_period_seconds;

    fn seconds(grace: &str, own: &str) -> Option<u64> {
        let pairs = [("grace", grace), ("grace_own", own)];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        grace_period_seconds(body(&pairs)).ok()
    }

    #[test]
    fn what_is_chosen_is_meant_and_nothing_is_not_zero() {
        assert_eq!(seconds("0", ""), Some(0));
        assert_eq!(seconds("3600", "5"), Some(3600));
        assert_eq!(seconds(OWN, " 90 "), Some(90));
        assert_eq!(seconds(OWN, ""), None);
        assert_eq!(seconds("", ""), None);
        assert_eq!(seconds(OWN, &(GRACE_SECONDS_MAX + 1).to_string()), None);
        assert_eq!(seconds("-1", ""), None);
    }
}
