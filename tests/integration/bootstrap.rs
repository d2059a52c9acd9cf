//! The first admin key: written once, to a file that only its owner can read, and nowhere else.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::harness::api::forget_uses;
use crate::harness::run::run;
use crate::harness::sidekey::{KEYS, Sidekey, config};
use crate::harness::upstream::nobody;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o777
}

/// The admin keys, but for when they were used: that is stored now and then.
async fn admin_keys(sidekey: &Sidekey, key: &str) -> Vec<serde_json::Value> {
    let list = sidekey.ask_as(Some(key), Method::GET, KEYS, None).await;
    assert_eq!(list.status, 200, "{list:?}");
    let mut body = list.json();
    forget_uses(&mut body);
    let keys = body["data"].as_array().unwrap();
    keys.iter()
        .filter(|key| key["scopes"] == json!(["sidekey:admin"]))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_key_is_written_once_and_for_its_owner_only() {
    let sidekey = Sidekey::start(&config(nobody(), "[log]\nlevel = \"debug\"")).await;
    let file = sidekey.directory().join("data/admin.key");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&sidekey.directory().join("data/sidekey.db")), 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let key = text.strip_suffix('\n').expect("one line");
    assert!(!key.contains(char::is_whitespace), "one line");
    assert!(key.starts_with("sk_live_"), "the form of a key");
    let before = admin_keys(&sidekey, key).await;
    assert_eq!(before.len(), 1, "{before:?}");
    let secret = &key[key.len() - 54..];
    assert!(!sidekey.output().contains(secret));

    // A second start makes no second one, also where the file is gone.
    let sidekey = sidekey.restart().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(admin_keys(&sidekey, key).await, before);
    std::fs::remove_file(&file).unwrap();
    let sidekey = sidekey.restart().await;
    assert!(!file.exists());
    assert_eq!(admin_keys(&sidekey, key).await, before);
    assert!(!sidekey.output().contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_is_replaced_by_one_that_only_its_owner_reads() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("first.key");
    std::fs::write(&file, "left over").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let more = format!("[admin]\nbootstrap_key_file = \"{}\"", file.display());
    let sidekey = Sidekey::start(&config(nobody(), &more)).await;
    assert_eq!(mode(&file), 0o600);
    let key = std::fs::read_to_string(&file).unwrap();
    assert_eq!(admin_keys(&sidekey, key.trim()).await.len(), 1);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_place_for_the_key_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // A file where a directory would have to be stops root as well.
    std::fs::write(path.join("occupied"), "").unwrap();
    std::fs::write(path.join("sidekey.toml"), config(nobody(), "")).unwrap();
    let mut environment = vec![
        ("SIDEKEY__PROXY__LISTEN", "127.0.0.1:0"),
        ("SIDEKEY__ADMIN__LISTEN", "127.0.0.1:0"),
        ("SIDEKEY__BCRYPT__COST", "4"),
        ("SIDEKEY__ADMIN__BOOTSTRAP_KEY_FILE", "occupied/admin.key"),
    ];
    let arguments = ["serve", "--config", "sidekey.toml"];
    // Twice: the first try must not leave a store behind that nobody can enter.
    for _ in 0..2 {
        let ended = run(path, &arguments, &environment);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(ended.stdout, "", "never ready");
        let sentences: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.starts_with("sidekey: "))
            .collect();
        assert_eq!(sentences.len(), 1, "{ended:?}");
        for part in ["occupied/admin.key", "admin.bootstrap_key_file"] {
            assert!(sentences[0].contains(part), "{ended:?}");
        }
    }
    environment.pop();
    environment.push(("SIDEKEY__STORE__URL", "sqlite://occupied/sidekey.db"));
    let ended = run(path, &arguments, &environment);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("occupied/sidekey.db"), "{ended:?}");
}
