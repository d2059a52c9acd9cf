//! The port that clients call. The hooks of [`Gateway`] read like a table of contents; the
//! thinking is in plain functions beside it that a unit test can call without a server.
//!
//! ```text
//! request_filter          self_service, or admit: target, route, credential, proof, decide, limits -> pass or refuse
//! upstream_peer           whose turn it is
//! upstream_request_filter credential out, identity in
//! response_filter         rate-limit fields, request id
//! logging                 counters, usage, access log, spans
//! ```

mod access_line;
pub mod account;
pub mod admit;
pub mod connection;
pub mod credential;
pub mod decide;
pub mod echo;
pub mod headers;
pub mod respond;
pub mod rotation;
pub mod route;
pub mod self_service;
pub mod target;
pub mod timing;
pub mod trace;
pub mod upgrade;
pub mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use prometheus::IntGauge;
use smallvec::SmallVec;

use crate::clock::{SharedClock, Timestamp};
use crate::config::settings::{CredentialSettings, LimitSettings, Mode, ProxySettings};
use crate::forwarded;
use crate::limit::redis::RedisLimiter;
use crate::limit::{AddressLimiter, Decision, LimitFields};
use crate::problem;
use crate::telemetry::access::AccessLines;
use crate::telemetry::dependencies::LimitDecisions;
use crate::telemetry::failed_auth::FailedAuthentications;
use crate::telemetry::metrics::RouteMetrics;
use crate::telemetry::{Metrics, Outcome};
use crate::verify::{KeyView, Proof, Records, Verifier};
use connection::{ClientStream, Peer};
use decide::Refusal;
use respond::{Answer, Challenges, Circumstances};
use route::{Route, RouteTable};
use trace::{Trace, Tracer};
use upstream::{ATTEMPTS_MAX, Endpoint};

/// The name of no route, in metrics and logs.
pub const NO_ROUTE: &str = "(none)";
/// Keeps connections for upgrades apart from all others, which are of group 0.
const UPGRADE_GROUP: u64 = 1;

/// Everything that a request meets on its way.
pub struct Gateway {
    pub settings: ProxySettings,
    pub credentials: CredentialSettings,
    pub limits: LimitSettings,
    pub access: Arc<AccessLines>,
    pub tracer: Tracer,
    /// Whether answers say when a secret is to be replaced.
    pub tells_rotation: bool,
    pub routes: RouteTable,
    pub verifier: Arc<Verifier>,
    /// For what holders ask about their keys.
    pub records: Records,
    /// Where instances share limits.
    pub shared: Option<Arc<RedisLimiter>>,
    pub anonymous: AddressLimiter,
    pub anonymous_fields: Option<LimitFields>,
    pub failed_auth: AddressLimiter,
    pub challenges: Challenges,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub limit_decisions: LimitDecisions,
    pub no_route: RouteMetrics,
    pub failed_authentications: FailedAuthentications,
}

/// Counts a request as being handled for as long as it lives.
pub struct InFlight(IntGauge);

impl InFlight {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        InFlight(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is known about one request.
pub struct Context {
    started_us: u64,
    /// When a server was first asked for.
    passed_on_us: Option<u64>,
    /// When the header of the upstream's answer was there.
    answered_us: Option<u64>,
    /// The upstream's status, also where the client got another; 0 before there is one.
    upstream_status: u16,
    /// When it was known what Sidekey answers itself.
    own_answer_us: Option<u64>,
    /// The wall clock when the request was decided.
    decided_at: Timestamp,
    request_id: HeaderValue,
    peer: Option<Peer>,
    client: IpAddr,
    route: Option<Arc<Route>>,
    /// The record that the request was decided on.
    key: Option<Arc<KeyView>>,
    /// Whose request it is, also where it is refused: who has proven a secret that the key accepts.
    caller: Option<Proof>,
    /// What the buckets said: the key's, or those of an anonymous caller.
    limits: Option<Decision>,
    /// Which of the credential sources are to be hidden.
    hide: SmallVec<[usize; 2]>,
    /// Why the request is refused, or failed.
    refusal: Option<Refusal>,
    /// Why it would have been refused, were the mode not `shadow`.
    shadow: Option<Refusal>,
    body_bytes: u64,
    /// Whether the holder of a key was told about it.
    is_self_service: bool,
    tried: SmallVec<[SocketAddr; ATTEMPTS_MAX]>,
    endpoint: Option<Arc<Endpoint>>,
    trace: Option<Trace>,
    _in_flight: InFlight,
}

impl Context {
    fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The key of whoever has proven its secret, also where the key may not act.
    fn caller_view(&self) -> Option<Arc<KeyView>> {
        let proven = || self.caller.as_ref().map(|proof| proof.key.view_full());
        self.key.clone().or_else(proven)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            started_us: self.clock.monotonic_us(),
            passed_on_us: None,
            answered_us: None,
            upstream_status: 0,
            own_answer_us: None,
            decided_at: Timestamp::from_millis(0),
            request_id: HeaderValue::from_static(""),
            peer: None,
            client: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            route: None,
            key: None,
            caller: None,
            limits: None,
            hide: SmallVec::new(),
            refusal: None,
            shadow: None,
            body_bytes: 0,
            is_self_service: false,
            tried: SmallVec::new(),
            endpoint: None,
            trace: None,
            _in_flight: InFlight::new(&self.metrics.in_flight),
        }
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default is a disabled compression module on every request.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let stream = ClientStream::of(session.stream());
        let peer = stream.and_then(ClientStream::peer).cloned();
        if let Some(stream) = stream {
            stream.await_header(false);
        }
        let timeout = Some(self.settings.client_timeout);
        session.set_read_timeout(timeout);
        session.set_write_timeout(timeout);
        let address = peer.as_ref().map(|peer| peer.address);
        let headers = &session.req_header().headers;
        let trusted = &self.settings.trusted_proxies;
        ctx.peer = peer;
        ctx.client = forwarded::address(address, headers, trusted);
        let theirs = address
            .filter(|peer| forwarded::is_trusted(peer.to_canonical(), trusted))
            .and_then(|_| headers::request_id(headers));
        ctx.request_id = theirs.unwrap_or_else(problem::new_request_id);
        ctx.trace = Some(self.tracer.begin(headers));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if self.is_self_service(session) {
            Box::pin(self.serve_holder(session, ctx)).await?;
            return Ok(true);
        }
        match self.admit(session, ctx).await {
            Ok(()) => Ok(false),
            Err(refusal) if self.settings.mode == Mode::Shadow && ctx.route.is_some() => {
                ctx.shadow = Some(refusal);
                self.hide_unchecked(session, ctx);
                Ok(false)
            }
            Err(refusal) => {
                Box::pin(self.refuse(session, ctx, refusal)).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        if ctx.passed_on_us.is_none() {
            ctx.passed_on_us = Some(self.clock.monotonic_us());
        }
        let upstream = match &ctx.route {
            Some(route) => &route.upstream,
            None => return Error::err_in(ErrorType::InternalError),
        };
        let Some(endpoint) = upstream.pick(&ctx.tried, ctx.started_us) else {
            return Error::err_up(ErrorType::ConnectNoRoute);
        };
        let mut peer = endpoint.peer();
        if !headers::has_hop_by_hop(&session.req_header().headers) {
            // Pingora would look for each of ten fields in turn.
            peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        }
        if session.is_upgrade_req() {
            peer.options.read_timeout = Some(self.settings.upgrade_idle);
            let timeout = peer.options.connection_timeout.unwrap_or_default();
            peer.options.custom_l4 = Some(Arc::new(upgrade::Connector { timeout }));
            // Connections of this kind neither go to the pool nor come from it.
            peer.options.idle_timeout = Some(Duration::ZERO);
            peer.group_key = UPGRADE_GROUP;
        }
        ctx.endpoint = Some(endpoint);
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // A retry sends the body again from its start.
        ctx.body_bytes = 0;
        headers::remove_identity(request);
        for &index in &ctx.hide {
            if let Some(source) = self.credentials.sources.get(index) {
                headers::hide(request, source)?;
            }
        }
        if let Some(key) = &ctx.key {
            headers::insert_identity(request, key)?;
        }
        request.insert_header("X-Request-Id", ctx.request_id.clone())?;
        if let Some(trace) = &ctx.trace {
            trace.write(request)?;
        }
        if let (false, Some(endpoint)) = (request.headers.contains_key(header::HOST), &ctx.endpoint)
        {
            // HTTP/1.0 clients may leave it out, HTTP/1.1 services ask for it.
            request.insert_header(header::HOST, endpoint.address().to_string())?;
        }
        match &ctx.peer {
            Some(peer) => headers::append_forwarded_for(request, &peer.field),
            None => Ok(()),
        }
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        // What flows through an upgraded connection is not a body.
        if let (Some(chunk), Some(route), false) = (&body, &ctx.route, session.was_upgraded()) {
            ctx.body_bytes = ctx.body_bytes.saturating_add(chunk.len() as u64);
            if ctx.body_bytes > route.max_body_bytes {
                if self.settings.mode == Mode::Enforce {
                    ctx.refusal = Some(Refusal::BodyTooLarge);
                    return Err(Error::new_down(ErrorType::HTTPStatus(413)));
                }
                ctx.shadow.get_or_insert(Refusal::BodyTooLarge);
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        ctx.answered_us = Some(self.clock.monotonic_us());
        ctx.upstream_status = response.status.as_u16();
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            if !session.is_upgrade_req() {
                return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
            }
            session.set_read_timeout(Some(self.settings.upgrade_idle));
        }
        if session.req_header().version < Version::HTTP_11
            && response.remove_header(&header::TRANSFER_ENCODING).is_some()
        {
            // HTTP/1.0 knows no chunks (RFC 9112, section 6.1): the connection's end is the body's.
            session.set_keepalive(None);
        }
        self.write_common(session, response, ctx);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(endpoint) = &ctx.endpoint {
            endpoint.pause(self.clock.monotonic_us());
            ctx.tried.push(endpoint.address());
        }
        let known = ctx
            .route
            .as_ref()
            .map_or(0, |route| route.upstream.endpoint_count());
        error.set_retry(ctx.tried.len() < known.min(ATTEMPTS_MAX));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let refusal = ctx.refusal.or_else(|| blame(error));
        let Some(refusal) = refusal else {
            // The client is gone; nobody is left to be answered.
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        ctx.refusal = Some(refusal);
        let is_unanswered = session.response_written().is_none_or(|response| {
            let status = response.status;
            status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
        });
        if is_unanswered {
            // Pingora closes the connection after a failure, whatever is asked.
            session.set_keepalive(None);
            if self.refuse(session, ctx, refusal).await.is_err() {
                return FailToProxy {
                    error_code: 0,
                    can_reuse_downstream: false,
                };
            }
        }
        FailToProxy {
            error_code: refusal.kind().status(),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        if let Some(stream) = ClientStream::of(session.stream()) {
            stream.await_header(true);
        }
        let outcome = match (ctx.refusal, error) {
            (Some(refusal), _) => refusal.outcome(),
            (None, Some(_)) => Outcome::ClientFailed,
            (None, None) if ctx.is_self_service => Outcome::SelfService,
            (None, None) => Outcome::Forwarded,
        };
        let metrics = ctx
            .route
            .as_ref()
            .map_or(&self.no_route, |route| &route.metrics);
        let ended_us = self.clock.monotonic_us();
        let took_us = ended_us.saturating_sub(ctx.started_us);
        // Whoever sees a request counted finds its times, too.
        timing::observe(metrics, ctx, ended_us);
        metrics.count(outcome);
        let status = session.response_written();
        metrics.answered(status.map(|response| response.status.as_u16()));
        if ctx.refusal.is_some() {
            let failed = &self.failed_authentications;
            failed.count(outcome, ctx.client, ended_us);
        }
        account::count(session, ctx, took_us);
        if let Some(refusal) = ctx.shadow {
            metrics.count_shadow(refusal.outcome());
        }
        let shadow = ctx.shadow.map(Refusal::outcome);
        if let Some(line) = self.access.choose(outcome, shadow) {
            access_line::write(line, session, ctx, outcome, took_us, error);
        }
        self.finish_trace(session, ctx, outcome, took_us);
    }

    fn request_summary(&self, session: &Session, ctx: &Context) -> String {
        // The target may hold a credential.
        format!(
            "{} request {}",
            session.req_header().method,
            ctx.request_id()
        )
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Gateway {
    /// What the caller may know of its limits; `None` where it has none.
    fn limits_of<'a>(&'a self, ctx: &'a Context) -> Option<(&'a LimitFields, &'a Decision)> {
        let fields = match &ctx.key {
            Some(key) => key.plan.fields.as_ref(),
            None => self.anonymous_fields.as_ref(),
        };
        Some((fields?, ctx.limits.as_ref()?))
    }

    /// The fields that every answer carries, whoever gave it.
    fn write_common(&self, session: &Session, response: &mut ResponseHeader, ctx: &Context) {
        let limits = self.limits_of(ctx);
        let limits = limits.map(|(fields, decision)| (fields, &decision.readings[..]));
        let rotation = if self.tells_rotation {
            response.remove_header(&rotation::FIELD);
            rotation::days_left(ctx)
        } else {
            None
        };
        if let Some(stream) = ClientStream::of(session.stream()) {
            stream.write_lines(|lines| {
                let now = ctx.decided_at;
                headers::write_common(response, &self.limits, limits, now, &ctx.request_id, lines);
                if let Some(days) = rotation {
                    rotation::write(days, lines);
                }
            });
        }
    }

    /// Answers a refused request.
    async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        refusal: Refusal,
    ) -> Result<()> {
        ctx.refusal = Some(refusal);
        ctx.own_answer_us = Some(self.clock.monotonic_us());
        let about = Circumstances {
            route: ctx.route.as_deref(),
            limits: self.limits_of(ctx),
            failed_auth: &self.limits.failed_auth.name,
            request_id: ctx.request_id(),
        };
        let answer: Answer = respond::answer(refusal, &self.challenges, &about);
        let mut header = answer.header()?;
        self.write_common(session, &mut header, ctx);
        respond::send(session, header, answer.body).await
    }
}

/// Whose fault a failure is; `None` where the client went away.
fn blame(error: &Error) -> Option<Refusal> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout,
        TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (
            ErrorSource::Upstream,
            ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout,
        ) => Some(Refusal::UpstreamTimedOut),
        (ErrorSource::Upstream, _) => Some(Refusal::UpstreamFailed),
        (ErrorSource::Downstream, HTTPStatus(413)) => Some(Refusal::BodyTooLarge),
        (
            ErrorSource::Downstream,
            ReadError | WriteError | ConnectionClosed | ReadTimedout | WriteTimedout,
        ) => None,
        (ErrorSource::Downstream, _) => {
            Some(Refusal::BadRequest("The request is not well-formed HTTP."))
        }
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Refusal::Internal),
    }
}
