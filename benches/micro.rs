//! What the parts of a warm request cost, and how often each allocates.
//!
//! Targets: parse and keyed check at most 2 us; warm verification (digest, look-up, live record,
//! decision) at most 1 us; a bucket decision at most 100 ns; to count a request for its key at most
//! 100 ns.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sidekey::clock::{Clock, SystemClock, Timestamp};
use sidekey::config::settings::VerificationSettings;
use sidekey::key::record::{ROTATION_DAYS_DEFAULT, Standing};
use sidekey::key::{
    Catalogue, CredentialKind, Environment, Generation, KeyOrigin, KeyRecord, MintKey, MintKeys,
    Policy, Presented,
};
use sidekey::limit::{self, Bucket, Buckets, LimitFields};
use sidekey::proxy::credential;
use sidekey::proxy::target;
use sidekey::usage::{Ending, LastUse, Request};
use sidekey::verify::{LiveKeys, Proof, Proofs, Recall, ViewBuilder};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<mimalloc::MiMalloc> =
    divan::AllocProfiler::new(mimalloc::MiMalloc);

fn main() {
    // Enough runs a sample that the timer's precision does not show.
    divan::Divan::from_args().sample_size(1000).main();
}

fn mint_keys() -> MintKeys {
    MintKeys::new(MintKey::new(&[7; 32]), vec![])
}

fn minted() -> (KeyRecord, String) {
    let prefix = "sk".parse().expect("a prefix");
    let key = mint_keys()
        .mint(&prefix, Environment::Live)
        .expect("randomness");
    let now = SystemClock::new().now();
    let record = KeyRecord {
        id: key.id,
        tenant_id: "acme".parse().expect("a tenant"),
        name: "bench".to_owned(),
        environment: Environment::Live,
        origin: KeyOrigin::Minted,
        credential: CredentialKind::Key,
        hint: key.hint.clone(),
        scopes: vec![
            "orders:*".parse().expect("a scope"),
            "items:read".parse().expect("a scope"),
        ],
        rate_limits: Some(policies()),
        allowed_ips: vec![],
        contact_email: None,
        rotation_days: ROTATION_DAYS_DEFAULT,
        metadata: serde_json::Map::new(),
        standing: Standing::Active,
        created_at: now,
        updated_at: now,
        expires_at: Some(Timestamp::MAX),
        revoked_at: None,
        secret_created_at: now,
        generation: Generation::FIRST,
        previous: None,
        revision: 1,
    };
    (record, key.text.expose_secret().to_owned())
}

fn policies() -> Vec<Policy> {
    ["second", "day"]
        .map(|name| Policy {
            name: name.to_owned(),
            quota: 1_000_000,
            window_seconds: 1,
            burst: None,
        })
        .to_vec()
}

#[divan::bench]
fn parse_and_keyed_check(bencher: divan::Bencher) {
    let (_, text) = minted();
    let keys = mint_keys();
    bencher.bench_local(|| Presented::parse(black_box(&text)).is_some_and(|key| keys.minted(&key)));
}

#[divan::bench]
fn forged_key(bencher: divan::Bencher) {
    let (_, mut text) = minted();
    text.pop();
    text.push('x');
    let keys = mint_keys();
    bencher.bench_local(|| Presented::parse(black_box(&text)).is_some_and(|key| keys.minted(&key)));
}

#[divan::bench]
fn warm_verification(bencher: divan::Bencher) {
    let (record, text) = minted();
    let clock = Arc::new(SystemClock::new());
    let catalogue = Catalogue::new(vec!["orders:write".parse().expect("a scope")]);
    let required = catalogue.require(catalogue.scopes()).expect("known");
    let live = LiveKeys::new(ViewBuilder::new(catalogue, vec![]), clock.clone());
    let settings = VerificationSettings {
        max_proofs: 1000,
        proof_ttl: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(10),
    };
    let proofs = Proofs::new(&settings).expect("randomness");
    let key = live.begin_load(record.id).finish(record);
    let Recall::Unknown(digest) = proofs.recall(&text) else {
        unreachable!("nothing is proven yet")
    };
    proofs.insert(
        digest,
        Proof {
            key,
            generation: Generation::FIRST,
        },
    );
    bencher.bench_local(|| {
        let Recall::Proven(proof) = proofs.recall(black_box(&text)) else {
            unreachable!("proven")
        };
        let view = proof.key.view_full();
        view.authority.check(proof.generation, clock.now()).is_ok()
            && view.grants.granted.contains_all(&required)
    });
}

/// `threads` count for one key at the same time, each time a millisecond later.
#[divan::bench(threads = [1, 2])]
fn count_usage(bencher: divan::Bencher) {
    let (record, _) = minted();
    let clock = Arc::new(SystemClock::new());
    let builder = ViewBuilder::new(Catalogue::new(vec![]), vec![]);
    let live = LiveKeys::new(builder, clock.clone());
    let key = live.begin_load(record.id).finish(record);
    let request = Request {
        ending: Ending::Error4xx,
        bytes_in: 100,
        bytes_out: 1_000,
        latency_us: 500,
    };
    let now_ms = std::sync::atomic::AtomicI64::new(clock.now().as_millis());
    bencher.bench(|| {
        let last = LastUse {
            at: Timestamp::from_millis(now_ms.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        key.count(black_box(&request), Generation::FIRST, last);
    });
}

fn buckets(count: usize) -> Buckets {
    policies()
        .into_iter()
        .take(count)
        .map(|policy| Arc::new(Bucket::new(Arc::new(policy), 0)))
        .collect()
}

#[divan::bench(args = [1, 2])]
fn bucket_decision(bencher: divan::Bencher, count: usize) {
    let buckets = buckets(count);
    let mut now_us = 0;
    bencher.bench_local(|| {
        now_us += 10;
        limit::take_all(black_box(&buckets), 1, now_us).allowed
    });
}

#[divan::bench]
fn limit_fields(bencher: divan::Bencher) {
    let policies: Vec<Arc<Policy>> = policies().into_iter().map(Arc::new).collect();
    let fields = LimitFields::new(&policies).expect("policies");
    let decision = limit::take_all(&buckets(2), 1, 0);
    let mut lines = Vec::new();
    bencher.bench_local(|| {
        lines.clear();
        let readings = black_box(&decision.readings);
        fields.write_ratelimit(readings, &mut lines);
        if let Some(closest) = limit::closest(readings) {
            fields.write_x_ratelimit(closest, 1_800_000_000, &mut lines);
        }
        lines.len()
    });
}

#[divan::bench]
fn read_target(bencher: divan::Bencher) {
    bencher.bench_local(|| target::read(black_box(b"/orders/2026/11/items?page=2")).is_ok());
}

#[divan::bench]
fn find_credential(bencher: divan::Bencher) {
    use sidekey::config::settings::Source;
    let (_, text) = minted();
    let mut headers = http::HeaderMap::new();
    headers.insert(
        "authorization",
        format!("Bearer {text}").parse().expect("a value"),
    );
    let sources = [
        Source::Bearer,
        Source::Header(http::HeaderName::from_static("x-api-key")),
    ];
    bencher.bench_local(|| credential::find(&sources, black_box(&headers), None).is_ok());
}

#[divan::bench]
fn client_address(bencher: divan::Bencher) {
    let headers = http::HeaderMap::new();
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    bencher.bench_local(|| sidekey::forwarded::address(Some(peer), black_box(&headers), &[]));
}

/// What every request pays for traces: a look at its header, ids, and the field for the service.
#[divan::bench]
fn begin_trace(bencher: divan::Bencher) {
    use sidekey::config::settings::TracingSettings;
    use sidekey::proxy::trace::Tracer;
    let settings = TracingSettings {
        endpoint: None,
        service_name: "sidekey".to_owned(),
        creates: true,
        sample_ratio: 0.05,
        follows_parent: true,
        timeout: Duration::from_secs(1),
    };
    let tracer = Tracer::new(&settings, None);
    let mut request =
        pingora_http::RequestHeader::build("GET", b"/", None).expect("a request's header");
    let headers = http::HeaderMap::new();
    bencher.bench_local(|| {
        let trace = tracer.begin(black_box(&headers));
        trace.write(&mut request).is_ok()
    });
}
