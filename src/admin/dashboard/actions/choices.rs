//! What the form of a key offers: scopes, tenants, what limits there are already.

use crate::admin::AdminState;
use crate::admin::access::{Actor, Permission};
use crate::admin::answer::ApiError;
use crate::admin::dashboard::words;
use crate::store::TenantFilter;

/// Tenants that are offered; more can be written.
const TENANTS_MAX: usize = 100;

/// A scope that can be ticked.
#[derive(Debug)]
pub struct ScopeChoice {
    pub name: String,
    pub description: String,
}

#[derive(Debug)]
pub struct Choices {
    /// Whose keys somebody makes who has no choice.
    pub own_tenant: Option<String>,
    pub tenants: Vec<String>,
    pub scopes: Vec<ScopeChoice>,
    /// Sidekey's own, for administrators.
    pub own_scopes: Vec<ScopeChoice>,
    pub default_limits: Vec<String>,
}

impl Choices {
    /// What `actor` may choose from.
    pub async fn of(state: &AdminState, actor: &Actor) -> Result<Self, ApiError> {
        let is_admin = actor.is_admin();
        let deployment = &state.deployment;
        let scopes = deployment.catalogue.iter().map(|entry| ScopeChoice {
            name: entry.scope.to_string(),
            description: entry.description.clone(),
        });
        let own = Permission::ALL.iter().filter(|_| is_admin);
        let own = own.map(|permission| ScopeChoice {
            name: permission.as_str().to_owned(),
            description: permission.purpose().to_owned(),
        });
        let limits = deployment.default_limits.iter();
        Ok(Choices {
            own_tenant: (!is_admin).then(|| actor.tenant_id.to_string()),
            tenants: if is_admin {
                tenants(state).await?
            } else {
                Vec::new()
            },
            scopes: scopes.collect(),
            own_scopes: own.collect(),
            default_limits: limits.map(|policy| words::limit(policy)).collect(),
        })
    }
}

async fn tenants(state: &AdminState) -> Result<Vec<String>, ApiError> {
    let all = TenantFilter::default();
    let page = state.tenants.page(&all, None, TENANTS_MAX).await?;
    let tenants = page.tenants.iter();
    Ok(tenants.map(|tenant| tenant.id.to_string()).collect())
}
