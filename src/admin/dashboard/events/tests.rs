use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::audit::entry::Head;
use crate::audit::seal::Sealer;
use crate::audit::{self, Note};

const ADMIN: Reader = Reader {
    may_read_keys: true,
    is_admin: true,
};
const TENANT: Reader = Reader {
    may_read_keys: true,
    is_admin: false,
};
const AUDITOR: Reader = Reader {
    may_read_keys: false,
    is_admin: false,
};

fn entry(action: Action, details: Value) -> Entry {
    let mut note = Note::by_system(action, Timestamp::from_millis(1_700_000_000_123));
    note.origin.actor = audit::Actor::Key("4fzN8cQ2pLrT".parse().unwrap());
    note.key_id = "000000000001".parse().ok();
    note.tenant_id = "acme".parse().ok();
    note.details = details.as_object().cloned().unwrap_or_default();
    Entry::after(&Head::genesis(), &note, &Sealer::new(&[]))
}

#[test]
fn every_action_has_words_of_its_own() {
    let said: HashSet<&str> = Action::ALL.into_iter().map(words).collect();
    assert_eq!(said.len(), Action::ALL.len());
    for text in said {
        assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
    }
}

#[test]
fn a_change_shows_each_field_before_and_after() {
    let details = json!({
        "name": {"from": "a", "to": "b"},
        "expires_at": {"from": null, "to": "2027-01-31T12:00:00Z"},
        "rate_limits": {"from": [{"name": "day", "quota": 10, "window_seconds": 60, "burst": 5}], "to": []},
        "metadata": {"from": {"a": 1}, "to": {}},
        "scopes": {"from": ["a:b"], "to": ["a:b", "c:d"]},
    });
    let row = row(&entry(Action::KeyChanged, details), ADMIN);
    let texts: Vec<_> = row
        .changes
        .iter()
        .map(|change| {
            let text = |shown: &Option<Shown>| shown.as_ref().map_or("", |it| &*it.text).to_owned();
            (&*change.field, text(&change.from), text(&change.to))
        })
        .collect();
    let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let expected = [
        ("name", own("a", "b")),
        ("expires at", own("none", "2027-01-31 12:00:00 UTC")),
        ("rate limits", own("day: 10 in 60 s, 5 at once", "none")),
        ("metadata", own(r#"{"a":1}"#, "none")),
        ("scopes", own("a:b", "a:b, c:d")),
    ];
    let expected = expected.map(|(field, (from, to))| (field, from, to));
    assert_eq!(texts, expected);
    assert_eq!(
        row.summary.as_deref(),
        Some("name, expires at, rate limits, metadata and 1 more")
    );
    assert_eq!(row.at.text, "2023-11-14 22:13:20 UTC");
    assert!(row.has_before && !row.is_cut);
}

#[test]
fn of_something_new_its_name_and_what_it_has_are_told() {
    let details =
        json!({"name": {"to": "Export"}, "metadata": {"to": {}}, "expires_at": {"to": null}});
    let row = row(&entry(Action::KeyCreated, details), ADMIN);
    assert_eq!(row.summary.as_deref(), Some("Export"));
    assert!(!row.has_before && row.changes.len() == 1);
}

#[test]
fn a_refused_call_says_what_it_was_refused_with() {
    let details = json!({"method": "GET", "path": "/x", "status": 403,
        "problem": Kind::InsufficientScope.uri(), "presented_key_id": "000000000002"});
    let row = row(&entry(Action::AdminCallRefused, details), ADMIN);
    let refused = row.refused.unwrap();
    assert_eq!(refused.status, "403");
    assert_eq!(refused.problem, Kind::InsufficientScope.title());
    assert_eq!(row.summary.as_deref(), Some("GET /x"));
    assert_eq!(row.facts.len(), 1, "{:?}", row.facts);
    assert_eq!(row.facts[0].name, "key that was named");
}

#[test]
fn links_lead_where_the_reader_may_go() {
    let of = |entry: &Entry, reader| {
        let row = row(entry, reader);
        let named = [Some(row.actor), row.key, row.tenant];
        named.map(|named| named.and_then(|named| named.path).is_some())
    };
    let mut entry = entry(Action::KeyRevoked, json!({}));
    assert_eq!(of(&entry, ADMIN), [true, true, true]);
    assert_eq!(of(&entry, TENANT), [false, true, true]);
    assert_eq!(of(&entry, AUDITOR), [false, false, false]);
    entry.key_id = Some("4fzN8cQ2pLrT".to_owned());
    assert_eq!(of(&entry, TENANT), [true, true, true]);
    for odd in ["../../x", "javascript:alert(1)", "\"><script>", ""] {
        entry.actor = format!("key:{odd}");
        entry.key_id = Some(odd.to_owned());
        entry.tenant_id = Some(odd.to_owned());
        assert_eq!(of(&entry, ADMIN), [false, false, false], "{odd}");
    }
}

#[test]
fn anything_may_stand_in_an_entry() {
    let mut odd = entry(Action::KeyChanged, json!({}));
    odd.action = "key.made_up".to_owned();
    odd.actor = String::new();
    for details in [
        "",
        "[]",
        "{",
        r#"{"a":{"from":[[{}]],"to":{"b":null}},"":7}"#,
    ] {
        odd.details = details.to_owned();
        let row = row(&odd, ADMIN);
        assert_eq!(row.words, "key.made_up");
    }
    odd.details = json!({"x": {"to": "ü".repeat(LINE_LEN_MAX)}}).to_string();
    let row = row(&odd, ADMIN);
    assert!(row.is_cut && row.line.len() <= LINE_LEN_MAX);
    let text = &row.changes[0].to.as_ref().unwrap().text;
    assert!(text.ends_with("ü…"), "{text}");
}
