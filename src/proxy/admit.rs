//! From a request's header to a pass or a refusal, in the order in which the cheap and the
//! telling come first: size, target, route, credential, proof, record, limits.

use http::{Method, Version, header};
use pingora_proxy::Session;
use zeroize::Zeroizing;

use super::decide::{self, Refusal};
use super::route::Route;
use super::{Context, Gateway, credential, target};
use crate::config::settings::{Auth, Mode};
use crate::key::Presented;
use crate::limit;
use crate::verify::{self, Digest, Proof, Recall};

/// What a look at the credential brought, before anything was waited for.
enum Credential {
    None,
    /// Proven a while ago.
    Proven(Proof),
    /// Remembered as wrong.
    Wrong,
    /// Never seen, or forgotten.
    Unknown {
        presented: Zeroizing<String>,
        digest: Digest,
    },
}

impl Gateway {
    /// Decides about the request, and notes in `ctx` all that becomes known on the way, also where
    /// the request is refused in the end.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<(), Refusal> {
        normalise_target(session)?;
        self.find_route(session, ctx)?;
        let Some(route) = ctx.route.clone() else {
            return Err(Refusal::NoRoute);
        };
        check_header_size(session, self.settings.max_header_bytes)?;
        if route.auth == Auth::Off || (route.cors_preflight && is_preflight(session)) {
            self.hide_unchecked(session, ctx);
            return check_announced_body(session, &route);
        }
        match self.look_at_credential(session, ctx)? {
            Credential::None if route.auth == Auth::Optional => {
                self.admit_anonymous(session, ctx, &route)
            }
            Credential::None => Err(Refusal::NoCredential),
            Credential::Proven(proof) => self.admit_proven(session, ctx, &route, &proof),
            Credential::Wrong => {
                self.check_failures(ctx)?;
                Err(self.count_failure(ctx))
            }
            Credential::Unknown { presented, digest } => {
                self.check_failures(ctx)?;
                let proof = match self.verifier.verify(&presented, digest).await {
                    Ok(proof) => proof,
                    Err(verify::Refusal::Unavailable) => return Err(Refusal::Unavailable),
                    Err(verify::Refusal::Invalid) => return Err(self.count_failure(ctx)),
                };
                self.admit_proven(session, ctx, &route, &proof)
            }
        }
    }

    fn find_route(&self, session: &Session, ctx: &mut Context) -> Result<(), Refusal> {
        let request = session.req_header();
        let host = match request.headers.get(header::HOST) {
            Some(host) if !is_host(host.as_bytes()) => {
                return Err(Refusal::BadRequest("The Host field does not name a host."));
            }
            Some(host) => host.to_str().ok(),
            None if request.version == Version::HTTP_11 => {
                return Err(Refusal::BadRequest("The Host field is missing."));
            }
            None => None,
        };
        let method = preflight_method(session).unwrap_or_else(|| request.method.clone());
        let raw = request.raw_path();
        let found = match check_fragment(session).and_then(|()| target::read(raw)) {
            Ok(target) => self
                .routes
                .find(host, &target, &method)
                .map_err(|_| "Path parameters lead to another route than the path without them."),
            Err(ambiguity) => Err(ambiguity.detail()),
        };
        match found {
            Ok(route) => ctx.route = route.cloned(),
            Err(detail) => {
                if self.settings.mode == Mode::Shadow {
                    // Nobody is refused: the path is taken as it stands.
                    let text = String::from_utf8_lossy(raw);
                    ctx.route = self
                        .routes
                        .find_path(host, target::split(&text).0, &method)
                        .cloned();
                }
                return Err(Refusal::AmbiguousPath(detail));
            }
        }
        Ok(())
    }

    /// Finds the credential and recalls what is known about it. Waits for nothing.
    fn look_at_credential(
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
        let is_ours =
            self.settings.mode == Mode::Enforce || Presented::parse(&found.text).is_some();
        if self.credentials.hide && is_ours {
            ctx.hide.push(found.source);
        }
        Ok(match self.verifier.recall(&found.text) {
            Recall::Proven(proof) => Credential::Proven(proof),
            Recall::Refused => Credential::Wrong,
            Recall::Unknown(digest) => {
                let presented = Zeroizing::new(found.text.into_owned());
                Credential::Unknown { presented, digest }
            }
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
            );
        }
    }

    fn admit_proven(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
        proof: &Proof,
    ) -> Result<(), Refusal> {
        let view = proof.key.view_full();
        let decided = decide::decide(&view, proof.generation, route, ctx.client, self.clock.now());
        if let Err(Refusal::InvalidKey | Refusal::ExpiredKey | Refusal::DisabledKey) = decided {
            return decided;
        }
        let decided = decided.and_then(|()| check_announced_body(session, route));
        let now_us = ctx.started_us;
        // Only who passes everything else pays; who is refused still sees what is left.
        let decision = match decided {
            Ok(()) => limit::take_all(&view.buckets, route.cost, now_us),
            Err(_) => limit::peek_all(&view.buckets, route.cost, now_us),
        };
        let allowed = decision.allowed;
        ctx.limits = view.limit_fields.clone().map(|fields| (fields, decision));
        ctx.key = Some(view);
        decided?;
        if allowed {
            Ok(())
        } else {
            Err(Refusal::RateLimited)
        }
    }

    fn admit_anonymous(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
    ) -> Result<(), Refusal> {
        check_announced_body(session, route)?;
        let buckets = self.anonymous.buckets(ctx.client, ctx.started_us);
        let decision = limit::take_all(&buckets, route.cost, ctx.started_us);
        let allowed = decision.allowed;
        ctx.limits = self
            .anonymous_fields
            .clone()
            .map(|fields| (fields, decision));
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
    let Some(origin) = target::origin_form(raw).map(<[u8]>::to_vec) else {
        return Err(Refusal::AmbiguousPath(target::Ambiguity::NotAPath.detail()));
    };
    session
        .req_header_mut()
        .set_raw_path(&origin)
        .map_err(|_| Refusal::AmbiguousPath(target::Ambiguity::Malformed.detail()))
}

/// Whether the Host field has the form of one (RFC 9110, section 7.2). A service might find a host
/// in `user@host` or in `one, two` that has a route of its own, while the table finds none there.
fn is_host(value: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b);
    value.iter().all(plain)
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

fn check_header_size(session: &Session, max_bytes: usize) -> Result<(), Refusal> {
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

/// A CORS preflight request (Fetch standard, section 4.8): it never carries a key.
fn is_preflight(session: &Session) -> bool {
    preflight_method(session).is_some()
}

/// The method that a preflight request asks about: it goes where that method's requests go.
fn preflight_method(session: &Session) -> Option<Method> {
    let request = session.req_header();
    if request.method != Method::OPTIONS || !request.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}
