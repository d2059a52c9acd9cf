//! `sidekey keys create`

use http::Method;
use serde_json::{Value, json};

use super::KEYS;
use super::fields::Fields;
use super::handover::Handover;
use crate::cli::client::Api;
use crate::cli::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  sidekey keys create --name 'Nightly export' --tenant acme --scope 'orders:*' --expires-in 90d
  sidekey keys create --name CI --tenant acme --environment test --scope orders:read \\
      --rate-limit peak:10/1s:20 --rate-limit day:10000/1d --allow-ip 10.0.0.0/8 --key-file ci.key
  # Straight into a secret store
  sidekey keys create --name web --tenant acme --scope orders:read --quiet | vault kv put secret/web key=-";

/// Create a key; it is shown this once
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Create {
    /// What people call it
    #[arg(long)]
    name: String,
    /// Whose key it is; may be left out with an admin key for one tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Part of the key's text, for people: both work alike
    #[arg(long, value_parser = ["live", "test"], default_value = "live")]
    environment: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    handover: Handover,
}

pub async fn run(api: &Api, create: &Create) -> Result<(), Failure> {
    let mut body = json!({"name": create.name, "environment": create.environment, "scopes": []});
    if let Some(tenant) = &create.tenant {
        body["tenant_id"] = json!(tenant);
    }
    for (name, value) in create.fields.members(api.now()) {
        body[name] = value;
    }
    let call = api
        .call(Method::POST, &[KEYS])
        // The same for every attempt, so that a lost answer does not cost a second key.
        .header("idempotency-key", &idempotency_key())
        .json(&Value::clone(&body));
    create.handover.carry_out(api, &call).await
}

/// Unique, not secret.
fn idempotency_key() -> String {
    format!("cli-{:032x}", fastrand::u128(..))
}
