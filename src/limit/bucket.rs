//! The token bucket's arithmetic, and nothing else: state, rate, time, cost in; state, verdict
//! out. The limiters hold the state; the Lua script is this file's twin.
//!
//! Everything is exact in integers below 2^53, so that Lua's numbers give the same answers. With
//! `g = gcd(quota, window)` a token is `window / g` units and a tick adds `quota / g` units: the
//! bucket fills evenly, no fraction of a token is ever lost or won. A tick is a microsecond, or a
//! millisecond where a bucket is too large for that resolution.

use crate::key::Policy;

/// Buckets count in units below this: 2^53.
const UNITS_MAX: u64 = 1 << 53;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// A policy in the bucket's own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Length of a tick in microseconds: 1 or 1,000.
    tick_us: u64,
    /// Units of one token.
    token: u64,
    /// Units gained per tick.
    refill: u64,
    /// Units of a full bucket.
    capacity: u64,
    quota: u64,
    window_seconds: u64,
}

/// What a bucket holds, and when that was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Units in the bucket.
    level: u64,
    /// Ticks on the monotonic clock.
    at: u64,
}

/// What a caller may know about one bucket after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Whole tokens left.
    pub remaining: u64,
    /// Seconds over which `remaining` can be spent evenly without a refusal:
    /// `ceil(remaining x window / quota)`; with nothing left, the wait for the next token.
    pub reset_seconds: u64,
    /// Seconds until the asked cost is there, 0 if it is there now.
    pub wait_seconds: u64,
    /// Whether this bucket is a reason for a refusal.
    pub violated: bool,
}

impl State {
    /// `level` units at the tick `at`.
    pub fn new(level: u64, at: u64) -> Self {
        State { level, at }
    }
}

impl Rate {
    /// What the Lua twin needs: microseconds of a tick, units of a token, units gained a tick,
    /// capacity.
    pub fn units(&self) -> [u64; 4] {
        [self.tick_us, self.token, self.refill, self.capacity]
    }

    /// The rate of a sound policy (see [`Policy::problems`]).
    pub fn new(policy: &Policy) -> Self {
        Self::with_tick(policy, 1).unwrap_or_else(|| {
            // `problems` has made sure that this fits.
            Self::with_tick(policy, 1000).unwrap_or(Rate {
                tick_us: 1000,
                token: 1,
                refill: 1,
                capacity: 1,
                quota: 1,
                window_seconds: 1,
            })
        })
    }

    fn with_tick(policy: &Policy, tick_us: u64) -> Option<Self> {
        let window = policy
            .window_seconds
            .checked_mul(MICROS_PER_SECOND / tick_us)?;
        let divisor = gcd(policy.quota, window);
        let token = window.checked_div(divisor)?;
        let capacity = policy.burst().checked_mul(token)?;
        (capacity < UNITS_MAX).then_some(Rate {
            tick_us,
            token,
            refill: policy.quota / divisor,
            capacity,
            quota: policy.quota,
            window_seconds: policy.window_seconds,
        })
    }

    /// A full bucket at `now_us`.
    pub fn full(&self, now_us: u64) -> State {
        State {
            level: self.capacity,
            at: now_us / self.tick_us,
        }
    }

    /// A bucket with `tokens`, at most full, at `now_us`.
    pub fn holding(&self, tokens: u64, now_us: u64) -> State {
        let level = tokens.saturating_mul(self.token).min(self.capacity);
        State {
            level,
            at: now_us / self.tick_us,
        }
    }

    /// `state` as it is at `now_us`. A clock that went back changes nothing.
    pub fn refilled(&self, state: State, now_us: u64) -> State {
        let now = now_us / self.tick_us;
        let elapsed = now.saturating_sub(state.at);
        let missing = self.capacity.saturating_sub(state.level);
        // Compared in ticks, because `elapsed x refill` may be larger than any number.
        let level = if elapsed >= missing.div_ceil(self.refill) {
            self.capacity
        } else {
            state.level + elapsed * self.refill
        };
        State {
            level,
            at: now.max(state.at),
        }
    }

    /// Whether a refilled `state` holds `cost` tokens.
    pub fn affords(&self, state: State, cost: u64) -> bool {
        cost.checked_mul(self.token)
            .is_some_and(|units| units <= state.level)
    }

    /// A refilled `state` without `cost` tokens. Only after [`Rate::affords`].
    pub fn spend(&self, state: State, cost: u64) -> State {
        State {
            level: state.level.saturating_sub(cost.saturating_mul(self.token)),
            at: state.at,
        }
    }

    /// `state` with `tokens` more, at most full.
    pub fn with_tokens(&self, state: State, tokens: u64) -> State {
        let level = state
            .level
            .saturating_add(tokens.saturating_mul(self.token));
        State {
            level: level.min(self.capacity),
            at: state.at,
        }
    }

    /// Whether a refilled `state` is full, so that forgetting it loses nothing.
    pub fn is_full(&self, state: State) -> bool {
        state.level >= self.capacity
    }

    /// Whole tokens in a refilled `state`.
    pub fn tokens(&self, state: State) -> u64 {
        state.level / self.token
    }

    /// What to tell a caller whose `cost` tokens were taken: a refilled `state` without them.
    pub fn read_passed(&self, state: State) -> Reading {
        let (remaining, reset_seconds) = self.left(state);
        Reading {
            remaining,
            reset_seconds,
            wait_seconds: 0,
            violated: false,
        }
    }

    /// What to tell a caller who asks for `cost` tokens and finds a refilled `state`.
    pub fn read(&self, state: State, cost: u64) -> Reading {
        let (remaining, reset_seconds) = self.left(state);
        let units = cost.saturating_mul(self.token);
        let mut wait_seconds = self.seconds_until(state, units);
        if units > self.capacity {
            // No wait will do. A client that does not read why should at least not ask at once.
            wait_seconds = wait_seconds.max(self.window_seconds);
        }
        Reading {
            remaining,
            reset_seconds,
            wait_seconds,
            violated: !self.affords(state, cost),
        }
    }

    fn left(&self, state: State) -> (u64, u64) {
        let remaining = self.tokens(state);
        let reset_seconds = if remaining == 0 {
            self.seconds_until(state, self.token)
        } else {
            // Exact: the product is below 2^60 because burst x window_seconds is bounded.
            (remaining * self.window_seconds).div_ceil(self.quota)
        };
        (remaining, reset_seconds)
    }

    /// Seconds, rounded up, until the bucket holds `units`. For more than it can ever hold: until
    /// it is full.
    fn seconds_until(&self, state: State, units: u64) -> u64 {
        self.micros_until_units(state, units)
            .div_ceil(MICROS_PER_SECOND)
    }

    fn micros_until_units(&self, state: State, units: u64) -> u64 {
        let missing = units.min(self.capacity).saturating_sub(state.level);
        let ticks = missing.div_ceil(self.refill);
        ticks.saturating_mul(self.tick_us)
    }

    /// Microseconds until the bucket holds `tokens`. For more than it can ever hold: until it is full.
    pub fn micros_until(&self, state: State, tokens: u64) -> u64 {
        self.micros_until_units(state, tokens.saturating_mul(self.token))
    }

    /// Microseconds in which half of the bucket fills.
    pub fn micros_of_half(&self) -> u64 {
        (self.capacity / self.refill / 2).saturating_mul(self.tick_us)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = MICROS_PER_SECOND;

    fn policy(quota: u64, window_seconds: u64, burst: u64) -> Policy {
        Policy {
            name: "p".to_owned(),
            quota,
            window_seconds,
            burst: Some(burst),
        }
    }

    fn rate(quota: u64, window_seconds: u64, burst: u64) -> Rate {
        Rate::new(&policy(quota, window_seconds, burst))
    }

    /// One request: the state after it, and whether it passed.
    fn take(rate: &Rate, state: State, now_us: u64, cost: u64) -> (State, bool) {
        let state = rate.refilled(state, now_us);
        if rate.affords(state, cost) {
            (rate.spend(state, cost), true)
        } else {
            (state, false)
        }
    }

    #[test]
    fn the_contracts_example() {
        let rate = rate(600, 60, 100);
        let (state, passed) = take(&rate, rate.full(0), 0, 1);
        assert!(passed);
        assert_eq!(
            rate.read_passed(state),
            Reading {
                remaining: 99,
                reset_seconds: 10,
                wait_seconds: 0,
                violated: false
            }
        );
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = rate(10, 1, 5);
        let mut state = rate.full(0);
        for (now_us, expected) in [
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99_999, false),
            (100_000, true),
            (100_000, false),
            (300_000, true),
            (300_000, true),
            (300_000, false),
        ] {
            let (next, passed) = take(&rate, state, now_us, 1);
            assert_eq!(passed, expected, "at {now_us}");
            state = next;
        }
    }

    #[test]
    fn a_request_of_many_tokens_waits_for_all_of_them() {
        let rate = rate(60, 60, 10);
        let (state, passed) = take(&rate, rate.full(0), 0, 10);
        assert!(passed);
        let (state, passed) = take(&rate, state, 3 * SECOND, 4);
        assert!(!passed);
        assert_eq!(
            rate.read(state, 4),
            Reading {
                remaining: 3,
                reset_seconds: 3,
                wait_seconds: 1,
                violated: true
            }
        );
        assert!(take(&rate, state, 4 * SECOND, 4).1);
    }

    #[test]
    fn more_than_the_bucket_ever_holds_is_never_afforded() {
        let rate = rate(60, 60, 10);
        assert!(!rate.affords(rate.full(0), 11));
        assert!(!rate.affords(rate.full(0), u64::MAX));
        assert_eq!(rate.read(rate.full(0), 11).wait_seconds, 60);
    }

    #[test]
    fn an_empty_bucket_says_when_the_next_token_comes() {
        let rate = rate(1, 60, 1);
        let (state, _) = take(&rate, rate.full(0), 0, 1);
        let state = rate.refilled(state, 10 * SECOND + 1);
        assert_eq!(
            rate.read(state, 1),
            Reading {
                remaining: 0,
                reset_seconds: 50,
                wait_seconds: 50,
                violated: true
            }
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_and_takes_nothing() {
        let rate = rate(10, 1, 5);
        let (state, _) = take(&rate, rate.full(10 * SECOND), 10 * SECOND, 5);
        let (state, passed) = take(&rate, state, SECOND, 1);
        assert!(!passed);
        assert!(!take(&rate, state, 10 * SECOND + 99_999, 1).1);
        assert!(take(&rate, state, 10 * SECOND + 100_000, 1).1);
    }

    #[test]
    fn odd_rates_lose_no_fraction() {
        // 7 tokens in 3 seconds, one at a time, for 3,000 seconds: 7,000 tokens and the first.
        let rate = rate(7, 3, 1);
        let mut state = rate.full(0);
        let mut passed = 0;
        for millis in 0..=3_000_000u64 {
            let (next, ok) = take(&rate, state, millis * 1000, 1);
            state = next;
            passed += u64::from(ok);
        }
        // Asking once a millisecond can be late by up to a millisecond each time.
        assert!((6990..=7001).contains(&passed), "{passed}");
    }

    #[test]
    fn the_largest_policies_fit() {
        use crate::key::policy::{BURST_WINDOW_MAX, TOKENS_MAX, WINDOW_SECONDS_MAX};
        let burst = (BURST_WINDOW_MAX - 1) / WINDOW_SECONDS_MAX;
        let large = policy(TOKENS_MAX - 1, WINDOW_SECONDS_MAX, burst);
        assert_eq!(large.problems(), []);
        let rate = Rate::new(&large);
        assert_eq!(rate.tick_us, 1000);
        assert_eq!(rate.tokens(rate.full(0)), burst);
        assert_eq!(
            rate.refilled(rate.holding(0, 0), u64::MAX),
            rate.full(u64::MAX)
        );
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        (1u64..2_000, 1u64..200, 1u64..500).prop_map(|(q, w, b)| policy(q, w, b))
    }

    proptest! {
        /// The promise to whoever stands behind the limit: in any stretch of time, at most
        /// burst + rate x time passes.
        #[test]
        fn never_more_than_burst_and_rate(
            policy in any_policy(),
            trace in proptest::collection::vec((0u64..3_000_000, 1u64..5), 1..200),
        ) {
            let rate = Rate::new(&policy);
            let (mut state, mut now, mut spent) = (rate.full(0), 0u64, 0u64);
            for (pause, cost) in trace {
                now += pause;
                let (next, passed) = take(&rate, state, now, cost);
                state = next;
                spent += if passed { cost } else { 0 };
                let gained = u128::from(now) * u128::from(policy.quota);
                let allowed = u128::from(policy.burst()) * u128::from(policy.window_seconds * SECOND) + gained;
                prop_assert!(u128::from(spent) * u128::from(policy.window_seconds * SECOND) <= allowed);
            }
        }

        /// The promise to the caller: who waits as long as told is not refused.
        #[test]
        fn waiting_as_told_is_enough(policy in any_policy(), cost in 1u64..500, drain in 0u64..600) {
            let cost = 1 + cost % policy.burst();
            let rate = Rate::new(&policy);
            let state = rate.holding(policy.burst().saturating_sub(drain), 0);
            let wait = rate.read(state, cost).wait_seconds;
            prop_assert!(take(&rate, state, wait * SECOND, cost).1);
        }

        /// Spending `remaining` evenly over `reset_seconds` never meets a refusal.
        #[test]
        fn spending_evenly_is_never_refused(policy in any_policy(), held in 1u64..500) {
            let rate = Rate::new(&policy);
            let mut state = rate.holding(held, 0);
            let reading = rate.read(state, 1);
            prop_assume!(reading.remaining > 0);
            let pause = reading.reset_seconds * SECOND / reading.remaining;
            for step in 0..reading.remaining {
                let (next, passed) = take(&rate, state, step * pause, 1);
                prop_assert!(passed);
                state = next;
            }
        }

        /// A refused request changes nothing but the time of the last look.
        #[test]
        fn a_refusal_takes_nothing(policy in any_policy(), now in 0u64..10_000_000) {
            let rate = Rate::new(&policy);
            let state = rate.holding(0, 0);
            let (after, passed) = take(&rate, state, now, policy.burst() + 1);
            prop_assert!(!passed);
            prop_assert_eq!(after, rate.refilled(state, now));
        }
    }
}
