//! What the holder of a key may know about it: scopes, limits and what is left of them, expiry, when
//! its rotation is due. Asking takes no token. Off unless the configuration says otherwise.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use serde_json::{Value, json};

use super::admit::check_header_size;
use super::decide::{self, Refusal};
use super::{Context, Gateway, respond, target};
use crate::clock::Timestamp;
use crate::key::{Generation, KeyRecord};
use crate::limit::Reading;
use crate::limit::redis::Ask;
use crate::verify::{self, KeyView};

impl Gateway {
    /// Whether the request is a question of that kind.
    pub(super) fn is_self_service(&self, session: &Session) -> bool {
        let Some(path) = &self.settings.self_service else {
            return false;
        };
        let request = session.req_header();
        matches!(request.method, Method::GET | Method::HEAD)
            && target::read(request.raw_path()).is_ok_and(|target| target.path == path.as_str())
    }

    /// Answers it. A key that may not act is refused as anywhere else.
    pub(super) async fn serve_holder(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<()> {
        match self.describe(session, ctx).await {
            Ok(body) => {
                ctx.is_self_service = true;
                ctx.own_answer_us = Some(self.clock.monotonic_us());
                let mut header = header(body.len())?;
                self.write_common(session, &mut header, ctx);
                respond::send(session, header, body).await
            }
            Err(refusal) => self.refuse(session, ctx, refusal).await,
        }
    }

    async fn describe(&self, session: &Session, ctx: &mut Context) -> Result<String, Refusal> {
        check_header_size(session, self.settings.max_header_bytes)?;
        let credential = self.look_at_credential(session, ctx)?;
        let proof = self.prove(credential, ctx).await?;
        if self.verifier.is_stale(ctx.started_us) {
            return Err(Refusal::Unavailable);
        }
        let view = proof.key.view_full();
        ctx.decided_at = self.clock.now();
        let generation = proof.generation;
        let admitted = view.admits(generation, ctx.client, ctx.decided_at);
        let admitted = admitted.map_err(decide::refusal);
        if admitted == Err(Refusal::InvalidKey) {
            return Err(self.refuse_key(ctx));
        }
        ctx.caller = Some(proof);
        admitted?;
        let on_outage = self.limits.on_outage;
        let limits = self.limit(&view, 1, Ask::Peek, on_outage, ctx.started_us);
        ctx.limits = limits.await?;
        let record = self.records.of(&view).await;
        let record = record.map_err(|refusal| match refusal {
            verify::Refusal::Invalid => Refusal::InvalidKey,
            verify::Refusal::Unavailable => Refusal::Unavailable,
        })?;
        let readings = ctx.limits.as_ref().map(|decision| &decision.readings[..]);
        let body = body(&record, &view, generation, readings, ctx.decided_at);
        ctx.key = Some(view);
        Ok(body.to_string())
    }
}

fn header(length: usize) -> Result<ResponseHeader> {
    let mut header = ResponseHeader::build(StatusCode::OK, Some(12))?;
    header.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    header.insert_header(CONTENT_LENGTH, HeaderValue::from(length))?;
    header.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    Ok(header)
}

fn body(
    record: &KeyRecord,
    view: &KeyView,
    generation: Generation,
    readings: Option<&[Reading]>,
    now: Timestamp,
) -> Value {
    let texts = |items: &mut dyn Iterator<Item = String>| Value::from(items.collect::<Vec<_>>());
    let previous = record.previous.filter(|old| old.generation == generation);
    let policies = view.plan.policies().iter().enumerate();
    let limits = policies.map(|(index, policy)| {
        let reading = readings.and_then(|readings| readings.get(index));
        json!({
            "name": policy.name,
            "quota": policy.quota,
            "window_seconds": policy.window_seconds,
            "burst": policy.burst(),
            "remaining": reading.map(|reading| reading.remaining),
            "reset_seconds": reading.map(|reading| reading.reset_seconds),
        })
    });
    json!({
        "id": record.id.as_str(),
        "name": record.name,
        "tenant_id": record.tenant_id.as_str(),
        "environment": record.environment.as_str(),
        "hint": record.hint,
        "status": record.status(now).as_str(),
        "scopes": texts(&mut record.scopes.iter().map(ToString::to_string)),
        "allowed_ips": texts(&mut record.allowed_ips.iter().map(ToString::to_string)),
        "expires_at": record.expires_at,
        "rotation_due_at": record.rotation_due_at(),
        // Whoever still uses a replaced secret should hear of it.
        "secret": if previous.is_some() { "previous" } else { "current" },
        "secret_valid_until": previous.map(|old| old.valid_until),
        "rate_limits": limits.collect::<Vec<_>>(),
    })
}
