//! The filters of the audit page, as they were filled in and as the log is asked.

use crate::admin::api::query;
use crate::admin::audit_log::{self, read_cursor};
use crate::admin::input::FieldError;
use crate::audit::Action;
use crate::key::format::redact;
use crate::store::EventFilter;

use super::super::events::words;
use super::super::moment::{from_field, to_field};
use super::super::words::sentence;

/// Where a page of the log starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    #[default]
    Newest,
    /// With what is older than this entry.
    After(i64),
    /// With what is newer.
    Before(i64),
}

/// A filter as it was filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    pub value: String,
    pub error: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Filters {
    pub key_id: Field,
    pub tenant_id: Field,
    pub actor: Field,
    pub action: Field,
    pub from: Field,
    pub to: Field,
    /// Whether something is wrong with where the page is to start.
    pub is_misplaced: bool,
    pub place: Place,
    pub filter: EventFilter,
}

/// An action to choose.
pub struct Choice {
    pub name: &'static str,
    pub words: &'static str,
    pub is_chosen: bool,
}

impl Filters {
    /// Reads a query. What is left empty is no filter; what no filter is called is for others to read.
    pub fn read(pairs: &[(String, String)]) -> Self {
        let mut filters = Filters::default();
        let given: Vec<(String, String)> = pairs
            .iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, value)| (name.clone(), value.trim().to_owned()))
            .collect();
        for (name, value) in &given {
            if let Some(field) = filters.field(name) {
                // Somebody may have put a key where it does not belong.
                field.value = redact(value).into_owned();
            }
        }
        let (mut filter, mut place) = (EventFilter::default(), Place::Newest);
        let read = query::read(&given, |name, value| match name {
            "cursor" => set(&mut place, Place::After, value),
            "before" => set(&mut place, Place::Before, value),
            "from" | "to" => audit_log::take(&mut filter, name, &exact(value)),
            _ => audit_log::take(&mut filter, name, value).map(|_| true),
        });
        for FieldError { field, detail } in read.err().unwrap_or_default() {
            match filters.field(&field) {
                Some(field) => field.error = Some(sentence(&redact(&detail))),
                None => filters.is_misplaced = true,
            }
        }
        for (field, moment) in [
            (&mut filters.from, filter.from),
            (&mut filters.to, filter.to),
        ] {
            // The field of a moment holds nothing else.
            let moment = moment.filter(|_| field.error.is_none());
            field.value = moment.map(to_field).unwrap_or_default();
        }
        filters.filter = filter;
        filters.place = place;
        filters
    }

    fn field(&mut self, name: &str) -> Option<&mut Field> {
        Some(match name {
            "key_id" => &mut self.key_id,
            "tenant_id" => &mut self.tenant_id,
            "actor" => &mut self.actor,
            "action" => &mut self.action,
            "from" => &mut self.from,
            "to" => &mut self.to,
            _ => return None,
        })
    }

    fn named(&self) -> [(&'static str, &Field); 6] {
        [
            ("key_id", &self.key_id),
            ("tenant_id", &self.tenant_id),
            ("actor", &self.actor),
            ("action", &self.action),
            ("from", &self.from),
            ("to", &self.to),
        ]
    }

    /// What is wrong with them, by their names.
    pub fn complaints(&self) -> Vec<(&'static str, &str)> {
        let wrong = self.named().into_iter();
        wrong
            .filter_map(|(name, field)| Some((name, field.error.as_deref()?)))
            .collect()
    }

    pub fn are_sound(&self) -> bool {
        !self.is_misplaced && self.complaints().is_empty()
    }

    /// Whether any is filled in.
    pub fn are_given(&self) -> bool {
        self.named()
            .iter()
            .any(|(_, field)| !field.value.is_empty())
    }

    /// The query of these filters, with `more`.
    pub fn query(&self, more: Option<(&str, &str)>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, field) in self.named() {
            if !field.value.is_empty() {
                query.append_pair(name, &field.value);
            }
        }
        if let Some((name, value)) = more {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// The actions, by their words.
    pub fn actions(&self) -> Vec<Choice> {
        let choice = |action: Action| Choice {
            name: action.as_str(),
            words: words(action),
            is_chosen: self.action.value == action.as_str(),
        };
        Action::ALL.into_iter().map(choice).collect()
    }
}

fn set(
    place: &mut Place,
    make: impl FnOnce(i64) -> Place,
    value: &str,
) -> Result<bool, query::Detail> {
    *place = make(query::cursor(read_cursor(value))?);
    Ok(true)
}

/// A moment with its zone: what a browser sends has none, and says UTC therefore.
fn exact(value: &str) -> String {
    from_field(value).map_or_else(|| value.to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Filters {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Filters::read(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_empty_is_no_filter() {
        let filters = read("key_id=&tenant_id=+&actor=&action=&from=&to=&done=saved");
        assert!(filters.are_sound() && !filters.are_given());
        assert_eq!(filters.query(None), "");
        assert_eq!(filters.place, Place::Newest);
    }

    #[test]
    fn moments_are_read_as_browsers_and_the_api_write_them() {
        for (given, shown) in [
            ("2026-11-26T01:44", "2026-11-26T01:44"),
            ("2026-11-26T01:44:05", "2026-11-26T01:44:05"),
            ("2026-11-26T01:44:00Z", "2026-11-26T01:44"),
            ("2026-11-26T03:44:00.000+02:00", "2026-11-26T01:44"),
        ] {
            let filters = read(&format!("from={}", given.replace('+', "%2B")));
            assert!(filters.are_sound(), "{given}: {:?}", filters.from);
            assert_eq!(filters.from.value, shown);
            let again = read(&filters.query(None));
            assert_eq!(again.filter.from, filters.filter.from);
        }
    }

    #[test]
    fn whatever_is_wrong_is_said_where_it_stands() {
        let filters = read("key_id=x&tenant_id=/&actor=x&action=x&from=x&to=2026-13-01T00:00");
        assert!(!filters.are_sound() && !filters.is_misplaced);
        for (name, field) in filters.named() {
            assert!(field.error.is_some(), "{name}");
        }
        assert_eq!(filters.key_id.value, "x");
        assert!(read("cursor=x").is_misplaced && read("before=?").is_misplaced);
        let twice = read("actor=system&actor=unknown");
        assert!(twice.actor.error.is_some());
    }

    #[test]
    fn no_address_repeats_a_secret() {
        let key = format!("sk_live_4fzN8cQ2pLrT_{}", "s".repeat(54));
        let filters = read(&format!("key_id={key}&from={key}"));
        assert!(!filters.query(None).contains("ssss"));
    }

    #[test]
    fn pages_start_where_they_are_told() {
        let cursor = audit_log::write_cursor(7);
        assert_eq!(read(&format!("cursor={cursor}")).place, Place::After(7));
        assert_eq!(read(&format!("before={cursor}")).place, Place::Before(7));
    }
}
