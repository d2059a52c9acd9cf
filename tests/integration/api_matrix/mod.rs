//! Who may do what: every role x every call of the served document x the own, another tenant's and a
//! missing thing. Another tenant's things look exactly like things that don't exist, and nothing of
//! them is changed.

mod roles;
mod rules;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use roles::{Role, TENANT};
use rules::{RULES, Rule};

use crate::harness::api::Reply;
use crate::harness::calls::{self, Call, NO_KEY, Thing};
use crate::harness::postgres::Postgres;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::Upstream;
use crate::tenancy::{TENANTS, put};

/// No limit that a test could meet.
const SETTINGS: &str = "[limits]\n\
    default = [{ name = \"plenty\", quota = 1000000, window_seconds = 1 }]\n\
    failed_auth = { name = \"failed-auth\", quota = 1000000, window_seconds = 1 }\n";
/// What nobody but administrators may ever read. No request names any of it.
const BYSTANDER: &str = "bystander";
const BYSTANDER_NAMES: [&str; 3] = [BYSTANDER, "Standing By, Inc.", "a name to keep quiet"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Own,
    Other,
    Missing,
    /// No tenant is named.
    Everyones,
}

impl Whose {
    const ALL: [Whose; 4] = [Self::Own, Self::Other, Self::Missing, Self::Everyones];
}

/// The contract, as a rule.
fn expected(role: &Role, rule: &Rule, whose: Whose) -> u16 {
    let is_hidden = matches!(whose, Whose::Other | Whose::Missing) && !role.is_admin();
    match role.refusal(rule) {
        Some(refusal) => refusal,
        // Nobody shuts themselves out.
        None if rule.call.ends_with("/suspend") && whose == Whose::Own => 409,
        // The whole platform's is for administrators.
        None if rule.call.ends_with("platform/usage")
            && whose == Whose::Everyones
            && !role.is_admin() =>
        {
            403
        }
        None if is_hidden => rule.hidden,
        None if whose == Whose::Missing => rule.absent,
        None => rule.found,
    }
}

/// Whether the call's request names a tenant where it could do without.
fn is_filtered(call: &Call) -> bool {
    let thing = |tenant| Thing {
        tenant,
        key_id: NO_KEY,
        number: 0,
    };
    call.name.starts_with("get ") && calls::request(call, thing(Some("x"))).path.contains('?')
}

/// A reply without what differs between any two.
fn essence(reply: &Reply) -> (u16, String, Vec<(String, String)>) {
    let mut text = reply.text.clone();
    if let Ok(mut body) = serde_json::from_str::<Value>(&text)
        && let Some(object) = body.as_object_mut()
    {
        object.remove("request_id");
        text = body.to_string();
    }
    let fields = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"))
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect();
    (reply.status, text, fields)
}

/// One gateway with everything that roles can act upon.
struct World {
    sidekey: Sidekey,
    _upstream: Upstream,
    bystander: Key,
    number: AtomicU64,
}

/// What one call of one role is tried on.
struct Things {
    own: Key,
    other: Key,
    other_tenant: String,
}

impl World {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let upstream = Upstream::start().await;
        let config = config(upstream.address, SETTINGS);
        let sidekey = Sidekey::start_with(&config, environment).await;
        let settings = json!({"display_name": BYSTANDER_NAMES[1]});
        assert_eq!(put(&sidekey, BYSTANDER, settings).await.status, 201);
        let fields = json!({"tenant_id": BYSTANDER, "name": BYSTANDER_NAMES[2]});
        let bystander = sidekey.create_key(fields).await;
        assert_eq!(sidekey.status("/", &bystander.text).await, 200);
        World {
            sidekey,
            _upstream: upstream,
            bystander,
            number: AtomicU64::new(100_000),
        }
    }

    fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    async fn things(&self) -> Things {
        let other_tenant = format!("other{}", self.number());
        let fields = json!({"tenant_id": other_tenant});
        Things {
            own: self.sidekey.create_key(json!({})).await,
            other: self.sidekey.create_key(fields).await,
            other_tenant,
        }
    }

    async fn record(&self, path: String) -> Value {
        let reply = self.sidekey.ask(Method::GET, &path, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// The own key, and the other's key and tenant.
    async fn state(&self, things: &Things) -> (Value, [Value; 2]) {
        let own = self.record(format!("{KEYS}/{}", things.own.id)).await;
        let other = self.record(format!("{KEYS}/{}", things.other.id)).await;
        let tenant = format!("{TENANTS}/{}", things.other_tenant);
        (own, [other, self.record(tenant).await])
    }

    async fn ask(&self, role: &Role, call: &Call, whose: Whose, things: &Things) -> Reply {
        let missing = format!("other{}", self.number());
        let (tenant, key_id) = match whose {
            Whose::Own => (Some(TENANT), &*things.own.id),
            Whose::Other => (Some(&*things.other_tenant), &*things.other.id),
            Whose::Missing => (Some(&*missing), NO_KEY),
            Whose::Everyones => (None, NO_KEY),
        };
        let number = self.number();
        let thing = Thing {
            tenant,
            key_id,
            number,
        };
        let request = calls::request(call, thing);
        request.send(&self.sidekey, role.key.as_deref()).await
    }

    /// All cells of one role and one call.
    async fn check(&self, role: &Role, call: &Call, rule: &Rule) {
        let things = self.things().await;
        let before = self.state(&things).await;
        let mut hidden = Vec::new();
        for whose in Whose::ALL {
            if whose == Whose::Everyones && !is_filtered(call) {
                continue;
            }
            let reply = self.ask(role, call, whose, &things).await;
            let cell = format!("{} {} {whose:?}", role.name, call.name);
            let status = expected(role, rule, whose);
            assert_eq!(reply.status, status, "{cell}: {reply:?}");
            if reply.status >= 400 {
                reply.problem(reply.status);
            }
            self.check_content(&cell, role, whose, &things, &reply);
            if matches!(whose, Whose::Other | Whose::Missing) {
                hidden.push(essence(&reply));
            }
        }
        if !role.is_admin() && call.is_guarded() {
            assert_eq!(hidden[0], hidden[1], "{} {}", role.name, call.name);
        }
        self.check_unchanged(role, rule, &things, before).await;
    }

    /// What an answer must show, and must not.
    fn check_content(&self, cell: &str, role: &Role, whose: Whose, things: &Things, reply: &Reply) {
        let text = &reply.text;
        // Metrics name the busiest tenants, to whoever may reach the port: the security guide says so.
        if !role.is_admin() && !cell.contains(" /metrics ") {
            for name in BYSTANDER_NAMES.iter().chain([&&*self.bystander.id]) {
                assert!(!text.contains(name), "{cell} shows {name}: {reply:?}");
            }
        }
        let is_good = reply.status == 200;
        if cell.contains("/import ") && is_good {
            let is_taken = whose == Whose::Own || role.is_admin();
            let word = if is_taken { "created" } else { "refused" };
            assert_eq!(reply.json()["results"][0]["status"], word, "{cell}");
        }
        let lists = ["/api-keys ", "/audit-events ", "/export ", "/tenants "];
        if is_good && lists.iter().any(|list| cell.contains(list)) {
            let is_shown = match whose {
                Whose::Own | Whose::Everyones => true,
                Whose::Other => role.is_admin(),
                Whose::Missing => false,
            };
            let (id, tenant) = match whose {
                Whose::Other => (&things.other.id, &*things.other_tenant),
                _ => (&things.own.id, TENANT),
            };
            let what = if cell.contains("/tenants ") {
                tenant
            } else {
                id
            };
            // A page of all tenants need not have it.
            let is_paged = whose == Whose::Everyones && role.is_admin();
            assert!(
                text.contains(what) == is_shown || is_paged,
                "{cell}: {text}"
            );
            if !is_shown {
                let is_empty = text.is_empty() || reply.json()["data"] == json!([]);
                assert!(is_empty, "{cell}: {text}");
            }
        }
    }

    /// Who may not change has changed nothing; who may, nothing of another tenant.
    async fn check_unchanged(
        &self,
        role: &Role,
        rule: &Rule,
        things: &Things,
        (own, other): (Value, [Value; 2]),
    ) {
        let at = format!("{} {}", role.name, rule.call);
        let works = async |key: &Key| {
            let works = !rule.is_change() || self.sidekey.status("/", &key.text).await == 200;
            assert!(works, "{at}");
        };
        let (own_after, other_after) = self.state(things).await;
        if role.refusal(rule).is_some() || !rule.is_change() {
            assert_eq!(own_after, own, "{at}");
            works(&things.own).await;
        }
        if !role.is_admin() {
            assert_eq!(other_after, other, "{at}");
            works(&things.other).await;
        }
    }
}

/// Every call of the document has a rule, and the other way round.
fn paired(calls: Vec<Call>) -> Vec<(Call, &'static Rule)> {
    let documented: BTreeSet<&str> = calls.iter().map(|call| &*call.name).collect();
    let ruled: BTreeSet<&str> = RULES.iter().map(|rule| rule.call).collect();
    assert_eq!(documented, ruled, "each call needs a rule");
    let rule_of = |call: &Call| RULES.iter().find(|rule| rule.call == call.name).unwrap();
    let paired = calls.into_iter().map(|call| {
        let rule = rule_of(&call);
        (call, rule)
    });
    paired.collect()
}

async fn exercise(environment: &[(&str, &str)]) {
    let world = World::start(environment).await;
    let calls = paired(calls::documented(&world.sidekey).await);
    for (call, rule) in &calls {
        assert_eq!(call.is_guarded(), !rule.scope.is_empty(), "{}", call.name);
    }
    for role in roles::all(&world.sidekey).await {
        for (call, rule) in &calls {
            world.check(&role, call, rule).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_what_the_contract_gives_it_and_no_more_on_sqlite() {
    exercise(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_gets_what_the_contract_gives_it_and_no_more_on_postgresql() {
    let postgres = Postgres::start().await;
    exercise(&[("SIDEKEY__STORE__URL", &postgres.url())]).await;
}
