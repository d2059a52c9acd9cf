//! What the list is asked for, as it stands in the address of the page.

use std::time::Duration;

use crate::admin::input::FieldError;
use crate::admin::listing::Listing;
use crate::clock::Timestamp;
use crate::key::MintKeys;

/// Keys in a page: what people can choose, the default first.
pub const PAGE_LENS: [usize; 3] = [25, 50, 100];
/// The longest time that a list looks back for keys that were not used: ten years.
const UNUSED_DAYS_MAX: u64 = 3650;
const DAY_SECONDS: u64 = 86_400;

/// The parameters that leave keys out.
pub const FILTERS: [&str; 6] = [
    "q",
    "tenant_id",
    "status",
    "environment",
    "expiring_within_days",
    "unused_for_days",
];
/// How the rest is shown.
const VIEW: [&str; 2] = ["sort", "limit"];
/// Where the page is; another filter or order begins again.
const PLACE: [&str; 2] = ["cursor", "before"];

/// The parameters that the page knows and that say something, in the order in which they came.
#[derive(Debug, Default)]
pub struct Asked(Vec<(String, String)>);

impl Asked {
    pub fn of(pairs: Vec<(String, String)>) -> Self {
        let known = |name: &str| {
            let mut names = FILTERS.iter().chain(&VIEW).chain(&PLACE);
            names.any(|known| *known == name)
        };
        let pairs = pairs
            .into_iter()
            .filter(|(name, value)| known(name) && !value.trim().is_empty())
            .map(|(name, value)| (name, value.trim().to_owned()));
        Asked(pairs.collect())
    }

    /// What `name` was given; nothing where it was not.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn has_filters(&self) -> bool {
        FILTERS.iter().any(|name| !self.get(name).is_empty())
    }

    /// Whether the page begins somewhere in the list.
    pub fn has_place(&self) -> bool {
        PLACE.iter().any(|name| !self.get(name).is_empty())
    }

    /// The address of the same list with `changes`, from its beginning. What is changed to nothing goes.
    pub fn with(&self, changes: &[(&str, &str)]) -> String {
        let kept = FILTERS.iter().chain(&VIEW).copied();
        let kept = kept.filter(|name| !changes.iter().any(|(changed, _)| changed == name));
        let kept = kept.map(|name| (name, self.get(name)));
        let all = kept.chain(changes.iter().copied());
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        query.extend_pairs(all.filter(|(_, value)| !value.is_empty()));
        query.finish()
    }

    /// The address of the list without filters.
    pub fn without_filters(&self) -> String {
        self.with(&FILTERS.map(|name| (name, "")))
    }

    /// What is to be read. All that is wrong is named at once.
    pub fn listing(
        &self,
        mint_keys: &MintKeys,
        now: Timestamp,
    ) -> Result<Listing, Vec<FieldError>> {
        let mut errors = Vec::new();
        let (mut limit, mut shared) = (PAGE_LENS[0], Vec::new());
        for (name, value) in &self.0 {
            let read = match name.as_str() {
                "limit" => page_len(value).map(|read| limit = read),
                "unused_for_days" => unused_since(value, now)
                    .map(|since| shared.push(("unused_since".to_owned(), since.to_string()))),
                _ => {
                    shared.push((name.clone(), value.clone()));
                    Ok(())
                }
            };
            errors.extend(read.err().map(|detail| FieldError {
                field: name.clone(),
                detail,
            }));
        }
        match Listing::read_form(&shared, mint_keys, now) {
            Ok(listing) if errors.is_empty() => Ok(Listing { limit, ..listing }),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }
}

fn page_len(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| PAGE_LENS.contains(limit));
    limit.ok_or_else(|| {
        let [first, second, third] = PAGE_LENS;
        format!("must be {first}, {second} or {third}")
    })
}

fn unused_since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let days = text.parse::<u64>().ok();
    let days = days.filter(|days| (1..=UNUSED_DAYS_MAX).contains(days));
    let days = days.ok_or_else(|| format!("must be 1 to {UNUSED_DAYS_MAX}"))?;
    let since = now.minus(Duration::from_secs(days * DAY_SECONDS));
    Ok(Timestamp::from_millis(since.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MintKey;

    const NOW: Timestamp = Timestamp::MAX;

    fn asked(query: &str) -> Asked {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Asked::of(pairs.collect())
    }

    fn read(query: &str) -> Result<Listing, Vec<String>> {
        let keys = MintKeys::new(MintKey::new(&[1; 32]), vec![]);
        let read = asked(query).listing(&keys, NOW);
        read.map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn nothing_and_what_is_empty_is_the_first_page() {
        for query in ["", "q=&status=&limit=&cursor=", "done=revoked&x=y", "q=%20"] {
            let listing = read(query).unwrap();
            assert_eq!(listing.limit, 25, "{query}");
            assert!(listing.filter.text.is_none(), "{query}");
            assert!(!asked(query).has_filters(), "{query}");
        }
    }

    #[test]
    fn days_count_from_now() {
        let listing = read("unused_for_days=30&limit=100&q=+a+b+").unwrap();
        let since = NOW.minus(Duration::from_secs(30 * 86_400));
        assert_eq!(listing.filter.unused_since, Some(since));
        assert_eq!(listing.limit, 100);
        assert_eq!(listing.filter.text.as_deref(), Some("a b"));
    }

    #[test]
    fn all_that_is_wrong_is_named() {
        let bad = read("limit=7&unused_for_days=0&status=lost&tenant_id=../x&q=a&q=b").err();
        assert_eq!(
            bad.unwrap(),
            ["limit", "unused_for_days", "status", "tenant_id", "q"]
        );
        assert_eq!(read("limit=26").err().unwrap(), ["limit"]);
    }

    #[test]
    fn addresses_keep_what_is_not_changed() {
        let asked = asked("status=active&cursor=abc&q=a%26b&sort=name&limit=50&done=saved");
        assert_eq!(
            asked.with(&[("sort", "-name")]),
            "?q=a%26b&status=active&limit=50&sort=-name"
        );
        assert_eq!(
            asked.with(&[("cursor", "x")]),
            "?q=a%26b&status=active&sort=name&limit=50&cursor=x"
        );
        assert_eq!(asked.without_filters(), "?sort=name&limit=50");
        assert!(asked.has_place() && asked.has_filters());
    }
}
