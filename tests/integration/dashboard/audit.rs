//! The audit page over plain HTTP: what it says, to whom, and that nothing in it is taken for markup.

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sidekey::audit::Action;
use sidekey::store::SqlStore;
use sqlx::{AssertSqlSafe, Executor};

use super::visit::{Visit, between, csrf, unescaped};
use crate::audit::{EVENTS, events, events_as, lines};
use crate::harness::eventually;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::smtp::Smtp;
use crate::harness::upstream::nobody;
use crate::reminders::program::age;

const AUDIT: &str = "/dashboard/audit";
const VERIFICATION: &str = "/dashboard/audit/verification";
const TENANTS: &str = "/api/v1/platform/tenants";

/// What is said of each action.
const WORDS: [(Action, &str); Action::ALL.len()] = [
    (Action::KeyCreated, "API key created"),
    (Action::KeyChanged, "API key changed"),
    (Action::KeyRegenerated, "Secret replaced"),
    (Action::KeyOverlapEnded, "Old secret ended"),
    (Action::KeyRevoked, "API key revoked"),
    (Action::KeyImported, "API key imported"),
    (Action::KeyReminderSent, "Reminder of rotation sent"),
    (Action::KeyReminderFailed, "Reminder of rotation not sent"),
    (Action::TenantCreated, "Tenant created"),
    (Action::TenantChanged, "Tenant changed"),
    (Action::TenantSuspended, "Tenant suspended"),
    (Action::TenantResumed, "Tenant resumed"),
    (Action::AdminSignedIn, "Signed in from a new address"),
    (Action::AdminSignedOut, "Signed out"),
    (Action::AdminCallRefused, "Call refused"),
];

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

/// The numbers of the entries in a page, in its order.
fn seqs(page: &str) -> Vec<i64> {
    let ids = between(page, "id=\"event-", "\"").into_iter();
    ids.map(|id| id.parse().expect("a number")).collect()
}

fn seqs_of(events: &[Value]) -> Vec<i64> {
    let seqs = events.iter().map(|event| event["seq"].as_i64());
    seqs.map(|seq| seq.expect("a number")).collect()
}

/// The address of a link.
fn link<'p>(page: &'p str, text: &str) -> Option<&'p str> {
    let before = page.split(&format!(" data-swap=\"#log\">{text}<")).next()?;
    let is_there = before.len() < page.len();
    is_there.then(|| before.rsplit("href=\"").next()?.split('"').next())?
}

/// Everything that is noted, once.
async fn everything(sidekey: &Sidekey) {
    let ask = async |method, path: &str, body: Value, status: u16| {
        let reply = sidekey.ask(method, path, Some(&body)).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    };
    let key = sidekey.create_key(json!({"name": "first"})).await;
    sidekey.change_key(&key.id, json!({"name": "second"})).await;
    sidekey.regenerate_key(&key.id, 3600).await;
    let path = format!("{KEYS}/{}", key.id);
    let overlap = format!("{path}/previous-secret");
    let ended = sidekey.ask(Method::DELETE, &overlap, None).await;
    assert!(ended.status < 300, "{ended:?}");
    sidekey.revoke_key(&key.id).await;
    let imported = json!({"name": "old", "tenant_id": "acme", "environment": "live",
        "scopes": ["orders:read"], "key": "an-old-key-of-theirs-7fK2mQ9xLr4TzB8w"});
    let import = sidekey
        .admin(Method::POST, &format!("{KEYS}/import"))
        .header("content-type", "application/jsonl")
        .body(imported.to_string());
    assert_eq!(import.send().await.unwrap().status(), 200);
    let tenant = format!("{TENANTS}/globex");
    ask(Method::PUT, &tenant, json!({"display_name": "Globex"}), 201).await;
    ask(Method::PUT, &tenant, json!({"display_name": "G"}), 200).await;
    ask(Method::POST, &format!("{tenant}/suspend"), json!({}), 200).await;
    ask(Method::POST, &format!("{tenant}/resume"), json!({}), 200).await;
    let refused = sidekey.ask_as(None, Method::GET, KEYS, None).await;
    assert_eq!(refused.status, 401);
}

/// Waits until what is noted beside answers is written.
async fn written(sidekey: &Sidekey, action: &str, count: usize) {
    eventually(&format!("{action} is noted {count} times"), || async {
        events(sidekey, &format!("action={action}")).await.len() >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_has_its_words() {
    let smtp = Smtp::start("none");
    let often = format!("[reminders]\ninterval_seconds = 1\n{}", smtp.config());
    let sidekey = Sidekey::start(&config(nobody(), &often)).await;
    everything(&sidekey).await;
    for (email, action) in [
        ("ops@acme.example", "key.reminder_sent"),
        ("bounce@acme.example", "key.reminder_failed"),
    ] {
        let key = sidekey.create_key(json!({"contact_email": email})).await;
        age(&sidekey, &key.id, 80).await;
        written(&sidekey, action, 1).await;
    }
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    let other = Visit::of(&sidekey, &sidekey.admin_key()).await;
    let page = other.page(AUDIT).await;
    let proof = [("csrf", csrf(&page))];
    let left = other.post("/dashboard/sign-out", &proof).await;
    assert_eq!(left.status, 303, "{left:?}");
    // Whoever has signed out is new there with the next call.
    for (action, count) in [
        ("admin.signed_in", 2),
        ("admin.signed_out", 1),
        ("admin.call_refused", 1),
    ] {
        written(&sidekey, action, count).await;
    }
    for (action, words) in WORDS {
        let page = visit
            .page(&format!("{AUDIT}?action={}", action.as_str()))
            .await;
        let shown = format!(">{words}</span>");
        let rows = seqs(&page).len();
        assert!(rows > 0, "{words}");
        assert_eq!(page.matches(&shown).count(), rows, "{words}");
        assert!(page.contains(&format!("selected>{words}</option>")));
    }
    let page = visit.page(AUDIT).await;
    let all = events(&sidekey, "").await;
    assert_eq!(seqs(&page), seqs_of(&all), "newest first");
    for event in &all {
        for member in ["at", "request_id", "hash", "previous_hash"] {
            if let Some(text) = event[member].as_str() {
                assert!(page.contains(text), "{member} of {event}");
            }
        }
    }
    // A change field by field, who did it, and what was refused.
    let changed = visit.page(&format!("{AUDIT}?action=key.changed")).await;
    assert!(changed.contains("<th scope=\"row\">name</th>"), "{changed}");
    assert!(changed.contains(">first</span></td>") && changed.contains(">second</span></td>"));
    let key_id = all.iter().find(|event| event["action"] == "key.changed");
    let key_id = key_id.unwrap()["key_id"].as_str().unwrap();
    let path = format!("/dashboard/settings/developers/api-keys/{key_id}");
    assert!(changed.contains(&format!("href=\"{path}\"")));
    let refused = visit
        .page(&format!("{AUDIT}?action=admin.call_refused"))
        .await;
    assert!(
        refused.contains("401 An API key is needed") && refused.contains(&format!("GET {KEYS}"))
    );
    assert!(refused.contains("somebody unknown"));
    let created = visit.page(&format!("{AUDIT}?actor=system")).await;
    assert!(created.contains("Sidekey itself"));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_those_of_the_api() {
    let sidekey = start().await;
    everything(&sidekey).await;
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.signed_in", 1).await;
    written(&sidekey, "admin.call_refused", 1).await;
    let all = events(&sidekey, "").await;
    let changed = all.iter().find(|event| event["action"] == "key.changed");
    let changed = changed.unwrap();
    let (id, actor) = (&changed["key_id"], &changed["actor"]["key_id"]);
    let (id, actor) = (id.as_str().unwrap(), actor.as_str().unwrap());
    let at = changed["at"].as_str().unwrap();
    for query in [
        format!("key_id={id}"),
        "tenant_id=globex".to_owned(),
        format!("actor={actor}"),
        "actor=unknown".to_owned(),
        "action=tenant.changed".to_owned(),
        format!("from={at}"),
        format!("to={at}"),
        format!("key_id={id}&action=key.revoked&actor={actor}"),
        "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z".to_owned(),
    ] {
        let expected = seqs_of(&events(&sidekey, &query).await);
        let page = visit.page(&format!("{AUDIT}?{query}")).await;
        assert_eq!(seqs(&page), expected, "{query}");
        assert!(expected.len() < all.len(), "{query}");
    }
    // As a browser sends a form: empty fields, and times without a zone.
    let empty = "action=&key_id=&tenant_id=&actor=&from=2020-01-01T00%3A00&to=2999-01-01T00%3A00";
    let page = visit.page(&format!("{AUDIT}?{empty}")).await;
    assert_eq!(seqs(&page), seqs_of(&all));
    assert!(page.contains("value=\"2020-01-01T00:00\""));
    let none = visit.page(&format!("{AUDIT}?key_id=000000000000")).await;
    assert!(none.contains("No event fits the filters"));

    // What is wrong is said beside its field, what was typed stays, and nothing is shown.
    for (name, value, said) in [
        ("key_id", "x", "12"),
        ("tenant_id", "a/b", "1 to 64"),
        ("actor", "me", "system or unknown"),
        ("action", "key.lost", "key.created"),
        ("from", "yesterday", "RFC 3339"),
        ("to", "2026-13-40T00:00", "RFC 3339"),
    ] {
        let encoded = value.replace('/', "%2F");
        let reply = visit.get(&format!("{AUDIT}?{name}={encoded}")).await;
        assert_eq!(reply.status, 422, "{name}: {reply:?}");
        let id = name.replace('_', "-");
        let error = between(&reply.text, &format!("id=\"{id}-error\">"), "</p>");
        assert!(error[0].contains(said), "{name}: {error:?}");
        let tag = between(&reply.text, &format!(" id=\"{id}\""), ">")[0];
        assert!(tag.contains("aria-invalid=\"true\"") && tag.contains(&format!("{id}-error\"")));
        assert!(seqs(&reply.text).is_empty());
        // Choices and the fields of moments hold nothing else.
        if !["action", "from", "to"].contains(&name) {
            assert!(reply.text.contains(&format!("value=\"{value}\"")), "{name}");
        }
        let export = format!("{AUDIT}/export.jsonl?{name}={encoded}");
        assert_eq!(visit.get(&export).await.status, 422, "{name}");
    }
    assert_eq!(visit.get(&format!("{AUDIT}?cursor=x")).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_every_event_once_in_both_directions() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    for n in 0..70 {
        let name = json!({"name": format!("name {n}")});
        sidekey.change_key(&key.id, name).await;
    }
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.signed_in", 1).await;
    for query in [
        String::new(),
        format!("key_id={}&action=key.changed&actor=", key.id),
    ] {
        let expected = seqs_of(&events(&sidekey, &query.replace("&actor=", "")).await);
        let mut pages = vec![visit.page(&format!("{AUDIT}?{query}")).await];
        assert!(link(&pages[0], "Newer").is_none());
        while let Some(path) = link(pages.last().unwrap(), "Older") {
            let page = visit.page(&unescaped(path)).await;
            pages.push(page);
        }
        assert_eq!(pages.len(), 3);
        let walked: Vec<i64> = pages.iter().flat_map(|page| seqs(page)).collect();
        assert_eq!(walked, expected, "{query}");
        let mut page = pages.pop().unwrap();
        while let Some(path) = link(&page, "Newer") {
            page = visit.page(&unescaped(path)).await;
            assert_eq!(seqs(&page), seqs(&pages.pop().unwrap()), "{query}");
        }
        assert!(pages.is_empty(), "{query}");
    }
}

/// What nobody wants to see run.
const PLANTED: &str =
    "</pre></td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}";

fn assert_harmless(page: &str) {
    for markup in [
        "<script>alert",
        "<img src=x",
        "onerror=alert(2)>\"",
        "</pre></td>",
    ] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_typed_is_text() {
    let sidekey = start().await;
    let planted = json!({
        "name": PLANTED, "metadata": {"a": PLANTED, "b<b>": "<i>", "c": "javascript:alert(1)"},
    });
    let key = sidekey.create_key(planted).await;
    sidekey.change_key(&key.id, json!({"name": "x"})).await;
    let body = json!({"display_name": PLANTED});
    let tenant = format!("{TENANTS}/globex");
    let put = sidekey.ask(Method::PUT, &tenant, Some(&body)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let odd = "/api/v1/platform/api-keys/%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let refused = sidekey.ask_as(None, Method::GET, odd, None).await;
    assert!(refused.status >= 400, "{refused:?}");
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.call_refused", 1).await;
    let page = visit.page(AUDIT).await;
    assert_harmless(&page);
    assert!(page.contains("&#60;script&#62;alert(1)"), "{page}");
    // In an address and in a form.
    let encoded: String = form_urlencoded::byte_serialize(PLANTED.as_bytes()).collect();
    for name in [
        "key_id",
        "tenant_id",
        "actor",
        "action",
        "from",
        "to",
        "cursor",
        "before",
        "done",
        "x",
    ] {
        let reply = visit.get(&format!("{AUDIT}?{name}={encoded}")).await;
        assert_harmless(&reply.text);
        let reply = visit
            .get(&format!("{AUDIT}/export.jsonl?{name}={encoded}"))
            .await;
        if reply.header("content-type") != Some("application/jsonl") {
            assert_harmless(&reply.text);
        }
    }
    // In a database that somebody else has written to.
    let database = database(&sidekey).await;
    for column in [
        "action",
        "tenant_id",
        "address",
        "request_id",
        "hash",
        "previous_hash",
        "details",
    ] {
        let sql = format!(
            "UPDATE audit_events SET {column} = '{}' WHERE seq = 2",
            PLANTED.replace('\'', "''")
        );
        database.writer().execute(AssertSqlSafe(sql)).await.unwrap();
    }
    for actor in [PLANTED.to_owned(), format!("key:{PLANTED}")] {
        let sql = format!(
            "UPDATE audit_events SET actor = '{0}', key_id = '{0}' WHERE seq = 2",
            actor.replace('\'', "''")
        );
        database.writer().execute(AssertSqlSafe(sql)).await.unwrap();
        let page = visit.page(AUDIT).await;
        assert_harmless(&page);
        assert!(seqs(&page).contains(&2));
    }
    database.close().await;
}

async fn database(sidekey: &Sidekey) -> SqlStore {
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    SqlStore::open(&SecretString::from(url)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_events_alone() {
    let sidekey = start().await;
    let reader = json!({"tenant_id": "acme", "scopes": ["sidekey:audit:read"]});
    let reader = sidekey.create_key(reader).await;
    let own = sidekey.create_key(json!({"tenant_id": "acme"})).await;
    let other = sidekey.create_key(json!({"tenant_id": "globex"})).await;
    let visit = Visit::of(&sidekey, &reader.text).await;
    eventually("the reader's sign-in is noted", || async {
        let query = format!("actor={}", reader.id);
        !events_as(&sidekey, &reader.text, &query).await.is_empty()
    })
    .await;
    let page = visit.page(AUDIT).await;
    let seen = events_as(&sidekey, &reader.text, "").await;
    assert_eq!(seqs(&page), seqs_of(&seen));
    assert!(page.contains(&own.id) && !page.contains(&other.id) && !page.contains("globex"));
    assert!(!page.contains("name=\"tenant_id\"") && !page.contains("Verify the whole log"));
    assert!(page.contains("an administrator verifies the whole chain"));
    // It may not look at keys, so nothing leads there.
    let to_key = format!("api-keys/{}\"", own.id);
    assert!(!page.contains(&to_key));
    for query in ["tenant_id=globex", &format!("key_id={}", other.id)] {
        let page = visit.page(&format!("{AUDIT}?{query}")).await;
        assert!(seqs(&page).is_empty(), "{query}");
        let export = visit.page(&format!("{AUDIT}/export.jsonl?{query}")).await;
        assert_eq!(export, "", "{query}");
    }
    let exported = visit.page(&format!("{AUDIT}/export.jsonl")).await;
    let exported = lines(&exported);
    assert!(exported.len() >= 3);
    assert!(exported.iter().all(|event| event["tenant_id"] == "acme"));
    assert_eq!(visit.get(VERIFICATION).await.status, 403);
    let begun = visit.post(VERIFICATION, &[("csrf", csrf(&page))]).await;
    assert_eq!(begun.status, 403, "{begun:?}");

    // Who may not read it at all, and who is nobody.
    let plain = json!({"scopes": ["sidekey:keys:read"]});
    let plain = sidekey.create_key(plain).await;
    let visit = Visit::of(&sidekey, &plain.text).await;
    for path in [AUDIT, &format!("{AUDIT}/export.jsonl"), VERIFICATION] {
        let reply = visit.get(path).await;
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
        assert!(reply.text.contains("<h1"), "{path}: {reply:?}");
        let url = format!("http://{}{path}", sidekey.admin);
        let nobody = sidekey.client.get(url).send().await.unwrap();
        assert_eq!(nobody.status(), 303, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_that_of_the_api() {
    let sidekey = start().await;
    everything(&sidekey).await;
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.signed_in", 1).await;
    written(&sidekey, "admin.call_refused", 1).await;
    for query in ["", "?action=key.changed", "?tenant_id=globex&actor=unknown"] {
        let ours = visit.get(&format!("{AUDIT}/export.jsonl{query}")).await;
        let path = format!("{EVENTS}/export{query}");
        let theirs = sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(ours.text, theirs.text, "{query}");
        assert_eq!(ours.header("content-type"), Some("application/jsonl"));
        let disposition = ours.header("content-disposition").unwrap_or_default();
        assert!(disposition.starts_with("attachment;"), "{disposition}");
        assert_eq!(ours.header("cache-control"), Some("no-store"));
    }
    // The link takes the filters along.
    let page = visit.page(&format!("{AUDIT}?action=key.changed")).await;
    assert!(page.contains(&format!("href=\"{AUDIT}/export.jsonl?action=key.changed\"")));
}

/// The chain's mark in a page.
fn mark(page: &str) -> String {
    let section = between(page, "<section id=\"chain\"", "</section>");
    let text = section[0]
        .split('<')
        .filter_map(|part| part.split_once('>'));
    let text: Vec<&str> = text.map(|(_, text)| text).collect();
    text.concat()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The mark once the whole log was verified. An answer comes before that where it takes long.
async fn verified(visit: &Visit<'_>, csrf: &str) -> String {
    const UNDER_WAY: &str = "data-under-way";
    let reply = visit.post(VERIFICATION, &[("csrf", csrf)]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    if !reply.text.contains(UNDER_WAY) {
        return mark(&reply.text);
    }
    eventually("the log is verified", || async {
        !visit.page(VERIFICATION).await.contains(UNDER_WAY)
    })
    .await;
    mark(&visit.page(VERIFICATION).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_verified_and_the_mark_goes_on() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.signed_in", 1).await;
    let page = visit.page(AUDIT).await;
    assert!(mark(&page).contains("Not verified"), "{}", mark(&page));
    // Nobody else's page can begin one.
    let forged = visit.post(VERIFICATION, &[]).await;
    assert_eq!(forged.status, 403, "{forged:?}");
    written(&sidekey, "admin.call_refused", 1).await;
    let verified = verified(&visit, csrf(&page)).await;
    let count = events(&sidekey, "").await.len();
    let said = format!("Verified {count} entries, read from the first, at ");
    assert!(verified.contains(&said), "{verified}");
    let head = events(&sidekey, "").await[0]["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(verified.contains(&head));
    let page = visit.page(AUDIT).await;
    assert!(mark(&page).contains(&said) && !mark(&page).contains("more since"));

    // What comes later is verified by who looks.
    for n in 0..3 {
        let name = json!({"name": format!("name {n}")});
        sidekey.change_key(&key.id, name).await;
    }
    let page = visit.page(AUDIT).await;
    assert!(mark(&page).contains(&said), "{}", mark(&page));
    assert!(
        mark(&page).contains("3 more since then fit on"),
        "{}",
        mark(&page)
    );
    // More than who looks should wait for.
    for n in 0..401 {
        let name = json!({"name": format!("other {n}")});
        sidekey.change_key(&key.id, name).await;
    }
    let page = visit.page(AUDIT).await;
    assert!(
        mark(&page).contains("401 since, not verified"),
        "{}",
        mark(&page)
    );
    let shown = visit.page(VERIFICATION).await;
    assert_eq!(mark(&shown), mark(&page));
    // A verification over the API counts as well.
    let reply = crate::audit::verification(&sidekey, "").await;
    assert_eq!(reply.json()["intact"], true);
    let page = visit.page(AUDIT).await;
    let said = format!("Verified {} entries, read from the first", count + 404);
    assert!(mark(&page).contains(&said), "{}", mark(&page));
    // A wrong anchor says nothing about the chain.
    let wrong = format!("?anchor=2:{}", "0".repeat(64));
    let reply = crate::audit::verification(&sidekey, &wrong).await;
    assert_eq!(reply.json()["intact"], false);
    assert_eq!(mark(&visit.page(AUDIT).await), mark(&page));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tampered_with_is_named() {
    let sidekey = start().await;
    let key = sidekey.create_key(json!({})).await;
    let visit = Visit::of(&sidekey, &sidekey.admin_key()).await;
    written(&sidekey, "admin.signed_in", 1).await;
    let page = visit.page(AUDIT).await;
    let proof = csrf(&page);
    let mark_of_all = verified(&visit, proof).await;
    assert!(mark_of_all.contains("Verified 3 entries"));

    // A new entry is changed before anybody looks.
    let database = database(&sidekey).await;
    let execute = async |sql: &str| {
        let sql = AssertSqlSafe(sql.to_owned());
        database.writer().execute(sql).await.unwrap();
    };
    sidekey.change_key(&key.id, json!({"name": "true"})).await;
    execute("CREATE TABLE saved AS SELECT * FROM audit_events").await;
    execute("UPDATE audit_events SET action = 'key.created' WHERE seq = 4").await;
    let said = "Broken at entry 4 (edited): its hash does not fit what it says.";
    let page = visit.page(AUDIT).await;
    assert!(mark(&page).contains(said), "{}", mark(&page));
    let leads = between(&page, "<a href=\"/dashboard/audit?cursor=", "\"");
    let around = visit.page(&format!("{AUDIT}?cursor={}", leads[0])).await;
    assert_eq!(seqs(&around)[0], 4);
    let broken = verified(&visit, proof).await;
    assert!(broken.contains(said), "{broken}");

    // Put right, it is believed once it was read from its beginning, and not before.
    execute("DELETE FROM audit_events").await;
    execute("INSERT INTO audit_events SELECT * FROM saved").await;
    assert!(mark(&visit.page(AUDIT).await).contains(said));
    let mark_of_all = verified(&visit, proof).await;
    assert!(mark_of_all.contains("Verified 4 entries"));

    // An old entry is changed: the mark says when it was read, and the next reading finds it.
    execute("DELETE FROM audit_events WHERE seq = 2").await;
    let page = visit.page(AUDIT).await;
    assert!(
        mark(&page).contains("Verified 4 entries"),
        "{}",
        mark(&page)
    );
    let broken = verified(&visit, proof).await;
    let said = "Broken at entry 2 (removed): it is not there, and later ones are.";
    assert!(broken.contains(said), "{broken}");
    database.close().await;
}
