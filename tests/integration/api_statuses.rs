//! Every status that the document promises for a call is produced by a case here, and no call answers
//! with one that it does not promise. On both engines.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use sqlx::{AnyPool, AssertSqlSafe, Row};

use crate::harness::api::Reply;
use crate::harness::calls::{self, Call, NO_KEY, Request, Thing};
use crate::harness::eventually_within;
use crate::harness::postgres::Postgres;
use crate::harness::raw::Raw;
use crate::harness::sidekey::{KEYS, Key, Sidekey, config};
use crate::harness::upstream::nobody;
use crate::tenancy::{TENANTS, put, set};

/// Statuses that nobody can provoke from outside in a test's time.
const NOT_PROVOKED: [(u16, &str); 2] = [
    (408, "a request may take 30 s"),
    (500, "it stands for a fault of the program"),
];
/// One wrong key, and the next ones are answered unread.
const SETTINGS: &str = "[limits]\n\
    failed_auth = { name = \"failed-auth\", quota = 1, window_seconds = 86400, burst = 1 }\n";
/// Changes at the same time, so that one of them loses too often.
const CROWD: usize = 40;
/// For how long crowds are tried: whether one of them loses is chance.
const CROWD_DEADLINE: Duration = Duration::from_secs(300);
/// More than a request's header may have.
const HEADER_TOO_LONG: usize = 200_000;
/// More than a body may have, and than a list may have.
const BODY_TOO_LONG: usize = (64 << 10) + 1;
const LIST_TOO_LONG: usize = (1 << 20) + 1;
/// The tenant of the keys that are not the bootstrap key.
const TENANT: &str = "acme";
const WRONG: &str = "wrong";

/// A gateway, the calls of its document, and what was produced of them.
struct Bench {
    sidekey: Sidekey,
    admin: String,
    /// Holds everything that one tenant's key can.
    member: Key,
    /// Holds nothing.
    ordinary: Key,
    calls: Vec<Call>,
    produced: BTreeSet<(String, u16)>,
    number: u64,
}

impl Bench {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let config = config(nobody(), SETTINGS);
        let sidekey = Sidekey::start_with(&config, environment).await;
        let scopes = json!([
            "sidekey:keys:read",
            "sidekey:keys:write",
            "sidekey:usage:read",
            "sidekey:audit:read",
        ]);
        Bench {
            admin: sidekey.admin_key(),
            member: sidekey.create_key(json!({"scopes": scopes})).await,
            ordinary: sidekey.create_key(json!({})).await,
            calls: calls::documented(&sidekey).await,
            produced: BTreeSet::new(),
            number: 0,
            sidekey,
        }
    }

    /// Those for which `is_meant` holds.
    fn calls(&self, is_meant: impl Fn(&Call) -> bool) -> Vec<Call> {
        let all = self.calls.iter();
        all.filter(|call| is_meant(call)).cloned().collect()
    }

    fn call(&self, method_and_tail: &str) -> Call {
        self.calls(|call| call.is(method_and_tail)).remove(0)
    }

    /// Notes what a call answered with, and holds it to the document.
    #[track_caller]
    fn note(&mut self, call: &Call, status: u16, reply: &Reply) {
        let name = &call.name;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        assert!(call.has(status), "{name} is not said to answer {reply:?}");
        // Readiness says what is away instead.
        if status >= 400 && !(status == 503 && name.ends_with("/readyz")) {
            reply.problem(status);
        }
        self.produced.insert((name.clone(), status));
    }

    fn request(&mut self, call: &Call, tenant: &str, key_id: &str) -> Request {
        self.number += 1;
        let number = self.number;
        let tenant = Some(tenant);
        calls::request(
            call,
            Thing {
                tenant,
                key_id,
                number,
            },
        )
    }

    /// A request about a new key of [`TENANT`].
    async fn fresh(&mut self, call: &Call) -> Request {
        let key = self.sidekey.create_key(json!({})).await;
        self.request(call, TENANT, &key.id)
    }

    async fn expect(&mut self, call: &Call, status: u16, key: &str, request: &Request) {
        let reply = request.send(&self.sidekey, Some(key)).await;
        self.note(call, status, &reply);
    }

    /// What goes well: the one good status of most calls.
    async fn successes(&mut self) {
        let admin = self.admin.clone();
        for call in self.calls(|_| true) {
            let request = self.fresh(&call).await;
            let good = call.statuses.iter().find(|status| **status < 300);
            self.expect(&call, *good.unwrap(), &admin, &request).await;
        }
        // One of them has suspended it.
        set(&self.sidekey, TENANT, "resume").await;
        let call = self.call("put /tenants/{tenant_id}");
        let request = self.request(&call, "another", NO_KEY);
        self.expect(&call, 201, &admin, &request).await;
    }

    /// Who may not call.
    async fn strangers(&mut self) {
        let ordinary = self.ordinary.text.clone();
        for call in self.calls(Call::is_guarded) {
            let request = self.fresh(&call).await;
            let reply = request.send(&self.sidekey, None).await;
            self.note(&call, 401, &reply);
            self.expect(&call, 403, &ordinary, &request).await;
            let twice = request.with(&self.sidekey, Some(&self.admin));
            let twice = twice.bearer_auth(&self.admin);
            let reply = Reply::to(twice).await;
            self.note(&call, 400, &reply);
        }
    }

    /// Requests that can't be read, or not understood.
    async fn unsound(&mut self) {
        let admin = self.admin.clone();
        for call in self.calls(|call| call.has(422)) {
            let mut request = self.fresh(&call).await;
            let mark = if request.path.contains('?') { '&' } else { '?' };
            request.path.push_str(&format!("{mark}nonsense=1"));
            self.expect(&call, 422, &admin, &request).await;
        }
        for call in self.calls(|call| call.has(415)) {
            let mut request = self.fresh(&call).await;
            request.body = Some(("image/png", "x".to_owned()));
            self.expect(&call, 415, &admin, &request).await;
        }
        for call in self.calls(|call| call.has(413)) {
            let mut request = self.fresh(&call).await;
            let (media_type, _) = request.body.expect("a body");
            let length = if call.is("post /api-keys/import") {
                LIST_TOO_LONG
            } else {
                BODY_TOO_LONG
            };
            request.body = Some((media_type, "x".repeat(length)));
            self.expect(&call, 413, &admin, &request).await;
        }
        for call in self.calls(|_| true) {
            let request = self.fresh(&call).await;
            let (method, path) = (&request.method, &request.path);
            let long = "x".repeat(HEADER_TOO_LONG);
            for head in [
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nx-long: {long}\r\n\r\n"),
                format!("{method} {path}?{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            ] {
                let mut raw = Raw::connect(self.sidekey.admin).await;
                raw.try_send(head).await;
                let status = raw.read_head().await.status;
                assert_eq!(status, 431, "{}", call.name);
                assert!(call.has(status), "{}", call.name);
                self.produced.insert((call.name.clone(), status));
            }
        }
    }

    /// What isn't there, or isn't any more what it was.
    async fn absent_and_changed(&mut self) {
        let (admin, member) = (self.admin.clone(), self.member.text.clone());
        for call in self.calls(|call| call.has(404)) {
            let request = self.request(&call, "nobody", NO_KEY);
            let is_admins = call.name.ends_with("/suspend") || call.name.ends_with("/resume");
            let key = if is_admins { &admin } else { &member };
            self.expect(&call, 404, key, &request).await;
        }
        for call in self.calls(|call| call.has(412)) {
            let request = self.fresh(&call).await;
            let request = request.with(&self.sidekey, Some(&admin));
            let reply = Reply::to(request.header("if-match", "\"r999\"")).await;
            self.note(&call, 412, &reply);
        }
    }

    /// What can't be done as things are.
    async fn conflicts(&mut self) {
        let admin = self.admin.clone();
        let revoked = self.sidekey.create_key(json!({})).await;
        self.sidekey.revoke_key(&revoked.id).await;
        for name in [
            "patch /api-keys/{key_id}",
            "post /api-keys/{key_id}/regenerate",
        ] {
            let call = self.call(name);
            let request = self.request(&call, TENANT, &revoked.id);
            self.expect(&call, 409, &admin, &request).await;
        }
        let call = self.call("post /tenants/{tenant_id}/suspend");
        // That of the bootstrap key.
        let request = self.request(&call, "sidekey", NO_KEY);
        self.expect(&call, 409, &admin, &request).await;
        let call = self.call("post /api-keys");
        for (tenant, status) in [("one", 201), ("two", 409)] {
            let request = self.request(&call, tenant, NO_KEY);
            let request = request.with(&self.sidekey, Some(&admin));
            let reply = Reply::to(request.header("idempotency-key", "once")).await;
            self.note(&call, status, &reply);
        }
        let full = put(&self.sidekey, "full", json!({"max_keys": 0})).await;
        assert_eq!(full.status, 201);
        let request = self.request(&call, "full", NO_KEY);
        self.expect(&call, 409, &admin, &request).await;
    }

    /// Calls that fail only where others change the same thing all the time.
    async fn crowds(&mut self) {
        for name in [
            "delete /api-keys/{key_id}",
            "delete /api-keys/{key_id}/previous-secret",
        ] {
            let call = self.call(name);
            self.crowd(&call, true).await;
        }
        for name in [
            "put /tenants/{tenant_id}",
            "post /tenants/{tenant_id}/resume",
        ] {
            let call = self.call(name);
            self.crowd(&call, false).await;
        }
    }

    /// Sends `call` into a crowd of changes of the same thing until it loses.
    async fn crowd(&mut self, call: &Call, is_of_key: bool) {
        let this = &*self;
        let found = RefCell::new(None);
        eventually_within(CROWD_DEADLINE, &format!("{} loses", call.name), || async {
            let key = this.sidekey.create_key(json!({})).await;
            this.sidekey.regenerate_key(&key.id, 60).await;
            let tenant = Some("crowded");
            put(&this.sidekey, "crowded", json!({})).await;
            set(&this.sidekey, "crowded", "suspend").await;
            let thing = Thing {
                tenant,
                key_id: &key.id,
                number: 0,
            };
            let request = calls::request(call, thing);
            let one = request.send(&this.sidekey, Some(&this.admin));
            let others = (0..CROWD).map(|number| {
                let name = format!("{number} beside {}", key.id);
                let (method, path, body) = if is_of_key {
                    (
                        Method::PATCH,
                        format!("{KEYS}/{}", key.id),
                        json!({"name": name}),
                    )
                } else {
                    let path = format!("{TENANTS}/crowded");
                    (Method::PUT, path, json!({"display_name": name}))
                };
                async move { this.sidekey.ask(method, &path, Some(&body)).await }
            });
            let (reply, _) = tokio::join!(one, join_all(others));
            let is_lost = reply.status == 409;
            *found.borrow_mut() = Some(reply);
            is_lost
        })
        .await;
        let reply = found.into_inner().expect("an answer");
        self.note(call, 409, &reply);
    }

    /// Too many wrong keys from one address.
    async fn guessing(&mut self) {
        let list = self.call("get /api-keys");
        let request = self.request(&list, TENANT, NO_KEY);
        self.expect(&list, 401, WRONG, &request).await;
        for call in self.calls(Call::is_guarded) {
            let request = self.request(&call, TENANT, NO_KEY);
            self.expect(&call, 429, WRONG, &request).await;
        }
    }

    /// With the database away.
    async fn outage(&mut self) {
        let admin = self.admin.clone();
        for call in self.calls(|call| call.has(503)) {
            let request = self.request(&call, TENANT, &self.ordinary.id.clone());
            self.expect(&call, 503, &admin, &request).await;
        }
    }

    async fn all_but_outage(&mut self) {
        self.successes().await;
        self.strangers().await;
        self.unsound().await;
        self.absent_and_changed().await;
        self.conflicts().await;
        self.crowds().await;
        self.guessing().await;
    }

    /// Fails with what the document promises and no case has produced.
    fn is_complete(&self) {
        let is_excused = |status| NOT_PROVOKED.iter().any(|(not, _)| *not == status);
        let mut missing = Vec::new();
        for call in &self.calls {
            for status in call.statuses.iter().filter(|status| !is_excused(**status)) {
                if !self.produced.contains(&(call.name.clone(), *status)) {
                    missing.push(format!("{} -> {status}", call.name));
                }
            }
        }
        assert!(missing.is_empty(), "not produced: {missing:#?}");
        let output = self.sidekey.output();
        assert!(!output.contains("panicked"), "{output}");
    }
}

/// Which of two is meant nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn no_parameter_stands_in_a_query_twice() {
    let mut bench = Bench::start(&[]).await;
    let admin = bench.admin.clone();
    let mut count = 0;
    for call in bench.calls(|call| !call.query.is_empty()) {
        let mut request = bench.fresh(&call).await;
        let path = request.path.split('?').next().unwrap().to_owned();
        for name in &call.query {
            request.path = format!("{path}?{name}=1&{name}=1");
            let reply = request.send(&bench.sidekey, Some(&admin)).await;
            let again = json!({"field": name, "detail": "stands there more than once"});
            let errors = reply.problem(422)["errors"].as_array().unwrap().clone();
            assert!(errors.contains(&again), "{}: {reply:?}", call.name);
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// Takes all tables of a file away.
async fn hide_tables(url: &str) {
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(url).await.unwrap();
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    for row in sqlx::query(names).fetch_all(&pool).await.unwrap() {
        let name: String = row.get(0);
        let hide = format!("ALTER TABLE {name} RENAME TO hidden_{name}");
        sqlx::raw_sql(AssertSqlSafe(hide))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_status_is_produced_on_sqlite() {
    let mut bench = Bench::start(&[]).await;
    bench.all_but_outage().await;
    let directory = bench.sidekey.directory().display().to_string();
    hide_tables(&format!("sqlite://{directory}/data/sidekey.db")).await;
    bench.outage().await;
    bench.is_complete();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_status_is_produced_on_postgresql() {
    let mut postgres = Postgres::start().await;
    let mut bench = Bench::start(&[("SIDEKEY__STORE__URL", &postgres.url())]).await;
    bench.all_but_outage().await;
    postgres.kill();
    bench.outage().await;
    bench.is_complete();
}
