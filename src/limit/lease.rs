//! Tokens that an instance has taken from shared buckets in advance, and when it takes how many.
//!
//! A request of a busy key takes its token from the lease and waits for nobody; a key that is
//! called now and then has none, asks for every request, and is exact at any moment. Tokens only
//! ever come out of the shared buckets, so all instances together can't let through more than those
//! gave, whatever happens to an instance that holds some. What is not used goes back.
//!
//! Pure: no clock, no network; the caller tells the time and carries the questions. Several buckets
//! of one key are leased together, as many tokens of each.

use smallvec::SmallVec;

use super::bucket::{Rate, State};
use super::memory::{Decision, Readings};

/// An instance takes at most one in so many of the tokens that are left.
pub const SHARE: u64 = 4;
/// A lease grows to at most so many times the one before, so that a few requests that come together
/// are not taken for a rate.
const GROWTH: u64 = 2;
/// For how many requests the first lease is at most.
const FIRST: u64 = 4;
/// Rates are measured over at least this time.
const MEASURE_US_MIN: u64 = 1_000;
/// A lease is renewed when less than one in so many of its tokens are left.
const RENEW_BELOW: u64 = 4;
/// A refused busy key is refused without a question for this part of a lease's length at least.
const REFUSAL_PART: u64 = 2;

/// What stands in the shared buckets, as far as it is known.
pub type States = SmallVec<[State; 2]>;

/// What to do about one request.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is decided. Where there is a question, it should be asked in the background.
    Decided(Decision, Option<Question>),
    /// Ask for many tokens, one question at a time, and step again.
    Fly(Question),
    /// Somebody is asking: wait, and step again.
    Wait,
    /// Ask for this request alone.
    Ask,
}

/// How many tokens to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// All of these, or none.
    pub cost: u64,
    /// Up to so many more.
    pub extra: u64,
}

/// What the shared buckets answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    /// Tokens that were taken beyond the cost.
    pub extra: u64,
    /// After the taking if it was allowed, before it otherwise.
    pub states: States,
}

#[derive(Debug, Clone)]
struct Refusal {
    until_us: u64,
    cost: u64,
}

/// What one instance holds of one key's shared buckets.
#[derive(Debug, Default)]
pub struct Lease {
    /// Tokens, of each bucket.
    left: u64,
    /// So many were taken last.
    granted: u64,
    /// From then on what is left goes back.
    expires_us: u64,
    /// The buckets at the last answer, and when that was.
    states: States,
    answered_us: u64,
    refusal: Option<Refusal>,
    is_asking: bool,
    /// Whether somebody looks after its end.
    is_kept: bool,
    /// Questions that were not answered.
    failures: u32,
    /// Tokens that were asked for since then.
    demand: u64,
    measured_us: u64,
    /// Tokens that a lease's length needs.
    per_lease: u64,
}

impl Answer {
    /// What a caller who asked for `cost` tokens is told, to take them or only to look.
    pub fn told(&self, rates: &[Rate], cost: u64, to_take: bool) -> Decision {
        let read = |(rate, state): (&Rate, &State)| {
            if self.allowed && to_take {
                rate.read_passed(*state)
            } else {
                rate.read(*state, cost)
            }
        };
        decision(rates.iter().zip(&self.states).map(read).collect())
    }
}

impl Lease {
    /// Counts a request of `cost` tokens, which makes the rate.
    pub fn count(&mut self, cost: u64) {
        self.demand = self.demand.saturating_add(cost);
    }

    /// How many questions were not answered, and whether one is being asked.
    pub fn questions(&self) -> (u32, bool) {
        (self.failures, self.is_asking)
    }

    /// Decides a request of `cost` tokens as far as the lease can.
    pub fn step(&mut self, rates: &[Rate], cost: u64, now_us: u64, length_us: u64) -> Step {
        // What has expired is on its way back. Who takes nothing is only told what is there.
        let is_current = if cost == 0 {
            self.is_known(now_us, length_us)
        } else {
            now_us < self.expires_us
        };
        if self.left >= cost && is_current {
            self.left -= cost;
            let question = self.renewal(now_us, length_us);
            return Step::Decided(self.passed(rates), question);
        }
        if let Some(refusal) = &self.refusal
            && now_us < refusal.until_us
            && cost >= refusal.cost
        {
            let decision = self.refused(rates, cost);
            // Another answer may have found more since: then it is worth asking.
            if !decision.allowed {
                return Step::Decided(decision, None);
            }
        }
        if self.is_asking {
            return Step::Wait;
        }
        match self.wanted(cost, now_us, length_us).saturating_sub(cost) {
            0 => Step::Ask,
            extra => {
                self.is_asking = true;
                Step::Fly(Question { cost, extra })
            }
        }
    }

    /// What a request of `cost` tokens would find; `None` where what is known is too old.
    pub fn peek(&self, rates: &[Rate], cost: u64, now_us: u64, length_us: u64) -> Option<Decision> {
        self.is_known(now_us, length_us).then(|| {
            let readings = self.whole(rates);
            decision(
                readings
                    .map(|(rate, state)| rate.read(state, cost))
                    .collect(),
            )
        })
    }

    fn is_known(&self, now_us: u64, length_us: u64) -> bool {
        !self.states.is_empty() && now_us.saturating_sub(self.answered_us) < length_us
    }

    /// A question before the lease runs out, so that nobody has to wait for its answer.
    fn renewal(&mut self, now_us: u64, length_us: u64) -> Option<Question> {
        if self.is_asking || self.granted == 0 || self.left > self.granted / RENEW_BELOW {
            return None;
        }
        let wanted = self.wanted(1, now_us, length_us).saturating_sub(self.left);
        // One that takes nothing unless there is something to take.
        let extra = wanted.checked_sub(1).filter(|extra| *extra > 0)?;
        self.is_asking = true;
        Some(Question { cost: 1, extra })
    }

    /// How many tokens the recent rate would use within a lease's length, for a request of `cost`.
    fn wanted(&mut self, cost: u64, now_us: u64, length_us: u64) -> u64 {
        let elapsed = now_us.saturating_sub(self.measured_us);
        if elapsed >= MEASURE_US_MIN {
            let sample = u128::from(self.demand) * u128::from(length_us) / u128::from(elapsed);
            let sample = u64::try_from(sample).unwrap_or(u64::MAX);
            // A key that was silent for long has no rate worth remembering.
            self.per_lease = if elapsed > 2 * length_us {
                sample
            } else {
                self.per_lease.midpoint(sample)
            };
            (self.demand, self.measured_us) = (0, now_us);
        }
        let first = FIRST.saturating_mul(cost.max(1));
        let most = self.granted.saturating_mul(GROWTH).max(first);
        self.per_lease.min(most)
    }

    /// Takes in what somebody who only looked has seen.
    pub fn look(&mut self, answer: &Answer, now_us: u64) {
        self.states = answer.states.clone();
        self.answered_us = now_us;
    }

    /// Takes in the answer of a question that brings `brought` tokens to the lease.
    fn note(&mut self, answer: &Answer, brought: u64, now_us: u64) {
        self.look(answer, now_us);
        if answer.allowed {
            self.left = self.left.saturating_add(brought);
            self.refusal = None;
        }
    }

    /// The answer of a flight: its tokens are the lease's. Whether somebody has to begin to look after
    /// the lease's end, with [`Lease::expire`].
    pub fn land(
        &mut self,
        rates: &[Rate],
        question: Question,
        answer: &Answer,
        now_us: u64,
        length_us: u64,
    ) -> bool {
        self.is_asking = false;
        let brought = question.cost.saturating_add(answer.extra);
        self.note(answer, brought, now_us);
        if answer.allowed {
            self.granted = brought;
            self.expires_us = now_us.saturating_add(length_us);
            !std::mem::replace(&mut self.is_kept, true)
        } else {
            self.refuse(rates, question.cost, now_us, length_us);
            false
        }
    }

    /// The answer of a question for one request alone.
    pub fn answer(&mut self, rates: &[Rate], cost: u64, answer: &Answer, now_us: u64) -> Decision {
        self.note(answer, 0, now_us);
        if answer.allowed {
            self.passed(rates)
        } else {
            self.refused(rates, cost)
        }
    }

    /// A question that was to be asked is not.
    pub fn cancel(&mut self) {
        self.is_asking = false;
    }

    /// A flight was not answered. Whoever waits for it is not to ask again.
    pub fn fail(&mut self) {
        self.is_asking = false;
        self.failures = self.failures.wrapping_add(1);
    }

    /// Tokens that should go back at `now_us`, which are no longer the lease's, and nobody has to look
    /// after it any more; `None` while it is in use.
    pub fn expire(&mut self, now_us: u64) -> Option<u64> {
        if now_us < self.expires_us || self.is_asking {
            return None;
        }
        (self.granted, self.is_kept) = (0, false);
        Some(std::mem::take(&mut self.left))
    }

    /// For how long a busy key can be refused without asking again: until the tokens can be there,
    /// but no longer than a lease, and no shorter than a part of one. What flows in meanwhile is not
    /// lost: it is less than half of any bucket.
    fn refuse(&mut self, rates: &[Rate], cost: u64, now_us: u64, length_us: u64) {
        let buckets = rates.iter().zip(&self.states);
        let wait_us = buckets.map(|(rate, state)| rate.micros_until(*state, cost));
        let wait_us = wait_us.max().unwrap_or(0);
        let half_us = rates.iter().map(Rate::micros_of_half).min().unwrap_or(0);
        let shortest = (length_us / REFUSAL_PART).min(half_us);
        let until_us = now_us.saturating_add(wait_us.max(shortest).min(length_us));
        self.refusal = Some(Refusal { until_us, cost });
    }

    /// The buckets as they would be without the lease.
    fn whole<'a>(&'a self, rates: &'a [Rate]) -> impl Iterator<Item = (&'a Rate, State)> {
        let buckets = rates.iter().zip(&self.states);
        buckets.map(|(rate, state)| (rate, rate.with_tokens(*state, self.left)))
    }

    fn passed(&self, rates: &[Rate]) -> Decision {
        let readings = self.whole(rates);
        decision(
            readings
                .map(|(rate, state)| rate.read_passed(state))
                .collect(),
        )
    }

    /// By the shared buckets alone: what is in the lease did not suffice either.
    fn refused(&self, rates: &[Rate], cost: u64) -> Decision {
        let buckets = rates.iter().zip(&self.states);
        decision(
            buckets
                .map(|(rate, state)| rate.read(*state, cost))
                .collect(),
        )
    }
}

fn decision(readings: Readings) -> Decision {
    Decision {
        allowed: readings.iter().all(|reading| !reading.violated),
        readings,
    }
}

#[cfg(test)]
mod tests;
