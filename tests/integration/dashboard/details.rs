//! The page of a key, over plain HTTP: what it tells, to whom, and that it tells what the API tells.

use reqwest::Method;
use serde_json::{Value, json};

use super::person::{KEYS_PAGE, Person};
use crate::harness::eventually;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::{Upstream, nobody};

/// Often, so that tests need not wait.
const OFTEN: &str = "[usage]\nflush_interval_seconds = 1\n";
/// What a page may not contain as it stands.
const SCRIPT: &str = "<script>alert('x')</script>\"&";
const RANGES: [(&str, &str, usize); 4] = [
    ("24h", "hour", 24),
    ("7d", "hour", 168),
    ("30d", "day", 30),
    ("90d", "day", 90),
];

fn page(key: &Key) -> String {
    format!("{KEYS_PAGE}/{}", key.id)
}

fn file(key: &Key, range: &str) -> String {
    format!("{KEYS_PAGE}/{}/usage.csv?range={range}", key.id)
}

/// What a browser shows of `html`: its texts, one space between words.
fn shown(html: &str) -> String {
    let mut text = String::new();
    for part in html.split('<') {
        let (_, after) = part.split_once('>').unwrap_or(("", part));
        text.push_str(after);
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn html_of(person: &Person<'_>, path: &str) -> String {
    let reply = person.get(path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.text
}

async fn text_of(person: &Person<'_>, path: &str) -> String {
    shown(&html_of(person, path).await)
}

#[track_caller]
fn assert_tells(text: &str, all: &[&str]) {
    for told in all {
        assert!(text.contains(told), "no {told:?} in {text}");
    }
}

/// A key of `tenant` for the admin port, with these scopes of Sidekey's own.
async fn admin_key(sidekey: &Sidekey, tenant: &str, scopes: &[&str]) -> String {
    let scopes: Vec<String> = scopes
        .iter()
        .map(|name| format!("sidekey:{name}"))
        .collect();
    let fields = json!({"name": "somebody", "tenant_id": tenant, "scopes": scopes});
    sidekey.create_key(fields).await.text
}

async fn as_administrator(sidekey: &Sidekey) -> Person<'_> {
    Person::signed_in(sidekey, &sidekey.admin_key()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_about_a_key_is_told_as_text() {
    let usual = "[limits]\ndefault = [{ name = \"usual\", quota = 7, window_seconds = 3600 }]\n";
    let described = config(nobody(), usual).replace(
        "name = \"orders:read\"\n",
        "name = \"orders:read\"\ndescription = \"See <orders>\"\n",
    );
    let sidekey = Sidekey::start(&described).await;
    let shared = json!({"display_name": "A <b>ME", "rate_limits": [
        {"name": "all", "quota": 5000, "window_seconds": 1, "burst": 9000},
    ]});
    let path = "/api/v1/platform/tenants/acme";
    let put = sidekey.ask(Method::PUT, path, Some(&shared)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let key = sidekey
        .create_key(json!({
            "name": format!("Orders {SCRIPT}"),
            "scopes": ["orders:read", "orders:*"],
            "rate_limits": [{"name": "fast", "quota": 600, "window_seconds": 60, "burst": 100}],
            "expires_at": "2099-12-31T23:59:59Z",
            "allowed_ips": ["192.0.2.0/24", "2001:db8::1"],
            "contact_email": "ops@acme.example",
            "rotation_days": 60,
            "metadata": {"team": SCRIPT, "floors": [1, {"of": "<i>"}], SCRIPT: true},
        }))
        .await;
    let person = as_administrator(&sidekey).await;
    let html = html_of(&person, &page(&key)).await;
    assert!(!html.contains("alert('x')"), "{html}");
    assert!(!html.contains("<i>") && !html.contains("<b>"), "{html}");
    assert!(
        !html.contains("style=") && !html.contains("<script>"),
        "{html}"
    );
    let hint = format!("sk_live_{}_...{}", key.id, &key.text[key.text.len() - 4..]);
    let name = "Orders &#60;script&#62;alert(&#39;x&#39;)&#60;/script&#62;&#34;&#38;";
    assert_tells(
        &shown(&html),
        &[
            &key.id,
            &hint,
            name,
            "active Requests with this key are let through",
            "orders:read See &#60;orders&#62;",
            "orders:* Covers 2 scopes now",
            "600 a minute, bursts of 100 fast",
            "The key’s own.",
            "5,000 a second, bursts of 9,000 all",
            "For all keys of tenant acme together.",
            "A &#60;b&#62;ME",
            "192.0.2.0/24 2001:db8::1/128",
            "ops@acme.example",
            "Every 60 days; due",
            "Text, made by Sidekey",
            "Expires 2099-12-31 23:59:59 UTC",
            "Last used Never",
            "floors [1,{&#34;of&#34;:&#34;&#60;i&#62;&#34;}]",
            "API key created",
        ],
    );
    let secret = key.text.rsplit('_').next().expect("a secret");
    assert!(!html.contains(secret));
    for action in ["edit", "regenerate", "disable", "revoke"] {
        let link = format!("data-dialog href=\"{}/{action}\"", page(&key));
        assert!(html.contains(&link), "{link}");
    }

    let usual = sidekey.create_key(json!({"name": "usual"})).await;
    let text = text_of(&person, &page(&usual)).await;
    assert_tells(&text, &["7 an hour usual", "Allowed addresses Any"]);
    assert_tells(&text, &["The defaults of this deployment."]);
    let free = sidekey.create_key(json!({"rate_limits": []})).await;
    let text = text_of(&person, &page(&free)).await;
    assert_tells(&text, &["as many requests as it likes", "Metadata None"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_told_with_what_it_means() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let person = as_administrator(&sidekey).await;
    let key = sidekey.create_key(json!({"tenant_id": "acme"})).await;
    let disable = json!({"status": "disabled"});
    sidekey.change_key(&key.id, disable).await;
    let html = html_of(&person, &page(&key)).await;
    assert_tells(
        &shown(&html),
        &["disabled", "refused until it is enabled again", "Enable"],
    );
    assert!(html.contains(&format!("{}/enable", page(&key))));
    assert!(!html.contains(&format!("{}/disable", page(&key))));

    let enable = json!({"status": "active"});
    sidekey.change_key(&key.id, enable).await;
    let suspend = "/api/v1/platform/tenants/acme/suspend";
    let suspended = sidekey.ask(Method::POST, suspend, None).await;
    assert_eq!(suspended.status, 200, "{suspended:?}");
    let text = text_of(&person, &page(&key)).await;
    assert_tells(&text, &["tenant suspended", "Its tenant is suspended"]);

    sidekey.revoke_key(&key.id).await;
    let html = html_of(&person, &page(&key)).await;
    assert_tells(
        &shown(&html),
        &["revoked", "refused for good", "API key revoked"],
    );
    assert!(!html.contains("data-dialog href"), "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_something_is_told_so() {
    let sidekey = Sidekey::start(&config(nobody(), "")).await;
    let key = sidekey.create_key(json!({"tenant_id": "red"})).await;
    let stranger = Person::new(&sidekey);
    for path in [page(&key), file(&key, "24h")] {
        let reply = stranger.get(&path).await;
        assert_eq!(reply.status, 303, "{reply:?}");
        let way = reply.header("location").expect("a way");
        assert!(way.starts_with("/dashboard/sign-in"), "{way}");
    }

    let reader = admin_key(&sidekey, "red", &["keys:read"]).await;
    let reader = Person::signed_in(&sidekey, &reader).await;
    let html = html_of(&reader, &page(&key)).await;
    assert_tells(
        &shown(&html),
        &[
            "Usage is shown to keys that hold sidekey:usage:read",
            "Events are shown to keys that hold sidekey:audit:read",
        ],
    );
    for hidden in [
        "<figure",
        "usage.csv",
        "data-dialog href",
        "API key created",
    ] {
        assert!(!html.contains(hidden), "{hidden} in {html}");
    }
    assert_eq!(reader.get(&file(&key, "24h")).await.status, 403);

    let counter = admin_key(&sidekey, "red", &["usage:read"]).await;
    let counter = Person::signed_in(&sidekey, &counter).await;
    assert_eq!(counter.get(&page(&key)).await.status, 403);
    assert_eq!(counter.get(&file(&key, "24h")).await.status, 200);

    let all = ["keys:read", "keys:write", "usage:read", "audit:read"];
    let writer = admin_key(&sidekey, "red", &all).await;
    let writer = Person::signed_in(&sidekey, &writer).await;
    let html = html_of(&writer, &page(&key)).await;
    let edit = format!("{}/edit", page(&key));
    for offered in ["<figure", "API key created", &edit] {
        assert!(html.contains(offered), "{offered} in {html}");
    }
    // Only an administrator changes what can administrate.
    let mighty = sidekey
        .create_key(json!({"tenant_id": "red", "scopes": ["sidekey:keys:read"]}))
        .await;
    let html = html_of(&writer, &page(&mighty)).await;
    assert!(!html.contains("data-dialog href"), "{html}");

    let other = admin_key(&sidekey, "blue", &all).await;
    let other = Person::signed_in(&sidekey, &other).await;
    for id in [&*key.id, "AAAAAAAAAAAA", "nonsense", "%FF"] {
        for rest in ["", "/usage.csv"] {
            let reply = other.get(&format!("{KEYS_PAGE}/{id}{rest}")).await;
            assert_eq!(reply.status, 404, "{id}{rest}: {reply:?}");
            let media_type = reply.header("content-type").expect("a media type");
            assert!(media_type.starts_with("text/html"), "{reply:?}");
        }
    }
}

/// Sends some requests with `key`, one of them to where it may not go.
async fn use_key(sidekey: &Sidekey, key: &Key) {
    for status in [200, 200, 200, 404, 503] {
        let request = sidekey
            .request(Method::GET, "/things")
            .bearer_auth(&key.text)
            .header("x-answer-status", status.to_string());
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status);
    }
    assert_eq!(sidekey.status("/write", &key.text).await, 403);
}

async fn usage(sidekey: &Sidekey, key: &Key, query: &str) -> Value {
    let path = format!("{KEYS}/{}/usage?{query}", key.id);
    let reply = sidekey.ask(Method::GET, &path, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.as_bytes());
    let rows = reader.records().map(|row| row.expect("a row"));
    rows.map(|row| row.iter().map(str::to_owned).collect())
        .collect()
}

/// Fails unless `row` of a file with these `names` tells what the API `told`.
#[track_caller]
fn assert_same(names: &[String], row: &[String], told: &Value) {
    assert_eq!(names.len(), told.as_object().expect("a row").len());
    for (name, value) in names.iter().zip(row) {
        let is_same = match &told[name] {
            Value::String(text) => text == value,
            Value::Number(number) => number.as_f64() == value.parse().ok(),
            _ => false,
        };
        assert!(is_same, "{name}: {value} of {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_the_same_in_charts_tables_and_files() {
    let upstream = Upstream::start().await;
    let scoped = format!(
        "[[routes]]\nname = \"write\"\npath = \"/write\"\nupstream = \"service\"\n\
         scopes = [\"orders:write\"]\n{OFTEN}"
    );
    let sidekey = Sidekey::start(&config(upstream.address, &scoped)).await;
    let key = sidekey.create_key(json!({"scopes": ["orders:read"]})).await;
    use_key(&sidekey, &key).await;
    eventually("all are counted", async || {
        usage(&sidekey, &key, "").await["totals"]["requests"] == 6
    })
    .await;

    let person = as_administrator(&sidekey).await;
    for (range, interval, length) in RANGES {
        let path = format!("{}?range={range}", page(&key));
        let html = html_of(&person, &path).await;
        let chosen = format!("{path}\" data-swap=\"#usage\" aria-current=\"true\"");
        assert!(html.contains(&chosen), "{range}: {html}");
        // Three charts, a row for each place in time.
        assert_eq!(html.matches("<figure class=\"chart\"").count(), 3);
        assert_eq!(html.matches("<tr data-start=").count(), 3 * length);
        let per = match interval {
            "day" => "per day (UTC)",
            _ => "per hour",
        };
        assert_tells(
            &shown(&html),
            &[
                "Requests 6 3 successful",
                "Errors 33.33% 1 client (4xx), 1 server (5xx)",
                "Rate-limited 0% 0 over a limit, 1 refused otherwise",
                "6 in all, most on",
                per,
            ],
        );
        its_file_tells_the_same(&sidekey, &person, &key, (range, interval, length)).await;
    }
    // What is no range is the usual one.
    let html = html_of(&person, &format!("{}?range=1y", page(&key))).await;
    assert_eq!(html.matches("<tr data-start=").count(), 3 * 30);
    assert_tells(&shown(&html), &["Requests so far 6", "from 127.0.0.1"]);
}

async fn its_file_tells_the_same(
    sidekey: &Sidekey,
    person: &Person<'_>,
    key: &Key,
    (range, interval, length): (&str, &str, usize),
) {
    let reply = person.get(&file(key, range)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let name = format!("attachment; filename=\"usage-{}-{range}.csv\"", key.id);
    assert_eq!(reply.header("content-disposition"), Some(&*name));
    let media_type = reply.header("content-type").expect("a media type");
    assert!(media_type.starts_with("text/csv"), "{media_type}");
    assert!(reply.text.ends_with("\r\n"));
    let rows = csv_rows(&reply.text);
    assert_eq!(rows.len(), length + 1, "{range}");
    let query = format!("interval={interval}&from={}", rows[1][0]);
    let told = usage(sidekey, key, &query).await;
    let told = told["data"].as_array().expect("rows");
    // Another hour may have begun in between.
    assert!((length..=length + 1).contains(&told.len()), "{range}");
    for (row, told) in rows[1..].iter().zip(told) {
        assert_same(&rows[0], row, told);
    }
    let at = rows[0].iter().position(|name| name == "requests");
    let counts = rows[1..]
        .iter()
        .map(|row| row[at.expect("a column")].parse::<u64>());
    assert_eq!(counts.sum::<Result<u64, _>>(), Ok(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_is_shown_until_it_ends() {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, OFTEN)).await;
    let person = as_administrator(&sidekey).await;
    let old = sidekey.create_key(json!({})).await;
    let text = text_of(&person, &page(&old)).await;
    assert!(!text.contains("Two secrets work"), "{text}");
    let new = sidekey.regenerate_key(&old.id, 3600).await;
    assert_eq!(sidekey.status("/things", &new.text).await, 200);
    eventually("the use of the new one is told", async || {
        !text_of(&person, &page(&old))
            .await
            .contains("Last used Never")
    })
    .await;
    let html = html_of(&person, &page(&old)).await;
    assert_tells(
        &shown(&html),
        &[
            "Two secrets work",
            "No use of it is known",
            "not used since",
        ],
    );
    let end = format!("data-dialog href=\"{}/end-overlap\"", page(&old));
    assert!(html.contains(&end), "{html}");

    assert_eq!(sidekey.status("/things", &old.text).await, 200);
    eventually("its use is told", async || {
        let text = text_of(&person, &page(&old)).await;
        text.contains("somebody has not moved to it yet") && text.contains("It was last used on")
    })
    .await;
    let path = format!("{KEYS}/{}/previous-secret", old.id);
    let ended = sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!(ended.status, 204, "{ended:?}");
    let text = text_of(&person, &page(&old)).await;
    assert!(!text.contains("Two secrets work"), "{text}");
}
