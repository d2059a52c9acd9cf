//! Forms that change keys, as they are sent without a script.

mod create;
mod edit;
mod endings;

use reqwest::Method;
use serde_json::{Value, json};

use super::person::{KEYS_PAGE, Person};
use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// What would run, if it were not shown as the text that it is.
const SCRIPT: &str = "\"><script>alert(1)</script>'&";

/// The program in front of a service, with scopes that are described.
struct World {
    sidekey: Sidekey,
    _upstream: Upstream,
}

impl World {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let more = "[[scopes]]\nname = \"shop:read\"\ndescription = \"See <b>the shop</b>\"\n";
        let sidekey = Sidekey::start(&config(upstream.address, more)).await;
        World {
            sidekey,
            _upstream: upstream,
        }
    }

    async fn admin(&self) -> Visit<'_> {
        Visit::of(&self.sidekey, &self.sidekey.admin_key()).await
    }

    /// Somebody of tenant `acme` with these scopes.
    async fn colleague(&self, scopes: &[&str]) -> Visit<'_> {
        let fields = json!({"name": "a colleague", "scopes": scopes});
        let key = self.sidekey.create_key(fields).await;
        Visit::of(&self.sidekey, &key.text).await
    }

    async fn key(&self, id: &str) -> Value {
        let path = format!("{KEYS}/{id}");
        let reply = self.sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// How many keys have that name.
    async fn count_named(&self, name: &str) -> usize {
        let reply = self.sidekey.ask(Method::GET, KEYS, None).await.json();
        let keys = reply["data"].as_array().expect("keys").iter();
        keys.filter(|key| key["name"] == name).count()
    }
}

/// Somebody who is signed in, with what their forms bring back.
struct Visit<'a> {
    person: Person<'a>,
    csrf: String,
}

impl<'a> Visit<'a> {
    async fn of(sidekey: &'a Sidekey, key: &str) -> Self {
        let person = Person::signed_in(sidekey, key).await;
        let csrf = person.csrf().await;
        Visit { person, csrf }
    }

    async fn get(&self, path: &str) -> Reply {
        self.person.get(&format!("{KEYS_PAGE}{path}")).await
    }

    /// Sends a form with its proof.
    async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut all = vec![("csrf", &*self.csrf)];
        all.extend_from_slice(fields);
        self.person.post(&format!("{KEYS_PAGE}{path}"), &all).await
    }
}

/// A page that nobody keeps, with the fields that all pages have.
#[track_caller]
fn assert_page(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    let media_type = reply.header("content-type");
    assert_eq!(media_type, Some("text/html; charset=utf-8"), "{reply:?}");
    let policy = reply.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(!reply.text.contains("<script>alert"), "{}", reply.text);
}

/// A change that leads on to the key's page.
#[track_caller]
fn assert_done(reply: &Reply, id: &str, done: &str) {
    assert_eq!(reply.status, 303, "{reply:?}");
    let expected = format!("{KEYS_PAGE}/{id}?done={done}");
    assert_eq!(reply.header("location"), Some(&*expected), "{reply:?}");
}

/// The value of a field of a page's form.
#[track_caller]
fn value_of(page: &str, field: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("name=\"{field}\" value=\""))
        .unwrap_or_else(|| panic!("no {field} in {page}"));
    rest.split('"').next().expect("its end").to_owned()
}

/// The new secret of a page.
#[track_caller]
fn secret_of(page: &str) -> String {
    let (_, rest) = page
        .split_once("id=\"new-key\">")
        .unwrap_or_else(|| panic!("no key in {page}"));
    rest.split('<').next().expect("its end").to_owned()
}

/// `text` as pages show it.
fn escaped(text: &str) -> String {
    text.replace('&', "&#38;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
        .replace('<', "&#60;")
        .replace('>', "&#62;")
}

/// What is said beside the field whose error has that id.
#[track_caller]
fn error_of<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page
        .split_once(&format!("id=\"{id}-error\">"))
        .unwrap_or_else(|| panic!("no error of {id} in {page}"));
    rest.split('<').next().expect("its end")
}

/// The id of a key by its secret.
fn id_of(secret: &str) -> String {
    secret.split('_').nth(2).expect("an id").to_owned()
}

fn key(id: String, text: String) -> Key {
    Key { id, text }
}

/// What all that is for writers answers to whoever only reads, to strangers, and to forms without proof.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_is_offered_nothing_and_changes_nothing() {
    let world = World::start().await;
    let victim = world.sidekey.create_key(json!({"name": "victim"})).await;
    let reader = world.colleague(&["sidekey:keys:read"]).await;
    let writer = world.colleague(&["sidekey:keys:write"]).await;
    let other = world
        .sidekey
        .create_key(json!({"name": "victim", "tenant_id": "other"}))
        .await;
    let before = (world.key(&victim.id).await, world.key(&other.id).await);
    let fields = [
        ("name", "victim"),
        ("confirm_name", "victim"),
        ("environment", "live"),
        ("grace", "0"),
        ("revision", "1"),
    ];
    for action in [
        "edit",
        "regenerate",
        "revoke",
        "disable",
        "enable",
        "end-overlap",
    ] {
        let path = format!("/{}/{action}", victim.id);
        assert_page(&reader.get(&path).await, 403);
        assert_page(&reader.send(&path, &fields).await, 403);
        // Without the proof.
        let whole = format!("{KEYS_PAGE}{path}");
        assert_page(&writer.person.post(&whole, &fields).await, 403);
        // Another tenant's key is not there.
        let path = format!("/{}/{action}", other.id);
        assert_page(&writer.get(&path).await, 404);
        assert_page(&writer.send(&path, &fields).await, 404);
        assert_page(&writer.get(&format!("/000000000000/{action}")).await, 404);
    }
    assert_page(&reader.get("/new").await, 403);
    assert_page(&reader.send("", &fields).await, 403);
    let unproven = writer.person.post(KEYS_PAGE, &fields).await;
    assert_page(&unproven, 403);
    let now = (world.key(&victim.id).await, world.key(&other.id).await);
    assert_eq!(now, before);
    assert_eq!(world.count_named("victim").await, 2);
}

/// A key that can administrate is changed by administrators alone, though it may end itself.
#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_change_keys_that_administrate() {
    let world = World::start().await;
    let writer = world.colleague(&["sidekey:keys:write"]).await;
    let fields = json!({"name": "strong", "scopes": ["sidekey:keys:read"]});
    let strong = world.sidekey.create_key(fields).await;
    for action in ["edit", "regenerate", "revoke", "disable"] {
        assert_page(&writer.get(&format!("/{}/{action}", strong.id)).await, 403);
    }
    let page = writer.get("/new").await;
    assert_page(&page, 200);
    assert!(!page.text.contains("sidekey:admin"), "{}", page.text);
    let admin = world.admin().await.get("/new").await;
    assert!(admin.text.contains("sidekey:admin"), "{}", admin.text);
}
