//! The thread that makes spans of notes and sends them.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use futures_util::FutureExt;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus::IntCounter;

use super::client::{Client, Reason};
use super::{BATCH_MAX, Finished, INTERVAL, SpansError};
use crate::config::settings::TracingSettings;
use crate::key::format::shown;

/// Characters of a reason that are told.
const REASON_CHARS_MAX: usize = 200;

/// What is counted of what is lost.
pub struct Counters {
    /// Spans.
    pub dropped: IntCounter,
    /// Batches.
    pub failures: IntCounter,
}

pub struct Exporter {
    inner: OtlpExporter,
    reason: Reason,
    scope: InstrumentationScope,
    counters: Counters,
    endpoint: String,
    is_failing: bool,
}

impl Exporter {
    pub fn new(
        endpoint: &str,
        settings: &TracingSettings,
        instance: &str,
        counters: Counters,
    ) -> Result<Self, SpansError> {
        // As with every other service: no proxy of the environment, and nothing is sent elsewhere.
        let inner = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .build()
            .map_err(SpansError::Client)?;
        let reason = Reason::default();
        let client = Client {
            inner,
            reason: reason.clone(),
        };
        let mut inner = OtlpExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(settings.timeout)
            .build()
            .map_err(SpansError::Exporter)?;
        let version = env!("CARGO_PKG_VERSION");
        inner.set_resource(
            &Resource::builder_empty()
                .with_service_name(settings.service_name.clone())
                .with_attribute(KeyValue::new("service.version", version))
                .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
                .build(),
        );
        Ok(Exporter {
            inner,
            reason,
            scope: InstrumentationScope::builder("sidekey")
                .with_version(version)
                .build(),
            counters,
            endpoint: endpoint.to_owned(),
            is_failing: false,
        })
    }

    /// Sends until the other end of `stopping` is gone, and then what waits, if there is hope for it.
    pub fn run(mut self, waiting: &Receiver<Box<Finished>>, stopping: &Receiver<()>) {
        loop {
            let is_over = !matches!(
                stopping.recv_timeout(INTERVAL),
                Err(RecvTimeoutError::Timeout)
            );
            if is_over && self.is_failing {
                return;
            }
            while self.send_batch(waiting) {}
            if is_over {
                return;
            }
        }
    }

    /// Sends one batch, and says whether more waits and is worth an attempt.
    fn send_batch(&mut self, waiting: &Receiver<Box<Finished>>) -> bool {
        let mut batch: Vec<SpanData> = Vec::new();
        let notes = waiting.try_iter().take(BATCH_MAX);
        let count = notes
            .map(|finished| finished.into_spans(&self.scope, &mut batch))
            .count();
        if batch.is_empty() {
            return false;
        }
        let spans = batch.len() as u64;
        // With a blocking client, the first poll is the whole call.
        let sent = self.inner.export(batch).now_or_never();
        let failure = match sent {
            Some(Ok(())) => None,
            Some(Err(error)) => {
                let reason = self.reason.lock().take();
                let reason = reason.unwrap_or_else(|| error.to_string());
                Some(shown(&reason, REASON_CHARS_MAX))
            }
            None => Some("the attempt did not end".to_owned()),
        };
        if failure.is_some() {
            self.counters.failures.inc();
            self.counters.dropped.inc_by(spans);
        }
        self.tell(failure.as_deref());
        failure.is_none() && count == BATCH_MAX
    }

    /// A line where it begins to fail, and one where it is over.
    fn tell(&mut self, failure: Option<&str>) {
        if failure.is_some() == self.is_failing {
            return;
        }
        self.is_failing = failure.is_some();
        match failure {
            None => tracing::info!(endpoint = %self.endpoint, "the collector takes spans again"),
            Some(reason) => tracing::warn!(
                endpoint = %self.endpoint,
                reason,
                "the collector takes no spans; they are lost and counted until it does"
            ),
        }
    }
}
