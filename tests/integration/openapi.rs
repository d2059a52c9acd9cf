//! The OpenAPI document as it is served, the page on which it is read, and the API held against it by
//! schemathesis, which makes requests from the document, right and wrong ones.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::api::Reply;
use crate::harness::calls;
use crate::harness::run::run_command_within;
use crate::harness::service::tool;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

const DOCUMENT: &str = "/api/v1/openapi.json";
const PAGE: &str = "/api/v1/docs/";
/// How long schemathesis may take on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(600);
/// The tenant of the bootstrap key.
const OWN_TENANT: &str = "sidekey";
/// So many requests it makes, at least.
const CASES_MIN: u32 = 300;

async fn start() -> Sidekey {
    Sidekey::start(&config(nobody(), "")).await
}

async fn get(sidekey: &Sidekey, path: &str) -> Reply {
    sidekey.ask_as(None, Method::GET, path, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_without_a_key() {
    let sidekey = start().await;
    let reply = get(&sidekey, DOCUMENT).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let api = reply.json();
    assert_eq!(api["openapi"], "3.1.0");
    // What it says of methods is what the router does.
    for (path, item) in api["paths"].as_object().unwrap() {
        let path = path.replace("{key_id}", calls::NO_KEY);
        let options = sidekey.ask_as(None, Method::OPTIONS, &path, None).await;
        let allow = options.header("allow").expect("Allow").to_lowercase();
        let mut allow: Vec<&str> = allow
            .split(',')
            .filter(|method| *method != "head")
            .collect();
        allow.sort_unstable();
        let mut documented: Vec<&str> = item.as_object().unwrap().keys().map(|m| &**m).collect();
        documented.sort_unstable();
        assert_eq!(allow, documented, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_other_host() {
    let sidekey = start().await;
    let short = get(&sidekey, PAGE.trim_end_matches('/')).await;
    assert_eq!((short.status, short.header("location")), (308, Some(PAGE)));
    let page = get(&sidekey, PAGE).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html"))
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with(
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    ));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let settings = get(&sidekey, &format!("{PAGE}swagger-initializer.js")).await;
    assert!(settings.text.contains(DOCUMENT), "{}", settings.text);
    assert!(
        settings.text.contains("\"validatorUrl\": \"none\""),
        "{}",
        settings.text
    );
    for text in [&page.text, &settings.text] {
        assert!(!text.contains("//\"") && !text.contains("://"), "{text}");
    }
    // No script stands in the page itself: the policy lets none run.
    let scripts = page.text.matches("<script").count();
    assert!(scripts >= 3 && scripts == page.text.matches("<script src=\"./").count());
    let names = page.text.split("=\"").skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('"')?;
        (name.ends_with(".js") || name.ends_with(".css") || name.ends_with(".png")).then_some(name)
    });
    for name in names {
        let path = format!("{PAGE}{}", name.trim_start_matches("./"));
        let file = get(&sidekey, &path).await;
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("content-security-policy").is_some(), "{path}");
    }
    for path in ["nothing.js", "../../../etc/passwd", "..%2f..%2fCargo.toml"] {
        assert_eq!(
            get(&sidekey, &format!("{PAGE}{path}")).await.status,
            404,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let sidekey = start().await;
    let own = sidekey.admin_key();
    let own_id = own.split('_').nth(2).expect("an id").to_owned();
    let operations = calls::documented(&sidekey).await.len();
    let (mut ids, tenants) = (Vec::new(), ["acme", "globex"]);
    for number in 0..6 {
        let fields = json!({"tenant_id": tenants[number % 2]});
        ids.push(sidekey.create_key(fields).await.id);
    }
    let directory = tempfile::tempdir().unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis");
    let mut command = Command::new(tool("st"));
    command
        .current_dir(directory.path())
        .arg("--config-file")
        .arg(files.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}{DOCUMENT}", sidekey.admin))
        .args([
            "--header",
            &format!("Authorization: Bearer {own}"),
            "--no-color",
        ])
        .env("PYTHONPATH", files)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("OWN_KEYS", own_id)
        .env("KEYS", ids.join(" "))
        .env("OWN_TENANTS", OWN_TENANT)
        .env("TENANTS", tenants.join(" "))
        .env("NO_PROXY", "*");
    let run = tokio::task::spawn_blocking(move || run_command_within(command, RUN_MAX));
    let ended = run.await.unwrap();
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    // None is left out but the document itself, which it has read.
    let tested = format!("Tested: {}\n", operations - 1);
    assert!(ended.stdout.contains(&tested), "{}", ended.stdout);
    let cases = ended.stdout.split("Test cases:").nth(1).expect("a summary");
    let cases: u32 = cases.split_whitespace().next().unwrap().parse().unwrap();
    assert!(cases >= CASES_MIN, "{}", ended.stdout);
    // Its own key lived to the end, so what it found out is worth something.
    assert_eq!(sidekey.ask(Method::GET, KEYS, None).await.status, 200);
    assert!(
        !sidekey.output().contains("panicked"),
        "{}",
        sidekey.output()
    );
}
