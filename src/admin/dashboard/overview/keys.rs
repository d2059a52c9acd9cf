//! The busiest keys.

use std::collections::BTreeMap;

use super::View;
use crate::admin::AdminState;
use crate::admin::answer::ApiError;
use crate::admin::dashboard::KEYS_PATH;
use crate::admin::dashboard::chart::share;
use crate::admin::dashboard::chart::text::{NOTHING, count, percent};
use crate::admin::usage_report::Report;
use crate::key::KeyId;
use crate::manage::KeyError;
use crate::usage::ranking::{Listed, Ranked};
use crate::usage::{Counts, Subject};

/// Keys that are shown.
const SHOWN: usize = 10;

/// What lists say, and what the keys in them were used for.
pub struct Counted {
    listed: Listed,
    keys: Vec<(KeyId, Counts)>,
}

/// Reads it.
pub async fn counted(state: &AdminState, view: &View) -> Result<Counted, ApiError> {
    let (from, to, subject) = (view.span.from, view.span.to, view.subject());
    let listed = state.overview.listed(&subject, from, to);
    let listed = listed.await.map_err(KeyError::from)?;
    let subjects: Vec<Subject> = listed
        .keys
        .iter()
        .map(|(key, _)| Subject::Key(*key))
        .collect();
    let sums = state.overview.sums_of(&subjects, from, to);
    let sums = sums.await.map_err(KeyError::from)?;
    let keys = sums
        .into_iter()
        .filter_map(|(place, counts)| Some((listed.keys.get(place)?.0, counts)))
        .collect();
    Ok(Counted { listed, keys })
}

/// A key among the busiest.
#[derive(Debug)]
pub struct TopKey {
    pub id: String,
    /// None where the reader may not read keys.
    pub name: Option<String>,
    pub link: Option<String>,
    pub tenant: String,
    pub tenant_link: Option<String>,
    pub requests: String,
    pub share: String,
    pub errors: String,
    pub limited: String,
    pub bar: u64,
}

/// The busiest keys.
#[derive(Debug, Default)]
pub struct TopKeys {
    pub keys: Vec<TopKey>,
    /// Where one that is not shown might be busier: how many requests it can have had.
    pub others_max: Option<String>,
}

fn with_share(part: u64, whole: u64) -> String {
    let share = share(part, whole).map_or(NOTHING.to_owned(), percent);
    format!("{} ({share})", count(part))
}

impl TopKeys {
    pub async fn read(
        state: &AdminState,
        view: &View,
        counted: Counted,
        report: &Report,
    ) -> Result<Self, ApiError> {
        let all = report.totals.requests;
        let ranked = Ranked::new(&counted.listed, counted.keys, all, SHOWN);
        let is_certain = ranked.is_certain(SHOWN);
        let most = ranked.keys.first().map_or(0, |(_, counts)| counts.requests);
        let mut known = BTreeMap::new();
        if view.may_read_keys {
            for (id, _) in &ranked.keys {
                if let Some(record) = state.keys.store.get(*id).await.map_err(KeyError::from)? {
                    known.insert(*id, record);
                }
            }
        }
        let key = |(id, counts): &(KeyId, Counts)| {
            let record = known.get(id);
            let tenant = record.map(|record| &record.tenant_id);
            let is_platform = view.tenant.is_none();
            TopKey {
                id: id.to_string(),
                name: record.map(|record| record.name.clone()),
                link: record.map(|_| format!("{KEYS_PATH}/{id}?range={}", view.range.as_str())),
                tenant: tenant.map_or_else(String::new, ToString::to_string),
                tenant_link: tenant
                    .filter(|_| is_platform)
                    .map(|tenant| view.address(Some(tenant))),
                requests: count(counts.requests),
                share: share(counts.requests, all).map_or_else(String::new, percent),
                errors: with_share(
                    counts.errors_4xx.saturating_add(counts.errors_5xx),
                    counts.requests,
                ),
                limited: with_share(counts.rate_limited, counts.requests),
                bar: share(counts.requests, most).unwrap_or_default() / 100,
            }
        };
        Ok(TopKeys {
            keys: ranked.keys.iter().map(key).collect(),
            others_max: (!is_certain).then(|| count(ranked.others_max)),
        })
    }
}
