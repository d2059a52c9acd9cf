//! The shipped configuration for several instances, on servers that are set up as the operations guide
//! says: its own commands are run.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use crate::harness::eventually;
use crate::harness::openbao::OpenBao;
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::run::{Ended, run, run_command};
use crate::harness::sidekey::{KEYS, Sidekey};
use crate::harness::upstream::Upstream;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the guide and the configuration keep Vault's secret id.
const SECRET_ID_FILE: &str = "/run/secrets/sidekey-vault-secret-id";

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The first block of the guide in `language` that mentions `word`.
fn block(language: &str, word: &str) -> String {
    let guide = document("docs/operations.md");
    let start = format!("```{language}\n");
    let mut blocks = guide.split(&start).skip(1);
    let found = blocks.find_map(|rest| {
        let block = rest.split("```").next()?;
        block.contains(word).then(|| block.to_owned())
    });
    found.unwrap_or_else(|| panic!("the guide has no {language} block with {word}"))
}

fn succeed(command: Command) -> Ended {
    let ended = run_command(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_steps_and_the_shipped_file_make_two_instances_that_act_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let acl = Path::new(ROOT).join("config/redis-users.conf");
    // Nothing has to outlive it, so it need not wait for a busy disk.
    let acl = ["--include", acl.to_str().unwrap(), "--appendonly", "no"];
    let (upstream, postgres, bao, redis) = tokio::join!(
        Upstream::start(),
        Postgres::start(),
        OpenBao::start(),
        Redis::start_with(Path::new("redis-server"), &acl)
    );

    // The guide's own commands.
    let sql = block("sql", "CREATE USER").replace("'...'", "'secret'");
    for statement in sql.split_inclusive(';').filter(|part| part.contains(';')) {
        let mut psql = Command::new("psql");
        psql.args([
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &postgres.url(),
            "-c",
            statement,
        ]);
        succeed(psql);
    }
    let secret_id = file("secret-id");
    let commands = block("sh", "bao policy write").replace(SECRET_ID_FILE, &secret_id);
    let mut shell = Command::new("bash");
    shell
        .args(["-e", "-c", &commands])
        .current_dir(ROOT)
        .envs(bao.client_environment());
    succeed(shell);

    let database = postgres.url().replace("postgres@", "sidekey:secret@");
    let database = database.replace("/postgres", "/sidekey");
    std::fs::write(file("database-url"), database).unwrap();
    let redis_url = format!(
        "redis://sidekey:change-this-password@127.0.0.1:{}",
        redis.port
    );
    std::fs::write(file("redis-url"), redis_url).unwrap();
    let (database, redis_url) = (file("database-url"), file("redis-url"));
    let smtp_password = file("smtp-password");
    std::fs::write(&smtp_password, "not used here").unwrap();
    let servers = format!("[\"{}\"]", upstream.address);
    let address = bao.url();
    let environment = [
        ("SIDEKEY__UPSTREAMS__0__SERVERS", servers.as_str()),
        ("SIDEKEY__STORE__URL_FILE", &database),
        ("SIDEKEY__REDIS__URL_FILE", &redis_url),
        ("SIDEKEY__SECRETS__VAULT__ADDRESS", &address),
        ("SIDEKEY__SECRETS__VAULT__SECRET_ID_FILE", &secret_id),
        ("SIDEKEY__SMTP__PASSWORD_FILE", &smtp_password),
        ("SIDEKEY__ADMIN__BOOTSTRAP_KEY_FILE", "data/admin.key"),
        // All of them share a busy machine.
        ("SIDEKEY__STORE__PROPAGATION_WAIT_MS", "10000"),
        ("SIDEKEY__REDIS__TIMEOUT_MS", "10000"),
        ("SIDEKEY__SECRETS__VAULT__TIMEOUT_MS", "5000"),
    ];
    let config = document("config/production.toml");
    let first = Sidekey::start_with(&config, &environment).await;
    let second = Sidekey::start_with(&config, &environment).await;

    let limits = json!([{"name": "p", "quota": 2, "window_seconds": 3600}]);
    let key = first.create_key(json!({"rate_limits": limits})).await;
    assert_eq!(first.status("/", &key.text).await, 200);
    assert_eq!(second.status("/", &key.text).await, 200);
    assert_eq!(
        first.status("/", &key.text).await,
        429,
        "one limit for both"
    );
    let revoked = first.admin(Method::DELETE, &format!("{KEYS}/{}", key.id));
    let revoked = revoked.send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    let told = revoked.headers()["sidekey-propagation"].to_str().unwrap();
    assert!(told.starts_with("instances=2, confirmed=2"), "{told}");
    assert_eq!(second.status("/", &key.text).await, 401);

    let arguments = ["check", "--stores", "--config", "sidekey.toml"];
    let checked = run(first.directory(), &arguments, &environment);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    eventually("everything answers", || async {
        let ready = first.ask_as(None, Method::GET, "/readyz", None).await;
        ready.status == 200 && first.metric("sidekey_redis_up").await == 1.0
    })
    .await;
}

/// What is easily forgotten, because everything seems to work without it.
#[test]
fn the_shipped_file_says_what_several_instances_need() {
    let config: toml::Table = document("config/production.toml").parse().unwrap();
    let text = |section: &str, field: &str| config[section][field].as_str().unwrap_or_default();
    assert!(text("dashboard", "url").starts_with("https://"));
    assert!(!text("smtp", "host").is_empty() && !text("smtp", "from").is_empty());
    let notice = config["proxy"]["shutdown_notice_seconds"].as_integer();
    assert!(notice.is_some_and(|seconds| seconds > 0), "{notice:?}");
    let instances = config["limits"]["instances"].as_integer();
    assert!(instances.is_some_and(|count| count > 1), "{instances:?}");
    let named = config["store"].get("instance_name");
    assert_eq!(named, None, "one file is for all of them");
    for route in config["routes"].as_array().unwrap() {
        let methods = route["methods"].as_array().unwrap();
        let has = |method: &str| methods.iter().any(|one| one.as_str() == Some(method));
        assert_eq!(has("GET"), has("HEAD"), "{route}");
    }
}
