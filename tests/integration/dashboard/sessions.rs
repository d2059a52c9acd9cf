//! Signing in and out, and how sessions end.

use reqwest::Method;
use serde_json::json;

use super::person::{HOME, KEYS_PAGE, Person, SESSION, SIGN_IN, SIGN_OUT};
use crate::audit::events;
use crate::harness::api::Reply;
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;
use crate::tenancy::TENANTS;

async fn start(dashboard: &str) -> Sidekey {
    let more = format!("[dashboard]\n{dashboard}\n");
    Sidekey::start(&config(nobody(), &more)).await
}

async fn reader(sidekey: &Sidekey) -> Key {
    let fields = json!({"name": "a reader's key", "scopes": ["sidekey:keys:read"]});
    sidekey.create_key(fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_a_key_and_out() {
    let sidekey = start("").await;
    let Key { id, text: key } = reader(&sidekey).await;
    let mut person = Person::new(&sidekey);
    let page = person
        .get(&format!("{SIGN_IN}?next=/dashboard/audit"))
        .await;
    assert_eq!(page.status, 200, "{page:?}");
    for part in [
        "<label for=\"key\">",
        "type=\"password\"",
        "autocomplete=\"off\"",
        "name=\"next\" value=\"/dashboard/audit\"",
    ] {
        assert!(page.text.contains(part), "{part}: {page:?}");
    }
    let fields = [("key", &*key), ("next", "/dashboard/audit")];
    let reply = person.post(SIGN_IN, &fields).await;
    assert_eq!(reply.status, 303, "{reply:?}");
    assert_eq!(reply.header("location"), Some("/dashboard/audit"));
    person.keep(&reply);
    assert!(person.is_signed_in().await);
    let page = person.get("/dashboard/nowhere").await;
    assert_eq!(page.status, 404);
    assert!(page.text.contains("Sign out"), "in the frame of who looks");
    // Whoever is signed in is led on.
    let again = person
        .get(&format!("{SIGN_IN}?next=/dashboard/overview"))
        .await;
    assert_eq!(again.status, 303);
    assert_eq!(again.header("location"), Some("/dashboard/overview"));

    let csrf = person.csrf().await;
    let out = person.post(SIGN_OUT, &[("csrf", &csrf)]).await;
    assert_eq!(out.status, 303, "{out:?}");
    assert_eq!(
        out.header("location"),
        Some("/dashboard/sign-in?done=signed-out")
    );
    let before = person.cookie.clone();
    person.keep(&out);
    assert_eq!(person.cookie, None);
    person.cookie = before;
    assert!(!person.is_signed_in().await, "the row is gone");
    let noted = async |action| events(&sidekey, &format!("action={action}&actor={id}")).await;
    eventually("it is noted", || async {
        noted("admin.signed_out").await.len() == 1
    })
    .await;
    assert_eq!(noted("admin.signed_in").await.len(), 1);
    Person::signed_in(&sidekey, &key).await;
    eventually("the next time is noted too", || async {
        noted("admin.signed_in").await.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_cookie_that_only_it_can_use() {
    let plain = start("").await;
    let field = "sidekey_session=TOKEN; Path=/dashboard; HttpOnly; SameSite=Strict";
    expect_cookie(&plain, field).await;
    let secure = start("url = \"https://keys.example.com\"").await;
    let field = "__Host-sidekey_session=TOKEN; Path=/; HttpOnly; SameSite=Strict; Secure";
    expect_cookie(&secure, field).await;
}

async fn expect_cookie(sidekey: &Sidekey, expected: &str) {
    let mut person = Person::new(sidekey);
    let reply = person.sign_in(&sidekey.admin_key()).await;
    let token = person.token();
    assert_eq!(token.len(), 43);
    let field = reply.header("set-cookie").expect("a cookie");
    assert_eq!(field.replace(token, "TOKEN"), expected);
    let csrf = person.csrf().await;
    let out = person.post(SIGN_OUT, &[("csrf", &csrf)]).await;
    let gone = format!("{}; Max-Age=0", expected.replace("TOKEN", ""));
    assert_eq!(out.header("set-cookie"), Some(&*gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sign_in_has_a_token_of_its_own_and_ends_the_one_before() {
    let sidekey = start("").await;
    let key = sidekey.admin_key();
    let first = Person::signed_in(&sidekey, &key).await;
    let elsewhere = Person::signed_in(&sidekey, &key).await;
    let mut again = first.at(&sidekey);
    assert_eq!(again.sign_in(&key).await.status, 303);
    assert_ne!(again.token(), first.token());
    assert!(!first.is_signed_in().await);
    assert!(again.is_signed_in().await);
    assert!(elsewhere.is_signed_in().await, "another browser");
    // A token that somebody else has thought of is none.
    let mut planted = Person::new(&sidekey);
    planted.cookie = Some(format!("sidekey_session={}", "a".repeat(43)));
    let before = planted.cookie.clone();
    planted.sign_in(&key).await;
    assert_ne!(planted.cookie, before);
    planted.cookie = before;
    assert!(!planted.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_key_is_said() {
    let sidekey = start("").await;
    let disabled = reader(&sidekey).await;
    sidekey
        .change_key(&disabled.id, json!({"status": "disabled"}))
        .await;
    let revoked = reader(&sidekey).await;
    sidekey.revoke_key(&revoked.id).await;
    let ordinary = sidekey.create_key(json!({})).await;
    let elsewhere = json!({"scopes": ["sidekey:keys:read"], "allowed_ips": ["192.0.2.1"]});
    let elsewhere = sidekey.create_key(elsewhere).await;
    let suspended = json!({"scopes": ["sidekey:keys:read"], "tenant_id": "asleep"});
    let suspended = sidekey.create_key(suspended).await;
    let path = format!("{TENANTS}/asleep/suspend");
    assert_eq!(sidekey.ask(Method::POST, &path, None).await.status, 200);
    let forged = format!("{}x", &revoked.text[..revoked.text.len() - 1]);
    for (key, status, words) in [
        ("", 401, "Enter your key."),
        ("nonsense", 401, "not a valid key"),
        ("<script>alert(1)</script>", 401, "not a valid key"),
        (&*forged, 401, "not a valid key"),
        (&*revoked.text, 401, "not a valid key"),
        (&*disabled.text, 401, "is disabled"),
        (&*suspended.text, 401, "is suspended"),
        (&*elsewhere.text, 403, "certain client addresses"),
        (&*ordinary.text, 403, "may not use the dashboard"),
    ] {
        let mut person = Person::new(&sidekey);
        let reply = person.sign_in(key).await;
        assert_eq!(reply.status, status, "{key}: {reply:?}");
        assert!(reply.text.contains(words), "{key}: {reply:?}");
        assert!(reply.text.contains("aria-invalid=\"true\""), "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(person.cookie, None, "{key}");
        assert!(key.is_empty() || !reply.text.contains(key), "{reply:?}");
    }
    let refusals = "action=admin.call_refused";
    eventually("they are noted", || async {
        events(&sidekey, refusals).await.len() == 9
    })
    .await;
    let noted = events(&sidekey, refusals).await;
    assert!(
        noted
            .iter()
            .all(|event| event["details"]["path"] == SIGN_IN)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_ends_soon_and_locks_nobody_out() {
    let sidekey =
        start("sign_in = { name = \"sign-in\", quota = 1, window_seconds = 86400, burst = 3 }")
            .await;
    let known = reader(&sidekey).await;
    Person::signed_in(&sidekey, &known.text).await;
    let unknown = reader(&sidekey).await;
    let mut guesser = Person::new(&sidekey);
    for number in 0..3 {
        let reply = guesser.sign_in(&format!("guess {number}")).await;
        assert_eq!(reply.status, 401, "{reply:?}");
    }
    for key in ["guess", &unknown.text] {
        let reply = guesser.sign_in(key).await;
        assert_eq!(reply.status, 429, "{reply:?}");
        assert!(reply.header("retry-after").is_some());
        assert!(reply.text.contains("Too many"), "{reply:?}");
    }
    // A key that is known to be right is not held up, and the API has limits of its own.
    Person::signed_in(&sidekey, &known.text).await;
    let of_api = sidekey.ask_as(Some(&unknown.text), Method::GET, KEYS, None);
    assert_eq!(of_api.await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn next_leads_to_our_own_pages_alone() {
    let sidekey = start("").await;
    let key = sidekey.admin_key();
    for (next, target) in [
        (
            "/dashboard/overview?range=7d",
            "/dashboard/overview?range=7d",
        ),
        ("https://evil.example", HOME),
        ("//evil.example", HOME),
        ("/\\evil.example", HOME),
        ("/dashboard/../x", HOME),
        ("/dashboard/\r\nset-cookie: a=b", HOME),
        ("/dashboard/sign-in", HOME),
        ("/api/v1/platform/api-keys", HOME),
        ("\"><script>", HOME),
    ] {
        let query: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let page = Person::new(&sidekey)
            .get(&format!("{SIGN_IN}?next={query}"))
            .await;
        let field = format!("name=\"next\" value=\"{target}\"");
        assert!(page.text.contains(&field), "{next}: {page:?}");
        let person = Person::new(&sidekey);
        let reply = person.post(SIGN_IN, &[("key", &key), ("next", next)]).await;
        assert_eq!(reply.header("location"), Some(target), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_leads_to_the_form_and_back() {
    let sidekey = start("").await;
    let stranger = Person::new(&sidekey);
    let page = stranger.get("/dashboard/nowhere?a=b").await;
    assert_eq!(page.status, 303);
    let form = "/dashboard/sign-in?next=%2Fdashboard%2Fnowhere%3Fa%3Db";
    assert_eq!(page.header("location"), Some(form));
    // A script can't see where a redirect leads. It comes from the page that it works for.
    let fragment = stranger
        .request(Method::GET, "/dashboard/nowhere")
        .header("sidekey-fragment", "dialog")
        .header(
            "referer",
            format!("http://{}{KEYS_PAGE}?q=a", sidekey.admin),
        );
    let reply = Reply::to(fragment).await;
    assert_eq!(reply.status, 401, "{reply:?}");
    let form = "/dashboard/sign-in?next=%2Fdashboard%2Fsettings%2Fdevelopers%2Fapi-keys%3Fq%3Da";
    assert_eq!(reply.header("sidekey-go"), Some(form));
    assert_eq!(reply.header("location"), None);
    let foreign = stranger
        .request(Method::POST, SIGN_OUT)
        .header("referer", "https://evil.example/x");
    let reply = Reply::to(foreign).await;
    assert_eq!(reply.header("location"), Some(SIGN_IN), "{reply:?}");
}

/// What becomes of a key ends its sessions with their next request, or holds them up.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_worth_what_its_key_is() {
    let sidekey = start("").await;

    let key = reader(&sidekey).await;
    let person = Person::signed_in(&sidekey, &key.text).await;
    sidekey.revoke_key(&key.id).await;
    let reply = person.get(SESSION).await;
    assert_eq!(reply.status, 303);
    let location = reply.header("location").expect("a place");
    assert!(location.ends_with("done=session-ended"), "{location}");

    let key = reader(&sidekey).await;
    let person = Person::signed_in(&sidekey, &key.text).await;
    sidekey
        .change_key(&key.id, json!({"status": "disabled"}))
        .await;
    assert!(!person.is_signed_in().await, "disabled");
    sidekey
        .change_key(&key.id, json!({"status": "active"}))
        .await;
    assert!(person.is_signed_in().await, "enabled again");
    sidekey
        .change_key(&key.id, json!({"allowed_ips": ["192.0.2.1"]}))
        .await;
    assert!(!person.is_signed_in().await, "used from elsewhere");
    sidekey
        .change_key(&key.id, json!({"allowed_ips": []}))
        .await;
    let path = format!("{TENANTS}/acme/suspend");
    assert_eq!(sidekey.ask(Method::POST, &path, None).await.status, 200);
    assert!(!person.is_signed_in().await, "its tenant is suspended");
    let path = format!("{TENANTS}/acme/resume");
    assert_eq!(sidekey.ask(Method::POST, &path, None).await.status, 200);
    assert!(person.is_signed_in().await);
    let soon = sidekey::clock::Clock::now(&sidekey::clock::SystemClock::new())
        .plus(std::time::Duration::from_millis(1500));
    sidekey
        .change_key(&key.id, json!({"expires_at": soon.to_string()}))
        .await;
    eventually("the key has expired", || async {
        !person.is_signed_in().await
    })
    .await;

    let key = reader(&sidekey).await;
    let person = Person::signed_in(&sidekey, &key.text).await;
    let newer = sidekey.regenerate_key(&key.id, 3600).await;
    assert!(person.is_signed_in().await, "in the grace period");
    let of_new = Person::signed_in(&sidekey, &newer.text).await;
    let path = format!("{KEYS}/{}/previous-secret", key.id);
    assert_eq!(sidekey.ask(Method::DELETE, &path, None).await.status, 204);
    assert!(!person.is_signed_in().await, "the old secret is ended");
    assert!(of_new.is_signed_in().await);
    sidekey.regenerate_key(&key.id, 0).await;
    assert!(!of_new.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_in_time() {
    let sidekey = start("session_max_seconds = 1").await;
    let mut person = Person::new(&sidekey);
    person.sign_in(&sidekey.admin_key()).await;
    eventually("the session has ended", || async {
        !person.is_signed_in().await
    })
    .await;
    let page = person.get(SIGN_IN).await;
    assert_eq!(page.status, 200, "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_key_nor_token_is_written_anywhere() {
    let more = "[log]\nlevel = \"debug\"\naccess = \"all\"\n";
    let mut sidekey = Sidekey::start(&config(nobody(), more)).await;
    let key = reader(&sidekey).await;
    let (token, csrf, id) = {
        let person = Person::signed_in(&sidekey, &key.text).await;
        let csrf = person.csrf().await;
        person.post(SIGN_OUT, &[("csrf", "wrong")]).await;
        person.post(SIGN_IN, &[("key", "sk_live_wrong")]).await;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(person.token());
        let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (person.token().to_owned(), csrf, id)
    };
    // That what is stored is in the files, where it is looked for.
    sidekey.kill();
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(sidekey.directory().join("data")).expect("files") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("admin.key") {
            stored.extend(std::fs::read(path).expect("a file"));
        }
    }
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains(&id), "the session is stored as its digest");
    let output = sidekey.output();
    let secret = &key.text[key.text.len() - 54..];
    for (name, needle) in [("token", &*token), ("csrf", &csrf), ("key", secret)] {
        assert!(!stored.contains(needle), "{name} in the database");
        assert!(!output.contains(needle), "{name} in the log: {output}");
    }
}

/// Instances that share a database share sessions; while it is away nobody is signed out.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_those_of_all_instances() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let environment = [("SIDEKEY__STORE__URL", &*url)];
    let config = config(nobody(), "");
    let one = Sidekey::start_with(&config, &environment).await;
    let other = Sidekey::start_with(&config, &environment).await;
    let key = one.admin_key();
    let person = Person::signed_in(&one, &key).await;
    assert!(person.at(&other).is_signed_in().await);
    let guest = Person::signed_in(&one, &key).await;
    let csrf = person.at(&other).csrf().await;
    let out = person.at(&other).post(SIGN_OUT, &[("csrf", &csrf)]).await;
    assert_eq!(out.status, 303);
    assert!(!person.is_signed_in().await);

    postgres.kill();
    let page = guest.get(SESSION).await;
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.header("retry-after").is_some());
    let attempt = Person::new(&one).sign_in(&key).await;
    assert_eq!(attempt.status, 503, "{attempt:?}");
    assert!(attempt.text.contains("name=\"key\""), "the form is there");
    let form = guest.get(SIGN_IN).await;
    assert_eq!(form.status, 503, "who that is can't be said: {form:?}");
    assert!(form.header("retry-after").is_some());
    assert!(form.text.contains("name=\"key\""), "{form:?}");
    postgres.launch().await;
    eventually("the database is found again", || async {
        guest.get(SESSION).await.status != 503
    })
    .await;
    assert!(guest.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_dashboard_there_is_nothing() {
    let sidekey = start("enabled = false").await;
    let person = Person::new(&sidekey);
    for path in ["/dashboard", SIGN_IN, SESSION, KEYS_PAGE] {
        person.get(path).await.problem(404);
    }
    person.post(SIGN_IN, &[("key", "x")]).await.problem(404);
    assert_eq!(sidekey.ask(Method::GET, KEYS, None).await.status, 200);
}
