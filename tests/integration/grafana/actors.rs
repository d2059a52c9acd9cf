//! Keys in every state, and what clients do with them.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::api::Reply;
use crate::harness::sidekey::{KEYS, Key, Sidekey};

/// Keys of three tenants, and of one that is suspended.
pub struct Keys {
    /// Without limits, one a tenant.
    pub good: Vec<Key>,
    pub limited: Key,
    /// May read and not write.
    pub reader: Key,
    /// May be used from elsewhere only.
    pub elsewhere: Key,
    pub expired: Key,
    pub disabled: Key,
    pub suspended: Key,
    /// With a secret that is to be replaced for a day already.
    pub overdue: Key,
    /// Text that has been replaced: well-formed, and wrong for bcrypt.
    pub superseded: String,
    /// Well-formed, and minted by nobody.
    pub forged: String,
    /// From before Sidekey.
    pub imported: String,
    /// An admin key that may read and not write.
    pub auditor: Key,
}

impl Keys {
    pub async fn create(sidekey: &Sidekey) -> Self {
        let create = async |fields: Value| {
            // Due soon, so that there is something to remind of.
            let mut fields = fields;
            fields["rotation_days"] = json!(1);
            if fields.get("rate_limits").is_none() {
                fields["rate_limits"] = json!([]);
            }
            sidekey.create_key(fields).await
        };
        let mut good = Vec::new();
        for tenant in ["acme", "globex", "initech"] {
            good.push(create(json!({"tenant_id": tenant})).await);
        }
        let limits = json!([{"name": "few", "quota": 1, "window_seconds": 3600}]);
        let replaced = create(json!({})).await;
        let new = sidekey.regenerate_key(&replaced.id, 0).await;
        let suspended = create(json!({"tenant_id": "hooli"})).await;
        let path = "/api/v1/platform/tenants/hooli/suspend";
        let reply = sidekey.ask(Method::POST, path, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let keys = Keys {
            limited: create(json!({"tenant_id": "globex", "rate_limits": limits})).await,
            reader: create(json!({"scopes": ["orders:read"]})).await,
            elsewhere: create(json!({"allowed_ips": ["192.0.2.1"]})).await,
            expired: create(json!({})).await,
            disabled: create(json!({})).await,
            suspended,
            overdue: create(json!({})).await,
            superseded: replaced.text,
            forged: forged(&new.text),
            imported: import(sidekey).await,
            auditor: create(json!({"scopes": ["sidekey:keys:read"]})).await,
            good,
        };
        let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
        sidekey.change_key(&keys.expired.id, past).await;
        let off = json!({"status": "disabled"});
        sidekey.change_key(&keys.disabled.id, off).await;
        keys
    }
}

/// The same with another last character.
fn forged(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    format!("{rest}{}", if last == "x" { 'y' } else { 'x' })
}

async fn import(sidekey: &Sidekey) -> String {
    let digest = blake3::hash(b"a key that was there before").to_hex();
    let key = format!("legacy.{}", &digest.as_str()[..40]);
    let line = json!({
        "key": key, "name": "an old key", "tenant_id": "acme", "environment": "live",
        "scopes": ["orders:*"],
    });
    let request = sidekey
        .admin(Method::POST, &format!("{KEYS}/import"))
        .header("content-type", "application/jsonl")
        .body(format!("{line}\n"));
    let reply = Reply::to(request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    key
}

/// Addresses that clients come from, another one each time.
pub struct Addresses(u32);

impl Addresses {
    pub fn new() -> Self {
        Addresses(0)
    }

    /// One on the internet (of a range for documentation) or of a company's network.
    pub fn next(&mut self) -> String {
        self.0 += 1;
        let [.., high, low] = (self.0 / 2).to_be_bytes();
        if self.0.is_multiple_of(2) {
            format!("198.51.{}.{low}", 100 + high % 2)
        } else {
            format!("10.0.{high}.{low}")
        }
    }
}

/// A request, and how it is answered while nothing is away.
pub struct Ask {
    pub what: &'static str,
    pub request: RequestBuilder,
    pub status: u16,
}

/// One of everything that clients send to the proxy.
pub fn requests(sidekey: &Sidekey, keys: &Keys, addresses: &mut Addresses) -> Vec<Ask> {
    let get = |path: &str| sidekey.request(Method::GET, path);
    let with = |key: &Key| get("/orders/1").bearer_auth(&key.text);
    let [acme, globex, initech] = &keys.good[..] else {
        panic!("three tenants");
    };
    let mut wrong = |text: &str| {
        let request = get("/orders/1").bearer_auth(text);
        request.header("x-forwarded-for", addresses.next())
    };
    let service_says =
        |key: &Key, status: u16| with(key).header("x-answer-status", status.to_string());
    let mut asks = vec![
        ("a good key", with(acme), 200),
        ("another good key", with(globex), 200),
        (
            "an imported key",
            get("/orders/1").bearer_auth(&keys.imported),
            200,
        ),
        ("no key where none is needed", get("/public"), 200),
        ("a redirection", service_says(initech, 302), 302),
        ("nothing there", service_says(initech, 404), 404),
        ("the service fails", service_says(globex, 500), 500),
        ("nobody listens", get("/dead"), 502),
        ("a key over its limit", with(&keys.limited), 429),
        ("a forged key", wrong(&keys.forged), 401),
        ("a superseded key", wrong(&keys.superseded), 401),
        ("the same again", wrong(&keys.superseded), 401),
        ("no key at all", wrong("nonsense"), 401),
        ("an expired key", wrong(&keys.expired.text), 401),
        ("a disabled key", wrong(&keys.disabled.text), 401),
        ("a suspended tenant", wrong(&keys.suspended.text), 401),
        ("an address not allowed", with(&keys.elsewhere), 403),
        ("no route", get("/nowhere").bearer_auth(&acme.text), 404),
        (
            "a path that reads two ways",
            get("/orders/a%2fb").bearer_auth(&acme.text),
            400,
        ),
        (
            "two keys",
            with(acme).header("x-api-key", &globex.text),
            400,
        ),
    ];
    let post = |key: &Key, length: usize| {
        let request = sidekey.request(Method::POST, "/orders");
        request.bearer_auth(&key.text).body("x".repeat(length))
    };
    asks.push(("a scope is missing", post(&keys.reader, 1), 403));
    asks.push(("a body too large", post(acme, 100), 413));
    let headers = with(acme).header("x-long", "x".repeat(70_000));
    asks.push(("headers too large", headers, 431));
    let nobody = get("/orders/1").header("x-forwarded-for", addresses.next());
    asks.push(("no credential", nobody, 401));
    let asks = asks.into_iter();
    asks.map(|(what, request, status)| Ask {
        what,
        request,
        status,
    })
    .collect()
}

/// One of everything that callers of the admin port do.
pub fn admin_requests(sidekey: &Sidekey, keys: &Keys, addresses: &mut Addresses) -> Vec<Ask> {
    let from = addresses.next();
    let wrong = sidekey.admin_as("nonsense", Method::GET, KEYS);
    let origin = [
        ("origin", "https://elsewhere.example"),
        ("x-forwarded-for", &*from),
    ];
    let guess = addresses.next();
    let url = format!("http://{}{KEYS}", sidekey.admin);
    let asks = [
        ("a list", sidekey.admin(Method::GET, KEYS), 200),
        ("a list without a key", sidekey.client.get(url), 401),
        (
            "a list with a wrong key",
            wrong.header("x-forwarded-for", &from),
            401,
        ),
        (
            "a change without the scope",
            sidekey
                .admin_as(&keys.auditor.text, Method::POST, KEYS)
                .json(&json!({})),
            403,
        ),
        (
            "a form of another site",
            sign_in(sidekey, "nonsense", &origin),
            403,
        ),
        (
            "a wrong sign-in",
            sign_in(sidekey, "nonsense", &[("x-forwarded-for", &guess)]),
            401,
        ),
    ];
    let asks = asks.into_iter();
    asks.map(|(what, request, status)| Ask {
        what,
        request,
        status,
    })
    .collect()
}

/// The dashboard's form for signing in.
pub fn sign_in(sidekey: &Sidekey, key: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.append_pair("key", key);
    let url = format!("http://{}/dashboard/sign-in", sidekey.admin);
    let mut request = sidekey
        .client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.finish());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}
