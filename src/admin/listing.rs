//! Lists of keys, whoever shows them: what is asked for, read from a query, and a page of it. Here, once,
//! stands which keys a caller may see in a list.

use std::time::Duration;

use super::AdminState;
use super::access::Actor;
use super::answer::ApiError;
use super::api::cursor;
use super::api::query::{self, Detail};
use super::input::FieldError;
use super::operations::Uses;
use crate::clock::Timestamp;
use crate::key::{Environment, KeyRecord, MintKeys, Status};
use crate::store::{KeyFilter, KeyOrder, PageFrom, Position};

/// Keys in a page where nothing is said.
const PAGE_LEN_DEFAULT: usize = 50;
/// The longest time that a list looks ahead for keys that expire: ten years.
const WITHIN_DAYS_MAX: u32 = 3650;
const OTHER_ORDER: &str = "is that of a list with another sort; leave it out to start again";

/// What a list is asked for.
#[derive(Debug, Clone)]
pub struct Listing {
    pub filter: KeyFilter,
    pub order: KeyOrder,
    pub from: PageFrom,
    pub limit: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Listing {
            filter: KeyFilter::default(),
            order: KeyOrder::NEWEST_FIRST,
            from: PageFrom::Start,
            limit: PAGE_LEN_DEFAULT,
        }
    }
}

/// A page of a list, with what its keys were used for, and the cursors of its neighbours: `next` is to
/// be sent as `cursor`, `previous` as `before`.
#[derive(Debug, Default)]
pub struct ListPage {
    pub records: Vec<KeyRecord>,
    pub uses: Uses,
    pub next: Option<String>,
    pub previous: Option<String>,
}

/// A listing while it is read.
struct Reader<'a> {
    listing: Listing,
    /// The parameter with the page's place, and in which order it is one.
    place: Option<(&'static str, KeyOrder)>,
    mint_keys: &'a MintKeys,
    now: Timestamp,
}

impl<'a> Reader<'a> {
    fn new(mint_keys: &'a MintKeys, now: Timestamp) -> Self {
        Reader {
            listing: Listing::default(),
            place: None,
            mint_keys,
            now,
        }
    }

    fn place(&mut self, name: &'static str, value: &str) -> Result<Position, Detail> {
        let (order, position) = query::cursor(cursor::read(value, self.mint_keys))?;
        self.place = Some((name, order));
        Ok(position)
    }

    /// Takes what every list has; `false` for a parameter that is none of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Detail> {
        let now = self.now;
        let filter = &mut self.listing.filter;
        match name {
            "limit" => self.listing.limit = query::page_len(value)?,
            "sort" => {
                let order = KeyOrder::from_name(value);
                self.listing.order = order.ok_or_else(sorts)?;
            }
            "cursor" => self.listing.from = PageFrom::After(self.place("cursor", value)?),
            "tenant_id" => filter.tenant_id = Some(query::parsed(value)?),
            "status" => {
                let status = Status::from_name(value);
                let status = status.ok_or("must be active, disabled, expired or revoked")?;
                filter.status = Some((status, now));
            }
            "environment" => {
                let environment = Environment::from_name(value);
                filter.environment = Some(environment.ok_or("must be live or test")?);
            }
            "expiring_before" => filter.expiring_before = Some(query::time(value)?),
            "unused_since" => filter.unused_since = Some(query::time(value)?),
            "q" => filter.text = Some(query::search(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what only pages for people have.
    fn take_for_people(&mut self, name: &str, value: &str) -> Result<(), Detail> {
        match name {
            "before" => self.listing.from = PageFrom::Before(self.place("before", value)?),
            "expiring_within_days" => {
                let days = value.parse::<u32>().ok();
                let days = days.filter(|days| (1..=WITHIN_DAYS_MAX).contains(days));
                let days = days.ok_or_else(|| format!("must be 1 to {WITHIN_DAYS_MAX}"))?;
                let span = Duration::from_secs(u64::from(days) * 86_400);
                self.listing.filter.expiring_before = Some(self.now.plus(span));
            }
            _ => drop(self.take(name, value)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Listing, Vec<FieldError>> {
        match self.place {
            Some((name, order)) if order != self.listing.order => Err(vec![FieldError {
                field: name.to_owned(),
                detail: OTHER_ORDER.to_owned(),
            }]),
            _ => Ok(self.listing),
        }
    }
}

fn sorts() -> Detail {
    let names = KeyOrder::ALL.map(KeyOrder::as_str);
    format!("must be one of {}", names.join(", "))
}

impl Listing {
    /// Reads the query of a program. What is not known there is wrong.
    pub fn read(
        pairs: &[(String, String)],
        mint_keys: &MintKeys,
        now: Timestamp,
    ) -> Result<Self, Vec<FieldError>> {
        let mut reader = Reader::new(mint_keys, now);
        query::read(pairs, |name, value| reader.take(name, value))?;
        reader.finish()
    }

    /// Reads the query of a page for people, as a form sends it: what is empty is not asked for, and
    /// what is not known belongs to something else of the page. Besides the API's parameters there are
    /// `before` and `expiring_within_days`.
    pub fn read_form(
        pairs: &[(String, String)],
        mint_keys: &MintKeys,
        now: Timestamp,
    ) -> Result<Self, Vec<FieldError>> {
        let mut reader = Reader::new(mint_keys, now);
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .cloned()
            .collect();
        query::read(&pairs, |name, value| {
            reader.take_for_people(name, value).map(|()| true)
        })?;
        reader.finish()
    }
}

/// The page that `actor` gets. Without `sidekey:admin` only keys of the own tenant are there.
pub async fn page(
    state: &AdminState,
    actor: &Actor,
    listing: Listing,
) -> Result<ListPage, ApiError> {
    let Listing {
        mut filter,
        order,
        from,
        limit,
    } = listing;
    if !actor.is_admin() {
        let asked = filter.tenant_id.replace(actor.tenant_id.clone());
        if asked.is_some_and(|tenant| tenant != actor.tenant_id) {
            // Another tenant's keys are not there.
            return Ok(ListPage::default());
        }
    }
    let page = state.keys.page(&filter, order, &from, limit).await?;
    let uses = Uses::of(state, &page.keys).await?;
    let cursor = |position: Option<Position>| {
        let write = |position| cursor::write(order, &position, &state.keys.mint_keys);
        position.map(write).transpose()
    };
    Ok(ListPage {
        records: page.keys,
        uses,
        next: cursor(page.next)?,
        previous: cursor(page.previous)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;
    use crate::store::{SortBy, Value};

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect()
    }

    fn keys() -> MintKeys {
        MintKeys::new(MintKey::new(&[1; 32]), vec![])
    }

    fn bad(read: Result<Listing, Vec<FieldError>>) -> Vec<String> {
        let errors = read.err().unwrap_or_default();
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn a_program_has_to_know_what_it_asks_for() {
        let read = |text| Listing::read(&pairs(text), &keys(), now());
        let listing = read("").unwrap();
        assert_eq!(listing.order, KeyOrder::NEWEST_FIRST);
        assert_eq!((listing.from, listing.limit), (PageFrom::Start, 50));
        let listing = read("sort=-expires_at&status=active&q=").unwrap();
        assert_eq!(listing.order, KeyOrder::descending(SortBy::Expires));
        assert_eq!(listing.filter.status, Some((Status::Active, now())));
        assert_eq!(
            bad(read("sort=hint&before=x&expiring_within_days=1&status=")),
            ["sort", "before", "expiring_within_days", "status"]
        );
    }

    #[test]
    fn people_may_leave_fields_empty() {
        let read = |text| Listing::read_form(&pairs(text), &keys(), now());
        let listing = read("sort=&status=&tenant_id=&q=&cursor=&done=saved").unwrap();
        assert!(listing.filter.tenant_id.is_none() && listing.filter.status.is_none());
        let listing = read("expiring_within_days=2").unwrap();
        let end = now().as_millis() + 2 * 86_400_000;
        assert_eq!(
            listing.filter.expiring_before,
            Some(Timestamp::from_millis(end))
        );
        assert_eq!(
            bad(read("expiring_within_days=0&before=x&status=no")),
            ["expiring_within_days", "before", "status"]
        );
    }

    #[test]
    fn a_cursor_is_one_of_its_order() {
        let by_name = KeyOrder::ascending(SortBy::Name);
        let position =
            Position::behind(Value::Text("a".to_owned()), "4fzN8cQ2pLrT".parse().unwrap());
        let cursor = cursor::write(by_name, &position, &keys()).unwrap();
        let read = |text: String| Listing::read(&pairs(&text), &keys(), now());
        let listing = read(format!("cursor={cursor}&sort=name")).unwrap();
        assert_eq!(listing.from, PageFrom::After(position.clone()));
        for sort in ["", "&sort=-name"] {
            assert_eq!(bad(read(format!("cursor={cursor}{sort}"))), ["cursor"]);
        }
        let text = format!("sort=name&before={cursor}");
        let listing = Listing::read_form(&pairs(&text), &keys(), now()).unwrap();
        assert_eq!(listing.from, PageFrom::Before(position));
    }
}
