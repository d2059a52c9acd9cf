//! Who may do what on the admin port: every role, every call, own, other and missing things.
//! Another tenant's things look exactly like things that don't exist.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;

/// A key id that is well-formed and not there.
const MISSING: &str = "000000000000";

struct Role {
    name: &'static str,
    key: Option<String>,
    reads: bool,
    writes: bool,
    admin: bool,
    authentic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    List,
    Show,
    Create,
    Change,
    Regenerate,
    Revoke,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Own,
    Other,
    Missing,
}

const CALLS: [Call; 6] = [
    Call::List,
    Call::Show,
    Call::Create,
    Call::Change,
    Call::Regenerate,
    Call::Revoke,
];

impl Role {
    /// The contract, as a rule.
    fn expected(&self, call: Call, whose: Whose) -> u16 {
        let is_read = matches!(call, Call::List | Call::Show);
        if !self.authentic {
            return 401;
        }
        if !self.admin && !(if is_read { self.reads } else { self.writes }) {
            return 403;
        }
        let is_hidden = whose == Whose::Missing || (whose == Whose::Other && !self.admin);
        match call {
            // Of a tenant that isn't there the list is empty, and an administrator makes a new
            // tenant by naming it.
            Call::List => 200,
            Call::Create if self.admin => 201,
            _ if is_hidden => 404,
            Call::Create => 201,
            Call::Show | Call::Change | Call::Regenerate => 200,
            Call::Revoke => 204,
        }
    }
}

async fn roles(sidekey: &Sidekey) -> Vec<Role> {
    let mut roles = Vec::new();
    for (name, scopes, reads, writes, admin) in [
        ("admin", json!(["sidekey:admin"]), true, true, true),
        ("all of sidekey:", json!(["sidekey:*"]), true, true, true),
        ("reader", json!(["sidekey:keys:read"]), true, false, false),
        ("writer", json!(["sidekey:keys:write"]), false, true, false),
        (
            "reader and writer",
            json!(["sidekey:keys:read", "sidekey:keys:write"]),
            true,
            true,
            false,
        ),
        ("all of keys", json!(["sidekey:keys:*"]), true, true, false),
        ("usage", json!(["sidekey:usage:read"]), false, false, false),
        ("audit", json!(["sidekey:audit:read"]), false, false, false),
        ("ordinary", json!(["orders:*"]), false, false, false),
        ("star", json!(["*"]), false, false, false),
    ] {
        let key = sidekey.create_key(json!({"scopes": scopes})).await;
        roles.push(Role {
            name,
            key: Some(key.text),
            reads,
            writes,
            admin,
            authentic: true,
        });
    }
    let scopes = json!({"scopes": ["sidekey:admin"]});
    let wrong = forged(&sidekey.create_key(scopes.clone()).await.text);
    let revoked = sidekey.create_key(scopes.clone()).await;
    sidekey.revoke_key(&revoked.id).await;
    let replaced = sidekey.create_key(scopes.clone()).await;
    sidekey.regenerate_key(&replaced.id, 0).await;
    let disabled = sidekey.create_key(scopes.clone()).await;
    let off = json!({"status": "disabled"});
    sidekey.change_key(&disabled.id, off).await;
    let expired = sidekey.create_key(scopes).await;
    let over = json!({"expires_at": "2001-01-01T00:00:00Z"});
    sidekey.change_key(&expired.id, over).await;
    for (name, key) in [
        ("no key", None),
        ("wrong key", Some(wrong)),
        ("no key at all", Some("nonsense".to_owned())),
        ("revoked key", Some(revoked.text)),
        ("replaced key", Some(replaced.text)),
        ("disabled key", Some(disabled.text)),
        ("expired key", Some(expired.text)),
    ] {
        roles.push(Role {
            name,
            key,
            reads: false,
            writes: false,
            admin: false,
            authentic: false,
        });
    }
    roles
}

/// `key` with another last character.
fn forged(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "a" { "b" } else { "a" })
}

async fn call(sidekey: &Sidekey, role: &Role, call: Call, tenant: &str, id: &str) -> Reply {
    let one = format!("{KEYS}/{id}");
    let (method, path, body) = match call {
        Call::List => (Method::GET, format!("{KEYS}?tenant_id={tenant}"), None),
        Call::Show => (Method::GET, one, None),
        Call::Create => {
            let body =
                json!({"name": "n", "tenant_id": tenant, "environment": "live", "scopes": []});
            (Method::POST, KEYS.to_owned(), Some(body))
        }
        Call::Change => (Method::PATCH, one, Some(json!({"name": "changed"}))),
        Call::Regenerate => (Method::POST, format!("{one}/regenerate"), Some(json!({}))),
        Call::Revoke => (Method::DELETE, one, None),
    };
    sidekey
        .ask_as(role.key.as_deref(), method, &path, body.as_ref())
        .await
}

/// A reply without what differs between any two.
fn essence(reply: &Reply) -> (u16, Value, Vec<(String, String)>) {
    let mut body = reply.json();
    if let Some(object) = body.as_object_mut() {
        object.remove("request_id");
    }
    let fields = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"))
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    (reply.status, body, fields)
}

async fn record(sidekey: &Sidekey, key: &Key) -> Value {
    let path = format!("{KEYS}/{}", key.id);
    sidekey.ask(Method::GET, &path, None).await.json()
}

async fn start() -> (Upstream, Sidekey) {
    let upstream = Upstream::start().await;
    let sidekey = Sidekey::start(&config(upstream.address, "")).await;
    (upstream, sidekey)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_what_the_contract_gives_it_and_no_more() {
    let (_upstream, sidekey) = start().await;
    for role in roles(&sidekey).await {
        let own = sidekey.create_key(json!({})).await;
        let other = sidekey.create_key(json!({"tenant_id": "other"})).await;
        let (own_before, other_before) =
            (record(&sidekey, &own).await, record(&sidekey, &other).await);
        for wanted in CALLS {
            let mut hidden = Vec::new();
            for whose in [Whose::Own, Whose::Other, Whose::Missing] {
                let (tenant, id) = match whose {
                    Whose::Own => ("acme", own.id.as_str()),
                    Whose::Other => ("other", other.id.as_str()),
                    Whose::Missing => ("nobody", MISSING),
                };
                let reply = call(&sidekey, &role, wanted, tenant, id).await;
                let at = format!("{} {wanted:?} {whose:?}", role.name);
                assert_eq!(
                    reply.status,
                    role.expected(wanted, whose),
                    "{at}: {reply:?}"
                );
                if reply.status >= 400 {
                    reply.problem(reply.status);
                }
                if wanted == Call::List && reply.status == 200 {
                    let is_shown = whose == Whose::Own || (whose == Whose::Other && role.admin);
                    let is_empty = reply.json()["data"] == json!([]);
                    // Administrators of this test make keys for the tenant that is missing.
                    if !(role.admin && whose == Whose::Missing) {
                        assert_eq!(is_empty, !is_shown, "{at}");
                    }
                }
                if whose != Whose::Own && !role.admin {
                    hidden.push(essence(&reply));
                }
            }
            if !hidden.is_empty() {
                assert_eq!(hidden[0], hidden[1], "{} {wanted:?}", role.name);
            }
        }
        // Who may not write has changed nothing; who may, nothing of the other tenant.
        if !role.writes {
            assert_eq!(record(&sidekey, &own).await, own_before, "{}", role.name);
            assert_eq!(sidekey.status("/", &own.text).await, 200, "{}", role.name);
        }
        if !role.admin {
            assert_eq!(
                record(&sidekey, &other).await,
                other_before,
                "{}",
                role.name
            );
            assert_eq!(sidekey.status("/", &other.text).await, 200, "{}", role.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_lists_hold_only_its_own_keys() {
    let (_upstream, sidekey) = start().await;
    let reader = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:read"]}))
        .await;
    for tenant in ["acme", "other", "acme2"] {
        sidekey
            .create_key(json!({"tenant_id": tenant, "name": "needle"}))
            .await;
    }
    let list = async |query: &str| {
        let path = format!("{KEYS}{query}");
        let reply = sidekey
            .ask_as(Some(&reader.text), Method::GET, &path, None)
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    for (query, count) in [
        ("", 2),
        ("?q=needle", 1),
        ("?status=active", 2),
        ("?tenant_id=acme", 2),
        ("?tenant_id=other", 0),
        ("?tenant_id=sidekey", 0),
    ] {
        let body = list(query).await;
        let keys = body["data"].as_array().unwrap();
        assert!(keys.iter().all(|key| key["tenant_id"] == "acme"), "{query}");
        assert_eq!(keys.len(), count, "{query}");
    }
    // Which of two is meant nobody can know.
    let path = format!("{KEYS}?tenant_id=other&tenant_id=acme");
    let twice = sidekey.ask_as(Some(&reader.text), Method::GET, &path, None);
    assert_eq!(twice.await.bad_fields(), ["tenant_id"]);
    // A cursor that stands on another tenant's key opens nothing of it.
    let all = sidekey
        .ask(Method::GET, &format!("{KEYS}?limit=1"), None)
        .await
        .json();
    let cursor = all["next_cursor"].as_str().unwrap();
    let body = list(&format!("?cursor={cursor}")).await;
    let keys = body["data"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["tenant_id"] == "acme"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_writer_makes_keys_for_its_own_tenant_also_unnamed() {
    let (_upstream, sidekey) = start().await;
    let writer = sidekey
        .create_key(json!({"scopes": ["sidekey:keys:write"]}))
        .await;
    let body = json!({"name": "n", "environment": "live", "scopes": ["*"]});
    let made = sidekey
        .ask_as(Some(&writer.text), Method::POST, KEYS, Some(&body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["api_key"]["tenant_id"], "acme");
}
