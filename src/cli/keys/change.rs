//! `sidekey keys change`

use http::Method;
use serde_json::{Map, Value, json};

use super::call;
use super::fields::Fields;
use crate::cli::client::Api;
use crate::cli::failure::Failure;
use crate::cli::outcome;

const EXAMPLES: &str = "\
Examples:
  sidekey keys change 4fzN8cQ2pLrT --name 'Weekly export' --expires-in 30d
  # Lists are replaced as a whole
  sidekey keys change 4fzN8cQ2pLrT --scope orders:read --scope orders:write
  # Back to the configuration's limits, and no expiry
  sidekey keys change 4fzN8cQ2pLrT --clear rate-limits --clear expires-at";

/// Change what a key is given; it acts on the key's next request
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Change {
    /// The key's id: the 12 characters in its middle
    #[arg(value_name = "ID")]
    id: String,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Take this away; may stand there several times
    #[arg(long, value_name = "WHAT", value_parser = CLEARABLE)]
    clear: Vec<String>,
}

const CLEARABLE: [&str; 6] = [
    "rate-limits",
    "expires-at",
    "allowed-ips",
    "contact-email",
    "rotation-days",
    "metadata",
];

pub async fn run(api: &Api, change: &Change) -> Result<(), Failure> {
    let mut members = change.fields.members(api.now());
    if let Some(name) = &change.name {
        members.insert("name".to_owned(), json!(name));
    }
    clear(&mut members, &change.clear)?;
    if members.is_empty() {
        return Err(Failure::arguments(
            "nothing to change: say what with an option such as --name (see --help)",
        ));
    }
    let call = call(api, Method::PATCH, &change.id).json(&Value::Object(members));
    outcome::changed(api, &api.send(&call).await?)
}

/// Null for each of `names`, which are written as in options.
pub fn clear(members: &mut Map<String, Value>, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let before = members.insert(name.replace('-', "_"), Value::Null);
        if before.is_some_and(|value| !value.is_null()) {
            return Err(Failure::arguments(format!(
                "{name} is both set and cleared: do one of them"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cleared_is_null() {
        let mut members = Map::new();
        clear(
            &mut members,
            &["expires-at".to_owned(), "expires-at".to_owned()],
        )
        .unwrap();
        assert_eq!(Value::Object(members.clone()), json!({"expires_at": null}));
        members.insert("expires_at".to_owned(), json!("2027"));
        assert!(clear(&mut members, &["expires-at".to_owned()]).is_err());
    }
}
