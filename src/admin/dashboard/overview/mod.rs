//! The overview: how much is asked, what goes wrong, what is refused and why, and which keys are busy.
//! Administrators see the platform, or one tenant; others their own tenant.

mod due;
mod health;
mod keys;
mod reasons;
mod traffic;

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::OVERVIEW_PATH;
use super::chart::ChartView;
use super::chart::text::count;
use super::moment::Moment;
use super::page::{Page, PageError, Section, render};
use super::range::{self, Range, RangeLink};
use super::session::Visitor;
use crate::admin::AdminState;
use crate::admin::access::{Actor, Permission};
use crate::admin::answer::ApiError;
use crate::admin::usage_report::Report;
use crate::key::TenantId;
use crate::problem::Kind;
use crate::usage::Subject;
use crate::usage::span::Span;
use due::Due;
use health::Health;
use keys::TopKeys;
use reasons::{Reasons, RefusalRow};
use traffic::Stat;

/// What is looked at.
struct View {
    range: Range,
    span: Span,
    /// One tenant, or all.
    tenant: Option<TenantId>,
    may_read_keys: bool,
    is_admin: bool,
}

impl View {
    fn subject(&self) -> Subject {
        match &self.tenant {
            Some(tenant) => Subject::Tenant(tenant.clone()),
            None => Subject::Platform,
        }
    }

    /// The address with another range.
    fn address(&self, tenant: Option<&TenantId>) -> String {
        let range = self.range.as_str();
        match tenant {
            // A tenant's id needs no escaping in an address.
            Some(tenant) => format!("{OVERVIEW_PATH}?range={range}&tenant_id={tenant}"),
            None => format!("{OVERVIEW_PATH}?range={range}"),
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage<'a> {
    page: Page,
    path: &'static str,
    range: &'static str,
    in_words: &'static str,
    ranges: Vec<RangeLink>,
    is_admin: bool,
    /// What the tenant's field holds.
    tenant_id: String,
    /// Where an administrator sees all tenants.
    all_tenants: Option<String>,
    is_shadow: bool,
    has_traffic: bool,
    stats: Vec<Stat>,
    traffic: ChartView,
    errors: ChartView,
    refusals: Option<ChartView>,
    reasons: Vec<RefusalRow>,
    shadow: Vec<RefusalRow>,
    /// From when on refusals are counted, where there were requests before.
    since: Option<Moment>,
    top: TopKeys,
    due: Vec<Due>,
    health: Option<&'a Health>,
}

fn view(state: &AdminState, actor: &Actor, query: &[(String, String)]) -> Result<View, ApiError> {
    let value = |name: &str| {
        let found = query.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.trim())
            .filter(|v| !v.is_empty())
    };
    let range = match value("range") {
        Some(_) => Range::of(query),
        None => Range::Day,
    };
    let tenant = match value("tenant_id").map(str::parse::<TenantId>) {
        Some(Ok(tenant)) if actor.sees(&tenant) => Some(tenant),
        Some(_) => return Err(ApiError::new(Kind::NotFound, "There is no such tenant.")),
        None if actor.is_admin() => None,
        None => Some(actor.tenant_id.clone()),
    };
    Ok(View {
        range,
        span: range.span(state.clock.now(), state.usage_retention),
        tenant,
        may_read_keys: false,
        is_admin: actor.is_admin(),
    })
}

/// `GET /dashboard/overview`
pub async fn show(
    State(state): State<Arc<AdminState>>,
    visitor: Visitor,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let actor = visitor.caller.authorize(&state, Permission::UsageRead)?;
    let mut view = view(&state, &actor, &query)?;
    view.may_read_keys = visitor.caller.holds(Permission::KeysRead);
    // First, so that the sums are no older than the lists that are held against them.
    let counted = keys::counted(&state, &view).await?;
    let report = Report::read(&state, &view.subject(), view.span).await?;
    let reasons = match &view.tenant {
        Some(_) => Reasons::of_tenant(&report),
        None => Reasons::read(&state, &report).await?,
    };
    let top = TopKeys::read(&state, &view, counted, &report).await?;
    let due = match view.may_read_keys {
        true => due::read(&state, &view).await?,
        false => Vec::new(),
    };
    let health = view.is_admin.then(|| Health::of(&state));
    let title = match &view.tenant {
        Some(tenant) if view.is_admin => format!("Overview of {tenant}"),
        _ => "Overview".to_owned(),
    };
    let is_filtered = view.is_admin && view.tenant.is_some();
    let page = OverviewPage {
        page: Page::new(&visitor, title, Section::Overview),
        path: OVERVIEW_PATH,
        range: view.range.as_str(),
        in_words: view.range.in_words(),
        ranges: range::links(view.range),
        is_admin: view.is_admin,
        tenant_id: match &view.tenant {
            Some(tenant) => tenant.to_string(),
            None => String::new(),
        },
        all_tenants: is_filtered.then(|| view.address(None)),
        is_shadow: state.deployment.is_shadow,
        has_traffic: report.totals.requests > 0 || reasons.has_any(),
        stats: traffic::stats(&report, &reasons),
        traffic: traffic::chart(&report),
        errors: traffic::error_chart(&report),
        refusals: reasons.chart(&report),
        reasons: reasons.rows(),
        shadow: reasons.shadow_rows(),
        since: reasons.since().map(Moment::from),
        top,
        due,
        health: health.as_ref(),
    };
    render(StatusCode::OK, &page)
}

/// `text` beside a number that is not one.
fn of_many(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}
