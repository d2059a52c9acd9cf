//! What the contract says of each call: the scope that it needs, and its answers.

pub const ADMIN: &str = "sidekey:admin";
pub const WRITE: &str = "sidekey:keys:write";
const READ: &str = "sidekey:keys:read";
const USAGE: &str = "sidekey:usage:read";
const AUDIT: &str = "sidekey:audit:read";
/// Of calls that need no key.
const NONE: &str = "";

/// One call.
#[derive(Debug)]
pub struct Rule {
    /// As the document names it.
    pub call: &'static str,
    pub scope: &'static str,
    /// About something that the caller may see.
    pub found: u16,
    /// About another tenant's thing or none at all, to who sees one tenant.
    pub hidden: u16,
    /// About something that isn't there, to an administrator.
    pub absent: u16,
}

impl Rule {
    pub fn is_change(&self) -> bool {
        !self.call.starts_with("get ")
    }
}

const fn rule(call: &'static str, scope: &'static str, statuses: [u16; 3]) -> Rule {
    let [found, hidden, absent] = statuses;
    Rule {
        call,
        scope,
        found,
        hidden,
        absent,
    }
}

/// Every call of the document. `hidden` of what needs an administrator is never asked for.
#[rustfmt::skip]
pub const RULES: [Rule; 22] = [
    rule("get /api/v1/platform/api-keys", READ, [200, 200, 200]),
    rule("post /api/v1/platform/api-keys", WRITE, [201, 404, 201]),
    rule("get /api/v1/platform/api-keys/{key_id}", READ, [200, 404, 404]),
    rule("patch /api/v1/platform/api-keys/{key_id}", WRITE, [200, 404, 404]),
    rule("delete /api/v1/platform/api-keys/{key_id}", WRITE, [204, 404, 404]),
    rule("post /api/v1/platform/api-keys/{key_id}/regenerate", WRITE, [200, 404, 404]),
    rule("delete /api/v1/platform/api-keys/{key_id}/previous-secret", WRITE, [204, 404, 404]),
    rule("post /api/v1/platform/api-keys/import", WRITE, [200, 200, 200]),
    rule("get /api/v1/platform/tenants", READ, [200, 200, 200]),
    rule("get /api/v1/platform/tenants/{tenant_id}", READ, [200, 404, 404]),
    rule("put /api/v1/platform/tenants/{tenant_id}", ADMIN, [200, 0, 201]),
    rule("post /api/v1/platform/tenants/{tenant_id}/suspend", ADMIN, [200, 0, 404]),
    rule("post /api/v1/platform/tenants/{tenant_id}/resume", ADMIN, [200, 0, 404]),
    rule("get /api/v1/platform/api-keys/{key_id}/usage", USAGE, [200, 404, 404]),
    rule("get /api/v1/platform/usage", USAGE, [200, 404, 200]),
    rule("get /api/v1/platform/audit-events", AUDIT, [200, 200, 200]),
    rule("get /api/v1/platform/audit-events/export", AUDIT, [200, 200, 200]),
    rule("get /api/v1/platform/audit-events/verification", ADMIN, [200, 0, 200]),
    rule("get /healthz", NONE, [200, 200, 200]),
    rule("get /readyz", NONE, [200, 200, 200]),
    rule("get /metrics", NONE, [200, 200, 200]),
    rule("get /api/v1/openapi.json", NONE, [200, 200, 200]),
];
