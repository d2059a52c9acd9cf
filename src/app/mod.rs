//! The composition root: settings -> stores -> services -> servers. The only room that knows
//! everyone. Owns start and shutdown.
//!
//! Two runtimes: `proxy` has the threads that carry requests and nothing else; `control` has the
//! admin port, the stores' work and housekeeping, so that none of it takes a proxy thread's time.

mod bootstrap;
mod certificates;
mod cluster;
mod gateway;
mod recording;
mod reminders;
mod stop;
mod usage;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora_core::server::Fds;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use pingora_proxy::http_proxy;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::dashboard::{self, state::DashboardState};
use crate::admin::deployment::Deployment;
use crate::admin::{self, AdminState};
use crate::audit::recorder::Recorder;
use crate::audit::seal::Sealer;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Settings;
use crate::manage::TenantService;
use crate::manage::keys::{HASHING_MAX, KeyService};
use crate::proxy::connection::{Connections, Unreadable};
use crate::proxy::{Gateway, NO_ROUTE};
use crate::reconcile::{self, Pair, Reconciler};
use crate::store::answers::keep_forgetting;
use crate::store::settle::keep_settled;
use crate::store::{Census, SqlStore};
use crate::stores::Stores;
use crate::telemetry::Metrics;
use crate::telemetry::admin::AdminMetrics;
use crate::telemetry::certificates::keep_watching;
use crate::telemetry::logs::{self, LogGuard};
use crate::telemetry::shown_certificates::keep_looking;
use crate::telemetry::spans::Spans;
use crate::verify::{
    BcryptPool, Follower, Freshness, Imports, LiveKeys, Parts, Proofs, Records, Verifier,
    ViewBuilder,
};

use bootstrap::bootstrap;
use certificates::{named_files, tls_servers};
use cluster::Cluster;
use gateway::{build_gateway, failed_auth_limiter};
use recording::Recording;
use reminders::Reminding;
use stop::Signals;
use usage::Usage;

/// Threads for everything that is not a request.
const CONTROL_THREADS: usize = 2;
/// Idle connections to upstreams that each proxy thread keeps.
const UPSTREAM_POOL_SIZE: usize = 512;
/// Imports that run at the same time: each waits for its turn to hash, and makes others wait longer.
const IMPORTS_MAX: usize = 8;
/// Exports of the audit log that run at the same time.
const EXPORTS_MAX: usize = 4;
/// How often idle keys are forgotten and gauges brought up to date.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// Why Sidekey did not start, or ended: one sentence with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AppError(String);

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> AppError {
    move |error| AppError(format!("{what}: {error}"))
}

/// Runs until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> Result<(), AppError> {
    let log = logs::start(&settings.log);
    raise_open_files();
    use_runtime_timers();
    crate::tls::use_ring();
    let control = runtime("control", CONTROL_THREADS)?;
    let proxy = proxy_runtime(settings.proxy.threads)?;
    let listeners = bind(&settings)?;
    let shutdown_notice = settings.proxy.shutdown_notice;
    let shutdown_after = settings.proxy.shutdown;
    let redis_timeout = settings.limits.redis.as_ref().map(|redis| redis.timeout);
    let built = control.block_on(App::build(settings, &listeners, log));
    let (app, gateway) = match built {
        Ok(built) => built,
        Err(error) => {
            // The process ends now. Tasks of the database's pool would panic if they were cancelled first.
            std::mem::forget(control);
            return Err(error);
        }
    };
    let limiter = gateway.shared.clone();
    let (stop, stopping) = watch::channel(false);
    let proxy_address = listeners
        .proxy
        .iter()
        .map(|(address, _)| address.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let admin_address = listeners.admin.0;
    app.serve_proxy(gateway, &proxy, listeners.proxy, stopping.clone())?;
    let metrics = app.metrics.clone();
    let result = control.block_on(async {
        let mut signals = Signals::new()?;
        let admin = app.serve_admin(listeners.admin.1, stopping)?;
        if let Some(limiter) = limiter.clone() {
            tokio::spawn(gateway::look_for_recovery(limiter));
        }
        tracing::info!(proxy = %proxy_address, admin = %admin_address, "ready");
        // Nobody may be reading: that is no reason not to serve.
        let _ = writeln!(
            std::io::stdout(),
            "ready proxy={proxy_address} admin={admin_address}"
        );
        signals.next().await;
        app.admin.is_stopping.store(true, Ordering::Relaxed);
        app.reminding.stop();
        stop::give_notice(shutdown_notice, &mut signals).await;
        tracing::info!("stopping: no new connections, finishing requests in flight");
        let _ = stop.send(true);
        stop::drain(&metrics, shutdown_after).await;
        if let (Some(limiter), Some(limit)) = (&limiter, redis_timeout) {
            stop::give_back_leases(limiter, &metrics, limit).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
        let _log = app.close().await;
        tracing::info!("stopped");
        Ok(())
    });
    if let Some(proxy) = Arc::into_inner(proxy) {
        proxy.shutdown_background();
    }
    control.shutdown_background();
    result
}

/// Lets the process open as many files as it may: each connection is one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Lets Pingora's timeouts use the runtime's timers. Its own are kept until they go off, however
/// soon what they limit has ended: with timeouts of a minute, tens of thousands of requests' timers
/// stand in a tree that each request searches.
fn use_runtime_timers() {
    pingora_timeout::fast_timeout::set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
}

/// The threads that carry requests. A single one needs none of what shares work between threads,
/// which is a good part of what a small request costs; it has to be driven by a thread of its own.
fn proxy_runtime(threads: usize) -> Result<Arc<Runtime>, AppError> {
    if threads > 1 {
        return runtime("proxy", threads).map(Arc::new);
    }
    let single = Builder::new_current_thread().enable_all().build();
    let single = Arc::new(single.map_err(failed("the threads can't be started"))?);
    let driven = single.clone();
    std::thread::Builder::new()
        .name("proxy".to_owned())
        .spawn(move || driven.block_on(std::future::pending::<()>()))
        .map_err(failed("the threads can't be started"))?;
    Ok(single)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, AppError> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(failed("the threads can't be started"))
}

/// Sockets that listen already, with their real addresses.
struct Listening {
    proxy: Vec<(SocketAddr, TcpListener)>,
    admin: (SocketAddr, TcpListener),
}

impl Listening {
    /// What calls the proxy from this machine.
    fn proxy_url(&self) -> String {
        let mut address = self.proxy.first().map_or(self.admin.0, |(first, _)| *first);
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }
}

fn bind(settings: &Settings) -> Result<Listening, AppError> {
    let bind_one = |address: SocketAddr| {
        TcpListener::bind(address)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok((listener.local_addr()?, listener))
            })
            .map_err(|error| {
                AppError(format!("{address} can't be listened on: {error}; choose another address or end what uses it"))
            })
    };
    let proxy = settings
        .proxy
        .listen
        .iter()
        .copied()
        .map(bind_one)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Listening {
        proxy,
        admin: bind_one(settings.admin.listen)?,
    })
}

/// Everything that was built.
struct App {
    admin: Arc<AdminState>,
    verifier: Arc<Verifier>,
    metrics: Arc<Metrics>,
    store: SqlStore,
    /// Follows changes for as long as it is not aborted.
    following: JoinHandle<()>,
    /// Ends after the following.
    presence: JoinHandle<()>,
    recording: Recording,
    usage: Usage,
    spans: Option<Spans>,
    reminding: Reminding,
    log: LogGuard,
}

impl App {
    async fn build(
        settings: Settings,
        listening: &Listening,
        log: LogGuard,
    ) -> Result<(Self, Gateway), AppError> {
        let clock: SharedClock = Arc::new(SystemClock::new());
        let metrics = Arc::new(Metrics::new().map_err(failed("the metrics can't be set up"))?);
        let (stores, mint_keys) = Stores::open(&settings, &clock, &metrics)
            .await
            .map_err(|error| AppError(error.to_string()))?;
        let Stores {
            sql: store,
            keys: key_store,
            audit: audit_store,
            tenants: tenant_store,
            imports: import_store,
            answers,
            secrets,
            usage: usage_store,
            overview,
            census,
            rankings,
            reminders,
            sessions,
        } = stores;
        let sealer = Sealer::from(&mint_keys);
        let max_stale = settings.store.max_stale;
        let cluster = Cluster::join(
            &settings,
            listening.admin.0.port(),
            &store,
            &clock,
            &metrics,
        )
        .await?;
        // Before any key becomes live: what changes from now on will be seen.
        let seen = key_store
            .last_change()
            .await
            .map_err(failed("the store can't be read"))?;
        let imports = Imports::new(&mint_keys, import_store.clone(), metrics.clone());
        let imports_seen = imports
            .read_since(0)
            .await
            .map_err(failed("the imported keys can't be read"))?;
        let freshness = Arc::new(Freshness::new(max_stale, clock.monotonic_us()));
        let pool = BcryptPool::start(&settings.bcrypt, clock.clone(), metrics.clone())
            .map_err(failed("the bcrypt threads can't be started"))?;
        let views = ViewBuilder::new(settings.catalogue.clone(), settings.limits.default.clone())
            .with_shared_limits(settings.limits.redis.is_some());
        let live = LiveKeys::new(views, clock.clone());
        let verifier = Verifier::new(Parts {
            proofs: Proofs::new(&settings.verification)
                .map_err(failed("no key can be verified"))?,
            live: live.clone(),
            mint_keys: mint_keys.clone(),
            imports: imports.clone(),
            store: key_store.clone(),
            tenants: tenant_store.clone(),
            secrets: secrets.clone(),
            pool: pool.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            freshness: freshness.clone(),
            runtime: tokio::runtime::Handle::current(),
        });
        let records = Records::new(key_store.clone(), tokio::runtime::Handle::current());
        let shown_records = Records::new(key_store.clone(), tokio::runtime::Handle::current());
        metrics.store_up.set(1);
        let follower = Follower {
            store: key_store.clone(),
            tenants: tenant_store.clone(),
            live: live.clone(),
            imports: imports.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            freshness,
            seen,
            imports_seen,
        };
        let (applied, on_applied) = watch::channel(0);
        let following = tokio::spawn(follower.run(
            settings.store.poll_interval,
            cluster.announcer.on_look(),
            applied,
        ));
        let presence = tokio::spawn(cluster.presence.run(on_applied));
        let usage = Usage::start(
            &settings,
            &live,
            &usage_store,
            &rankings,
            &cluster.instance,
            &clock,
            &metrics,
        );
        tokio::spawn(keep_settled(key_store.clone(), clock.clone()));
        tokio::spawn(keep_forgetting(answers.clone(), clock.clone()));
        let reconciler = Reconciler {
            pair: Pair {
                store: key_store.clone(),
                secrets: secrets.clone(),
                clock: clock.clone(),
                pace: reconcile::PACE,
            },
            metrics: metrics.clone(),
            settings: settings.reconcile.clone(),
        };
        let reminding = Reminding::start(&settings, &reminders, &tenant_store, &clock, &metrics)?;
        let tenants = TenantService {
            store: tenant_store,
            live: live.clone(),
            announcer: cluster.announcer.clone(),
            clock: clock.clone(),
        };
        let keys = KeyService {
            store: key_store,
            import_store,
            imports,
            answers,
            secrets,
            live,
            pool,
            mint_keys,
            prefix: settings.credentials.prefix.clone(),
            catalogue: settings.catalogue.clone(),
            bcrypt_cost: settings.bcrypt.cost,
            hashing: tokio::sync::Semaphore::new(HASHING_MAX),
            leftover_age: settings.reconcile.leftover_age,
            announcer: cluster.announcer,
            clock: clock.clone(),
        };
        bootstrap(&keys, &settings.admin.bootstrap_key_file).await?;
        // After the first key, so that the database is not empty.
        tokio::spawn(reconciler.run());
        let census = Census {
            store: census,
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(census.run());
        tokio::spawn(keep_watching(named_files(&settings), metrics.clone()));
        tokio::spawn(keep_looking(tls_servers(&settings), metrics.clone()));
        let notes = Recorder::new(clock.clone(), metrics.clone());
        let recording = Recording::start(&notes, &audit_store);
        let dashboard = DashboardState::start(dashboard::state::Parts {
            settings: settings.dashboard.clone(),
            proxy_url: listening.proxy_url(),
            sessions,
            records: shown_records,
            addresses_max: settings.limits.max_addresses,
            clock: clock.clone(),
        });
        let admin = Arc::new(AdminState {
            dashboard,
            keys,
            audit: audit_store,
            sealer,
            recorder: notes,
            imports: Arc::new(tokio::sync::Semaphore::new(IMPORTS_MAX)),
            exports: Arc::new(tokio::sync::Semaphore::new(EXPORTS_MAX)),
            verifications: Arc::default(),
            tenants,
            confirmations: cluster.confirmations,
            verifier: verifier.clone(),
            usage: usage_store,
            overview,
            usage_retention: settings.usage.retention,
            failed_auth: failed_auth_limiter(&settings.limits),
            trusted_proxies: settings.admin.trusted_proxies.clone(),
            realm: settings.credentials.realm.clone(),
            deployment: Deployment::new(&settings),
            counted: AdminMetrics::of(&metrics),
            is_stopping: AtomicBool::new(false),
            metrics: metrics.clone(),
            clock: clock.clone(),
        });
        let spans = Spans::start(&settings.tracing, &cluster.instance, &metrics)
            .await
            .map_err(failed("spans can't be sent"))?;
        let queue = spans.as_ref().map(|spans| spans.queue.clone());
        let (verified, counted) = (verifier.clone(), metrics.clone());
        let gateway = build_gateway(settings, verified, records, clock, counted, queue).await?;
        let app = App {
            admin,
            verifier,
            metrics,
            store,
            following,
            presence,
            recording,
            usage,
            spans,
            reminding,
            log,
        };
        Ok((app, gateway))
    }

    /// Starts the proxy on its own threads.
    fn serve_proxy(
        &self,
        gateway: Gateway,
        runtime: &Runtime,
        listeners: Vec<(SocketAddr, TcpListener)>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), AppError> {
        let conf = Arc::new(ServerConf {
            threads: gateway.settings.threads,
            upstream_keepalive_pool_size: UPSTREAM_POOL_SIZE,
            ..ServerConf::default()
        });
        let connections = Connections {
            max: gateway.settings.max_connections,
            header_timeout: gateway.settings.header_timeout,
            keepalive: gateway.settings.keepalive,
            metrics: self.metrics.clone(),
            unreadable: Arc::new(Unreadable {
                metrics: self.metrics.route(NO_ROUTE),
                access: gateway.access.clone(),
            }),
            app: Arc::new(set_up(|| http_proxy(&conf, gateway))?),
        };
        let mut service = Service::new("proxy".to_owned(), connections);
        // Pingora takes over sockets that listen already by the address that it would have bound.
        let mut sockets = Fds::new();
        for (address, listener) in listeners {
            service.add_tcp(&address.to_string());
            sockets.add(address.to_string(), listener.into_raw_fd());
        }
        let sockets = Arc::new(parking_lot::Mutex::new(sockets));
        runtime.spawn(async move { service.start_service(Some(sockets), stopping, 1).await });
        Ok(())
    }

    /// Starts the admin port and housekeeping.
    fn serve_admin(
        &self,
        listener: TcpListener,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, AppError> {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(failed("the admin port can't be served"))?;
        let router = admin::router(self.admin.clone());
        let verifier = self.verifier.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TIDY_INTERVAL);
            loop {
                ticks.tick().await;
                verifier.tidy();
            }
        });
        let dropped = self.log.dropped();
        tokio::spawn(logs::keep_counting(
            dropped,
            self.metrics.log_dropped.clone(),
        ));
        Ok(tokio::spawn(async move {
            let stopped = async move {
                let _ = stopping.wait_for(|stop| *stop).await;
            };
            admin::serve::serve(listener, router, admin::serve::LIMITS, stopped).await;
        }))
    }

    /// Ends what is left. The log goes on for as long as the result is there.
    async fn close(self) -> LogGuard {
        // No request is left that could be counted.
        let spans = self.spans;
        let spans = tokio::spawn(async move {
            if let Some(spans) = spans {
                spans.finish().await;
            }
        });
        self.following.abort();
        // Each has a limit of its own, and in an outage none has to wait for the others' to run out.
        tokio::join!(
            self.usage.finish(),
            self.reminding.finish(),
            self.recording.finish(),
        );
        // It says that this instance is gone, and takes a limited time for that.
        let _ = self.presence.await;
        // A collector that hangs has had its time meanwhile.
        let _ = spans.await;
        self.store.close().await;
        self.log
    }
}

/// Runs `build`, in which Pingora panics where no certificate authorities can be read, even where
/// no service is behind TLS.
fn set_up<T>(build: impl FnOnce() -> T) -> Result<T, AppError> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
    std::panic::set_hook(hook);
    built.map_err(|_| {
        let detail = "the certificate authorities can't be read; install ca-certificates, or check SSL_CERT_FILE";
        AppError(detail.to_owned())
    })
}
