//! A mixed load on the program, of which every single answer is judged. `make load` holds it for minutes;
//! a short run of the same code is among the tests, so that it can't rot.
//!
//! Each connection has a thread and sends its next request when it has its answer: the load is as much as
//! the machine carries, which callers, program and service share. After it, what was let through on limited
//! keys is held against their buckets, and the program's own counters against the answers.

mod bucket;
mod calls;
mod client;
mod counters;
mod judge;
mod report;
mod service;
mod world;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::sidekey::Sidekey;
use bucket::{Bucket, Passage};
use calls::Call;
pub use calls::Kind;
use client::Connection;
use counters::Counters;
pub use report::Report;
use report::Tally;
use service::Service;
use world::{Caller, LIMITED_KEYS, World};

/// A connection that met so many faults is given up.
const FAULTS_MAX: u64 = 100;
/// Loads are made of reproducible requests; each connection has its own sequence.
const SEED: u64 = 0x10ad;
/// How long a number of requests may take: whatever is missing then, the report shows.
const REQUESTS_TIME_MAX: Duration = Duration::from_secs(120);

/// How much of the load there is.
#[derive(Clone, Copy)]
pub enum Extent {
    Time(Duration),
    /// However slow the machine is: what a number of requests meets does not depend on it.
    Requests(u64),
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Time(time) => write!(f, "{} s", time.as_secs()),
            Extent::Requests(count) => write!(f, "{count} requests"),
        }
    }
}

/// What is asked of a run.
pub struct Plan {
    pub extent: Extent,
    pub connections: usize,
    /// Keys that are used for the first time during the load, one after the other.
    pub cold_keys: usize,
    /// What the bucket of a limited key gains: less than the load asks of it.
    pub limited_per_second: u32,
    pub bcrypt_cost: u32,
    /// More of the program's configuration.
    pub more: &'static str,
}

/// Starts the program, holds the load, and judges.
pub async fn run(plan: &Plan) -> Report {
    let service = Service::start().await;
    let cost = plan.bcrypt_cost.to_string();
    let environment = [("SIDEKEY__BCRYPT__COST", cost.as_str())];
    let config = world::config(service.address, plan.more);
    let sidekey = Sidekey::start_with(&config, &environment).await;
    let tight = world::tight(plan.limited_per_second);
    let world = World::prepare(&sidekey, plan.cold_keys, tight).await;
    let counted_before = Counters::after(&sidekey, world.requests).await;
    let before = counters::memory(sidekey.pid());
    let load = Arc::new(Load {
        proxy: sidekey.proxy,
        world,
        tight,
        extent: plan.extent,
        begin: Instant::now(),
        begun: AtomicU64::new(0),
        cold_begun: AtomicUsize::new(0),
    });
    let connections = plan.connections;
    let work = tokio::task::spawn_blocking(move || load.hold(connections));
    let (mut tally, took) = work.await.expect("the load does not panic");
    let after = counters::memory(sidekey.pid());
    let (counted, complaints) = counters::settle(&sidekey, &counted_before, &tally).await;
    complaints
        .into_iter()
        .for_each(|what| tally.fault_of_all(what));
    Report {
        tally,
        took,
        connections,
        before,
        after,
        bcrypt_runs: counted.bcrypt_runs_since(&counted_before),
    }
}

/// What all connections share.
struct Load {
    proxy: SocketAddr,
    world: World,
    tight: Bucket,
    extent: Extent,
    begin: Instant,
    /// Requests.
    begun: AtomicU64,
    cold_begun: AtomicUsize,
}

/// What one connection met.
struct Met {
    tally: Tally,
    /// Requests to each limited key.
    passages: [Vec<Passage>; LIMITED_KEYS],
}

impl Load {
    fn hold(&self, connections: usize) -> (Tally, Duration) {
        let mut tally = Tally::new();
        let mut passages: [Vec<Passage>; LIMITED_KEYS] = Default::default();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..connections)
                .map(|number| scope.spawn(move || self.work(number)))
                .collect();
            for worker in workers {
                let met = worker.join().expect("a caller does not panic");
                tally.add(met.tally);
                for (all, more) in passages.iter_mut().zip(met.passages) {
                    all.extend(more);
                }
            }
        });
        let took = self.begin.elapsed();
        for passages in &passages {
            for what in self.tight.complaints(passages) {
                tally.fault_of_all(what);
            }
        }
        (tally, took)
    }

    /// The life of one connection.
    fn work(&self, number: usize) -> Met {
        let mut random = fastrand::Rng::with_seed(SEED + number as u64);
        let mut met = Met {
            tally: Tally::new(),
            passages: Default::default(),
        };
        let mut told_to_come_back = Vec::new();
        while met.tally.fault_count < FAULTS_MAX {
            let mut connection = match Connection::open(self.proxy) {
                Ok(connection) => connection,
                Err(error) => {
                    met.tally.fault(format!("no connection: {error}"));
                    continue;
                }
            };
            // Nothing that the load does is a reason to end the connection.
            match self.talk(
                &mut connection,
                &mut random,
                &mut told_to_come_back,
                &mut met,
            ) {
                Ok(()) => break,
                Err(error) => met.tally.fault(format!("no answer: {error}")),
            }
        }
        met
    }

    /// Which part of the load is behind us: all of it from 1 on.
    fn part_done(&self, now: Duration) -> f64 {
        let of = |time: Duration| now.as_secs_f64() / time.as_secs_f64();
        match self.extent {
            Extent::Time(time) => of(time),
            Extent::Requests(count) => {
                let begun = self.begun.load(Ordering::Relaxed);
                (begun as f64 / count as f64).max(of(REQUESTS_TIME_MAX))
            }
        }
    }

    /// Sends requests until the load is over.
    fn talk<'a>(
        &'a self,
        connection: &mut Connection,
        random: &mut fastrand::Rng,
        told_to_come_back: &mut Vec<(Duration, &'a Caller)>,
        met: &mut Met,
    ) -> std::io::Result<()> {
        while met.tally.fault_count < FAULTS_MAX {
            let now = self.begin.elapsed();
            let part_done = self.part_done(now);
            if part_done >= 1.0 {
                break;
            }
            self.begun.fetch_add(1, Ordering::Relaxed);
            let cold = self
                .next_cold(part_done)
                .or_else(|| take_due(told_to_come_back, now));
            let call = match cold {
                Some(caller) => Call::cold(caller, random),
                None => Call::any(&self.world, random),
            };
            let request = call.request(&self.world, random);
            let sent = self.begin.elapsed();
            let answer = connection.exchange(&request)?;
            let answered = self.begin.elapsed();
            met.tally.note(call.kind, answer.status, answered - sent);
            if let Err(what) = judge::judge(&call, &answer) {
                met.tally.wrong(call.kind, what);
            }
            if let (Some(limited), 200 | 429) = (call.limited, answer.status) {
                met.passages[limited].push(Passage {
                    sent_us: micros(sent),
                    answered_us: micros(answered),
                    passed: answer.status == 200,
                });
            }
            if let (Some(caller), 503) = (cold, answer.status) {
                let seconds = answer
                    .field("retry-after")
                    .and_then(|text| text.parse().ok());
                let wait = Duration::from_secs(seconds.unwrap_or(1));
                told_to_come_back.push((answered + wait, caller));
            }
        }
        Ok(())
    }

    /// The key that is to be used for the first time now, if there is one.
    fn next_cold(&self, part_done: f64) -> Option<&Caller> {
        let cold = &self.world.cold;
        let begun = self.cold_begun.load(Ordering::Relaxed);
        let caller = cold.get(begun)?;
        let is_ours = part_done >= begun as f64 / cold.len() as f64
            && (self.cold_begun)
                .compare_exchange(begun, begun + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_ours.then_some(caller)
    }
}

/// Somebody who was told to come back, and whose time has come.
fn take_due<'a>(waiting: &mut Vec<(Duration, &'a Caller)>, now: Duration) -> Option<&'a Caller> {
    let at = waiting.iter().position(|(due, _)| *due <= now)?;
    Some(waiting.swap_remove(at).1)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
