//! The mixed load: rounds of everything, at both instances in turn, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::actors::{Addresses, Keys, admin_requests, requests, sign_in};
use super::world::World;
use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Key, Sidekey};

/// Requests of the busy key in a round: so many that tokens are taken in advance.
const BUSY_REQUESTS: usize = 30;
/// Wrong keys of one address in a round: more than it may send.
const GUESSES: usize = 6;
/// A round in so many has a sign-in: each one leaves a session.
const ROUNDS_A_SIGN_IN: usize = 5;
const ATTACKER: &str = "203.0.113.7";

/// Rounds that go on.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(world: &World, busy: Key) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let keep_on = || {
            let stop = stop.clone();
            move || !stop.load(Ordering::Relaxed)
        };
        let pair = [world.one.clone(), world.two.clone()];
        let (keys, shadow) = (world.keys.clone(), world.shadow.clone());
        let (goes_on, one) = (keep_on(), world.one.clone());
        let silent = async move {
            while goes_on() {
                let _ = one.request(Method::GET, "/silent").send().await;
            }
        };
        let goes_on = keep_on();
        let rounds = async move {
            let mut addresses = Addresses::new();
            let mut number = 0;
            while goes_on() {
                let sidekey = &pair[number % pair.len()];
                let other = &pair[(number + 1) % pair.len()];
                clients(sidekey, &keys, &mut addresses, &busy).await;
                callers(sidekey, &keys, &mut addresses, number).await;
                change(sidekey, other).await;
                let _ = shadow.request(Method::GET, "/orders/1").send().await;
                number += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        Load {
            stop,
            tasks: vec![tokio::spawn(silent), tokio::spawn(rounds)],
        }
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the load");
        }
    }
}

/// What clients send, whatever they are answered: things go away meanwhile.
async fn clients(sidekey: &Sidekey, keys: &Keys, addresses: &mut Addresses, busy: &Key) {
    for ask in requests(sidekey, keys, addresses) {
        let _ = ask.request.send().await;
    }
    join_all((0..BUSY_REQUESTS).map(|_| use_key(sidekey, &busy.text))).await;
    for number in 0..GUESSES {
        let request = sidekey.request(Method::GET, "/orders/1");
        let request = request.bearer_auth(format!("guess-{number}"));
        let _ = request.header("x-forwarded-for", ATTACKER).send().await;
    }
}

async fn use_key(sidekey: &Sidekey, key: &str) {
    let request = sidekey.request(Method::GET, "/orders/1");
    let _ = request.bearer_auth(key).send().await;
}

async fn callers(sidekey: &Sidekey, keys: &Keys, addresses: &mut Addresses, number: usize) {
    for ask in admin_requests(sidekey, keys, addresses) {
        let _ = ask.request.send().await;
    }
    let from = [("x-forwarded-for", ATTACKER)];
    let _ = sign_in(sidekey, "guess", &from).send().await;
    if number.is_multiple_of(ROUNDS_A_SIGN_IN) {
        let _ = sign_in(sidekey, &sidekey.admin_key(), &[]).send().await;
    }
}

/// A key is made, used where nobody knows it yet, changed, and revoked.
async fn change(sidekey: &Sidekey, other: &Sidekey) {
    let body = json!({
        "name": "a short life", "tenant_id": "acme", "environment": "live", "scopes": ["orders:*"],
    });
    let created = sidekey.admin(Method::POST, KEYS).json(&body).send().await;
    let Ok(created) = created else { return };
    if created.status() != 201 {
        return;
    }
    let Ok(created) = created.json::<Value>().await else {
        return;
    };
    let text = created["key"].as_str().expect("a key");
    use_key(other, text).await;
    let id = created["api_key"]["id"].as_str().expect("an id");
    let path = format!("{KEYS}/{id}");
    let name = json!({"name": "changed"});
    let _ = sidekey.admin(Method::PATCH, &path).json(&name).send().await;
    let _ = other.admin(Method::DELETE, &path).send().await;
    use_key(other, text).await;
}

/// Everything is answered as it should be, before anything goes away.
pub async fn is_answered_well(sidekey: &Sidekey, keys: &Keys) {
    // The first request of this key is within its limit.
    sidekey.status("/orders/1", &keys.limited.text).await;
    let mut addresses = Addresses::new();
    let mut asks = requests(sidekey, keys, &mut addresses);
    asks.extend(admin_requests(sidekey, keys, &mut addresses));
    let mut wrong = Vec::new();
    for ask in asks {
        let reply = Reply::to(ask.request).await;
        if reply.status != ask.status {
            wrong.push((ask.what, ask.status, reply));
        }
    }
    assert!(wrong.is_empty(), "not answered as expected: {wrong:#?}");
}
