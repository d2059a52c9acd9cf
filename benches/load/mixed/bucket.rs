//! Whether what a limiter let through, and what it refused, can have come from one token bucket. Pure.
//!
//! From outside nobody knows when a token was taken, only that it was between a request and its answer. So
//! each bound takes the case that is kindest to the limiter: what is complained of is wrong in any case.

/// Our clock and the limiter's are read at different places, and count in microseconds.
const SLACK_US: f64 = 1000.0;

/// A limit of whole tokens, where each request takes one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pub quota_per_second: u32,
    pub burst: u32,
}

/// A request to a limited key, in microseconds since the load's begin.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    pub sent_us: u64,
    pub answered_us: u64,
    /// Or refused.
    pub passed: bool,
}

impl Bucket {
    /// What can't have come from this bucket, which was full at first; a sentence each.
    pub fn complaints(self, passages: &[Passage]) -> Vec<String> {
        let tokens = Tokens::of(self, passages);
        let mut complaints: Vec<String> = tokens.too_many().into_iter().collect();
        let unfounded = passages.iter().filter(|one| !one.passed);
        let unfounded = unfounded.filter(|one| !tokens.may_be_short(one)).count();
        if unfounded > 0 {
            complaints.push(format!(
                "{unfounded} requests were refused while the bucket held a token"
            ));
        }
        complaints
    }
}

/// The times between which each token was taken.
struct Tokens {
    per_us: f64,
    burst: f64,
    /// In order. The n-th of one and of the other need not be the same request's.
    sent: Vec<u64>,
    answered: Vec<u64>,
    /// For the n-th answer: where, up to it, the bucket can have been full with the most effect.
    fullest: Vec<f64>,
}

impl Tokens {
    fn of(bucket: Bucket, passages: &[Passage]) -> Self {
        let per_us = f64::from(bucket.quota_per_second) / 1e6;
        let passed = || passages.iter().filter(|one| one.passed);
        let mut sent: Vec<u64> = passed().map(|one| one.sent_us).collect();
        let mut answered: Vec<u64> = passed().map(|one| one.answered_us).collect();
        sent.sort_unstable();
        answered.sort_unstable();
        let mut most = f64::NEG_INFINITY;
        let fullest = answered.iter().enumerate().map(|(before, &at)| {
            most = f64::max(most, per_us * at as f64 - before as f64);
            most
        });
        Tokens {
            per_us,
            burst: f64::from(bucket.burst),
            fullest: fullest.collect(),
            sent,
            answered,
        }
    }

    /// Where, over some stretch of time, more passed than the bucket can have held and gained. Counted are
    /// requests that lie in the stretch as a whole.
    fn too_many(&self) -> Option<String> {
        let (mut begun, mut least) = (0, f64::INFINITY);
        let mut worst = f64::NEG_INFINITY;
        for (done, &end) in self.answered.iter().enumerate() {
            while begun < self.sent.len() && self.sent[begun] <= end {
                least = least.min(begun as f64 - self.per_us * self.sent[begun] as f64);
                begun += 1;
            }
            worst = worst.max((done + 1) as f64 - self.per_us * end as f64 - least);
        }
        let over = worst - self.burst - self.per_us * SLACK_US;
        (over > 0.0).then(|| {
            format!("{over:.1} requests more passed than the bucket held and gained meanwhile")
        })
    }

    /// Whether the bucket can have been without a token at some moment of a refused request.
    fn may_be_short(&self, refused: &Passage) -> bool {
        let begin = self.sent.partition_point(|&at| at < refused.sent_us);
        let within = self.sent[begin..].iter().copied();
        // Between these moments it only gains.
        std::iter::once(refused.sent_us)
            .chain(within.take_while(|&at| at <= refused.answered_us))
            .any(|at| self.least_at(at) < 1.0 + self.per_us * SLACK_US)
    }

    /// The fewest tokens that the bucket can have held at `at`: what may have been taken by then was, and
    /// was taken as late as possible, so that the bucket ran over before.
    fn least_at(&self, at: u64) -> f64 {
        let now = self.per_us * at as f64;
        let taken = self.sent.partition_point(|&sent| sent <= at) as f64;
        let done = self.answered.partition_point(|&answered| answered < at);
        let full_now = now - done as f64;
        let full_before = done.checked_sub(1).map(|last| self.fullest[last]);
        let fullest = full_before.map_or(full_now, |before| before.max(full_now));
        self.burst + now - taken - fullest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: Bucket = Bucket {
        quota_per_second: 10,
        burst: 10,
    };
    const SECOND: u64 = 1_000_000;

    fn at(sent_us: u64, passed: bool) -> Passage {
        Passage {
            sent_us,
            answered_us: sent_us + 100,
            passed,
        }
    }

    #[test]
    fn more_than_the_bucket_holds_is_seen() {
        let mut calls: Vec<Passage> = (0..10).map(|n| at(n * 1000, true)).collect();
        assert!(BUCKET.complaints(&calls).is_empty());
        calls.push(at(10_000, true));
        assert_eq!(BUCKET.complaints(&calls).len(), 1);
    }

    #[test]
    fn a_burst_too_many_is_seen_however_quiet_it_was_before() {
        let begin = 3600 * SECOND;
        let mut calls = vec![at(0, true)];
        calls.extend((0..11).map(|n| at(begin + n * 1000, true)));
        assert_eq!(BUCKET.complaints(&calls).len(), 1);
    }

    #[test]
    fn a_refusal_of_a_full_bucket_is_seen() {
        assert_eq!(BUCKET.complaints(&[at(0, false)]).len(), 1);
        let mut calls: Vec<Passage> = (0..10).map(|n| at(n * 1000, true)).collect();
        calls.push(at(20_000, false));
        assert!(BUCKET.complaints(&calls).is_empty());
        calls.push(at(SECOND, false));
        assert_eq!(BUCKET.complaints(&calls).len(), 1);
    }

    proptest! {
        /// Whatever the delays: a bucket that keeps its rules is not complained of.
        #[test]
        fn an_honest_bucket_passes(calls in prop::collection::vec((0u64..300_000, 0u64..200_000, 0u64..200_000), 1..300)) {
            let (mut level, mut last, mut now) = (10.0f64, 0u64, SECOND);
            let mut passages = Vec::new();
            for (pause, before, after) in calls {
                now += pause / 4;
                level = (level + (now - last) as f64 / 1e5).min(10.0);
                last = now;
                let passed = level >= 1.0;
                if passed {
                    level -= 1.0;
                }
                passages.push(Passage { sent_us: now - before, answered_us: now + after, passed });
            }
            prop_assert_eq!(BUCKET.complaints(&passages), Vec::<String>::new());
        }
    }
}
