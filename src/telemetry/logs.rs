//! The log: one line an event, to stderr, written by a thread of its own so that a slow reader
//! never holds up a request. Lines that don't fit its queue are dropped and counted.
//!
//! Only Sidekey's own events are written. The libraries' own messages are left out on purpose:
//! some of them quote request headers, and headers hold keys.

use std::io::IsTerminal;
use std::time::Duration;

use prometheus::IntCounter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::settings::{LogFormat, LogSettings};

/// Lines that may wait for their reader.
const QUEUE_LINES_MAX: usize = 16_384;
/// How often dropped lines are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the log's thread alive; dropping it writes what is queued.
pub struct LogGuard {
    _worker: WorkerGuard,
    dropped: ErrorCounter,
}

impl LogGuard {
    /// Lines that were dropped so far.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

/// Adds what is dropped to `counter`, for ever.
pub async fn keep_counting(dropped: ErrorCounter, counter: IntCounter) {
    let mut ticks = tokio::time::interval(COUNT_INTERVAL);
    loop {
        ticks.tick().await;
        let all = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
        counter.inc_by(all.saturating_sub(counter.get()));
    }
}

/// Starts the log. Once per process; a second call keeps the first one's settings.
pub fn start(settings: &LogSettings) -> LogGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let filter = Targets::new().with_target("sidekey", settings.level);
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let subscriber = tracing_subscriber::registry().with(filter);
    let started = if json {
        subscriber
            .with(layer.json().flatten_event(true).with_target(false))
            .try_init()
    } else {
        subscriber
            .with(
                layer
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .try_init()
    };
    // Fails only where a log was started before, as tests do.
    drop(started);
    LogGuard {
        _worker: worker,
        dropped,
    }
}
