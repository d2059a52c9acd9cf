//! The audit log's part of the OpenAPI document. Events are served as the text that was hashed, so these
//! shapes are never made: they say what that text is.

// Written down to be described, never built.
#![allow(dead_code)]

use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// Something that was done, or refused.
#[derive(ToSchema)]
#[schema(examples(json!({
    "seq": 17, "at": "2027-01-01T12:00:00.000Z", "action": "key.changed",
    "actor": {"type": "key", "key_id": "Zk31mWq8aPbn"}, "key_id": "4fzN8cQ2pLrT", "tenant_id": "acme",
    "address": "203.0.113.7", "request_id": "0af7651916cd43dd8448eb211c80319c",
    "details": {"name": {"from": "Export", "to": "Nightly export"}},
    "previous_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
})))]
pub struct AuditEvent {
    /// Its place in the chain, without gaps.
    seq: i64,
    #[schema(format = DateTime)]
    at: String,
    /// What was done, such as `key.created`.
    action: String,
    actor: AuditActor,
    #[schema(required = true)]
    key_id: Option<String>,
    #[schema(required = true)]
    tenant_id: Option<String>,
    /// Of whoever called.
    #[schema(required = true)]
    address: Option<String>,
    /// Of the call, as in `X-Request-Id`.
    #[schema(required = true)]
    request_id: Option<String>,
    /// For a change `{field: {"from": ..., "to": ...}}`.
    details: Map<String, Value>,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    previous_hash: String,
    #[schema(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

/// Who did it.
#[derive(ToSchema)]
pub struct AuditActor {
    #[schema(inline)]
    r#type: ActorType,
    /// The admin key that was used.
    #[schema(required = true)]
    key_id: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActorType {
    Key,
    System,
    Unknown,
}

/// A page of events, newest first.
#[derive(ToSchema)]
pub struct AuditPageBody {
    data: Vec<AuditEvent>,
    /// Where the next page starts; null after the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Whether the chain is what was written.
#[derive(ToSchema)]
#[schema(examples(json!({"intact": true, "entries": 17, "head": {
    "seq": 17, "hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
}})))]
pub struct VerificationBody {
    intact: bool,
    /// How many were looked at.
    entries: i64,
    /// Where it is intact: its end, to be kept as an anchor.
    head: Option<ChainHead>,
    /// Where it is not: the first entry that does not hold.
    broken: Option<ChainBreak>,
}

#[derive(ToSchema)]
pub struct ChainHead {
    seq: i64,
    hash: String,
}

#[derive(ToSchema)]
pub struct ChainBreak {
    seq: i64,
    /// What is wrong, in a word.
    problem: String,
    /// What is wrong, in a sentence.
    detail: String,
}

/// Which events are meant: those for which everything holds that is given.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParameters {
    /// About this key.
    #[param(required = false, pattern = "^[0-9A-Za-z]{12}$")]
    key_id: String,
    /// About this tenant's things.
    #[param(
        required = false,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
    )]
    tenant_id: String,
    /// Done with this admin key; or `system`, or `unknown`.
    #[param(required = false, pattern = "^([0-9A-Za-z]{12}|system|unknown)$")]
    actor: String,
    /// Only this, such as `key.created`.
    #[param(required = false)]
    action: String,
    /// From this moment on.
    #[param(required = false, format = DateTime, example = "2027-01-01T00:00:00Z")]
    from: String,
    /// Before this moment.
    #[param(required = false, format = DateTime, example = "2027-01-31T00:00:00Z")]
    to: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventPageParameters {
    /// Events in a page, at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 50)]
    limit: u32,
    /// The `next_cursor` of the page before.
    #[param(required = false)]
    cursor: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AnchorParameter {
    /// `SEQ:HASH` of an earlier verification: that entry has to be the same still.
    #[param(required = false, pattern = "^[0-9]+:[0-9a-f]{64}$")]
    anchor: String,
}
