//! Filters, cursors, exports, and who sees what.

use std::net::IpAddr;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sidekey::audit::entry::Entry;
use sidekey::audit::{Action, Actor, Note, Origin};
use sidekey::clock::Timestamp;
use sidekey::store::{AuditStore, EventFilter, EventRange, Order, SqlStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{EVENTS, events, events_as, export, lines};
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

/// More than one page looks at.
const MANY: i64 = 2_500;

fn key(number: i64) -> sidekey::key::KeyId {
    format!("{number:012}").parse().unwrap()
}

fn note(number: i64) -> Note {
    Note {
        at: Timestamp::from_millis(number * 1000),
        action: Action::ALL[(number % 7) as usize],
        origin: Origin {
            actor: match number % 5 {
                0 => Actor::System,
                1 => Actor::Unknown,
                other => Actor::Key(key(other)),
            },
            address: Some(IpAddr::from([192, 0, 2, 1])),
            request_id: None,
        },
        key_id: (number % 3 != 0).then(|| key(number % 11)),
        // One that is rare, and at the beginning alone.
        tenant_id: Some(if number == 3 { "rare" } else { "acme" }.parse().unwrap()),
        details: serde_json::Map::new(),
    }
}

/// All entries that a filter lets through, page by page, and how many pages there were.
async fn all(
    store: &SqlStore,
    filter: &EventFilter,
    order: Order,
    limit: usize,
) -> (Vec<i64>, usize) {
    let mut range: EventRange = store.event_range(filter).await.unwrap().in_order(order);
    let (mut seqs, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.events(filter, range, limit).await.unwrap();
        pages += 1;
        assert!(page.entries.len() <= limit);
        seqs.extend(page.entries.iter().map(|entry: &Entry| entry.seq));
        match page.next {
            Some(seq) => range = range.after(seq),
            None => return (seqs, pages),
        }
    }
}

/// What the filter should let through, by looking at every note.
fn expected(filter: &EventFilter) -> Vec<i64> {
    let fits = |number: &i64| {
        let note = note(*number);
        filter.key_id.is_none_or(|id| note.key_id == Some(id))
            && filter.actor.is_none_or(|actor| note.origin.actor == actor)
            && filter.action.is_none_or(|action| note.action == action)
            && filter.from.is_none_or(|from| from <= note.at)
            && filter.to.is_none_or(|to| note.at < to)
            && (filter.tenant_id.is_none() || filter.tenant_id == note.tenant_id)
    };
    (1..=MANY).filter(fits).collect()
}

fn filters() -> Vec<EventFilter> {
    let mut filters = Vec::new();
    let times = [
        (None, None),
        (Some(500_000), None),
        (None, Some(500_000)),
        (Some(400_000), Some(900_001)),
        (Some(900_000), Some(900_000)),
        (Some(i64::MAX), None),
    ];
    for bits in 0..16 {
        let given = |bit: u32| bits & (1 << bit) != 0;
        for (from, to) in times {
            filters.push(EventFilter {
                key_id: given(0).then(|| key(4)),
                actor: given(1).then_some(Actor::System),
                action: given(2).then_some(Action::ALL[3]),
                tenant_id: given(3).then(|| "acme".parse().unwrap()),
                from: from.map(Timestamp::from_millis),
                to: to.map(Timestamp::from_millis),
            });
        }
    }
    filters.push(EventFilter {
        tenant_id: Some("rare".parse().unwrap()),
        action: Some(Action::ALL[3]),
        ..EventFilter::default()
    });
    filters
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_find_what_a_filter_lets_through() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/keys.db", directory.path().display());
    let postgres = Postgres::start().await;
    for url in [sqlite, postgres.url()] {
        let store = SqlStore::open(&SecretString::from(url.clone()))
            .await
            .unwrap();
        let notes: Vec<Note> = (1..=MANY).map(note).collect();
        for notes in notes.chunks(120) {
            store.note(notes).await.unwrap();
        }
        for filter in filters() {
            let expected = expected(&filter);
            let (seqs, pages) = all(&store, &filter, Order::OldestFirst, 700).await;
            assert_eq!(seqs, expected, "{url} {filter:?}");
            // The rarest column is read, so few pages are.
            assert!(pages <= 4, "{url} {pages} pages for {filter:?}");
            let (mut seqs, _) = all(&store, &filter, Order::NewestFirst, 113).await;
            seqs.reverse();
            assert_eq!(seqs, expected, "{url} {filter:?}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_were_far_off_hide_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/keys.db", directory.path().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    for number in 1..=300 {
        let mut note = note(number);
        note.at = match number {
            50 => Timestamp::MAX,
            60 => Timestamp::from_millis(0),
            _ => Timestamp::from_millis(1_000_000 + number * 1000),
        };
        store.note(&[note]).await.unwrap();
    }
    let filter = EventFilter {
        from: Some(Timestamp::from_millis(1_040_000)),
        to: Some(Timestamp::from_millis(1_071_000)),
        ..EventFilter::default()
    };
    let (seqs, _) = all(&store, &filter, Order::OldestFirst, 100).await;
    let expected: Vec<i64> = (40..=70).filter(|seq| ![50, 60].contains(seq)).collect();
    assert_eq!(seqs, expected);
}

fn request_ids(events: &[Value]) -> Vec<Value> {
    let ids = events.iter().map(|event| event["request_id"].clone());
    ids.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_events_alone() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let reader = json!({"tenant_id": "acme", "scopes": ["sidekey:audit:read"]});
    let reader = sidekey.create_key(reader).await;
    let own = sidekey.create_key(json!({"tenant_id": "acme"})).await;
    let other = sidekey.create_key(json!({"tenant_id": "globex"})).await;
    eventually("the reader's sign-in is noted", || async {
        let query = format!("actor={}", reader.id);
        !events_as(&sidekey, &reader.text, &query).await.is_empty()
    })
    .await;
    let seen = events_as(&sidekey, &reader.text, "limit=1").await;
    assert!(seen.iter().all(|event| event["tenant_id"] == "acme"));
    assert!(seen.iter().any(|event| event["key_id"] == *own.id));
    let everything = events(&sidekey, "").await;
    assert!(everything.iter().any(|event| event["key_id"] == *other.id));
    let of_acme: Vec<Value> = events(&sidekey, "tenant_id=acme").await;
    assert_eq!(request_ids(&seen), request_ids(&of_acme));
    for query in ["tenant_id=globex", &format!("key_id={}", other.id)] {
        assert!(events_as(&sidekey, &reader.text, query).await.is_empty());
        let path = format!("{EVENTS}/export?{query}");
        let reply = sidekey
            .ask_as(Some(&reader.text), Method::GET, &path, None)
            .await;
        assert_eq!((reply.status, &*reply.text), (200, ""));
    }
    let exported = sidekey
        .ask_as(
            Some(&reader.text),
            Method::GET,
            &format!("{EVENTS}/export"),
            None,
        )
        .await;
    let exported = lines(&exported.text);
    assert!(exported.len() >= 3 && exported.iter().all(|event| event["tenant_id"] == "acme"));

    // What each call needs.
    let plain = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    for (key, path, status) in [
        (None, EVENTS.to_owned(), 401),
        (Some(&plain.text), EVENTS.to_owned(), 403),
        (Some(&plain.text), format!("{EVENTS}/export"), 403),
        (Some(&reader.text), format!("{EVENTS}/verification"), 403),
    ] {
        let key = key.map(String::as_str);
        let reply = sidekey.ask_as(key, Method::GET, &path, None).await;
        reply.problem(status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_cursors_are_those_of_the_answers() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    for n in 0..5 {
        sidekey
            .create_key(json!({"name": format!("key {n}")}))
            .await;
    }
    let created = events(&sidekey, "action=key.created&limit=2").await;
    assert_eq!(created.len(), 6);
    let at = created[2]["at"].as_str().unwrap();
    let seqs = |events: &[Value]| -> Vec<i64> {
        events
            .iter()
            .map(|event| event["seq"].as_i64().unwrap())
            .collect()
    };
    let since = events(&sidekey, &format!("action=key.created&from={at}")).await;
    let before = events(&sidekey, &format!("action=key.created&to={at}")).await;
    assert!(seqs(&since).contains(&created[2]["seq"].as_i64().unwrap()));
    assert_eq!([seqs(&since), seqs(&before)].concat(), seqs(&created));
    let exported = export(&sidekey, &format!("?to={at}&action=key.created")).await;
    let mut exported = seqs(&lines(&exported));
    exported.reverse();
    assert_eq!(exported, seqs(&before));
    // A page's shape.
    let page = sidekey
        .ask(Method::GET, &format!("{EVENTS}?limit=1"), None)
        .await;
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let body = page.json();
    let names: Vec<_> = body["data"][0]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        names,
        [
            "seq",
            "at",
            "action",
            "actor",
            "key_id",
            "tenant_id",
            "address",
            "request_id",
            "details",
            "previous_hash",
            "hash"
        ]
    );
    for query in [
        "limit=0",
        "limit=1001",
        "cursor=x",
        "from=yesterday",
        "actor=me",
        "action=x",
        "q=x",
    ] {
        let reply = sidekey
            .ask(Method::GET, &format!("{EVENTS}?{query}"), None)
            .await;
        let field = query.split('=').next().unwrap();
        assert_eq!(reply.bad_fields(), [field], "{query}");
    }
    for path in [
        "/export?limit=1",
        "/verification?anchor=1",
        "/verification?x=1",
    ] {
        let reply = sidekey
            .ask(Method::GET, &format!("{EVENTS}{path}"), None)
            .await;
        assert_eq!(reply.bad_fields().len(), 1, "{path}");
    }
    let gone = sidekey.ask(Method::DELETE, EVENTS, None).await;
    gone.problem(405);
    let keys = sidekey.ask(Method::GET, KEYS, None).await;
    assert_eq!(keys.status, 200);
}

/// An export goes on for as long as it is read, and no longer than its reader may see it.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_readers_key() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let reader = json!({"scopes": ["sidekey:audit:read"]});
    let reader = sidekey.create_key(reader).await;
    let key = sidekey.create_key(json!({})).await;
    // Several pages, and more than what connections keep.
    for number in 0..1200 {
        let text = format!("{number}{}", "x".repeat(3 << 10));
        let metadata = json!({"metadata": {"text": text}});
        sidekey.change_key(&key.id, metadata).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut socket = socket.connect(sidekey.admin).await.unwrap();
    let request = format!(
        "GET {EVENTS}/export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        reader.text
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 15];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    sidekey.revoke_key(&reader.id).await;
    // Broken off, so it does not pass for a whole one.
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"0\r\n\r\n"));
    eventually("the log says why", || async {
        sidekey.output().contains("may no longer see it")
    })
    .await;
}
