//! Creating keys.

use serde_json::json;

use super::*;

const LIMIT: [(&str, &str); 4] = [
    ("limit_name", "burst"),
    ("limit_quota", "10"),
    ("limit_window", "60"),
    ("limit_burst", "5"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_created_shown_once_and_works() {
    let world = World::start().await;
    let admin = world.admin().await;
    let form = admin.get("/new").await;
    assert_page(&form, 200);
    assert!(
        form.text.contains("See &#60;b&#62;the shop"),
        "{}",
        form.text
    );
    let sending = value_of(&form.text, "idempotency_key");
    let mut fields = vec![
        ("idempotency_key", &*sending),
        ("opened", "2027-01-01T00:00:00Z"),
        ("name", "Orders of ACME"),
        ("tenant_id", "brand-new"),
        ("environment", "test"),
        ("scopes", "orders:read"),
        ("scopes", "shop:read"),
        ("more_scopes", "orders:*"),
        ("limits", "own"),
        ("expiry", "90"),
        ("allowed_ips", "127.0.0.0/8\r\n::1"),
        ("contact_email", "ops@acme.example"),
        ("rotation_days", "30"),
        ("metadata", "team = Orders\r\n"),
    ];
    fields.extend(LIMIT);
    let page = admin.send("", &fields).await;
    assert_page(&page, 200);
    let secret = secret_of(&page.text);
    let id = id_of(&secret);
    assert_eq!(world.sidekey.status("/orders", &secret).await, 200);
    let stored = world.key(&id).await;
    assert_eq!(stored["name"], "Orders of ACME");
    assert_eq!(stored["tenant_id"], "brand-new");
    assert_eq!(stored["environment"], "test");
    assert_eq!(
        stored["scopes"],
        json!(["orders:read", "shop:read", "orders:*"])
    );
    let limit = json!([{"name": "burst", "quota": 10, "window_seconds": 60, "burst": 5}]);
    assert_eq!(stored["rate_limits"], limit);
    assert_eq!(stored["expires_at"], "2027-04-01T00:00:00Z");
    assert_eq!(stored["allowed_ips"], json!(["127.0.0.0/8", "::1/128"]));
    assert_eq!(stored["contact_email"], "ops@acme.example");
    assert_eq!(stored["rotation_days"], 30);
    assert_eq!(stored["metadata"], json!({"team": "Orders"}));

    // Everything to use it with is filled in.
    let proxy = format!("http://{}", world.sidekey.proxy);
    for text in [
        format!("SIDEKEY_API_KEY={secret}\nSIDEKEY_API_URL={proxy}\n"),
        "data-filename=\"orders-of-acme.env\"".to_owned(),
        escaped(&format!(
            "curl '{proxy}/' \\\n  -H 'Authorization: Bearer {secret}'"
        )),
        escaped(&format!("fetch(\"{proxy}/\"")),
        "data-confirm-leave".to_owned(),
        format!("href=\"{KEYS_PAGE}/{id}\" data-saved"),
    ] {
        assert!(page.text.contains(&text), "no {text} in {}", page.text);
    }

    // A form that is sent again makes no other key, and shows the same one.
    let again = admin.send("", &fields).await;
    assert_page(&again, 200);
    assert_eq!(secret_of(&again.text), secret);
    assert_eq!(world.count_named("Orders of ACME").await, 1);
    assert!(!page.text.contains("id=\"made-before\""), "{}", page.text);
    assert!(again.text.contains("id=\"made-before\""), "{}", again.text);
    assert!(!again.text.contains("id=\"not-current\""), "{}", again.text);
    // With something else written in it, it asks first.
    fields[2] = ("name", "Another");
    let other = admin.send("", &fields).await;
    assert_page(&other, 409);
    assert!(
        other.text.contains("has made a key already"),
        "{}",
        other.text
    );
    let fresh = value_of(&other.text, "idempotency_key");
    assert_ne!(fresh, sending);
    fields[0] = ("idempotency_key", &fresh);
    let other = admin.send("", &fields).await;
    assert_page(&other, 200);
    assert_ne!(secret_of(&other.text), secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sendings_at_once_make_one_key() {
    let world = World::start().await;
    let admin = world.admin().await;
    let form = admin.get("/new").await;
    let sending = value_of(&form.text, "idempotency_key");
    let fields = [
        ("idempotency_key", &*sending),
        ("name", "twice"),
        ("tenant_id", "acme"),
        ("environment", "live"),
    ];
    let (first, second) = tokio::join!(admin.send("", &fields), admin.send("", &fields));
    assert_page(&first, 200);
    assert_page(&second, 200);
    assert_eq!(secret_of(&first.text), secret_of(&second.text));
    assert_eq!(world.count_named("twice").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_stand_beside_their_fields_and_what_was_typed_stays() {
    let world = World::start().await;
    let admin = world.admin().await;
    let before = world.sidekey.ask(Method::GET, KEYS, None).await.json();
    let page = admin
        .send(
            "",
            &[
                ("idempotency_key", "abc"),
                ("name", ""),
                ("tenant_id", SCRIPT),
                ("environment", "prod"),
                ("scopes", "orders:read"),
                ("more_scopes", SCRIPT),
                ("limits", "own"),
                ("limit_name", SCRIPT),
                ("limit_quota", "many"),
                ("limit_window", SCRIPT),
                ("limit_burst", SCRIPT),
                ("expiry", "at"),
                ("expires_at", SCRIPT),
                ("allowed_ips", SCRIPT),
                ("contact_email", SCRIPT),
                ("rotation_days", SCRIPT),
                ("metadata", SCRIPT),
                (SCRIPT, SCRIPT),
            ],
        )
        .await;
    assert_page(&page, 422);
    let text = &page.text;
    assert!(error_of(text, "key-name").contains("1 to 200"), "{text}");
    for id in [
        "key-tenant",
        "key-environment",
        "key-scopes",
        "limit-name-0",
        "limit-quota-0",
        "limit-window_seconds-0",
        "limit-burst-0",
        "key-expires-at",
        "key-allowed-ips",
        "key-contact-email",
        "key-rotation-days",
        "key-metadata",
    ] {
        assert!(!error_of(text, id).is_empty(), "{id}");
        assert!(
            text.contains(&format!("aria-describedby=\"{id}-error")),
            "{id}: {text}"
        );
    }
    for field in [
        "tenant_id",
        "more_scopes",
        "limit_name",
        "limit_window",
        "limit_burst",
        "contact_email",
        "rotation_days",
    ] {
        // A field's attributes may stand between its name and its value.
        let at = text.find(&format!("name=\"{field}\"")).expect(field);
        let tag = &text[at..at + text[at..].find('>').expect("its end")];
        assert!(
            tag.contains(&format!("value=\"{}\"", escaped(SCRIPT))),
            "{field}: {tag}"
        );
    }
    assert!(
        text.contains(&format!("\n{}</textarea>", escaped(SCRIPT))),
        "{text}"
    );
    assert!(text.contains("value=\"orders:read\" checked"), "{text}");
    assert_eq!(value_of(text, "idempotency_key"), "abc");
    // The first bad field has the focus, and no other.
    let main = text.split("<dialog").next().expect("the page");
    assert_eq!(main.matches("autofocus").count(), 1, "{text}");
    let name = text.find("id=\"key-name\"").expect("the name");
    let tag = &text[name..name + text[name..].find('>').expect("its end")];
    assert!(
        tag.contains("aria-invalid=\"true\"") && tag.contains("autofocus"),
        "{tag}"
    );
    let now = world.sidekey.ask(Method::GET, KEYS, None).await.json();
    let count = |keys: &Value| keys["data"].as_array().map(Vec::len);
    assert_eq!(count(&now), count(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_metadata_are_only_text() {
    let world = World::start().await;
    let admin = world.admin().await;
    let metadata = format!("{SCRIPT} = {SCRIPT}");
    let fields = [
        ("name", SCRIPT),
        ("tenant_id", "acme"),
        ("environment", "live"),
        ("metadata", &metadata),
    ];
    let page = admin.send("", &fields).await;
    assert_page(&page, 200);
    assert!(page.text.contains(&escaped(SCRIPT)), "{}", page.text);
    assert!(
        page.text
            .contains("data-filename=\"script-alert-1-script.env\""),
        "{}",
        page.text
    );
    let id = id_of(&secret_of(&page.text));
    assert_eq!(world.key(&id).await["metadata"][SCRIPT], SCRIPT);
    for action in [
        "edit",
        "regenerate",
        "revoke",
        "disable",
        "enable",
        "end-overlap",
    ] {
        let page = admin.get(&format!("/{id}/{action}")).await;
        assert_page(&page, 200);
        assert!(
            page.text.contains(&escaped(SCRIPT)),
            "{action}: {}",
            page.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_one_tenant_creates_keys_for_it_alone() {
    let world = World::start().await;
    let writer = world.colleague(&["sidekey:keys:write"]).await;
    let form = writer.get("/new").await;
    assert_page(&form, 200);
    assert!(!form.text.contains("name=\"tenant_id\""), "{}", form.text);
    let own = [
        ("name", "own"),
        ("environment", "live"),
        ("scopes", "orders:read"),
    ];
    let page = writer.send("", &own).await;
    assert_page(&page, 200);
    assert_eq!(
        world.key(&id_of(&secret_of(&page.text))).await["tenant_id"],
        "acme"
    );

    let other = [
        ("name", "foreign"),
        ("tenant_id", "other"),
        ("environment", "live"),
    ];
    assert_page(&writer.send("", &other).await, 404);
    let strong = [
        ("name", "strong"),
        ("environment", "live"),
        ("scopes", "sidekey:admin"),
    ];
    let page = writer.send("", &strong).await;
    assert_page(&page, 403);
    assert!(page.text.contains("Only an administrator"), "{}", page.text);
    assert_eq!(value_of(&page.text, "environment"), "live");
    assert_eq!(
        world.count_named("foreign").await + world.count_named("strong").await,
        0
    );

    // The tenant may have no more keys: the form stays as it was typed.
    let path = "/api/v1/platform/tenants/acme";
    let limit = json!({"max_keys": 1});
    let set = world.sidekey.ask(Method::PUT, path, Some(&limit)).await;
    assert_eq!(set.status, 200, "{set:?}");
    let page = writer.send("", &own).await;
    assert_page(&page, 409);
    assert!(page.text.contains("may have 1 keys"), "{}", page.text);
    assert!(page.text.contains("value=\"own\""), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_is_its_content_alone() {
    let world = World::start().await;
    let admin = world.admin().await;
    let path = format!("{KEYS_PAGE}/new");
    let request = admin.person.request(Method::GET, &path);
    let reply = Reply::to(request.header("sidekey-fragment", "dialog")).await;
    assert_page(&reply, 200);
    assert!(!reply.text.contains("<html"), "{}", reply.text);
    assert!(reply.text.contains("id=\"dialog-title\""), "{}", reply.text);
    let csrf = value_of(&reply.text, "csrf");
    let fields = [
        ("csrf", &*csrf),
        ("name", "by a script"),
        ("tenant_id", "acme"),
        ("environment", "live"),
    ];
    let request = admin.person.form(KEYS_PAGE, &fields);
    let reply = Reply::to(request.header("sidekey-fragment", "dialog")).await;
    assert_page(&reply, 200);
    assert!(!reply.text.contains("<html"), "{}", reply.text);
    let id = id_of(&secret_of(&reply.text));
    let path = format!("{KEYS_PAGE}/{id}/disable");
    let request = admin.person.form(&path, &[("csrf", &csrf)]);
    let reply = Reply::to(request.header("sidekey-fragment", "dialog")).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let done = format!("{KEYS_PAGE}/{id}?done=disabled");
    assert_eq!(reply.header("sidekey-go"), Some(&*done));
}

/// A form that is sent again shows the secret that it made: what has become of it since is told with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_sent_again_says_what_has_become_of_its_key() {
    let world = World::start().await;
    let admin = world.admin().await;
    let fields = [
        ("idempotency_key", "sentbefore"),
        ("opened", "2027-01-01T00:00:00Z"),
        ("name", "early"),
        ("tenant_id", "acme"),
        ("environment", "live"),
    ];
    let page = admin.send("", &fields).await;
    assert_page(&page, 200);
    let secret = secret_of(&page.text);
    let path = format!("{KEYS}/{}", id_of(&secret));
    let regenerate = format!("{path}/regenerate");
    for (seconds, words) in [
        (3600, "This is the old secret"),
        (0, "was regenerated since"),
    ] {
        let body = json!({"grace_period_seconds": seconds});
        let reply = world
            .sidekey
            .ask(Method::POST, &regenerate, Some(&body))
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let again = admin.send("", &fields).await;
        assert_page(&again, 200);
        assert_eq!(secret_of(&again.text), secret);
        let (_, warning) = again.text.split_once("id=\"not-current\">").expect("one");
        let warning = warning.split('<').next().expect("its end");
        assert!(warning.contains(words), "{warning}");
    }
    let reply = world.sidekey.ask(Method::DELETE, &path, None).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let again = admin.send("", &fields).await;
    assert!(again.text.contains("is revoked by now"), "{}", again.text);
    assert_eq!(world.count_named("early").await, 1);
}
