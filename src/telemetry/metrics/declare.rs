//! How a metric is declared: once, with its name, its help text, its labels and its buckets.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// What is said of one metric where it is declared.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    pub name: &'static str,
    pub help: &'static str,
    /// Its type in the `prometheus` crate.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    /// Upper bounds, of a histogram alone.
    pub buckets: &'static [f64],
}

impl Declaration {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn histogram_opts(&self) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(self.buckets.to_vec())
    }
}

/// A metric that can be made from its declaration.
pub trait Metric: Collector + Clone + Sized + 'static {
    fn make(of: &Declaration) -> Result<Self, Error>;

    /// Makes it, and puts it into `registry`.
    fn register(of: &Declaration, registry: &Registry) -> Result<Self, Error> {
        let metric = Self::make(of)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

impl Metric for IntCounter {
    fn make(of: &Declaration) -> Result<Self, Error> {
        IntCounter::with_opts(of.opts())
    }
}

impl Metric for IntGauge {
    fn make(of: &Declaration) -> Result<Self, Error> {
        IntGauge::with_opts(of.opts())
    }
}

impl Metric for Histogram {
    fn make(of: &Declaration) -> Result<Self, Error> {
        Histogram::with_opts(of.histogram_opts())
    }
}

impl Metric for IntCounterVec {
    fn make(of: &Declaration) -> Result<Self, Error> {
        IntCounterVec::new(of.opts(), of.labels)
    }
}

impl Metric for IntGaugeVec {
    fn make(of: &Declaration) -> Result<Self, Error> {
        IntGaugeVec::new(of.opts(), of.labels)
    }
}

impl Metric for HistogramVec {
    fn make(of: &Declaration) -> Result<Self, Error> {
        HistogramVec::new(of.histogram_opts(), of.labels)
    }
}

/// Makes `Metrics` from lines such as
///
/// ```text
/// pub bcrypt_queued: IntGauge = "sidekey_bcrypt_queued", "Checks that wait for a bcrypt thread.";
/// duration: HistogramVec by [route] in SECONDS = "sidekey_request_duration_seconds", "...";
/// ```
macro_rules! declare {
    ($(
        $access:vis $field:ident: $kind:ident $(by [$($label:ident),+])? $(in $buckets:ident)?
            = $name:literal, $help:literal;
    )*) => {
        /// All metrics of the process.
        pub struct Metrics {
            registry: Registry,
            routes: Mutex<BTreeMap<String, RouteMetrics>>,
            /// Of wrong keys, at either port.
            pub failed_addresses: Arc<Addresses>,
            $(#[doc = $help] $access $field: $kind,)*
        }

        /// What there is, in the order of its declaration.
        pub const DECLARATIONS: &[Declaration] =
            &[$(declare!(@declaration $kind [$($($label),+)?] [$($buckets)?] $name, $help),)*];

        impl Metrics {
            fn declared(registry: Registry) -> Result<Self, prometheus::Error> {
                Ok(Metrics {
                    $($field: $kind::register(
                        &declare!(@declaration $kind [$($($label),+)?] [$($buckets)?] $name, $help),
                        &registry,
                    )?,)*
                    routes: Mutex::default(),
                    failed_addresses: Arc::default(),
                    registry,
                })
            }
        }
    };
    (@declaration $kind:ident [$($label:ident),*] [$($buckets:ident)?] $name:literal, $help:literal) => {
        Declaration {
            name: $name,
            help: $help,
            kind: stringify!($kind),
            labels: &[$(stringify!($label)),*],
            buckets: declare!(@buckets $($buckets)?),
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

pub(super) use declare;
