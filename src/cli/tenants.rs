//! `sidekey tenants`: whose keys there are, their limits, and whether they may act.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use http::header::ETAG;
use serde_json::{Map, Value, json};

use super::access::AccessArguments;
use super::client::{self, Answer, Api};
use super::failure::Failure;
use super::pages::{self, Paging};
use super::render::{Column, cell};
use super::{outcome, parse};
use crate::key::Policy;

const TENANTS: &str = "tenants";
const SEE: &str = "sidekey tenants list";
/// What a tenant is given; the rest of what the API tells of it is not ours to send.
const SETTABLE: [&str; 4] = ["display_name", "contact_email", "rate_limits", "max_keys"];

const EXAMPLES: &str = "\
Examples:
  # At most 20 keys, and 1000 requests a minute for all of them together
  sidekey tenants set acme --display-name 'Acme Ltd' --max-keys 20 --rate-limit all:1000/1m
  # Refuse all of its keys until further notice
  sidekey tenants suspend acme
  sidekey tenants list --status suspended";

/// List, show, set, suspend and resume tenants
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Tenants {
    #[command(flatten)]
    access: AccessArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List tenants by their ids
    List(List),
    /// Show a tenant
    Show(OneTenant),
    /// Create a tenant, or change what is given and leave the rest
    Set(Set),
    /// Refuse the requests of all keys of a tenant
    Suspend(OneTenant),
    /// Let the keys of a suspended tenant work again
    Resume(OneTenant),
}

#[derive(clap::Args)]
struct OneTenant {
    /// The tenant's id
    #[arg(value_name = "TENANT")]
    id: String,
}

#[derive(clap::Args)]
struct List {
    /// Only those that are ...
    #[arg(long, value_parser = ["active", "suspended"])]
    status: Option<String>,
    /// Only those with this text in their id or name
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(clap::Args)]
struct Set {
    /// The tenant's id: letters, digits, '.', '_', '-'
    #[arg(value_name = "TENANT")]
    id: String,
    /// What people call it
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Whom to write to
    #[arg(long, value_name = "ADDRESS")]
    contact_email: Option<String>,
    /// A limit for all its keys together; may stand there several times, and replaces those before
    #[arg(long = "rate-limit", value_name = "NAME:QUOTA/WINDOW[:BURST]", value_parser = parse::rate_limit)]
    rate_limits: Vec<Policy>,
    /// How many keys it may have
    #[arg(long, value_name = "N")]
    max_keys: Option<u64>,
    /// Take this away; may stand there several times
    #[arg(long, value_name = "WHAT", value_parser = ["display-name", "contact-email", "rate-limits", "max-keys"])]
    clear: Vec<String>,
}

pub fn run(tenants: &Tenants) -> ExitCode {
    client::run(&tenants.access, async |api| match &tenants.command {
        Command::List(list) => self::list(api, list).await,
        Command::Show(tenant) => {
            let call = api.get(&[TENANTS, &tenant.id]).see(SEE);
            outcome::show(api, &api.send(&call).await?)
        }
        Command::Set(set) => self::set(api, set).await,
        Command::Suspend(tenant) => switch(api, &tenant.id, "suspend").await,
        Command::Resume(tenant) => switch(api, &tenant.id, "resume").await,
    })
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { title: "ID", value: |tenant| cell(&tenant["id"]) },
    Column { title: "NAME", value: |tenant| cell(&tenant["display_name"]) },
    Column { title: "STATUS", value: |tenant| cell(&tenant["status"]) },
    Column { title: "KEYS", value: |tenant| cell(&tenant["key_count"]) },
    Column { title: "MAX KEYS", value: |tenant| cell(&tenant["max_keys"]) },
    Column { title: "CONTACT", value: |tenant| cell(&tenant["contact_email"]) },
    Column { title: "CREATED", value: |tenant| cell(&tenant["created_at"]) },
];

async fn list(api: &Api, list: &List) -> Result<(), Failure> {
    let call = api
        .get(&[TENANTS])
        .query("status", list.status.as_ref())
        .query("q", list.search.as_ref());
    pages::show(api, call, &list.paging, COLUMNS).await
}

async fn switch(api: &Api, id: &str, action: &str) -> Result<(), Failure> {
    let call = api.call(Method::POST, &[TENANTS, id, action]).see(SEE);
    outcome::changed(api, &api.send(&call).await?)
}

/// The API replaces a tenant as a whole, so what is not named is read first, and sent again.
async fn set(api: &Api, set: &Set) -> Result<(), Failure> {
    let path = [TENANTS, set.id.as_str()];
    let found = api.find(&api.get(&path)).await?;
    let before = found.as_ref().map(Answer::json).transpose()?;
    let body = merged(before.as_ref(), set)?;
    let mut call = api.call(Method::PUT, &path).json(&Value::Object(body));
    if let Some(etag) = found.as_ref().and_then(|answer| answer.header(&ETAG)) {
        // What somebody else has changed meanwhile is not written over. A repetition would meet its
        // own change.
        call = call.header("if-match", etag).once();
    }
    outcome::changed(api, &api.send(&call).await?)
}

fn merged(before: Option<&Value>, set: &Set) -> Result<Map<String, Value>, Failure> {
    let mut given = Map::new();
    let mut give = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            given.insert(name.to_owned(), value);
        }
    };
    give(
        "display_name",
        set.display_name.as_ref().map(|name| json!(name)),
    );
    give(
        "contact_email",
        set.contact_email.as_ref().map(|email| json!(email)),
    );
    give(
        "rate_limits",
        (!set.rate_limits.is_empty()).then(|| json!(set.rate_limits)),
    );
    give("max_keys", set.max_keys.map(|max| json!(max)));
    super::keys::clear(&mut given, &set.clear)?;
    let mut body = Map::new();
    for name in SETTABLE {
        let value = given
            .remove(name)
            .or_else(|| before.map(|tenant| tenant[name].clone()));
        if let Some(value) = value.filter(|value| !value.is_null()) {
            body.insert(name.to_owned(), value);
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Set {
        Set {
            id: "acme".to_owned(),
            display_name: None,
            contact_email: None,
            rate_limits: vec![],
            max_keys: Some(5),
            clear: vec![],
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = json!({
            "id": "acme", "display_name": "Acme", "contact_email": null, "rate_limits": null,
            "max_keys": 3, "key_count": 2, "status": "active",
        });
        let body = |before, set: &Set| Value::Object(merged(before, set).unwrap());
        assert_eq!(
            body(Some(&before), &set()),
            json!({"display_name": "Acme", "max_keys": 5})
        );
        assert_eq!(body(None, &set()), json!({"max_keys": 5}));
        let cleared = Set {
            clear: vec!["display-name".to_owned()],
            ..set()
        };
        assert_eq!(body(Some(&before), &cleared), json!({"max_keys": 5}));
        let contradiction = Set {
            clear: vec!["max-keys".to_owned()],
            ..set()
        };
        assert!(merged(None, &contradiction).is_err());
    }
}
