//! Settings -> the gateway: routes, upstreams and limiters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{AppError, failed};
use crate::clock::SharedClock;
use crate::config::Settings;
use crate::config::settings::{LimitSettings, OnOutage, RouteSettings};
use crate::key::Catalogue;
use crate::limit::redis::RedisLimiter;
use crate::limit::{AddressLimiter, LimitFields};
use crate::proxy::route::{Place, Route, RouteTable};
use crate::proxy::trace::Tracer;
use crate::proxy::upstream::Upstream;
use crate::proxy::{Gateway, NO_ROUTE, echo, respond};
use crate::redis_link::RedisLink;
use crate::telemetry::Metrics;
use crate::telemetry::access::AccessLines;
use crate::telemetry::failed_auth::FailedAuthentications;
use crate::telemetry::spans::SpanQueue;
use crate::verify::{Records, Verifier};

/// How often host names of upstreams are resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// How often to look for the end of an outage of Redis.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn failed_auth_limiter(limits: &LimitSettings) -> AddressLimiter {
    AddressLimiter::new(vec![limits.failed_auth.clone()], limits.max_addresses)
}

pub(super) async fn build_gateway(
    settings: Settings,
    verifier: Arc<Verifier>,
    records: Records,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    spans: Option<SpanQueue>,
) -> Result<Gateway, AppError> {
    let upstreams: Vec<Arc<Upstream>> = settings
        .upstreams
        .iter()
        .map(|u| Arc::new(Upstream::new(u)))
        .collect();
    let echo = if upstreams.iter().any(|upstream| upstream.has_echo()) {
        Some(
            echo::start()
                .await
                .map_err(failed("the built-in echo upstream can't be started"))?,
        )
    } else {
        None
    };
    for upstream in &upstreams {
        upstream.resolve(echo).await;
    }
    keep_resolving(upstreams.clone(), echo);
    let anonymous = AddressLimiter::new(
        settings.limits.anonymous.clone(),
        settings.limits.max_addresses,
    );
    let failed_auth = failed_auth_limiter(&settings.limits);
    let shared = settings.limits.redis.as_ref().map(|redis| {
        let link = RedisLink::new(&redis.target);
        let max_lease = settings.limits.max_lease;
        let (clock, metrics) = (clock.clone(), metrics.clone());
        RedisLimiter::new(link, redis.timeout, max_lease, clock, metrics)
    });
    Ok(Gateway {
        routes: build_routes(
            settings.routes,
            &settings.catalogue,
            &upstreams,
            settings.limits.on_outage,
            &metrics,
        ),
        shared,
        challenges: respond::Challenges::new(&settings.credentials),
        anonymous_fields: LimitFields::new(&settings.limits.anonymous),
        no_route: metrics.route(NO_ROUTE),
        failed_authentications: FailedAuthentications::of(&metrics),
        limit_decisions: metrics.limit_decisions(),
        settings: settings.proxy,
        credentials: settings.credentials,
        limits: settings.limits,
        access: Arc::new(AccessLines::new(
            &settings.log,
            metrics.log_sampled_out.clone(),
        )),
        tracer: Tracer::new(&settings.tracing, spans),
        tells_rotation: settings.reminders.has_response_header,
        verifier,
        records,
        anonymous,
        failed_auth,
        clock,
        metrics,
    })
}

fn build_routes(
    routes: Vec<RouteSettings>,
    catalogue: &Catalogue,
    upstreams: &[Arc<Upstream>],
    on_outage: OnOutage,
    metrics: &Metrics,
) -> RouteTable {
    RouteTable::new(routes.into_iter().filter_map(|route| {
        let place = Place {
            host: route.host,
            path: route.path,
            methods: route.methods,
        };
        let ready = Route {
            metrics: metrics.route(&route.name),
            // Both were checked with the configuration.
            upstream: upstreams.get(route.upstream)?.clone(),
            required: catalogue.require(&route.scopes).ok()?,
            name: route.name,
            auth: route.auth,
            scopes: route.scopes,
            cost: route.cost,
            on_outage: route.on_outage.unwrap_or(on_outage),
            cors_preflight: route.cors_preflight,
            max_body_bytes: route.max_body_bytes,
        };
        Some((place, Arc::new(ready)))
    }))
}

/// Looks whether Redis is back while it is away, for ever.
pub(super) async fn look_for_recovery(limiter: Arc<RedisLimiter>) {
    loop {
        tokio::time::sleep(RECOVERY_INTERVAL).await;
        limiter.look_for_recovery().await;
    }
}

fn keep_resolving(upstreams: Vec<Arc<Upstream>>, echo: Option<SocketAddr>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RESOLVE_INTERVAL).await;
            for upstream in &upstreams {
                upstream.resolve(echo).await;
            }
        }
    });
}
