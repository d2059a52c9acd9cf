//! The calls of the API as the served document lists them, and a request for each.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::api::Reply;
use super::sidekey::Sidekey;

/// Before the paths of calls that need a key.
pub const PLATFORM: &str = "/api/v1/platform";
/// A key id that is well-formed and not there.
pub const NO_KEY: &str = "000000000000";

/// A call as the document has it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Such as `get /api/v1/platform/api-keys/{key_id}`.
    pub name: String,
    pub statuses: BTreeSet<u16>,
    /// The parameters of its query.
    pub query: Vec<String>,
}

impl Call {
    /// Whether it needs a key.
    pub fn is_guarded(&self) -> bool {
        self.name.contains(PLATFORM)
    }

    pub fn has(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }

    pub fn is(&self, method_and_tail: &str) -> bool {
        let (method, tail) = method_and_tail.split_once(' ').expect("a method");
        self.name == format!("{method} {PLATFORM}{tail}")
    }
}

/// All calls of the served document.
pub async fn documented(sidekey: &Sidekey) -> Vec<Call> {
    let path = "/api/v1/openapi.json";
    let api = sidekey.ask_as(None, Method::GET, path, None).await.json();
    let mut calls = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, call) in item.as_object().expect("methods") {
            let statuses = call["responses"].as_object().expect("responses").keys();
            let parameters = call["parameters"].as_array().into_iter().flatten();
            let query = parameters.filter(|parameter| parameter["in"] == "query");
            let name_of =
                |parameter: &Value| parameter["name"].as_str().expect("a name").to_owned();
            calls.push(Call {
                query: query.map(name_of).collect(),
                name: format!("{method} {path}"),
                statuses: statuses.map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    calls
}

/// What a request is about: a key of a tenant. Without a tenant, a list is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Thing<'a> {
    pub tenant: Option<&'a str>,
    pub key_id: &'a str,
    /// Makes imported keys differ: 12 digits.
    pub number: u64,
}

/// A request, sound in itself.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub path: String,
    /// Its media type and the bytes.
    pub body: Option<(&'static str, String)>,
}

/// A request of `call` about `thing`.
pub fn request(call: &Call, thing: Thing<'_>) -> Request {
    let (method, template) = call.name.split_once(' ').expect("a method");
    let tenant = thing.tenant.unwrap_or_default();
    let mut path = template
        .replace("{key_id}", thing.key_id)
        .replace("{tenant_id}", tenant);
    let tail = template.strip_prefix(PLATFORM).unwrap_or(template);
    let json_body = |value: Value| Some(("application/json", value.to_string()));
    let named = json!({
        "name": "made by a test", "tenant_id": tenant, "environment": "live", "scopes": [],
    });
    let mut body = None;
    match (method, tail) {
        ("get", "/tenants") if thing.tenant.is_some() => path += &format!("?q={tenant}"),
        ("get", "/api-keys" | "/usage" | "/audit-events" | "/audit-events/export")
            if thing.tenant.is_some() =>
        {
            path += &format!("?tenant_id={tenant}");
        }
        ("post", "/api-keys") => body = json_body(named),
        ("post", "/api-keys/import") => {
            let mut line = named;
            let digest = blake3::hash(&thing.number.to_be_bytes()).to_hex();
            line["key"] = json!(format!("legacy.{}", &digest.as_str()[..40]));
            body = Some(("application/jsonl", format!("{line}\n")));
        }
        ("patch", "/api-keys/{key_id}") => body = json_body(json!({"name": "changed"})),
        ("post", "/api-keys/{key_id}/regenerate") => body = json_body(json!({})),
        ("put", "/tenants/{tenant_id}") => body = json_body(json!({"display_name": "set"})),
        _ => {}
    }
    Request {
        method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
        path,
        body,
    }
}

impl Request {
    /// To be sent with `key`, or without one.
    pub fn with(&self, sidekey: &Sidekey, key: Option<&str>) -> RequestBuilder {
        let url = format!("http://{}{}", sidekey.admin, self.path);
        let mut request = sidekey.client.request(self.method.clone(), url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some((media_type, body)) = &self.body {
            request = request
                .header("content-type", *media_type)
                .body(body.clone());
        }
        request
    }

    pub async fn send(&self, sidekey: &Sidekey, key: Option<&str>) -> Reply {
        Reply::to(self.with(sidekey, key)).await
    }
}
