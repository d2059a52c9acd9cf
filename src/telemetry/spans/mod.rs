//! Spans of requests, sent to a collector by OTLP. Whoever finishes a request leaves a note in a
//! bounded queue and goes on; a thread of its own makes spans of notes and sends them in batches.
//! Where too many wait, or the collector does not take them, they are lost and counted.
//!
//! The queue's reader is not woken for each note, which would cost the proxy's thread a system
//! call: it looks four times a second.

mod client;
mod export;
mod record;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;

use super::Metrics;
use crate::config::settings::TracingSettings;
use export::Exporter;

pub use record::{Call, Finished, known_method};

/// Requests whose spans may wait: each takes some 700 bytes, and at most 5 KB more where a client chose
/// the longest path that is shown.
const QUEUE_MAX: usize = 8_192;
/// Requests whose spans go to the collector together.
const BATCH_MAX: usize = 512;
/// How often the queue is looked into.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long the process waits for them at its end, however long a batch may take otherwise.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why no span can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SpansError {
    #[error("the thread can't be started: {0}")]
    Thread(std::io::Error),
    #[error("the HTTP client can't be made: {0}")]
    Client(reqwest::Error),
    #[error("{0}; look at OTEL_EXPORTER_OTLP_... in the environment")]
    Exporter(opentelemetry_otlp::ExporterBuildError),
}

/// Where finished requests are noted.
#[derive(Debug, Clone)]
pub struct SpanQueue {
    notes: SyncSender<Box<Finished>>,
    dropped: IntCounter,
}

impl SpanQueue {
    /// A queue that nobody reads.
    #[cfg(test)]
    pub fn for_test(dropped: IntCounter) -> Self {
        let (notes, _) = sync_channel(1);
        SpanQueue { notes, dropped }
    }

    /// Notes a request. Never waits.
    pub fn note(&self, finished: Finished) {
        let spans = finished.span_count();
        match self.notes.try_send(Box::new(finished)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.inc_by(spans);
            }
        }
    }
}

/// The thread that sends spans.
pub struct Spans {
    pub queue: SpanQueue,
    /// Dropped to end the thread.
    stop: SyncSender<()>,
    ended: oneshot::Receiver<()>,
}

impl Spans {
    /// Starts the thread, where there is a collector.
    pub async fn start(
        settings: &TracingSettings,
        instance: &str,
        metrics: &Metrics,
    ) -> Result<Option<Self>, SpansError> {
        let Some(endpoint) = settings.endpoint.clone() else {
            return Ok(None);
        };
        let (notes, waiting) = sync_channel(QUEUE_MAX);
        let (stop, stopping) = sync_channel(1);
        let (started, on_started) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let dropped = metrics.trace_spans_dropped.clone();
        let failures = metrics.trace_export_failures.clone();
        let counters = export::Counters {
            dropped: dropped.clone(),
            failures,
        };
        let (settings, instance) = (settings.clone(), instance.to_owned());
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                // The blocking client belongs to a thread that is no runtime's.
                match Exporter::new(&endpoint, &settings, &instance, counters) {
                    Ok(exporter) => {
                        let _ = started.send(Ok(()));
                        exporter.run(&waiting, &stopping);
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
                let _ = ending.send(());
            })
            .map_err(SpansError::Thread)?;
        let spans = Spans {
            queue: SpanQueue { notes, dropped },
            stop,
            ended,
        };
        match on_started.await {
            Ok(result) => result.map(|()| Some(spans)),
            Err(_) => Ok(None),
        }
    }

    /// Sends what waits, within a limit of time.
    pub async fn finish(self) {
        drop(self.stop);
        if tokio::time::timeout(FINISH_TIMEOUT, self.ended)
            .await
            .is_err()
        {
            tracing::warn!("spans that waited for the collector are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::telemetry::Outcome;
    use crate::telemetry::trace_context::{SpanId, TraceId};

    fn finished() -> Finished {
        Finished {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent: None,
            ended_at: Timestamp::from_millis(1_000),
            took_us: 5_000_000,
            method: "GET",
            version: http::Version::HTTP_11,
            path: "/".to_owned(),
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            route: None,
            status: 200,
            outcome: Outcome::Forwarded,
            shadow: None,
            request_id: "id".to_owned(),
            key_id: None,
            tenant_id: None,
            call: Some(Call {
                span_id: SpanId::random(),
                after_us: u64::MAX,
                server: (std::net::Ipv4Addr::LOCALHOST, 1).into(),
                failed_attempts: 0,
                status: 200,
            }),
        }
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        let dropped = IntCounter::new("a", "b").unwrap();
        let (notes, waiting) = sync_channel(1);
        let queue = SpanQueue {
            notes,
            dropped: dropped.clone(),
        };
        queue.note(finished());
        assert_eq!(dropped.get(), 0);
        for lost in 1..=3 {
            queue.note(finished());
            assert_eq!(dropped.get(), 2 * lost);
        }
        drop(waiting);
        queue.note(finished());
        assert_eq!(dropped.get(), 8);
    }

    /// A clock that was set back while the request ran.
    #[test]
    fn times_before_all_times_make_no_panic() {
        let mut spans = Vec::new();
        finished().into_spans(&opentelemetry::InstrumentationScope::default(), &mut spans);
        assert_eq!(spans.len(), 2);
        for span in spans {
            assert!(span.start_time <= span.end_time);
        }
    }
}
