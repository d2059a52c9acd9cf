//! From a request's header to a pass or a refusal, in the order in which the cheap and the
//! telling come first: size, target, route, credential, proof, record, limits.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::{Method, Version, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::decide::{self, Refusal};
use super::route::Route;
use super::target::Target;
use super::{Context, Gateway, credential, target};
use crate::config::settings::{Auth, Mode, OnOutage};
use crate::key::Denial;
use crate::limit::redis::Ask;
use crate::limit::{self, Decision};
use crate::telemetry::dependencies::{LimitSource, LimitVerdict};
use crate::verify::{self, KeyView, Proof, Recalled, Unverified};

/// For a path whose lenient reading has another route.
const TORN: &str = "Parameters, or spaces and dots at the end of a segment, may lead elsewhere.";

/// What a look at the credential brought, before anything was waited for.
pub(super) enum Credential {
    None,
    /// Proven a while ago.
    Proven(Proof),
    /// Remembered as wrong.
    Wrong,
    /// Never seen, or forgotten.
    Unknown(Box<Unverified>),
}

impl Gateway {
    /// Decides about the request, and notes in `ctx` all that becomes known on the way, also where
    /// the request is refused in the end.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<(), Refusal> {
        let decided = match self.find_service(session, ctx) {
            Ok(Some(route)) => self.admit_caller(session, ctx, &route).await,
            Ok(None) => return Ok(()),
            Err(refusal) => Err(refusal),
        };
        if let Err(
            Refusal::NoRoute
            | Refusal::AmbiguousPath(_)
            | Refusal::BadRequest(_)
            | Refusal::HeadersTooLarge,
        ) = decided
        {
            Box::pin(self.recognise(session, ctx)).await;
        }
        decided
    }

    /// The route, if it asks who is calling; `None` where the request passes without that.
    fn find_service(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Option<Arc<Route>>, Refusal> {
        let target = normalise_target(session);
        let is_preflight = self.find_route(session, ctx)?;
        target?;
        let Some(route) = ctx.route.clone() else {
            return Err(Refusal::NoRoute);
        };
        check_header_size(session, self.settings.max_header_bytes)?;
        if route.auth == Auth::Off || is_preflight {
            self.hide_unchecked(session, ctx);
            return check_announced_body(session, &route).map(|()| None);
        }
        Ok(Some(route))
    }

    async fn admit_caller(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
    ) -> Result<(), Refusal> {
        match self.look_at_credential(session, ctx)? {
            Credential::None if route.auth == Auth::Optional => {
                // What is no credential here may still hold a key.
                self.hide_unchecked(session, ctx);
                self.admit_anonymous(session, ctx, route)
            }
            credential => {
                let proof = self.prove(credential, ctx).await?;
                self.admit_proven(session, ctx, route, proof).await
            }
        }
    }

    /// Finds out whose request it is that is refused whoever sends it: who has a good key is told
    /// what is left of its limits in every answer.
    async fn recognise(&self, session: &Session, ctx: &mut Context) {
        let Ok(credential) = self.look_at_credential(session, ctx) else {
            return;
        };
        // What is no key of ours by its form is none of our business here, and counts for nothing.
        let is_ours = match &credential {
            Credential::None | Credential::Wrong => false,
            Credential::Proven(_) => true,
            Credential::Unknown(unverified) => self.verifier.may_be_own(unverified),
        };
        if !is_ours {
            return;
        }
        let Ok(proof) = self.prove(credential, ctx).await else {
            return;
        };
        let view = proof.key.view_full();
        ctx.decided_at = self.clock.now();
        let admitted = view.admits(proof.generation, ctx.client, ctx.decided_at);
        if !matches!(admitted, Err(Denial::Revoked | Denial::Superseded)) {
            ctx.caller = Some(proof);
        }
        if admitted.is_ok() {
            let route = ctx.route.as_ref();
            let on_outage = route.map_or(self.limits.on_outage, |route| route.on_outage);
            let now_us = ctx.started_us;
            let told = self.limit(&view, 1, Ask::Peek, on_outage, now_us).await;
            ctx.limits = told.unwrap_or_default();
            ctx.key = Some(view);
        }
    }

    /// The proof that `credential` is right.
    pub(super) async fn prove(
        &self,
        credential: Credential,
        ctx: &Context,
    ) -> Result<Proof, Refusal> {
        let unverified = match credential {
            Credential::None => return Err(Refusal::NoCredential),
            Credential::Proven(proof) => return Ok(proof),
            Credential::Wrong => return Err(self.refuse_key(ctx)),
            Credential::Unknown(unverified) => unverified,
        };
        self.check_failures(ctx)?;
        // Whatever can be waited for here is boxed: Pingora's hooks are copied to the heap with room
        // for all that they may ever wait for, and a warm request waits for none of it.
        let verified = Box::pin(self.verifier.verify_offer(&unverified)).await;
        verified.map_err(|refusal| match refusal {
            verify::Refusal::Unavailable => Refusal::Unavailable,
            verify::Refusal::Invalid => self.count_failure(ctx),
        })
    }

    /// Finds the route, and whether the request is a preflight that passes it without a key.
    fn find_route(&self, session: &Session, ctx: &mut Context) -> Result<bool, Refusal> {
        let request = session.req_header();
        let host = host_of(request);
        let raw = request.raw_path();
        let read = check_fragment(session).and_then(|()| target::read(raw));
        let found = match (&host, &read) {
            (Err(refusal), _) => Err(*refusal),
            (_, Err(ambiguity)) => Err(Refusal::AmbiguousPath(ambiguity.detail())),
            (Ok(host), Ok(target)) => self.find_for(session, *host, target),
        };
        match found {
            Ok((route, is_preflight)) => {
                ctx.route = route;
                Ok(is_preflight)
            }
            Err(refusal) => {
                if self.settings.mode == Mode::Shadow {
                    // Nobody is refused: the target is taken as it stands.
                    let text = String::from_utf8_lossy(raw);
                    let path = target::split(&text).0;
                    let path = if path.starts_with('/') { path } else { "/" };
                    let host = host.unwrap_or_default();
                    ctx.route = self.routes.find_path(host, path, &request.method).cloned();
                }
                Err(refusal)
            }
        }
    }

    /// A preflight request (Fetch standard, section 4.8) never carries a key, and goes where the
    /// requests go that it asks about, if their route lets it pass. Otherwise it is an OPTIONS
    /// request like any other.
    fn find_for(
        &self,
        session: &Session,
        host: Option<&str>,
        target: &Target<'_>,
    ) -> Result<(Option<Arc<Route>>, bool), Refusal> {
        let find = |method: &Method| {
            let found = self.routes.find(host, target, method);
            found.map_err(|_| Refusal::AmbiguousPath(TORN))
        };
        if let Some(asked) = preflight_method(session)
            && let Some(route) = find(&asked)?
            && route.cors_preflight
        {
            return Ok((Some(route.clone()), true));
        }
        let method = &session.req_header().method;
        if is_misspelt(method) {
            return Err(Refusal::BadRequest(
                "Methods are written in capital letters.",
            ));
        }
        Ok((find(method)?.cloned(), false))
    }

    /// Finds the credential and recalls what is known about it. Waits for nothing.
    pub(super) fn look_at_credential(
        &self,
        session: &Session,
        ctx: &mut Context,
    ) -> Result<Credential, Refusal> {
        let request = session.req_header();
        let found = credential::find(
            &self.credentials.sources,
            &request.headers,
            request.uri.query(),
        )
        .map_err(|_| Refusal::AmbiguousCredential)?;
        let Some(found) = found else {
            return Ok(Credential::None);
        };
        // In shadow mode, clients may send credentials that were never meant for Sidekey; those
        // stay where they are.
        let offer = found.offer;
        let is_ours = self.settings.mode == Mode::Enforce
            || self.verifier.may_be_ours(&offer.key, offer.pair.as_ref());
        if self.credentials.hide && is_ours {
            ctx.hide.push(found.source);
        }
        Ok(match self.verifier.recall_offer(offer) {
            Recalled::Proven(proof) => Credential::Proven(proof),
            Recalled::Refused => Credential::Wrong,
            Recalled::Unknown(unverified) => Credential::Unknown(unverified),
        })
    }

    /// What passes without its credential being checked must not carry a key further, even where
    /// there are several.
    pub(super) fn hide_unchecked(&self, session: &Session, ctx: &mut Context) {
        let request = session.req_header();
        if self.credentials.hide {
            ctx.hide = credential::holders(
                &self.credentials.sources,
                &request.headers,
                request.uri.query(),
                |key, pair| self.verifier.may_be_ours(key, pair),
            );
        }
    }

    async fn admit_proven(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
        proof: Proof,
    ) -> Result<(), Refusal> {
        let view = proof.key.view_full();
        ctx.decided_at = self.clock.now();
        let decided = decide::decide(&view, proof.generation, route, ctx.client, ctx.decided_at);
        if decided != Err(Refusal::InvalidKey) {
            ctx.caller = Some(proof);
        }
        if self.verifier.is_stale(ctx.started_us) {
            return Err(Refusal::Unavailable);
        }
        match decided {
            // Revoked, or an older secret: a wrong key like any other.
            Err(Refusal::InvalidKey) => return Err(self.refuse_key(ctx)),
            Err(Refusal::ExpiredKey | Refusal::DisabledKey | Refusal::SuspendedTenant) => {
                return decided;
            }
            _ => {}
        }
        let decided = decided.and_then(|()| check_announced_body(session, route));
        // Only who passes everything else pays; who is refused still sees what is left.
        let ask = if decided.is_ok() {
            Ask::Take
        } else {
            Ask::Peek
        };
        let now_us = ctx.started_us;
        let limited = self.limit(&view, route.cost, ask, route.on_outage, now_us);
        let limited = limited.await;
        ctx.key = Some(view);
        let limited = limited.map(|decision| {
            ctx.limits = decision;
            ctx.limits
                .as_ref()
                .is_some_and(|decision| !decision.allowed)
        });
        decided?;
        if limited? {
            Err(Refusal::RateLimited)
        } else {
            Ok(())
        }
    }

    /// Asks the buckets of a key; `None` where nothing is known of them and nobody is held to them.
    pub(super) async fn limit(
        &self,
        view: &KeyView,
        cost: u64,
        ask: Ask,
        on_outage: OnOutage,
        now_us: u64,
    ) -> Result<Option<Decision>, Refusal> {
        let in_memory = |cost| match ask {
            Ask::Take => limit::take_all(&view.buckets, cost, now_us),
            Ask::Peek => limit::peek_all(&view.buckets, cost, now_us),
        };
        let (Some(limiter), Some(buckets)) = (&self.shared, &view.shared) else {
            let decision = in_memory(cost);
            self.count_limits(ask, LimitSource::Memory, LimitVerdict::of(decision.allowed));
            return Ok(Some(decision));
        };
        let decided = match limiter.decide_now(buckets, cost, ask, now_us) {
            // Who has no limits needs nobody to decide.
            Ok(decision) if decision.readings.is_empty() => Ok((decision, LimitSource::Memory)),
            Ok(decision) => Ok((decision, LimitSource::Lease)),
            Err(step) => Box::pin(limiter.decide(buckets, cost, ask, step)).await,
        };
        if let Ok((decision, source)) = decided {
            self.count_limits(ask, source, LimitVerdict::of(decision.allowed));
            return Ok(Some(decision));
        }
        self.metrics.outage_decisions.inc();
        let (verdict, decided) = match on_outage {
            OnOutage::Local => {
                // As if each request were made by all instances at once.
                let instances = self.limits.instances;
                let decision = in_memory(cost.saturating_mul(instances));
                let verdict = LimitVerdict::of(decision.allowed);
                (verdict, Ok(Some(decision.share_of(instances))))
            }
            OnOutage::Open => (LimitVerdict::Allowed, Ok(None)),
            OnOutage::Closed => (LimitVerdict::Unavailable, Err(Refusal::Unavailable)),
        };
        self.count_limits(ask, LimitSource::Outage, verdict);
        decided
    }

    /// Counts what was decided about a request; who only looks decides nothing.
    fn count_limits(&self, ask: Ask, source: LimitSource, verdict: LimitVerdict) {
        if ask == Ask::Take {
            self.limit_decisions.count(source, verdict);
        }
    }

    fn admit_anonymous(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
    ) -> Result<(), Refusal> {
        check_announced_body(session, route)?;
        ctx.decided_at = self.clock.now();
        let buckets = self.anonymous.buckets(ctx.client, ctx.started_us);
        let decision = limit::take_all(&buckets, route.cost, ctx.started_us);
        let allowed = decision.allowed;
        self.limit_decisions
            .count(LimitSource::Memory, LimitVerdict::of(allowed));
        ctx.limits = Some(decision);
        if allowed {
            Ok(())
        } else {
            Err(Refusal::RateLimited)
        }
    }

    /// Refuses an address that has presented too many wrong keys, before any work is done for it.
    /// Whoever holds a key that is remembered as proven is not asked: a neighbour behind the same
    /// address must not lock others out.
    fn check_failures(&self, ctx: &Context) -> Result<(), Refusal> {
        match self.failed_auth.peek(ctx.client, ctx.started_us) {
            Some(decision) if !decision.allowed => Err(Refusal::FailedAuthLimited {
                retry_after_seconds: decision.retry_after_seconds(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a key that is known to be wrong.
    pub(super) fn refuse_key(&self, ctx: &Context) -> Refusal {
        match self.check_failures(ctx) {
            Ok(()) => self.count_failure(ctx),
            Err(limited) => limited,
        }
    }

    fn count_failure(&self, ctx: &Context) -> Refusal {
        self.failed_auth.count(ctx.client, ctx.started_us);
        Refusal::InvalidKey
    }
}

/// Brings an absolute-form target (RFC 9112, section 3.2.2) into origin-form.
fn normalise_target(session: &mut Session) -> Result<(), Refusal> {
    let raw = session.req_header().raw_path();
    if raw.first() == Some(&b'/') {
        return Ok(());
    }
    let Some((authority, origin)) = target::absolute_form(raw) else {
        return Err(Refusal::AmbiguousPath(target::Ambiguity::NotAPath.detail()));
    };
    let (authority, origin) = (authority.to_vec(), origin.to_vec());
    let malformed = |_| Refusal::AmbiguousPath(target::Ambiguity::Malformed.detail());
    let request = session.req_header_mut();
    if !request.headers.contains_key(header::HOST) {
        // Where both are there, Pingora has compared them.
        request
            .insert_header(header::HOST, authority)
            .map_err(malformed)?;
    }
    request.set_raw_path(&origin).map_err(malformed)
}

const STANDARD_METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// The Host field, which HTTP/1.1 asks for.
fn host_of(request: &RequestHeader) -> Result<Option<&str>, Refusal> {
    match request.headers.get(header::HOST) {
        Some(host) => match host.to_str() {
            Ok(host) if is_host(host) => Ok(Some(host)),
            _ => Err(Refusal::BadRequest("The Host field does not name a host.")),
        },
        None if request.version == Version::HTTP_11 => {
            Err(Refusal::BadRequest("The Host field is missing."))
        }
        None => Ok(None),
    }
}

/// Whether `host` is a name of letters, digits, hyphens and underscores, or an address, with or
/// without a port (RFC 9110, section 7.2). A service may be more lenient, and find a host of its
/// own where the route table finds none.
fn is_host(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    // Labels, none of them empty: what begins the name is behind a dot too.
    let mut before = b'.';
    let is_name = name.bytes().all(|b| {
        let fits =
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || (b == b'.' && before != b'.');
        before = b;
        fits
    });
    is_name && before != b'.' && is_port(port)
}

/// Pingora takes a fragment off the target without a word; what came before that shows it.
fn check_fragment(session: &Session) -> Result<(), target::Ambiguity> {
    let raw = session
        .as_http1()
        .map(|http1| http1.get_headers_raw_bytes())
        .unwrap_or_default();
    // Empty lines may come before the request line (RFC 9112, section 2.2).
    let line = raw.trim_ascii_start().split(|b| *b == b'\n').next();
    if line.unwrap_or_default().contains(&b'#') {
        Err(target::Ambiguity::Malformed)
    } else {
        Ok(())
    }
}

pub(super) fn check_header_size(session: &Session, max_bytes: usize) -> Result<(), Refusal> {
    let size = session
        .as_http1()
        .map_or(0, |http1| http1.get_headers_raw_bytes().len());
    if size > max_bytes {
        Err(Refusal::HeadersTooLarge)
    } else {
        Ok(())
    }
}

fn check_announced_body(session: &Session, route: &Route) -> Result<(), Refusal> {
    let announced = session
        .req_header()
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    if announced.is_some_and(|length| length > route.max_body_bytes) {
        return Err(Refusal::BodyTooLarge);
    }
    Ok(())
}

/// The method that a preflight request asks about. One with a body is none.
fn preflight_method(session: &Session) -> Option<Method> {
    let request = session.req_header();
    let headers = &request.headers;
    if request.method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    if has_body {
        return None;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// Whether `method` is a standard method but for its case. Some services don't mind the case, and
/// would run what no route has looked at.
fn is_misspelt(method: &Method) -> bool {
    let is_lower = |b: u8| b.is_ascii_lowercase();
    method.as_str().bytes().any(is_lower)
        && Method::from_bytes(method.as_str().to_ascii_uppercase().as_bytes())
            .is_ok_and(|upper| STANDARD_METHODS.contains(&upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_host() {
        for host in [
            "a",
            "a.b",
            "a.b.",
            "a_b-c.d:80",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "a:",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", ".", "a..", "a..b", ".a", "user@a", "a,b", "a b", "a/b", "a%00", "a?", "a#",
            "a\\b", "\"a\"", "a:b", "a]", "[a]", "[::1]x", "[::1", "ä",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn only_the_case_makes_a_method_misspelt() {
        let is = |text: &str| is_misspelt(&Method::from_bytes(text.as_bytes()).unwrap());
        assert!(is("get") && is("Post"));
        assert!(!is("GET") && !is("PROPFIND") && !is("propfind") && !is("X"));
    }
}
