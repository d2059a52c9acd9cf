//! Token buckets that several instances share, in Redis (or a server that speaks as it does).
//!
//! One script decides all buckets of a request together, by the server's clock, so that what all
//! instances let through together never exceeds a limit. The arithmetic is that of [`super::bucket`];
//! `bucket.lua` is its twin. Buckets of a tenant share a hash tag. Each expires when it would be full
//! again. Failure: a call that is not answered in time is [`Away`]; after a few of them the answer
//! is immediate ([`super::breaker`]). What happens then is the caller's decision.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;

use super::breaker::Breaker;
use super::bucket::State;
use super::memory::{Buckets, Decision, Readings};
use crate::clock::SharedClock;
use crate::key::{KeyId, TenantId};
use crate::redis_link::{RedisLink, explain};
use crate::telemetry::Metrics;

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

/// Buckets in Redis.
pub struct RedisLimiter {
    link: RedisLink,
    script: Script,
    breaker: Breaker,
    timeout: Duration,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl RedisLimiter {
    /// A limiter on `link`, that waits for an answer for at most `timeout`.
    pub fn new(
        link: RedisLink,
        timeout: Duration,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.redis_up.set(1);
        RedisLimiter {
            link,
            script: Script::new(include_str!("bucket.lua")),
            breaker: Breaker::default(),
            timeout,
            clock,
            metrics,
        }
    }

    /// Decides one request of `key` that costs `cost` tokens against all of `buckets`. Of these only
    /// the policies count: what they hold is in Redis.
    pub async fn decide(
        &self,
        tenant: &TenantId,
        key: KeyId,
        buckets: &Buckets,
        cost: u64,
        ask: Ask,
    ) -> Result<Decision, Away> {
        if buckets.is_empty() {
            return Ok(Decision {
                allowed: true,
                readings: Readings::new(),
            });
        }
        let Some(permit) = self.breaker.permit(self.clock.monotonic_us()) else {
            return Err(Away);
        };
        self.metrics.redis_calls.inc();
        let call = self.decide_at(tenant, key, buckets, cost, ask, None);
        let outcome = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(decision)) => Ok(decision),
            Ok(Err(error)) if self.link.is_about_one_of_several(&error) => {
                self.metrics.redis_errors.inc();
                return Err(Away);
            }
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        let was_open = self.breaker.is_open();
        match outcome {
            Ok(decision) => {
                permit.succeeded();
                if was_open {
                    tracing::info!("Redis answers again");
                    self.metrics.redis_up.set(1);
                }
                Ok(decision)
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
                    self.metrics.redis_up.set(0);
                }
                Err(Away)
            }
        }
    }

    /// One call of the script, without a limit on its time: at `now_us` (in tests), or by the server's
    /// clock.
    pub async fn decide_at(
        &self,
        tenant: &TenantId,
        key: KeyId,
        buckets: &Buckets,
        cost: u64,
        ask: Ask,
        now_us: Option<u64>,
    ) -> Result<Decision, redis::RedisError> {
        let mut call = self.script.prepare_invoke();
        call.arg(cost)
            .arg(if ask == Ask::Peek { "1" } else { "0" })
            .arg(now_us.map(|now| now.to_string()).unwrap_or_default());
        for bucket in buckets.iter() {
            let name = &bucket.policy().name;
            call.key(format!(
                "sidekey:{{{}}}:{}:{name}",
                tenant.as_str(),
                key.as_str()
            ));
            for number in bucket.rate().units() {
                call.arg(number);
            }
        }
        let answer: Vec<u64> = self.link.run(&call).await?;
        read(buckets, cost, ask, &answer).ok_or_else(|| {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            redis::RedisError::from((kind, "the script's answer can't be read"))
        })
    }
}

fn read(buckets: &Buckets, cost: u64, ask: Ask, answer: &[u64]) -> Option<Decision> {
    let (allowed, states) = answer.split_first()?;
    let allowed = *allowed == 1;
    if states.len() != 2 * buckets.len() {
        return None;
    }
    let readings = buckets.iter().zip(states.chunks_exact(2));
    let readings = readings.map(|(bucket, state)| {
        let state = State::new(state[0], state[1]);
        if allowed && ask == Ask::Take {
            bucket.rate().read_passed(state)
        } else {
            bucket.rate().read(state, cost)
        }
    });
    Some(Decision {
        allowed,
        readings: readings.collect(),
    })
}

impl std::fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisLimiter")
    }
}
