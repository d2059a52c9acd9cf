//! Making keys: from nothing to the first key that is used, by the keyboard alone, and without scripts.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use thirtyfour::Key;

use super::browser::{Browser, KEYS_PAGE};
use super::world::World;
use crate::harness::run::run_command;
use crate::harness::sidekey::KEYS;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key() {
    let world = World::start().await;
    let browser = Browser::signed_in(&world.sidekey).await;
    browser.is_accessible("the empty list").await;
    browser.press("Create the first key").await;
    browser.sees("Create an API key").await;
    browser.is_accessible("the form of a new key").await;
    bad_fields_are_told_beside_them(&browser).await;
    let secret = create(&browser).await;
    the_secret_can_be_taken(&browser, &world, &secret).await;
    leaving_asks(&browser).await;
    browser.press("Done, I have saved it").await;
    browser.sees_no_dialog().await;
    browser.is_at(&format!("{KEYS_PAGE}/")).await;
    browser.sees("Orders of ACME").await;
    nothing_has_the_secret(&browser, &secret).await;

    let id = secret.split('_').nth(2).expect("an id");
    let path = format!("{KEYS}/{id}");
    let key = world.sidekey.ask(Method::GET, &path, None).await.json();
    let written = [
        ("name", json!("Orders of ACME")),
        ("tenant_id", json!("acme")),
        ("environment", json!("test")),
        ("scopes", json!(["orders:read"])),
        ("allowed_ips", json!(["127.0.0.0/8", "::1/128"])),
        ("contact_email", json!("keys@example.com")),
        ("rotation_days", json!(45)),
        ("metadata", json!({"team": "orders"})),
    ];
    for (field, value) in written {
        assert_eq!(key[field], value, "{field} in {key}");
    }
    let limit = &key["rate_limits"][0];
    assert_eq!(
        (&limit["quota"], &limit["window_seconds"]),
        (&json!(500), &json!(60))
    );
    assert!(key["expires_at"].is_string(), "{key}");
    assert_eq!(world.sidekey.status("/orders", &secret).await, 200);
    browser.visit(KEYS_PAGE).await;
    browser.sees("Orders of ACME").await;
    browser.close().await;
}

async fn bad_fields_are_told_beside_them(browser: &Browser) {
    browser.type_into("Name", "Orders of ACME").await;
    browser.type_into("Allowed addresses", "10.0.0.0/40").await;
    browser.type_into("Contact e-mail", "nobody").await;
    browser.type_into("Rotation in days", "0").await;
    browser.press("Create the key").await;
    for label in [
        "Tenant",
        "Allowed addresses",
        "Contact e-mail",
        "Rotation in days",
    ] {
        let error = browser.error_of(label).await;
        assert!(!error.is_empty(), "no error beside {label}");
    }
    assert_eq!(browser.value_of("Name").await, "Orders of ACME");
    assert_eq!(browser.value_of("Allowed addresses").await, "10.0.0.0/40");
    browser.is_focused("Tenant").await;
    browser.is_accessible("a form with errors").await;
}

/// Fills in all that there is; the secret.
async fn create(browser: &Browser) -> String {
    browser.type_into("Tenant", "acme").await;
    browser.tick("Test").await;
    browser.tick("orders:read").await;
    browser.tick("Limits of its own").await;
    browser.type_into("#limit-name-0", "minutely").await;
    browser.type_into("Requests", "500").await;
    browser.type_into("In seconds", "60").await;
    browser.choose("Ends", "30").await;
    browser
        .type_into("Allowed addresses", "127.0.0.0/8\n::1")
        .await;
    browser
        .type_into("Contact e-mail", "keys@example.com")
        .await;
    browser.type_into("Rotation in days", "45").await;
    browser.type_into("Metadata", "team = orders").await;
    browser.press("Create the key").await;
    browser.sees("Save the key now.").await;
    browser.hears("Save it now").await;
    browser.is_accessible("a new key").await;
    browser.text_of("#new-key").await
}

/// By way of the clipboard, a file and examples; the examples work as they stand.
async fn the_secret_can_be_taken(browser: &Browser, world: &World, secret: &str) {
    let proxy = format!("http://{}", world.sidekey.proxy);
    browser.listen_to_buttons().await;
    browser.press("Copy the key").await;
    browser.button_has_said("Copied").await;
    browser.hears("The key is copied").await;
    let copied = browser.copied("the key", |text| !text.is_empty()).await;
    assert_eq!(copied, secret);
    browser.press("Download .env").await;
    let file = browser.saved("orders-of-acme.env").await;
    assert_eq!(
        file,
        format!("SIDEKEY_API_KEY={secret}\nSIDEKEY_API_URL={proxy}\n")
    );
    for (language, interpreter) in [
        ("curl", Some(["bash", "-c"])),
        ("Python", Some(["python3", "-c"])),
        ("JavaScript", Some(["node", "--input-type=module"])),
        ("Go", None),
    ] {
        browser.press(language).await;
        let copy = format!("Copy the example in {language}");
        browser.press(&copy).await;
        browser.hears("The example is copied").await;
        let said = format!("Copied the example in {language}");
        browser.button_has_said(&said).await;
        let code = browser.copied(language, |text| !text.is_empty()).await;
        assert!(code.contains(secret) && code.contains(&proxy), "{code}");
        browser
            .until("the button says what it is for again", async || {
                browser.texts_of(".copyable button").await.contains(&copy)
            })
            .await;
        let Some([program, flag]) = interpreter else {
            continue;
        };
        let mut command = Command::new(program);
        command.arg(flag);
        if program == "node" {
            command.arg("-e");
        }
        command.arg(&code);
        let ended = tokio::task::spawn_blocking(|| run_command(command))
            .await
            .expect("it runs");
        assert!(
            ended.stdout.contains("answer to GET /"),
            "{language}: {ended:?}"
        );
    }
    browser.press(".env").await;
    browser.press("Copy the lines of the file").await;
    assert_eq!(browser.copied(".env", |text| !text.is_empty()).await, file);
}

async fn leaving_asks(browser: &Browser) {
    browser.key(Key::Escape).await;
    browser.sees("Have you saved the key?").await;
    browser.is_accessible("the question at the end").await;
    browser.press("Back to the key").await;
    browser.sees("Save the key now.").await;
    // Whoever insists is asked again: only an answer leads out.
    for _ in 0..4 {
        browser.key(Key::Escape).await;
        browser.sees("Have you saved the key?").await;
        browser.key(Key::Escape).await;
        browser.sees("Save the key now.").await;
    }
}

async fn nothing_has_the_secret(browser: &Browser, secret: &str) {
    let secret_part = &secret[secret.len() - 40..];
    let page = "return document.documentElement.outerHTML + location.href
        + JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage)])";
    for _ in 0..2 {
        let page = browser.run(page, &[]).await;
        assert!(!page.as_str().expect("a page").contains(secret_part));
        browser.back().await;
    }
    browser.forward().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_by_the_keyboard() {
    let world = World::start().await;
    let key = world.sidekey.create_key(json!({"name": "by hand"})).await;
    let browser = Browser::signed_in(&world.sidekey).await;
    browser.tab_to("Create API key").await;
    browser.key(Key::Enter).await;
    browser.sees("Create an API key").await;
    browser.key(Key::Escape).await;
    browser.sees_no_dialog().await;
    browser.is_focused("Create API key").await;
    browser.key(Key::Enter).await;
    browser.is_focused("Name").await;
    browser.keys("typed").await;
    browser.tab_to("Tenant").await;
    browser.keys("acme").await;
    browser.tab_to("orders:read").await;
    browser.key(Key::Space).await;
    browser.tab_to("Create the key").await;
    browser.key(Key::Enter).await;
    browser.sees("Save the key now.").await;
    let secret = browser.text_of("#new-key").await;
    browser.tab_to("Copy the key").await;
    browser.key(Key::Enter).await;
    assert_eq!(
        browser.copied("the key", |text| !text.is_empty()).await,
        secret
    );
    // Tabs are one stop, and arrows choose.
    browser.tab_to("curl").await;
    browser.key(Key::Right).await;
    browser.is_focused("Python").await;
    browser.wait_for("#example-python:not([hidden])").await;
    browser.tab_to("Done, I have saved it").await;
    browser.key(Key::Enter).await;
    browser.is_at(&format!("{KEYS_PAGE}/")).await;
    browser.sees("typed").await;

    browser.visit(&format!("{KEYS_PAGE}/{}", key.id)).await;
    // The first stop leads past the navigation.
    browser.key(Key::Tab).await;
    assert_eq!(browser.focused().await, "Skip to the content");
    browser.key(Key::Enter).await;
    browser.tab_to("Edit").await;
    browser.key(Key::Enter).await;
    browser.is_focused("Name").await;
    browser.key(Key::Escape).await;
    browser.sees_no_dialog().await;
    browser.is_focused("Edit").await;
    browser.tab_to("Revoke").await;
    browser.key(Key::Enter).await;
    browser.is_focused("Write the key").await;
    // The focus stays in the dialog.
    for _ in 0..8 {
        browser.key(Key::Tab).await;
        let script = "return document.activeElement === document.body
            || document.getElementById('dialog').contains(document.activeElement)";
        assert_eq!(browser.run(script, &[]).await, json!(true));
    }
    browser.tab_to("Write the key").await;
    browser.keys("by hand").await;
    browser.key(Key::Enter).await;
    browser.sees("The key is revoked, for good.").await;
    browser.hears("The key is revoked, for good.").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_pages_and_forms_do_the_same() {
    let world = World::start().await;
    let sidekey = &world.sidekey;
    let browser = Browser::open(sidekey).await;
    browser.scripts(false).await;
    browser.sign_in(&sidekey.admin_key()).await;
    browser.press("Create the first key").await;
    browser.is_at(&format!("{KEYS_PAGE}/new")).await;
    browser.type_into("Name", "plain").await;
    browser.press("Create the key").await;
    assert!(!browser.error_of("Tenant").await.is_empty());
    assert_eq!(browser.value_of("Name").await, "plain");
    browser.type_into("Tenant", "acme").await;
    browser.tick("orders:read").await;
    browser.press("Create the key").await;
    browser.sees("Save the key now.").await;
    let secret = browser.text_of("#new-key").await;
    for language in ["curl", "python", "javascript", "go"] {
        let code = browser.text_of(&format!("#example-{language}-code")).await;
        assert!(code.contains(&secret), "{code}");
    }
    browser.press("Done, I have saved it").await;
    browser.sees("Usage").await;
    assert_eq!(sidekey.status("/orders", &secret).await, 200);

    browser.press("Disable").await;
    browser.press("Disable the key").await;
    browser.sees("The key is disabled").await;
    assert_eq!(sidekey.status("/orders", &secret).await, 401);
    browser.press("Enable").await;
    browser.press("Enable the key").await;
    browser.sees("The key is enabled again.").await;
    assert_eq!(sidekey.status("/orders", &secret).await, 200);
    browser.press("Regenerate").await;
    browser.tick("1 hour").await;
    browser.press("Regenerate the key").await;
    browser.sees("The old secret works until").await;
    let newer = browser.text_of("#new-key").await;
    assert_ne!(newer, secret);
    browser.press("Done, I have saved it").await;
    for secret in [&secret, &newer] {
        assert_eq!(sidekey.status("/orders", secret).await, 200);
    }
    browser.press("Revoke").await;
    browser.type_into("Write the key", "something else").await;
    browser.press("Revoke the key, for good").await;
    assert!(!browser.error_of("Write the key").await.is_empty());
    browser.type_into("Write the key", "plain").await;
    browser.press("Revoke the key, for good").await;
    browser.sees("The key is revoked, for good.").await;
    assert_eq!(sidekey.status("/orders", &newer).await, 401);

    // The list filters, sorts and links as pages do.
    browser.visit(KEYS_PAGE).await;
    browser.type_into("Search", "plain").await;
    browser.press("Apply").await;
    browser.is_at("q=plain").await;
    let rows: Vec<Vec<String>> = browser.rows_of("table.keys").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    browser.press("Sign out").await;
    browser.sees("You are signed out.").await;
    let gone: Value = browser.run("return document.cookie", &[]).await;
    assert_eq!(gone, "");
    browser.close().await;
}
