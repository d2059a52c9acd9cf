//! Token buckets that several instances share, in Redis (or a server that speaks as it does).
//!
//! One script decides all buckets of a request together, by the server's clock, so that what all
//! instances let through together never exceeds a limit. The arithmetic is that of [`super::bucket`];
//! `bucket.lua` is its twin. Buckets of a tenant share a hash tag. Each expires when it would be full
//! again. A busy key takes tokens in advance ([`super::lease`]); then a request waits for nobody.
//!
//! Failure: a call that is not answered in time is [`Away`]; after a few of them the answer is
//! immediate ([`crate::breaker`]). What happens then is the caller's decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use redis::Script;
use tokio::sync::Notify;

use super::bucket::{Rate, State};
use super::lease::{Answer, Lease, Question, SHARE, Step};
use super::memory::{Decision, Readings};
use crate::breaker::Breaker;
use crate::clock::SharedClock;
use crate::key::{KeyId, Policy, TenantId};
use crate::redis_link::{RedisLink, explain};
use crate::telemetry::Metrics;
use crate::telemetry::dependencies::{LimitSource, Timer};
use crate::telemetry::metrics::Dependency;

/// How often a request waits for somebody else's question before it asks for itself.
const WAITS_MAX: usize = 3;
/// So many leases fit into the time in which half of a bucket fills.
const LEASES_IN_HALF: u64 = 4;
/// How often to look whether a lease can be given back, at shutdown.
const CLOSING_PAUSE: Duration = Duration::from_millis(1);
/// A bucket that fills too fast for leases of this length has none.
const LEASE_US_MIN: u64 = 1_000;

/// Redis did not decide: it is away, or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// What is asked of the buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To take the tokens, if all buckets have them.
    Take,
    /// To say what is there.
    Peek,
}

/// The shared buckets of one key, among them those that it has in common with all keys of its tenant:
/// where they are, and what this instance holds of them for this key.
#[derive(Debug)]
pub struct SharedBuckets {
    /// Their names in Redis, in the order of the policies.
    names: Box<[String]>,
    rates: Box<[Rate]>,
    /// No lease is longer: what is held in advance is a small part of what any bucket holds.
    lease_us_max: u64,
    lease: Mutex<Lease>,
    /// Tells those who wait for a question that it is over.
    landed: Notify,
}

impl SharedBuckets {
    /// The buckets of `key` for its policies, and those of `common`, the policies of its tenant: all
    /// keys of the tenant name the same ones.
    pub fn new(
        tenant: &TenantId,
        key: KeyId,
        policies: &[Arc<Policy>],
        common: &[Arc<Policy>],
    ) -> Self {
        let own = |policy: &Arc<Policy>| format!("sidekey:{{{tenant}}}:{key}:{}", policy.name);
        // Their names have a prefix which is no key's id.
        let shared = |policy: &Arc<Policy>| format!("sidekey:{{{tenant}}}:{}", policy.name);
        let names = policies.iter().map(own);
        let all = policies.iter().chain(common);
        let rates: Box<[Rate]> = all.map(|policy| Rate::new(policy)).collect();
        let half_us = rates.iter().map(Rate::micros_of_half).min();
        SharedBuckets {
            names: names.chain(common.iter().map(shared)).collect(),
            lease_us_max: half_us.unwrap_or(0) / LEASES_IN_HALF,
            rates,
            lease: Mutex::default(),
            landed: Notify::new(),
        }
    }
}

/// Buckets in Redis.
pub struct RedisLimiter {
    link: RedisLink,
    script: Script,
    give_back: Script,
    breaker: Breaker,
    /// Shows the breaker's state.
    shows_open: IntGauge,
    timeout: Duration,
    lease_us: u64,
    is_closing: AtomicBool,
    closing: Notify,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl RedisLimiter {
    /// A limiter on `link`, that waits for an answer for at most `timeout`. Leases last for
    /// `max_lease`; none are taken where that is zero.
    pub fn new(
        link: RedisLink,
        timeout: Duration,
        max_lease: Duration,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        metrics.redis_up.set(1);
        Arc::new(RedisLimiter {
            link,
            script: bucket_script(),
            give_back: Script::new(include_str!("give_back.lua")),
            breaker: Breaker::default(),
            shows_open: metrics.breaker_open(Dependency::Redis),
            timeout,
            lease_us: u64::try_from(max_lease.as_micros()).unwrap_or(u64::MAX),
            is_closing: AtomicBool::new(false),
            closing: Notify::new(),
            clock,
            metrics,
        })
    }

    /// Decides one request that costs `cost` tokens, if that needs no question; `Err` says what it
    /// needs first.
    pub fn decide_now(
        self: &Arc<Self>,
        buckets: &Arc<SharedBuckets>,
        cost: u64,
        ask: Ask,
        now_us: u64,
    ) -> Result<Decision, Step> {
        if buckets.rates.is_empty() {
            return Ok(Decision {
                allowed: true,
                readings: Readings::new(),
            });
        }
        let length_us = self.lease_us(buckets);
        if length_us < LEASE_US_MIN {
            return Err(Step::Ask);
        }
        if ask == Ask::Peek {
            let lease = buckets.lease.lock();
            let known = lease.peek(&buckets.rates, cost, now_us, length_us);
            return known.ok_or(Step::Ask);
        }
        buckets.lease.lock().count(cost);
        self.step(buckets, cost, now_us)
    }

    /// How long a lease of these buckets lasts.
    fn lease_us(&self, buckets: &SharedBuckets) -> u64 {
        self.lease_us.min(buckets.lease_us_max)
    }

    fn step(
        self: &Arc<Self>,
        buckets: &Arc<SharedBuckets>,
        cost: u64,
        now_us: u64,
    ) -> Result<Decision, Step> {
        let length_us = self.lease_us(buckets);
        let step = (buckets.lease.lock()).step(&buckets.rates, cost, now_us, length_us);
        match step {
            Step::Decided(decision, question) => {
                if let Some(question) = question {
                    self.fly(buckets, question);
                }
                Ok(decision)
            }
            step => Err(step),
        }
    }

    /// Decides a request for which [`RedisLimiter::decide_now`] has found out what it needs first, and
    /// says who decided.
    pub async fn decide(
        self: &Arc<Self>,
        buckets: &Arc<SharedBuckets>,
        cost: u64,
        ask: Ask,
        mut step: Step,
    ) -> Result<(Decision, LimitSource), Away> {
        let started_us = self.clock.monotonic_us();
        // All of it together takes no longer than one call may.
        let left = || {
            let waited_us = self.clock.monotonic_us().saturating_sub(started_us);
            (self.timeout).saturating_sub(Duration::from_micros(waited_us))
        };
        for _ in 0..WAITS_MAX {
            let landed = buckets.landed.notified();
            let (failures, is_asking) = buckets.lease.lock().questions();
            match step {
                Step::Fly(question) => self.fly(buckets, question),
                // One request looks for recovery; the others don't wait for it.
                Step::Wait if self.breaker.is_open() => return Err(Away),
                Step::Wait => {}
                Step::Ask | Step::Decided(..) => break,
            }
            if is_asking {
                let is_late = tokio::time::timeout(left(), landed).await.is_err();
                if is_late || buckets.lease.lock().questions().0 != failures {
                    return Err(Away);
                }
            }
            match self.step(buckets, cost, self.clock.monotonic_us()) {
                Ok(decision) => return Ok((decision, LimitSource::Lease)),
                Err(next) => step = next,
            }
        }
        if let Step::Fly(_) = step {
            // Others have used what the questions before brought.
            buckets.lease.lock().cancel();
            buckets.landed.notify_waiters();
        }
        let decision = self.ask_alone(buckets, cost, ask, left()).await?;
        Ok((decision, LimitSource::Redis))
    }

    /// Asks for one request alone.
    async fn ask_alone(
        &self,
        buckets: &SharedBuckets,
        cost: u64,
        ask: Ask,
        limit: Duration,
    ) -> Result<Decision, Away> {
        let question = Question { cost, extra: 0 };
        let call = self.ask_at(buckets, question, ask, None);
        let answer = self.within(limit, call).await?;
        let now_us = self.clock.monotonic_us();
        let mut lease = buckets.lease.lock();
        Ok(match ask {
            Ask::Take => lease.answer(&buckets.rates, cost, &answer, now_us),
            Ask::Peek => {
                lease.look(&answer, now_us);
                answer.told(&buckets.rates, cost, false)
            }
        })
    }

    /// Asks a question for the lease, whoever goes away meanwhile.
    fn fly(self: &Arc<Self>, buckets: &Arc<SharedBuckets>, question: Question) {
        if self.breaker.holds_back(self.clock.monotonic_us()) {
            buckets.lease.lock().fail();
            buckets.landed.notify_waiters();
            return;
        }
        self.metrics.leases_open.inc();
        let (limiter, buckets) = (self.clone(), buckets.clone());
        tokio::spawn(async move {
            if limiter.land(&buckets, question).await {
                limiter.keep(&buckets).await;
            }
            limiter.metrics.leases_open.dec();
        });
    }

    /// Asks, and gives the lease what the answer brings. Whether somebody has to look after it now.
    async fn land(&self, buckets: &SharedBuckets, question: Question) -> bool {
        let call = self.ask_at(buckets, question, Ask::Take, None);
        let answer = self.within(self.timeout, call).await;
        let (now_us, length_us) = (self.clock.monotonic_us(), self.lease_us(buckets));
        let is_new = {
            let mut lease = buckets.lease.lock();
            match &answer {
                Ok(answer) => lease.land(&buckets.rates, question, answer, now_us, length_us),
                Err(Away) => {
                    lease.fail();
                    false
                }
            }
        };
        buckets.landed.notify_waiters();
        is_new
    }

    /// Looks after a lease until it is no longer in use, and gives back what is left of it.
    async fn keep(&self, buckets: &SharedBuckets) {
        let length = Duration::from_micros(self.lease_us(buckets));
        loop {
            let closing = self.closing.notified();
            let is_closing = self.is_closing.load(Ordering::Acquire);
            let pause = if is_closing { CLOSING_PAUSE } else { length };
            // Either way it is time to look.
            let _ = tokio::time::timeout(pause, closing).await;
            let at_us = if self.is_closing.load(Ordering::Acquire) {
                u64::MAX
            } else {
                self.clock.monotonic_us()
            };
            let left = buckets.lease.lock().expire(at_us);
            match left {
                None => {}
                Some(0) => return,
                Some(tokens) => return self.return_tokens(buckets, tokens).await,
            }
        }
    }

    /// While Redis is away: sees whether it is back, so that no request has to, and the metrics tell the
    /// end of an outage when nobody asks. To be called about twice a second.
    pub async fn look_for_recovery(&self) {
        if self.breaker.is_open() {
            // Whether it is away is what the breaker knows then.
            let _ = self
                .within(self.timeout, try_out(&self.link, &self.script))
                .await;
        }
    }

    /// Gives back all that is held in advance, as soon as nobody asks for more. To be called when no
    /// request is served any more; [`Metrics::leases_open`] tells when it is done.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    /// Tokens that can't be given back are lost: nobody gets one too many.
    async fn return_tokens(&self, buckets: &SharedBuckets, tokens: u64) {
        let mut call = self.give_back.prepare_invoke();
        call.arg(tokens);
        for (name, rate) in buckets.names.iter().zip(&buckets.rates) {
            call.key(name);
            for number in rate.units() {
                call.arg(number);
            }
        }
        let returned = self.within(self.timeout, self.link.run::<u64>(&call)).await;
        if returned.is_ok() {
            self.metrics.lease_tokens_returned.inc_by(tokens);
        }
    }

    /// One call, if the breaker lets it through, with a limit on its time.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, Away> {
        let Some(permit) = self.breaker.permit(self.clock.monotonic_us()) else {
            return Err(Away);
        };
        self.metrics.redis_calls.inc();
        let timer = Timer::begin(&self.metrics.redis_seconds, &self.clock);
        let answered = tokio::time::timeout(limit, call).await;
        drop(timer);
        let outcome = match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if self.link.is_about_one_of_several(&error) => {
                self.metrics.redis_errors.inc();
                return Err(Away);
            }
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        let was_open = self.breaker.is_open();
        let outcome = match outcome {
            Ok(answer) => {
                permit.succeeded();
                if was_open {
                    tracing::info!("Redis answers again");
                }
                Ok(answer)
            }
            Err(reason) => {
                tracing::debug!(reason, "Redis did not decide");
                self.metrics.redis_errors.inc();
                permit.failed(self.clock.monotonic_us());
                if !was_open && self.breaker.is_open() {
                    tracing::error!(
                        reason,
                        "Redis is away; limits.on_outage decides until it answers"
                    );
                }
                Err(Away)
            }
        };
        let is_open = self.breaker.is_open();
        self.metrics.redis_up.set(i64::from(!is_open));
        self.shows_open.set(i64::from(is_open));
        outcome
    }

    /// One call of the script, without a limit on its time: at `now_us` (in tests), or by the server's
    /// clock.
    pub async fn ask_at(
        &self,
        buckets: &SharedBuckets,
        question: Question,
        ask: Ask,
        now_us: Option<u64>,
    ) -> Result<Answer, redis::RedisError> {
        invoke(&self.link, &self.script, buckets, question, ask, now_us).await
    }
}

/// Whether Redis can decide: not only that it answers, but that the script may run and write there. Takes
/// no token from a bucket of nobody's, which leaves nothing behind.
pub async fn check(link: &RedisLink) -> Result<(), redis::RedisError> {
    try_out(link, &bucket_script()).await
}

async fn try_out(link: &RedisLink, script: &Script) -> Result<(), redis::RedisError> {
    let (bucket, nothing) = (nobodys(), Question { cost: 0, extra: 0 });
    let asked = invoke(link, script, &bucket, nothing, Ask::Take, None);
    asked.await.map(|_| ())
}

/// A bucket that no key has: other names begin with a tenant in braces. Each time it is another one, which in a
/// cluster is on any of the servers.
fn nobodys() -> SharedBuckets {
    let policy = Policy {
        name: "nobody".into(),
        quota: 1,
        window_seconds: 1,
        burst: None,
    };
    SharedBuckets {
        names: [format!("sidekey:nobody:{}", fastrand::u32(..))].into(),
        rates: [Rate::new(&policy)].into(),
        lease_us_max: 0,
        lease: Mutex::default(),
        landed: Notify::new(),
    }
}

fn bucket_script() -> Script {
    Script::new(include_str!("bucket.lua"))
}

/// One call of the script, at `now_us` (in tests), or by the server's clock.
async fn invoke(
    link: &RedisLink,
    script: &Script,
    buckets: &SharedBuckets,
    question: Question,
    ask: Ask,
    now_us: Option<u64>,
) -> Result<Answer, redis::RedisError> {
    let mut call = script.prepare_invoke();
    call.arg(question.cost)
        .arg(if ask == Ask::Peek { "1" } else { "0" })
        .arg(question.extra)
        .arg(SHARE)
        .arg(now_us.map(|now| now.to_string()).unwrap_or_default());
    for (name, rate) in buckets.names.iter().zip(&buckets.rates) {
        call.key(name);
        for number in rate.units() {
            call.arg(number);
        }
    }
    let answer: Vec<u64> = link.run(&call).await?;
    read(&answer, buckets.rates.len()).ok_or_else(|| {
        let kind = redis::ErrorKind::UnexpectedReturnType;
        redis::RedisError::from((kind, "the script's answer can't be read"))
    })
}

fn read(answer: &[u64], buckets: usize) -> Option<Answer> {
    let [allowed, extra, states @ ..] = answer else {
        return None;
    };
    (states.len() == 2 * buckets).then(|| Answer {
        allowed: *allowed == 1,
        extra: *extra,
        states: (states.chunks_exact(2))
            .map(|state| State::new(state[0], state[1]))
            .collect(),
    })
}

impl std::fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisLimiter")
    }
}
