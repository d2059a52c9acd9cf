//! Lists in every order, on both engines: pages forwards and backwards against a plain sort in memory,
//! and rows that other versions wrote.

use std::cmp::Ordering;

use secrecy::{ExposeSecret, SecretString};
use sidekey::clock::Timestamp;
use sidekey::key::record::Standing;
use sidekey::key::{Generation, KeyId, KeyRecord};
use sidekey::store::few::FEW_MAX;
use sidekey::store::{
    KeyFilter, KeyOrder, KeyStore, PageFrom, Position, SortBy, SqlStore, UsageStore, Value,
};
use sidekey::usage::{Batch, KeyUse, LastUse};
use sqlx::AnyPool;

use crate::harness::noted;
use crate::lists::fill::{fill, fill_uses, now};
use crate::lists::{
    MANY, filters, matches, mixed, read_all, stores, use_keys, uses, with_moments, with_texts,
};
use crate::postgres::record;

/// Keys in a page.
const LIMIT: usize = 7;

/// A key of a list: what it is ordered by, and its id.
type Entry = (Value, KeyId);

fn entry(order: KeyOrder, key: &KeyRecord) -> Entry {
    let number = |number: Option<i64>| number.map_or(Value::Nothing, Value::Number);
    let millis = |moment: Timestamp| moment.as_millis();
    let value = match order.by {
        SortBy::Created => Value::from(key.created_at),
        SortBy::Name => {
            let fold = |text: &str| text.to_lowercase();
            Value::Text(format!("{}\n{}", fold(&key.name), fold(key.id.as_str())))
        }
        SortBy::LastUsed => {
            let of: i64 = key.id.as_str()[3..].parse().unwrap();
            number(uses(of).into_iter().max())
        }
        SortBy::Expires => number(key.expires_at.map(millis)),
        SortBy::RotationDue => {
            let is_due = key.standing != Standing::Revoked;
            number(is_due.then(|| millis(key.rotation_due_at())))
        }
    };
    (value, key.id)
}

fn compare(order: KeyOrder, a: &Entry, b: &Entry) -> Ordering {
    let is_nothing = |entry: &Entry| entry.0 == Value::Nothing;
    let ascending = || a.0.cmp(&b.0).then_with(|| a.1.as_str().cmp(b.1.as_str()));
    is_nothing(a)
        .cmp(&is_nothing(b))
        .then_with(|| match order.is_descending {
            true => ascending().reverse(),
            false => ascending(),
        })
}

/// The list as it should be.
fn sorted(order: KeyOrder, filter: &KeyFilter, keys: &[KeyRecord]) -> Vec<Entry> {
    let wanted = keys.iter().filter(|key| matches(key, filter));
    let mut list: Vec<Entry> = wanted.map(|key| entry(order, key)).collect();
    list.sort_by(|a, b| compare(order, a, b));
    list
}

fn ids(list: &[Entry]) -> Vec<KeyId> {
    list.iter().map(|(_, id)| *id).collect()
}

/// Reads all pages from the beginning, looks back from each, and then reads all pages from the end.
async fn assert_pages(store: &SqlStore, order: KeyOrder, filter: &KeyFilter, list: &[Entry]) {
    let name = format!("{order:?} {filter:?}");
    let expected = ids(list);
    let (mut seen, mut from) = (Vec::new(), PageFrom::Start);
    loop {
        let page = store.page(filter, order, &from, LIMIT).await.unwrap();
        assert!(page.keys.len() <= LIMIT);
        assert_eq!(page.previous.is_some(), from != PageFrom::Start, "{name}");
        if let Some(previous) = page.previous {
            let back = PageFrom::Before(previous);
            let back = store.page(filter, order, &back, LIMIT).await.unwrap();
            let back: Vec<KeyId> = back.keys.iter().map(|key| key.id).collect();
            assert!(seen.ends_with(&back), "{name}: {back:?} after {seen:?}");
            assert!(!back.is_empty() || seen.is_empty(), "{name}");
        }
        seen.extend(page.keys.iter().map(|key| key.id));
        match page.next {
            Some(next) => from = PageFrom::After(next),
            None => break,
        }
    }
    assert_eq!(seen, expected, "{name}");
    let Some((value, id)) = list.last() else {
        return;
    };
    let mut from = Position::behind(value.clone(), *id);
    let mut seen: Vec<KeyId> = Vec::new();
    loop {
        let before = PageFrom::Before(from);
        let page = store.page(filter, order, &before, LIMIT).await.unwrap();
        let keys: Vec<KeyId> = page.keys.iter().map(|key| key.id).collect();
        seen.splice(0..0, keys);
        match page.previous {
            Some(previous) => from = previous,
            None => break,
        }
    }
    assert_eq!(seen, expected, "backwards: {name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_is_that_of_a_plain_sort() {
    let (_directory, _postgres, urls) = stores().await;
    let now = Timestamp::from_millis(600);
    let keys: Vec<KeyRecord> = (0..200).map(mixed).collect();
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        for key in &keys {
            store.insert(key, &noted()).await.unwrap();
        }
        use_keys(&url, &keys).await;
        let mut filters = filters(now);
        let texts = with_texts(filters.clone());
        let moments = with_moments(filters.clone(), [30, 60, 901]);
        filters = filters.into_iter().step_by(3).collect();
        filters.extend(texts.into_iter().step_by(23));
        filters.extend(moments.into_iter().step_by(11));
        // Before and after those are marked whose time is over, and with some that are marked too early.
        for marked_at in [None, Some(now), Some(Timestamp::from_millis(950))] {
            if let Some(moment) = marked_at {
                while store.settle(moment).await.unwrap() {}
            }
            let step = if marked_at.is_none() { 1 } else { 4 };
            for order in KeyOrder::ALL {
                for filter in filters.iter().step_by(step) {
                    assert_pages(&store, order, filter, &sorted(order, filter, &keys)).await;
                }
            }
        }
        store.close().await;
    }
}

/// A position of another order leads nowhere, and harms nobody.
#[tokio::test]
async fn a_position_belongs_to_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let url = SecretString::from(format!("sqlite://{}/keys.db", directory.path().display()));
    let store = SqlStore::open(&url).await.unwrap();
    store.insert(&record(1), &noted()).await.unwrap();
    let id = record(9).id;
    for (order, value) in [
        (SortBy::Name, Value::Number(1)),
        (SortBy::Name, Value::Nothing),
        (SortBy::Created, Value::Text(String::new())),
        (SortBy::Created, Value::Nothing),
        (SortBy::LastUsed, Value::Text("x".to_owned())),
    ] {
        let from = PageFrom::After(Position::behind(value, id));
        let order = KeyOrder::descending(order);
        let page = store.page(&KeyFilter::default(), order, &from, 9).await;
        let page = page.unwrap();
        assert!(page.keys.is_empty() && page.next.is_none(), "{order:?}");
    }
}

/// What versions write that know nothing of orders is in its place, at once or when it is settled.
#[tokio::test(flavor = "multi_thread")]
async fn what_older_versions_write_is_in_its_place() {
    let (_directory, _postgres, urls) = stores().await;
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        for number in 1..=4 {
            store.insert(&record(number), &noted()).await.unwrap();
        }
        let order = async |by: SortBy| -> Vec<i64> {
            let filter = KeyFilter::default();
            let order = KeyOrder::ascending(by);
            let page = store.page(&filter, order, &PageFrom::Start, 9).await;
            let number = |key: &KeyRecord| key.id.as_str().parse().unwrap();
            page.unwrap().keys.iter().map(number).collect()
        };
        let pool = AnyPool::connect(url.expose_secret()).await.unwrap();
        for statement in [
            "UPDATE api_keys SET name = 'A', rotation_days = 1, expires_at = 7, revision = 2 \
             WHERE id = '000000000003'",
            "UPDATE api_keys SET secret_created_at = -1, expires_at = 6, revision = 2 \
             WHERE id = '000000000002'",
            "UPDATE api_keys SET standing = 'revoked', revision = 2 WHERE id = '000000000001'",
            "INSERT INTO api_keys (id, tenant_id, name, environment, hint, scopes, allowed_ips, \
               rotation_days, metadata, standing, created_at, updated_at, secret_created_at, \
               generation, revision) \
             VALUES ('000000000000', 'odd', 'T', 'live', '', '[]', '[]', 90, '{}', 'active', \
               0, 0, 5, 1, 1)",
            // Of an instance that stores usage in its own way.
            "INSERT INTO key_uses (key_id, generation, last_used_at, last_used_ip) \
             VALUES ('000000000000', 1, 50, '192.0.2.1'), ('000000000004', 1, 40, '192.0.2.1')",
            "INSERT INTO key_uses (key_id, generation, last_used_at, last_used_ip) \
             VALUES ('000000000000', 1, 60, '192.0.2.1'), ('000000000004', 2, 70, '192.0.2.1'), \
               ('000000000004', 1, 10, '192.0.2.1') \
             ON CONFLICT (key_id, generation) DO UPDATE SET last_used_at = excluded.last_used_at \
             WHERE excluded.last_used_at > key_uses.last_used_at",
        ] {
            sqlx::raw_sql(statement).execute(&pool).await.unwrap();
        }
        pool.close().await;
        assert_eq!(order(SortBy::Expires).await, [2, 3, 0, 1, 4]);
        assert_eq!(order(SortBy::RotationDue).await, [3, 2, 4, 0, 1]);
        assert_eq!(order(SortBy::LastUsed).await, [0, 4, 1, 2, 3]);
        while store.settle(now()).await.unwrap() {}
        assert_eq!(order(SortBy::Name).await, [3, 1, 2, 4, 0]);
        store.close().await;
    }
}

/// Uses (key, generation and time), and in which order all keys are then, and the odd ones.
type Step = (&'static [(i64, i64, i64)], [i64; 5], [i64; 3]);

/// The tenant's lists by last use follow what is stored of uses, also of a secret that came later.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_last_use_follows_what_is_stored() {
    let (_directory, _postgres, urls) = stores().await;
    for url in urls {
        let store = SqlStore::open(&url).await.unwrap();
        for number in 1..=5 {
            store.insert(&record(number), &noted()).await.unwrap();
        }
        let odd = KeyFilter {
            tenant_id: Some("odd".parse().unwrap()),
            ..KeyFilter::default()
        };
        let list = async |filter: &KeyFilter| -> Vec<i64> {
            let order = KeyOrder::descending(SortBy::LastUsed);
            let page = store.page(filter, order, &PageFrom::Start, 9).await;
            let number = |key: &KeyRecord| key.id.as_str().parse().unwrap();
            page.unwrap().keys.iter().map(number).collect()
        };
        assert_eq!(list(&odd).await, [5, 3, 1]);
        let steps: [Step; 4] = [
            (&[(1, 1, 10), (2, 1, 20)], [2, 1, 5, 4, 3], [1, 5, 3]),
            (&[(3, 1, 15), (1, 1, 12)], [2, 3, 1, 5, 4], [3, 1, 5]),
            (&[(1, 2, 30), (5, 1, 1)], [1, 2, 3, 5, 4], [1, 3, 5]),
            (&[(1, 1, 29), (4, 1, 40)], [4, 1, 2, 3, 5], [1, 3, 5]),
        ];
        for (number, (uses, all, of_tenant)) in (1..).zip(steps) {
            let used = |(key, generation, at): &(i64, i64, i64)| KeyUse {
                key_id: record(*key).id,
                generation: Generation(*generation),
                last: LastUse {
                    at: Timestamp::from_millis(*at),
                    address: "192.0.2.1".parse().unwrap(),
                },
            };
            let batch = Batch {
                instance: "one".into(),
                number,
                hours: vec![],
                uses: uses.iter().map(used).collect(),
                outcomes: vec![],
            };
            store.add_usage(&batch).await.unwrap();
            assert_eq!(list(&KeyFilter::default()).await, all);
            assert_eq!(list(&odd).await, of_tenant);
        }
        store.close().await;
    }
}

/// Where a filter leaves more keys than can be read at once, pages of other orders come short, and
/// together they have all: each once, forwards and backwards.
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_read_in_pages_that_may_be_short() {
    let directory = tempfile::tempdir().unwrap();
    let url = SecretString::from(format!("sqlite://{}/keys.db", directory.path().display()));
    let store = SqlStore::open(&url).await.unwrap();
    let pool = fill(&url, MANY).await.unwrap();
    fill_uses(&pool, MANY).await.unwrap();
    pool.close().await;
    let of_text = |text: &str| KeyFilter {
        text: Some(text.to_owned()),
        ..KeyFilter::default()
    };
    let tenant = |tenant: &str| KeyFilter {
        tenant_id: Some(tenant.parse().unwrap()),
        ..KeyFilter::default()
    };
    let expiring = KeyFilter {
        expiring_before: Some(now()),
        ..tenant("big")
    };
    for (order, filter) in [
        (SortBy::Name, of_text("partner")),
        (SortBy::Name, of_text("service 1999")),
        (SortBy::LastUsed, KeyFilter::default()),
        (SortBy::LastUsed, of_text("mobile")),
        (SortBy::LastUsed, tenant("big")),
        (SortBy::Expires, expiring.clone()),
        (SortBy::RotationDue, expiring),
        (SortBy::RotationDue, tenant("old")),
    ] {
        let mut expected = read_all(&store, &filter, 1000).await;
        expected.sort_unstable();
        for order in [KeyOrder::ascending(order), KeyOrder::descending(order)] {
            let (mut seen, mut from, mut pages) = (Vec::new(), PageFrom::Start, 0);
            let last = loop {
                let page = store.page(&filter, order, &from, 500).await.unwrap();
                seen.extend(page.keys.iter().map(|key| key.id));
                pages += 1;
                match page.next {
                    Some(next) => from = PageFrom::After(next),
                    None => break page.previous,
                }
            };
            let name = format!("{order:?} {filter:?}");
            assert!(expected.len() > FEW_MAX || pages == 1, "{name}");
            // Two secrets of each key were used.
            assert!(pages <= 2 * MANY / 400 + 3, "{pages} pages: {name}");
            if let Some(last) = last {
                let before = PageFrom::Before(last);
                let page = store.page(&filter, order, &before, 500).await.unwrap();
                let back: Vec<KeyId> = page.keys.iter().map(|key| key.id).collect();
                let all = seen.windows(back.len().max(1));
                let is_part = all.into_iter().any(|part| part == back);
                assert!(is_part || back.is_empty(), "{name}");
            }
            let mut seen: Vec<String> = seen.iter().map(KeyId::to_string).collect();
            seen.sort_unstable();
            assert!(seen == expected, "each once: {name}");
        }
    }
    // All that were never used are behind the others.
    let order = KeyOrder::descending(SortBy::LastUsed);
    let never = PageFrom::After(Position::before(
        Value::Nothing,
        "zzzzzzzzzzzz".parse().unwrap(),
    ));
    let mut count = 0;
    let mut from = never;
    loop {
        let page = store.page(&KeyFilter::default(), order, &from, 1000).await;
        let page = page.unwrap();
        count += page.keys.len();
        match page.next {
            Some(next) => from = PageFrom::After(next),
            None => break,
        }
    }
    assert_eq!(count, MANY as usize / 3);
    store.close().await;
}
