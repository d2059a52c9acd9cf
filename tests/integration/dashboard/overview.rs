//! The overview page: real traffic through the proxy, refused for each reason, and what is told of it; who
//! may see what of it.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::json;
use sidekey::store::SqlStore;

use super::person::Person;
use super::world::early_in_an_hour;
use crate::cases::{Case, World};
use crate::harness::eventually;
use crate::harness::raw::Raw;
use crate::harness::sidekey::{Key, Sidekey, config};
use crate::harness::upstream::Upstream;

const OVERVIEW: &str = "/dashboard/overview";
const HOSTILE: &str = "<script>alert(1)</script> \"quoted\" 'name' &amp;";
const OFTEN: &str = "[usage]\nflush_interval_seconds = 1\n";

/// The numbers of a table of reasons.
type Reasons = BTreeMap<String, u64>;

async fn page(person: &Person<'_>, path: &str) -> String {
    let reply = person.get(path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.text
}

/// The numbers of the table of reasons in `text`.
fn reasons(text: &str) -> Reasons {
    let mut found = Reasons::new();
    for row in text.split("<code class=\"muted small\">").skip(1) {
        let code = row.split('<').next().unwrap();
        let (_, number) = row.split_once("data-label=\"Requests\"><span>").unwrap();
        let number = number.split('<').next().unwrap().replace(',', "");
        found.insert(code.to_owned(), number.parse().unwrap());
    }
    found
}

/// What was refused, and what would have been in shadow mode.
fn told(text: &str) -> (Reasons, Reasons) {
    match text.split_once("id=\"would-be\"") {
        Some((refused, shadow)) => (reasons(refused), reasons(shadow)),
        None => (reasons(text), Reasons::new()),
    }
}

/// The large numbers at the top.
fn stats(text: &str) -> Vec<String> {
    let parts = text.split("class=\"stat-value\">").skip(1);
    let value = |part: &str| part.split('<').next().unwrap().to_owned();
    parts.map(value).collect()
}

/// The busiest keys: their ids and requests.
fn top(text: &str) -> Vec<(String, u64)> {
    let Some((_, table)) = text.split_once("id=\"top\"") else {
        return vec![];
    };
    let rows = table.split("<span class=\"mono muted small\">").skip(1);
    rows.map(|row| {
        let id = row.split('<').next().unwrap().to_owned();
        let (_, number) = row.split_once("data-label=\"Requests\"><span>").unwrap();
        let number = number.split('<').next().unwrap().replace(',', "");
        (id, number.parse().unwrap())
    })
    .collect()
}

/// Sends the request of each case, and counts them by what is to become of them.
async fn send_all(world: &World) -> Reasons {
    let mut expected = Reasons::new();
    for case in &world.cases {
        send(&world.sidekey, case).await;
        *expected.entry(case.outcome.to_owned()).or_default() += 1;
    }
    expected
}

async fn send(sidekey: &Sidekey, case: &Case) {
    let mut raw = Raw::connect(sidekey.proxy).await;
    let method = if case.body.is_empty() { "GET" } else { "POST" };
    raw.send(case.request(method, case.body)).await;
    raw.read_answer().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_told_by_its_reason_once() {
    let world = World::start("enforce").await;
    let passed = world.upstream.count() as u64;
    let mut expected = send_all(&world).await;
    assert_eq!(
        world.sidekey.status("/nowhere", &world.good.text).await,
        404
    );
    expected.insert("no_route".to_owned(), 1);
    assert_eq!(expected.len(), 13, "{expected:?}");
    let refused: u64 = expected.values().sum();
    // Keys that may not act, or are over their limit, are valid; so is the key of what is refused before
    // it is looked at.
    let keyless = ["no_credential", "invalid_key", "ambiguous_credential"];
    let keyless: u64 = keyless.iter().map(|reason| expected[*reason]).sum();
    let valid = (passed + refused - keyless).to_string();
    let admin = Person::signed_in(&world.sidekey, &world.sidekey.admin_key()).await;
    eventually("all requests are told", || async {
        let text = page(&admin, OVERVIEW).await;
        told(&text).0 == expected && stats(&text)[0] == valid
    })
    .await;
    let text = page(&admin, OVERVIEW).await;
    assert!(!text.contains("would-be") && !text.contains("Shadow mode"));
    assert_eq!(stats(&text)[3], refused.to_string());
    assert_eq!(stats(&text)[0], valid);
    assert!(
        text.contains(&format!("and {keyless} without one")),
        "{text}"
    );

    // Every range tells it, and so does the next process: what was counted last was stored at the end.
    for range in ["7d", "30d", "90d"] {
        let text = page(&admin, &format!("{OVERVIEW}?range={range}")).await;
        assert_eq!(told(&text).0, expected, "{range}");
    }
    let World {
        mut sidekey, cases, ..
    } = world;
    send(&sidekey, &cases[0]).await;
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    let sidekey = sidekey.restart().await;
    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    *expected.get_mut("no_credential").unwrap() += 1;
    assert_eq!(told(&page(&admin, OVERVIEW).await).0, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_mode_what_would_have_been_refused_is_told_apart() {
    let world = World::start("shadow").await;
    let mut expected = send_all(&world).await;
    // These are refused all the same.
    expected.remove("headers_too_large");
    let admin = Person::signed_in(&world.sidekey, &world.sidekey.admin_key()).await;
    let last = std::sync::Mutex::new(String::new());
    eventually("all of them are told", || async {
        let text = page(&admin, OVERVIEW).await;
        let (_, shadow) = told(&text);
        *last.lock().unwrap() = format!("{shadow:?}");
        expected
            .iter()
            .all(|(reason, count)| shadow.get(reason) == Some(count))
    })
    .await;
    let text = page(&admin, OVERVIEW).await;
    assert!(text.contains("Shadow mode."));
    let (refused, _) = told(&text);
    for reason in [
        "no_credential",
        "invalid_key",
        "rate_limited",
        "insufficient_scope",
    ] {
        assert_eq!(refused.get(reason), None, "{reason}");
    }
}

async fn use_key(sidekey: &Sidekey, key: &Key, times: usize) {
    for _ in 0..times {
        sidekey.get("/", &key.text).await;
    }
}

async fn person<'a>(sidekey: &'a Sidekey, tenant: &str, scopes: &[&str]) -> Person<'a> {
    let fields = json!({"tenant_id": tenant, "scopes": scopes, "name": "somebody"});
    let key = sidekey.create_key(fields).await;
    Person::signed_in(sidekey, &key.text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_keys_are_shown_to_who_may_see_them() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let fields =
        |tenant: &str, limits| json!({"tenant_id": tenant, "name": HOSTILE, "rate_limits": limits});
    let one_hour = json!([{"name": "n", "quota": 2, "window_seconds": 3600}]);
    let red = sidekey.create_key(fields("red", one_hour)).await;
    let other_red = sidekey.create_key(fields("red", json!([]))).await;
    let blue = sidekey.create_key(fields("blue", json!([]))).await;
    // The latest hour is ranked while it goes on, and the one before it some minutes later.
    early_in_an_hour().await;
    use_key(&sidekey, &red, 5).await;
    use_key(&sidekey, &other_red, 2).await;
    use_key(&sidekey, &blue, 9).await;

    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let all = vec![
        (blue.id.clone(), 9),
        (red.id.clone(), 5),
        (other_red.id.clone(), 2),
    ];
    eventually("the keys are ranked", || async {
        top(&page(&admin, OVERVIEW).await) == all
    })
    .await;
    let text = page(&admin, OVERVIEW).await;
    assert!(!text.contains("<script>alert"), "{text}");
    assert!(text.contains("&#60;script&#62;alert(1)"), "{text}");
    assert!(!text.contains("can have had up to"), "it is certain");
    let link = format!(
        "/dashboard/settings/developers/api-keys/{}?range=24h",
        blue.id
    );
    assert!(text.contains(&link));
    assert!(text.contains("3 (60%)"), "the limited ones of red");
    assert!(
        text.contains("answers") && text.contains("1 instance"),
        "the state"
    );
    let of_red = format!("{OVERVIEW}?range=7d&tenant_id=red");
    assert!(page(&admin, OVERVIEW).await.contains("tenant_id=red"));
    let reds = &all[1..];
    assert_eq!(top(&page(&admin, &of_red).await), reds);

    // Others see their own tenant, and names only with the scope for keys.
    let reader = person(
        &sidekey,
        "red",
        &["sidekey:usage:read", "sidekey:keys:read"],
    )
    .await;
    for path in [OVERVIEW, &of_red, "/dashboard/overview?tenant_id="] {
        let text = page(&reader, path).await;
        assert_eq!(top(&text), reds, "{path}");
        assert_eq!(stats(&text)[0], "7");
        assert_eq!(
            reasons(&text),
            Reasons::from([("rate_limited".to_owned(), 3), ("denied".to_owned(), 0)])
        );
        assert!(text.contains(HOSTILE.split_at(8).1.split('<').next().unwrap()));
        for hidden in ["blue", &blue.id, "All tenants", "as this instance sees it"] {
            assert!(!text.contains(hidden), "{path} tells {hidden}");
        }
    }
    let counter = person(&sidekey, "red", &["sidekey:usage:read"]).await;
    let text = page(&counter, OVERVIEW).await;
    assert_eq!(top(&text), reds);
    let (_, table) = text.split_once("id=\"top\"").unwrap();
    assert!(
        !table.contains("alert(1)") && !table.contains("href"),
        "{table}"
    );
    for who in [&reader, &counter] {
        for tenant in ["blue", "nobody", "%3Cscript%3E", "..%2Fred"] {
            let reply = who.get(&format!("{OVERVIEW}?tenant_id={tenant}")).await;
            assert_eq!(reply.status, 404, "{tenant}");
            assert!(!reply.text.contains("<script>"));
        }
    }
    let blind = person(
        &sidekey,
        "red",
        &["sidekey:keys:read", "sidekey:audit:read"],
    )
    .await;
    let reply = blind.get(OVERVIEW).await;
    assert_eq!(reply.status, 403);
    assert!(!reply.text.contains("id=\"overview\""));
    let reply = Person::new(&sidekey).get(&of_red).await;
    assert_eq!(reply.status, 303);
    let place = reply.header("location").unwrap();
    assert!(place.starts_with("/dashboard/sign-in?next="), "{place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_request_a_page_says_so() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let soon = json!({"expires_at": "2100-01-01T00:00:00Z"});
    sidekey.create_key(soon).await;
    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let text = page(&admin, OVERVIEW).await;
    assert_eq!(stats(&text), ["0", "–", "–", "0"]);
    assert!(text.contains("There were no requests in the last 24 hours."));
    assert!(text.contains("Nothing was refused"));
    assert!(text.contains("No key was used"));
    assert!(!text.contains("within 14 days"));
    // What nobody offers is the usual range.
    let text = page(&admin, &format!("{OVERVIEW}?range=%3Cscript%3E&x=1")).await;
    assert!(!text.contains("<script>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_need_somebody_are_counted_for_who_may_see_them() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let soon = time::OffsetDateTime::now_utc() + time::Duration::days(13);
    let format = &time::format_description::well_known::Rfc3339;
    let soon = soon.format(format).unwrap();
    for tenant in ["red", "red", "blue"] {
        let fields = json!({"tenant_id": tenant, "expires_at": soon});
        sidekey.create_key(fields).await;
    }
    let link = "?status=active&#38;expiring_within_days=14";
    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let text = page(&admin, OVERVIEW).await;
    assert!(
        text.contains(&format!("{link}\">3 keys expire</a> within 14 days")),
        "{text}"
    );
    let reader = person(
        &sidekey,
        "blue",
        &["sidekey:usage:read", "sidekey:keys:read"],
    )
    .await;
    let text = page(&reader, OVERVIEW).await;
    assert!(text.contains("1 key expires</a>"), "{text}");
    let counter = person(&sidekey, "blue", &["sidekey:usage:read"]).await;
    assert!(!page(&counter, OVERVIEW).await.contains("expires</a>"));
    assert!(!text.contains("to be rotated"), "no secret is old");
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    sqlx::query("UPDATE api_keys SET secret_created_at = 0 WHERE tenant_id = 'red'")
        .execute(store.writer())
        .await
        .unwrap();
    store.close().await;
    let text = page(&admin, OVERVIEW).await;
    let link = "?status=active&#38;sort=rotation_due_at";
    assert!(
        text.contains(&format!("{link}\">2 secrets are</a> to be rotated")),
        "{text}"
    );
    assert!(!page(&reader, OVERVIEW).await.contains("to be rotated"));
}

/// `count` keys like that of `id`, with ids that begin with `letter`.
async fn multiply(store: &SqlStore, id: &str, letter: char, count: u32) {
    let columns = "SELECT name FROM pragma_table_info('api_keys') WHERE name <> 'id'";
    let columns: Vec<String> = sqlx::query_scalar(columns)
        .fetch_all(store.readers())
        .await
        .unwrap();
    let columns = columns.join(", ");
    let sql = format!(
        "INSERT INTO api_keys (id, {columns}) \
         WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
         SELECT printf('{letter}%011d', n), {columns} FROM numbers CROSS JOIN api_keys WHERE id = $1"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .execute(store.writer())
        .await
        .unwrap();
}

/// More than are looked at one by one, behind newer ones that do not expire.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_expire_are_found_however_many_others_there_are() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let soon = time::OffsetDateTime::now_utc() + time::Duration::days(13);
    let soon = soon
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let due = sidekey.create_key(json!({"expires_at": soon})).await;
    let other = sidekey.create_key(json!({})).await;
    let url = format!("sqlite://{}/data/sidekey.db", sidekey.directory().display());
    let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
    multiply(&store, &due.id, 'd', 1_100).await;
    multiply(&store, &other.id, 'o', 500).await;
    store.close().await;
    let admin = Person::signed_in(&sidekey, &sidekey.admin_key()).await;
    let text = page(&admin, OVERVIEW).await;
    assert!(text.contains(">100+ keys expire</a>"), "{text}");
}
