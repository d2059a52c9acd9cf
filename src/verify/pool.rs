//! The bcrypt pool: a few threads of lower priority that do nothing else, with a bounded queue.
//!
//! bcrypt takes tens of milliseconds of a CPU on purpose. Here it can't take that time from the
//! proxy threads, and a flood of cold keys ends in a full queue instead of in latency.

use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use crate::clock::SharedClock;
use crate::config::settings::BcryptSettings;
use crate::telemetry::Metrics;

/// How much nicer than the proxy threads (see nice(2)): about a tenth of their share when both
/// want the same CPU.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The queue is full, or the pool is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many key checks are waiting")]
pub struct PoolFull;

/// The pool. Its threads end when it is dropped.
pub struct BcryptPool {
    queue: Sender<Job>,
    capacity: usize,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl BcryptPool {
    /// Starts the threads.
    pub fn start(
        settings: &BcryptSettings,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Arc<Self>> {
        let (queue, jobs) = crossbeam_channel::bounded::<Job>(settings.max_queue);
        for number in 0..settings.threads {
            let jobs = jobs.clone();
            std::thread::Builder::new()
                .name(format!("bcrypt-{number}"))
                .spawn(move || {
                    // Where the system refuses, the work is done at the normal priority.
                    let _ = rustix::process::setpriority_process(None, NICE);
                    while let Ok(job) = jobs.recv() {
                        // A job that panics costs its caller an error, not the pool a thread.
                        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                    }
                })?;
        }
        let capacity = settings.max_queue + settings.threads;
        Ok(Arc::new(BcryptPool {
            queue,
            capacity,
            clock,
            metrics,
        }))
    }

    /// Jobs that may run and wait at the same time.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Runs one bcrypt hash on the pool.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolFull> {
        let (sender, receiver) = oneshot::channel();
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        let job: Job = Box::new(move || {
            metrics.bcrypt_queued.dec();
            let start_us = clock.monotonic_us();
            let result = work();
            metrics.bcrypt_runs.inc();
            let took_us = clock.monotonic_us().saturating_sub(start_us);
            metrics.bcrypt_seconds.observe(took_us as f64 / 1e6);
            // Nobody waits any more: the caller was cancelled.
            let _ = sender.send(result);
        });
        self.metrics.bcrypt_queued.inc();
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(job)
        {
            self.metrics.bcrypt_queued.dec();
            self.metrics.bcrypt_refused.inc();
            return Err(PoolFull);
        }
        receiver.await.map_err(|_| PoolFull)
    }
}
