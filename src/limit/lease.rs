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
mod tests {
    use super::*;
    use crate::key::Policy;
    use proptest::prelude::*;

    const LENGTH: u64 = 50_000;

    fn rate(quota: u64, window_seconds: u64, burst: u64) -> Rate {
        Rate::new(&Policy {
            name: "p".into(),
            quota,
            window_seconds,
            burst: Some(burst),
        })
    }

    /// The shared buckets, as the script keeps them.
    struct Shared {
        rates: Vec<Rate>,
        states: States,
    }

    impl Shared {
        fn new(rates: &[Rate]) -> Self {
            Shared {
                rates: rates.to_vec(),
                states: rates.iter().map(|rate| rate.full(0)).collect(),
            }
        }

        fn ask(&mut self, question: Question, now_us: u64) -> Answer {
            let refill = |(rate, state): (&Rate, &State)| rate.refilled(*state, now_us);
            let mut states: States = self.rates.iter().zip(&self.states).map(refill).collect();
            let buckets = || self.rates.iter();
            let allowed = (buckets().zip(&states)).all(|(r, s)| r.affords(*s, question.cost));
            let mut extra = 0;
            if allowed {
                for (rate, state) in buckets().zip(&mut states) {
                    *state = rate.spend(*state, question.cost);
                }
                let left = buckets().zip(&states).map(|(r, s)| r.tokens(*s) / SHARE);
                extra = left.min().unwrap_or(0).min(question.extra);
                for (rate, state) in buckets().zip(&mut states) {
                    *state = rate.spend(*state, extra);
                }
            }
            self.states = states.clone();
            Answer {
                allowed,
                extra,
                states,
            }
        }

        fn give_back(&mut self, tokens: u64) {
            for (rate, state) in self.rates.iter().zip(&mut self.states) {
                *state = rate.with_tokens(*state, tokens);
            }
        }
    }

    /// One instance, whose questions can be answered later, or never.
    #[derive(Default)]
    struct Instance {
        lease: Lease,
        flight: Option<(Question, Answer)>,
        /// Answers to questions for one request, that have not arrived yet.
        direct: Vec<(u64, Answer)>,
        /// Whether these wait for [`Instance::arrive`].
        is_slow: bool,
    }

    impl Instance {
        /// Whether a request passes; `None` where it has to wait.
        fn request(&mut self, shared: &mut Shared, cost: u64, now_us: u64) -> Option<bool> {
            self.lease.count(cost);
            let step = self.lease.step(&shared.rates, cost, now_us, LENGTH);
            match step {
                Step::Decided(decision, question) => {
                    if let Some(question) = question {
                        self.flight = Some((question, shared.ask(question, now_us)));
                    }
                    Some(decision.allowed)
                }
                Step::Fly(question) => {
                    self.flight = Some((question, shared.ask(question, now_us)));
                    None
                }
                Step::Wait => None,
                Step::Ask => {
                    let answer = shared.ask(Question { cost, extra: 0 }, now_us);
                    if self.is_slow {
                        self.direct.push((cost, answer));
                        return None;
                    }
                    let decision = self.lease.answer(&shared.rates, cost, &answer, now_us);
                    Some(decision.allowed)
                }
            }
        }

        /// One of the direct answers arrives; the tokens that it lets through.
        fn arrive(&mut self, shared: &Shared, which: usize, now_us: u64) -> u64 {
            if self.direct.is_empty() {
                return 0;
            }
            let (cost, answer) = self.direct.swap_remove(which % self.direct.len());
            let decision = self.lease.answer(&shared.rates, cost, &answer, now_us);
            if decision.allowed { cost } else { 0 }
        }

        fn land(&mut self, shared: &Shared, now_us: u64) {
            if let Some((question, answer)) = self.flight.take() {
                (self.lease).land(&shared.rates, question, &answer, now_us, LENGTH);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Requests {
            instance: usize,
            count: u64,
            cost: u64,
        },
        Land(usize),
        Arrive(usize, usize),
        Expire(usize),
        Kill(usize),
        Pass(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let instance = 0usize..3;
        let event = prop_oneof![
            6 => (instance.clone(), 1u64..30, 0u64..12)
                .prop_map(|(instance, count, cost)| Event::Requests { instance, count, cost }),
            6 => instance.clone().prop_map(Event::Land),
            6 => (instance.clone(), 0usize..100).prop_map(|(i, n)| Event::Arrive(i, n)),
            3 => instance.clone().prop_map(Event::Expire),
            1 => instance.prop_map(Event::Kill),
            6 => (0u64..30_000).prop_map(Event::Pass),
            1 => (0u64..3_000_000).prop_map(Event::Pass),
        ];
        prop::collection::vec(event, 1..300)
    }

    const BURST_MAX: u64 = 200;

    /// What the limits allow until `now_us`.
    fn most(limits: &[(u64, u64, u64)], now_us: u64) -> u64 {
        let allowed = limits.iter().map(|(quota, window, burst)| {
            let gained =
                u128::from(now_us) * u128::from(*quota) / (u128::from(*window) * 1_000_000);
            u128::from(*burst) + gained
        });
        u64::try_from(allowed.min().unwrap()).unwrap()
    }

    proptest! {
        /// However requests, answers, expiries and deaths of instances fall: what passes is never
        /// more than the limits allow.
        #[test]
        fn leases_let_no_token_too_many_through(
            events in events(),
            limits in prop::collection::vec((1u64..3000, 1u64..10, 1u64..BURST_MAX), 1..3),
        ) {
            let rates: Vec<Rate> = limits.iter().map(|(q, w, b)| rate(*q, *w, *b)).collect();
            let mut shared = Shared::new(&rates);
            let slow = || Instance { is_slow: true, ..Instance::default() };
            let mut instances: Vec<Instance> = (0..3).map(|_| slow()).collect();
            let (mut now_us, mut passed) = (0u64, 0u64);
            for event in events {
                match event {
                    Event::Pass(us) => now_us += us,
                    Event::Land(i) => instances[i].land(&shared, now_us),
                    Event::Arrive(i, n) => passed += instances[i].arrive(&shared, n, now_us),
                    Event::Kill(i) => instances[i] = slow(),
                    Event::Expire(i) => {
                        let back = instances[i].lease.expire(now_us);
                        shared.give_back(back.unwrap_or(0));
                    }
                    Event::Requests { instance, count, cost } => {
                        for _ in 0..count {
                            if instances[instance].request(&mut shared, cost, now_us) == Some(true) {
                                passed += cost;
                            }
                        }
                    }
                }
                prop_assert!(passed <= most(&limits, now_us), "{passed} at {now_us}");
            }
            // In the end everything arrives, and everybody takes what there is.
            for instance in &mut instances {
                instance.land(&shared, now_us);
                while !instance.direct.is_empty() {
                    passed += instance.arrive(&shared, 0, now_us);
                }
                instance.is_slow = false;
                for _ in 0..2 * BURST_MAX {
                    passed += u64::from(instance.request(&mut shared, 1, now_us) == Some(true));
                    instance.land(&shared, now_us);
                }
            }
            prop_assert!(passed <= most(&limits, now_us), "{passed} at {now_us}");
        }
    }

    /// Requests of one instance at an even pace, each question answered at once; how many questions
    /// were asked, and how many requests passed.
    fn run(rates: &[Rate], requests: u64, every_us: u64) -> (u64, u64) {
        run_with(rates, requests, every_us, 1)
    }

    /// The same for requests of `cost` tokens.
    fn run_with(rates: &[Rate], requests: u64, every_us: u64, cost: u64) -> (u64, u64) {
        let mut shared = Shared::new(rates);
        let mut instance = Instance::default();
        let (mut questions, mut passed) = (0, 0);
        for n in 0..requests {
            let now_us = 1_000_000 + n * every_us;
            if let Some(tokens) = instance.lease.expire(now_us) {
                shared.give_back(tokens);
            }
            let before = shared.states.clone();
            let mut outcome = instance.request(&mut shared, cost, now_us);
            if shared.states != before {
                questions += 1;
            }
            if instance.flight.is_some() {
                instance.land(&shared, now_us);
                outcome = outcome.or_else(|| instance.request(&mut shared, cost, now_us));
            }
            passed += u64::from(outcome == Some(true));
        }
        (questions, passed)
    }

    #[test]
    fn a_busy_key_rarely_asks_and_a_slow_one_always() {
        let wide = [rate(1_000_000, 1, 1_000_000)];
        let (questions, passed) = run(&wide, 100_000, 100);
        assert_eq!(passed, 100_000);
        assert!(questions <= 100_000 / 200, "{questions} questions");
        let (questions, passed) = run(&wide, 100, LENGTH);
        assert_eq!((questions, passed), (100, 100));
    }

    #[test]
    fn a_busy_key_of_dear_requests_rarely_asks_too() {
        let wide = [rate(1_000_000, 1, 1_000_000)];
        let (questions, passed) = run_with(&wide, 10_000, 100, 10);
        assert_eq!(passed, 10_000);
        assert!(questions <= 10_000 / 100, "{questions} questions");
    }

    /// A refusal is remembered by what was found then; an answer to somebody who asked for more, and
    /// found more, lets nobody through without a token.
    #[test]
    fn a_later_answer_does_not_turn_a_refusal_into_passes() {
        let rates = [rate(1, 3600, 10)];
        let mut lease = Lease::default();
        let found = |tokens| Answer {
            allowed: false,
            extra: 0,
            states: [rates[0].holding(tokens, 0)].into_iter().collect(),
        };
        let question = Question { cost: 1, extra: 5 };
        lease.land(&rates, question, &found(0), 0, LENGTH);
        assert!(matches!(lease.step(&rates, 1, 1, LENGTH), Step::Decided(d, _) if !d.allowed));
        lease.answer(&rates, 10, &found(3), 2);
        assert_eq!(lease.step(&rates, 1, 3, LENGTH), Step::Ask);
    }

    #[test]
    fn a_busy_key_gets_nearly_all_of_its_limit() {
        // 10,000 requests a second for 10 s against 1,000 a second.
        let (questions, passed) = run(&[rate(1000, 1, 100)], 100_000, 100);
        assert!((9_900..=10_100).contains(&passed), "{passed} passed");
        assert!(questions <= 5_000, "{questions} questions");
    }

    #[test]
    fn what_is_not_used_goes_back() {
        let rates = [rate(1, 3600, 1000)];
        let mut shared = Shared::new(&rates);
        let mut instance = Instance::default();
        for n in 0..100 {
            let now_us = n * 500;
            if instance.request(&mut shared, 1, now_us).is_none() {
                instance.land(&shared, now_us);
                assert_eq!(instance.request(&mut shared, 1, now_us), Some(true));
            }
            instance.land(&shared, now_us);
        }
        assert!(rates[0].tokens(shared.states[0]) < 900, "a lease is out");
        assert_eq!(instance.lease.expire(50_000), None, "it is in use");
        let tokens = instance.lease.expire(200_000).unwrap();
        shared.give_back(tokens);
        assert_eq!(rates[0].tokens(shared.states[0]), 900);
        assert_eq!(instance.lease.expire(200_000), Some(0));
    }

    #[test]
    fn a_refused_busy_key_does_not_ask_for_a_while() {
        let rates = [rate(1, 3600, 1)];
        let mut shared = Shared::new(&rates);
        let mut instance = Instance::default();
        assert_eq!(instance.request(&mut shared, 1, 0), Some(true));
        let mut asked = 0;
        for n in 0..1000 {
            let now_us = n * 100;
            let outcome = instance.request(&mut shared, 1, now_us);
            asked += u32::from(instance.flight.is_some());
            instance.land(&shared, now_us);
            assert_ne!(outcome, Some(true));
        }
        assert!(asked <= 3, "{asked} questions in two lengths of a lease");
    }

    #[test]
    fn who_waits_for_a_question_that_fails_is_told() {
        let rates = [rate(1_000_000, 1, 1_000_000)];
        let mut shared = Shared::new(&rates);
        let mut instance = Instance::default();
        let mut now_us = 0;
        while instance.flight.is_none() {
            now_us += 100;
            instance.request(&mut shared, 1, now_us);
        }
        assert_eq!(instance.lease.questions(), (0, true));
        instance.lease.fail();
        assert_eq!(instance.lease.questions(), (1, false));
    }
}
