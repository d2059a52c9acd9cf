//! The counters of one key that is in use: what was not taken out yet. Many threads add, one takes.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::counts::Counts;

/// How a request ended, as its key's owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an answer that is no error, or with none.
    Plain,
    Error4xx,
    Error5xx,
    /// Refused by Sidekey, for another reason than a limit.
    Denied,
    RateLimited,
}

/// How many endings there are.
pub const ENDINGS: usize = 5;

impl Ending {
    pub const ALL: [Ending; ENDINGS] = [
        Ending::Plain,
        Ending::Error4xx,
        Ending::Error5xx,
        Ending::Denied,
        Ending::RateLimited,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Plain => "ok",
            Ending::Error4xx => "error_4xx",
            Ending::Error5xx => "error_5xx",
            Ending::Denied => "denied",
            Ending::RateLimited => "rate_limited",
        }
    }
}

/// A request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub ending: Ending,
    /// Of bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub latency_us: u64,
}

/// Counts of 32 bits are enough for what comes between two flushes, which are at most five minutes
/// apart: ten million requests a second.
#[derive(Debug, Default)]
pub struct Counters {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    latency_us_sum: AtomicU64,
    latency_us_max: AtomicU32,
    requests: AtomicU32,
    errors_4xx: AtomicU32,
    errors_5xx: AtomicU32,
    denied: AtomicU32,
    rate_limited: AtomicU32,
}

impl Counters {
    /// Counts one request.
    pub fn count(&self, request: &Request) {
        let class = match request.ending {
            Ending::Plain => None,
            Ending::Error4xx => Some(&self.errors_4xx),
            Ending::Error5xx => Some(&self.errors_5xx),
            Ending::Denied => Some(&self.denied),
            Ending::RateLimited => Some(&self.rate_limited),
        };
        if let Some(class) = class {
            class.fetch_add(1, Relaxed);
        }
        if request.bytes_in > 0 {
            self.bytes_in.fetch_add(request.bytes_in, Relaxed);
        }
        if request.bytes_out > 0 {
            self.bytes_out.fetch_add(request.bytes_out, Relaxed);
        }
        self.latency_us_sum.fetch_add(request.latency_us, Relaxed);
        let latency = u32::try_from(request.latency_us).unwrap_or(u32::MAX);
        if latency > self.latency_us_max.load(Relaxed) {
            self.latency_us_max.fetch_max(latency, Relaxed);
        }
        // The last: where it says that there is nothing, there is nothing.
        self.requests.fetch_add(1, Release);
    }

    /// Whether nothing is counted but for requests that are being counted now.
    pub fn is_empty(&self) -> bool {
        self.requests.load(Acquire) == 0
    }

    /// Takes out what was counted; `None` where that is nothing. Of a request that is being counted now,
    /// a part may come with this and the rest with the next.
    pub fn take(&self) -> Option<Counts> {
        if self.is_empty() {
            return None;
        }
        let requests = self.requests.swap(0, Acquire);
        let small = |counter: &AtomicU32| u64::from(counter.swap(0, Relaxed));
        Some(Counts {
            requests: u64::from(requests),
            errors_4xx: small(&self.errors_4xx),
            errors_5xx: small(&self.errors_5xx),
            denied: small(&self.denied),
            rate_limited: small(&self.rate_limited),
            bytes_in: self.bytes_in.swap(0, Relaxed),
            bytes_out: self.bytes_out.swap(0, Relaxed),
            latency_us_sum: self.latency_us_sum.swap(0, Relaxed),
            latency_us_max: small(&self.latency_us_max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ending: Ending, n: u64) -> Request {
        Request {
            ending,
            bytes_in: n,
            bytes_out: 2 * n,
            latency_us: n,
        }
    }

    #[test]
    fn each_ending_has_its_counter() {
        let counters = Counters::default();
        assert_eq!(counters.take(), None);
        for (n, ending) in [
            Ending::Plain,
            Ending::Error4xx,
            Ending::Error5xx,
            Ending::Denied,
            Ending::RateLimited,
            Ending::RateLimited,
        ]
        .into_iter()
        .enumerate()
        {
            counters.count(&request(ending, n as u64));
        }
        counters.count(&request(Ending::Plain, u64::from(u32::MAX) + 1));
        let more = u64::from(u32::MAX) + 1;
        assert_eq!(
            counters.take(),
            Some(Counts {
                requests: 7,
                errors_4xx: 1,
                errors_5xx: 1,
                denied: 1,
                rate_limited: 2,
                bytes_in: 15 + more,
                bytes_out: 30 + 2 * more,
                latency_us_sum: 15 + more,
                latency_us_max: u64::from(u32::MAX),
            })
        );
        assert!(counters.is_empty() && counters.take().is_none());
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_while_it_is_taken() {
        const EACH: u64 = 50_000;
        const THREADS: u64 = 4;
        let counters = Counters::default();
        let mut sum = Counts::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..EACH {
                            counters.count(&request(Ending::Error4xx, 3));
                        }
                    })
                })
                .collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                if let Some(part) = counters.take() {
                    sum.add(&part);
                }
            }
        });
        if let Some(part) = counters.take() {
            sum.add(&part);
        }
        let all = EACH * THREADS;
        assert_eq!(
            sum,
            Counts {
                requests: all,
                errors_4xx: all,
                bytes_in: 3 * all,
                bytes_out: 6 * all,
                latency_us_sum: 3 * all,
                latency_us_max: 3,
                ..Counts::default()
            }
        );
    }
}
