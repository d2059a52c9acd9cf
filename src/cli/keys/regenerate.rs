//! `sidekey keys regenerate`

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::handover::Handover;
use super::{KEYS, SEE};
use crate::cli::client::Api;
use crate::cli::failure::Failure;
use crate::cli::parse;

const EXAMPLES: &str = "\
Examples:
  # The old secret works for a day more
  sidekey keys regenerate 4fzN8cQ2pLrT --grace 24h --key-file new.key
  # The old secret got out: it ends now
  sidekey keys regenerate 4fzN8cQ2pLrT --quiet > new.key";

/// Give a key a new secret, shown this once
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Regenerate {
    /// The key's id: the 12 characters in its middle
    #[arg(value_name = "ID")]
    id: String,
    /// How long the old secret still works, at most 90d
    #[arg(long, value_name = "SPAN", value_parser = parse::span, default_value = "0")]
    grace: Duration,
    #[command(flatten)]
    handover: Handover,
}

pub async fn run(api: &Api, regenerate: &Regenerate) -> Result<(), Failure> {
    let call = api
        .call(Method::POST, &[KEYS, &regenerate.id, "regenerate"])
        .see(SEE)
        // A second one would end the secret that the first one leaves in its grace period.
        .once()
        .json(&json!({"grace_period_seconds": regenerate.grace.as_secs()}));
    regenerate.handover.carry_out(api, &call).await
}
