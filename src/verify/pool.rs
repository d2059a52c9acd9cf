//! The bcrypt pool: a few threads that do nothing else, with a bounded queue.
//!
//! bcrypt takes tens of milliseconds of a CPU on purpose. Here it can't take that time from the
//! proxy threads, and a flood of cold keys ends in a full queue instead of in latency.
//!
//! The threads run in the scheduler's idle class (SCHED_IDLE, sched(7)), and step aside for a moment
//! after every [`STRETCH_US`]: even the idle class has its turns, and a turn lasts until the next
//! tick of the system's clock, which for a request that waits is 4 ms on many systems.
//! Where requests take every CPU there is nothing left for that class: when none of its threads has
//! got anywhere for [`STARVED_AFTER_US`], one more thread of low but ordinary priority takes the
//! next job.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use tokio::sync::oneshot;

use crate::clock::SharedClock;
use crate::config::settings::BcryptSettings;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::seconds;

/// After so long without a finished job, the next one gets a share of a busy CPU. A long queue alone
/// is no reason: it is there because the threads have their hands full.
const STARVED_AFTER_US: u64 = 2_000_000;
/// How often the thread for such jobs looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How much nicer that thread is than the proxy threads (nice(2)): about a tenth of their share
/// when both want the same CPU.
const NICE: i32 = 10;

/// The queue is full, or the pool is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many key checks are waiting")]
pub struct PoolFull;

/// After so long a stretch of work a thread steps aside.
const STRETCH_US: u64 = 300;
/// For so long. Who waits for the CPU gets it as soon as the thread rests, however short that is.
const REST: Duration = Duration::from_micros(10);
/// How late the system may be with the end of a rest, in nanoseconds. It takes 50 us where it is not told
/// (prctl(2), PR_SET_TIMERSLACK), which made a hash a fifth longer.
const REST_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

struct Job {
    queued_us: u64,
    work: Work,
}

/// Gets the pool's `pause`, to be called often.
type Work = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;

/// What the threads share.
struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// When a thread of the idle class last finished a job.
    progressed_us: u64,
    is_closed: bool,
}

/// The pool. Its threads end when it is dropped.
pub struct BcryptPool {
    queue: Arc<Queue>,
    max_queue: usize,
    capacity: usize,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl Drop for BcryptPool {
    fn drop(&mut self) {
        self.queue.jobs.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl BcryptPool {
    /// Starts the threads.
    pub fn start(
        settings: &BcryptSettings,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Arc<Self>> {
        let shown = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.bcrypt_threads.set(shown(settings.threads));
        metrics.bcrypt_queue_capacity.set(shown(settings.max_queue));
        let queue = Arc::new(Queue {
            jobs: Mutex::default(),
            changed: Condvar::new(),
        });
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name).spawn(body)
        };
        for number in 0..settings.threads {
            let (queue, clock) = (queue.clone(), clock.clone());
            spawn(
                format!("bcrypt-{number}"),
                Box::new(move || work_when_idle(&queue, &clock)),
            )?;
        }
        let (starved, now) = (queue.clone(), clock.clone());
        spawn(
            "bcrypt-starved".to_owned(),
            Box::new(move || work_for_starved(&starved, &now)),
        )?;
        Ok(Arc::new(BcryptPool {
            queue,
            max_queue: settings.max_queue,
            capacity: settings.max_queue + settings.threads,
            clock,
            metrics,
        }))
    }

    /// Jobs that may run and wait at the same time.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Runs one bcrypt hash on the pool. `work` has to call what it is given about every 50 us.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn FnMut()) -> T + Send + 'static,
    ) -> Result<T, PoolFull> {
        let (sender, receiver) = oneshot::channel();
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let timed = move |pause: &mut dyn FnMut()| {
            metrics.bcrypt_queued.dec();
            let start_us = clock.monotonic_us();
            let running = Running::begin(&metrics.bcrypt_in_flight);
            let result = work(pause);
            drop(running);
            metrics.bcrypt_runs.inc();
            let took_us = clock.monotonic_us().saturating_sub(start_us);
            metrics.bcrypt_seconds.observe(seconds(took_us));
            // Nobody waits any more: the caller was cancelled.
            let _ = sender.send(result);
        };
        self.push(Box::new(timed))?;
        receiver.await.map_err(|_| PoolFull)
    }

    fn push(&self, work: Work) -> Result<(), PoolFull> {
        let queued_us = self.clock.monotonic_us();
        let mut jobs = self.queue.jobs.lock();
        if jobs.waiting.len() >= self.max_queue {
            self.metrics.bcrypt_refused.inc();
            return Err(PoolFull);
        }
        self.metrics.bcrypt_queued.inc();
        jobs.waiting.push_back(Job { queued_us, work });
        drop(jobs);
        // Not notify_one: that might wake the thread that only takes what has waited.
        self.queue.changed.notify_all();
        Ok(())
    }
}

/// Counts a job for as long as it runs, also one that panics.
struct Running<'a>(&'a IntGauge);

impl<'a> Running<'a> {
    fn begin(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Running(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn work_when_idle(queue: &Queue, clock: &SharedClock) {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let thread = thread_priority::thread_native_id();
    let set = thread_priority::set_thread_priority_and_policy(thread, ThreadPriority::Min, idle);
    if set.is_err() {
        // Where the system refuses, a low ordinary priority is the next best.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    // Where the system refuses, rests are longer.
    let _ = rustix::thread::set_current_timer_slack(Some(REST_SLACK_NS));
    loop {
        let mut jobs = queue.jobs.lock();
        let job = loop {
            if let Some(job) = jobs.waiting.pop_front() {
                break job;
            }
            if jobs.is_closed {
                return;
            }
            queue.changed.wait(&mut jobs);
        };
        drop(jobs);
        run(job, clock);
        queue.jobs.lock().progressed_us = clock.monotonic_us();
    }
}

fn work_for_starved(queue: &Queue, clock: &SharedClock) {
    // Where the system refuses, the work is done at the normal priority.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        let mut jobs = queue.jobs.lock();
        if jobs.is_closed {
            return;
        }
        let now_us = clock.monotonic_us();
        let progressed_us = jobs.progressed_us;
        let is_starved =
            |job: &Job| now_us.saturating_sub(job.queued_us.max(progressed_us)) >= STARVED_AFTER_US;
        if jobs.waiting.front().is_some_and(is_starved) {
            let job = jobs.waiting.pop_front();
            drop(jobs);
            job.into_iter().for_each(|job| run(job, clock));
        } else {
            queue.changed.wait_for(&mut jobs, LOOK_INTERVAL);
        }
    }
}

/// A job that panics costs its caller an error, not the pool a thread.
fn run(job: Job, clock: &SharedClock) {
    let mut rested_us = clock.monotonic_us();
    let mut pause = || {
        if clock.monotonic_us().saturating_sub(rested_us) >= STRETCH_US {
            // A thread of the pool serves no requests.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(REST);
            rested_us = clock.monotonic_us();
        }
    };
    let work = std::panic::AssertUnwindSafe(|| (job.work)(&mut pause));
    let _ = std::panic::catch_unwind(work);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock, Timestamp};

    fn settings(threads: usize) -> BcryptSettings {
        BcryptSettings {
            cost: 4,
            max_queue: 2,
            threads,
        }
    }

    #[tokio::test]
    async fn a_job_that_panics_costs_no_thread() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let clock = Arc::new(SystemClock::new());
        let pool = BcryptPool::start(&settings(1), clock, metrics.clone()).unwrap();
        assert_eq!(
            pool.run(|_| panic!("in a test")).await,
            Err::<(), _>(PoolFull)
        );
        let seen = metrics.clone();
        let running = pool.run(move |_| seen.bcrypt_in_flight.get());
        assert_eq!(running.await, Ok(1), "the one that panicked is over");
        assert_eq!(metrics.bcrypt_threads.get(), 1);
        assert_eq!(metrics.bcrypt_queue_capacity.get(), 2);
    }

    /// Without a thread of the idle class at all, as where requests take every CPU.
    #[tokio::test]
    async fn what_has_waited_long_is_done_all_the_same() {
        let clock = ManualClock::at(Timestamp::from_millis(0));
        let metrics = Arc::new(Metrics::new().unwrap());
        let pool = BcryptPool::start(&settings(0), clock.clone(), metrics).unwrap();
        let waiting = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(|_| 7).await })
        };
        tokio::time::sleep(2 * LOOK_INTERVAL).await;
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_micros(STARVED_AFTER_US));
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
