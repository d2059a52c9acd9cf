//! One instance and several, on shared buckets that answer late, or never.

mod common;

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
        let gained = u128::from(now_us) * u128::from(*quota) / (u128::from(*window) * 1_000_000);
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
