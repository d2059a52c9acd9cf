//! The columns of the list, and by which of them it is sorted.

use super::asked::Asked;
use crate::store::{KeyOrder, SortBy};

/// The head of a column.
pub struct Column {
    pub text: &'static str,
    /// The whole word, where the text is less.
    pub title: &'static str,
    pub class: &'static str,
    pub sort: Option<Sort>,
}

/// Sorting by a column.
pub struct Sort {
    /// The list in the next order that this column has.
    pub href: String,
    /// How it is sorted now: empty where it is by something else.
    pub now: &'static str,
}

/// What comes first where somebody sorts by a column.
const NAME: KeyOrder = KeyOrder::ascending(SortBy::Name);
const LAST_USED: KeyOrder = KeyOrder::descending(SortBy::LastUsed);
const EXPIRES: KeyOrder = KeyOrder::ascending(SortBy::Expires);
const ROTATION_DUE: KeyOrder = KeyOrder::ascending(SortBy::RotationDue);

/// The columns that a caller sees who sees all tenants, or usage.
pub fn columns(asked: &Asked, order: KeyOrder, has_tenant: bool, has_usage: bool) -> Vec<Column> {
    let plain = |text, class| Column {
        text,
        title: "",
        class,
        sort: None,
    };
    let sorted = |text, first| Column {
        text,
        title: "",
        class: "",
        sort: Some(sort(asked, order, first)),
    };
    let mut columns = vec![sorted("Name", NAME)];
    if has_tenant {
        columns.push(plain("Tenant", ""));
    }
    columns.push(Column {
        title: "Environment",
        ..plain("Env.", "")
    });
    columns.push(plain("Scopes", ""));
    columns.push(plain("Status", ""));
    columns.push(sorted("Last used", LAST_USED));
    if has_usage {
        columns.push(plain("Requests, 24 h", "num"));
    }
    columns.push(sorted("Expires", EXPIRES));
    columns.push(sorted("Rotation due", ROTATION_DUE));
    columns
}

fn sort(asked: &Asked, now: KeyOrder, first: KeyOrder) -> Sort {
    let other = KeyOrder {
        is_descending: !first.is_descending,
        ..first
    };
    let next = match now {
        _ if now == first => other.as_str(),
        // The third time leads back to where the list began.
        _ if now == other => "",
        _ => first.as_str(),
    };
    Sort {
        href: asked.with(&[("sort", next)]),
        now: match now {
            _ if now.by != first.by => "",
            _ if now.is_descending => "descending",
            _ => "ascending",
        },
    }
}

/// An order in words.
pub fn in_words(order: KeyOrder) -> &'static str {
    match (order.by, order.is_descending) {
        (SortBy::Created, true) => "newest first",
        (SortBy::Created, false) => "oldest first",
        (SortBy::Name, false) => "by name",
        (SortBy::Name, true) => "by name, backwards",
        (SortBy::LastUsed, true) => "last used first",
        (SortBy::LastUsed, false) => "longest unused first",
        (SortBy::Expires, false) => "next to expire first",
        (SortBy::Expires, true) => "last to expire first",
        (SortBy::RotationDue, false) => "next to be rotated first",
        (SortBy::RotationDue, true) => "last to be rotated first",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Asked {
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Asked::of(pairs.collect())
    }

    #[test]
    fn a_column_sorts_one_way_then_the_other_then_not() {
        let step = |sort: &str| {
            let order = KeyOrder::from_name(sort).unwrap();
            let asked = asked(&format!("sort={sort}&q=a&cursor=x"));
            let columns = columns(&asked, order, true, true);
            let column = columns
                .into_iter()
                .find(|column| column.text == "Last used");
            let sort = column.unwrap().sort.unwrap();
            (sort.href, sort.now)
        };
        assert_eq!(step("name"), ("?q=a&sort=-last_used_at".to_owned(), ""));
        let first = ("?q=a&sort=last_used_at".to_owned(), "descending");
        assert_eq!(step("-last_used_at"), first);
        assert_eq!(step("last_used_at"), ("?q=a".to_owned(), "ascending"));
    }

    #[test]
    fn columns_are_those_that_the_caller_sees() {
        let texts = |has_tenant, has_usage| -> Vec<&str> {
            let columns = columns(&asked(""), KeyOrder::NEWEST_FIRST, has_tenant, has_usage);
            columns.iter().map(|column| column.text).collect()
        };
        assert_eq!(texts(true, true).len(), 9);
        let few = texts(false, false);
        assert!(!few.contains(&"Tenant") && !few.contains(&"Requests, 24 h"));
    }

    #[test]
    fn every_order_has_its_words() {
        let words: std::collections::HashSet<_> = KeyOrder::ALL.map(in_words).into();
        assert_eq!(words.len(), KeyOrder::ALL.len());
    }
}
