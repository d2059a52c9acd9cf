//! The mark that says whether the audit chain is what was written, and verifications by a press of a
//! button. One goes on when its page is left: what it finds is remembered, and shown by every page after it.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::super::form::Form;
use super::super::moment::Moment;
use super::super::page::{Page, PageError, Section, render};
use super::super::session::Visitor;
use super::AUDIT_PATH;
use crate::admin::AdminState;
use crate::admin::access::{Actor, Permission};
use crate::admin::answer::ApiError;
use crate::admin::audit_log::write_cursor;
use crate::admin::audit_verification::{self, Known, Mark, Progress};
use crate::problem::Kind;

/// How long a press of the button waits for the end before the page says that it takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the page says about the chain.
pub struct Chain {
    /// Whether the reader may verify it.
    pub may_verify: bool,
    pub csrf: String,
    pub state: ChainState,
    /// Whether the last verification came to no end: what is told was found before.
    pub has_failed: bool,
}

/// How the chain stands, as far as this instance knows.
pub enum ChainState {
    /// Not for this reader.
    Hidden,
    Unknown,
    UnderWay(Progress),
    Holds(Holding),
    Broken(Breakage),
}

/// A chain that holds.
pub struct Holding {
    pub entries: i64,
    pub at: Moment,
    /// Entries that have come after those, and hold too.
    pub followed: i64,
    pub head: String,
    /// Entries that nobody has looked at yet.
    pub since: i64,
}

/// The first place where it does not.
pub struct Breakage {
    pub seq: i64,
    pub problem: &'static str,
    pub explanation: &'static str,
    pub at: Moment,
    /// The page of the log that begins with that entry.
    pub path: String,
}

impl Chain {
    /// What is known by now. Few entries that have come since are verified by the way.
    pub async fn look(
        state: &AdminState,
        visitor: &Visitor,
        actor: &Actor,
    ) -> Result<Self, ApiError> {
        let (known, since) = if actor.is_admin() {
            audit_verification::look(state).await?
        } else {
            (Known::default(), 0)
        };
        Ok(Chain {
            may_verify: actor.is_admin(),
            csrf: visitor.csrf.clone(),
            has_failed: known.has_failed,
            state: if actor.is_admin() {
                ChainState::of(known, since)
            } else {
                ChainState::Hidden
            },
        })
    }
}

impl ChainState {
    fn of(known: Known, since: i64) -> Self {
        match (known.under_way, known.mark) {
            (Some(progress), _) => ChainState::UnderWay(progress),
            (None, None) => ChainState::Unknown,
            // A verification that has failed since has found nothing out: what was found stays.
            (None, Some(mark)) => ChainState::of_mark(mark, since),
        }
    }

    fn of_mark(mark: Mark, since: i64) -> Self {
        match mark.broken {
            None => ChainState::Holds(Holding {
                entries: mark.entries,
                at: mark.at.into(),
                followed: mark.head.seq - mark.entries,
                head: mark.head.hash,
                since,
            }),
            Some(broken) => ChainState::Broken(Breakage {
                seq: broken.seq,
                problem: broken.fault.as_str(),
                explanation: broken.fault.explanation(),
                at: mark.head_at.into(),
                path: format!(
                    "{AUDIT_PATH}?cursor={}",
                    write_cursor(broken.seq.saturating_add(1))
                ),
            }),
        }
    }
}

/// The mark alone, for who has no script, and for the script to take it from.
#[derive(Template)]
#[template(path = "audit_chain.html")]
struct ChainPage {
    page: Page,
    chain: Chain,
}

fn answer(status: StatusCode, visitor: &Visitor, chain: Chain) -> Result<Response, PageError> {
    let page = Page::new(visitor, "Verification of the audit log", Section::Audit);
    render(status, &ChainPage { page, chain })
}

/// How the chain stands.
pub async fn show(
    State(state): State<Arc<AdminState>>,
    visitor: Visitor,
) -> Result<Response, PageError> {
    let actor = visitor.caller.authorize(&state, Permission::Admin)?;
    let chain = Chain::look(&state, &visitor, &actor).await?;
    answer(StatusCode::OK, &visitor, chain)
}

/// Verifies it. Where that is under way already, the page shows how far it is.
pub async fn verify(
    State(state): State<Arc<AdminState>>,
    form: Form,
) -> Result<Response, PageError> {
    let visitor = form.visitor;
    let actor = visitor.caller.authorize(&state, Permission::Admin)?;
    let mut status = StatusCode::OK;
    match audit_verification::begin(&state, &actor, None) {
        Ok(work) => {
            // Dropped, it goes on: its end is remembered.
            let ended = tokio::time::timeout(PATIENCE, work).await;
            if !matches!(ended, Err(_) | Ok(Ok(Ok(_)))) {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
        }
        Err(error) if error.problem.kind == Kind::TemporaryReducedCapacity => {}
        Err(error) => return Err(error.into()),
    }
    let chain = Chain::look(&state, &visitor, &actor).await?;
    answer(status, &visitor, chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{Anchor, Broken, Fault};
    use crate::clock::Timestamp;

    #[test]
    fn a_break_that_was_found_stays_when_a_later_verification_fails() {
        let at = Timestamp::from_millis(1);
        let mark = Mark {
            entries: 9,
            at,
            head: Anchor {
                seq: 9,
                hash: String::new(),
            },
            head_at: at,
            broken: Some(Broken {
                seq: 4,
                fault: Fault::Edited,
            }),
        };
        let known = Known {
            mark: Some(mark),
            under_way: None,
            has_failed: true,
        };
        let chain = Chain {
            may_verify: true,
            csrf: String::new(),
            has_failed: known.has_failed,
            state: ChainState::of(known, 0),
        };
        let page = Page::for_anybody("");
        let text = ChainPage { page, chain }.render().unwrap();
        assert!(text.contains("Broken at entry 4"), "{text}");
        assert!(text.contains("could not be read to its end"), "{text}");
    }
}
