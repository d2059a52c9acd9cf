//! In front of services that nobody here wrote, called by clients that nobody here wrote:
//! Prometheus (which also scrapes Sidekey) by curl, httpbin by curl and Python's requests.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::run::{Ended, run_command};
use crate::harness::service::{Service, tool};
use crate::harness::sidekey::{Sidekey, config};

/// Prometheus scrapes what `targets.json` names; that file may come later.
const SCRAPE: &str = r#"
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: sidekey
    file_sd_configs:
      - files: [targets.json]
        refresh_interval: 1s
"#;

/// Runs curl; its exit code must be 0.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--noproxy",
            "*",
        ])
        .args(arguments);
    let ended: Ended = run_command(command);
    assert_eq!(ended.code, Some(0), "curl {arguments:?}: {ended:?}");
    ended.stdout
}

/// The status that curl gets.
fn curl_status(arguments: &[&str]) -> String {
    let mut all = vec!["--output", "/dev/null", "--write-out", "%{http_code}"];
    all.extend(arguments);
    curl(&all)
}

async fn key(sidekey: &Sidekey) -> String {
    let wide = json!({"rate_limits": [{"name": "wide", "quota": 10_000, "window_seconds": 1}]});
    sidekey.create_key(wide).await.text
}

/// The value of the first sample of a query's answer.
fn first_sample(answer: &str) -> Option<Value> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    assert_eq!(answer["status"], "success", "{answer}");
    answer["data"]["result"].get(0).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_used_with_curl_and_scrapes_sidekey() {
    let directory = tempfile::tempdir().unwrap();
    let prometheus = Service::prometheus(directory.path(), SCRAPE);
    let sidekey = Sidekey::start(&config(prometheus.address, "")).await;
    let bearer = format!("Authorization: Bearer {}", key(&sidekey).await);
    let url = |path: &str| format!("http://{}{path}", sidekey.proxy);

    assert_eq!(curl_status(&[&url("/-/healthy")]), "401");
    let wrong = "Authorization: Bearer nonsense";
    assert_eq!(curl_status(&["-H", wrong, &url("/-/healthy")]), "401");
    assert_eq!(
        curl_status(&["--head", "-H", &bearer, &url("/-/healthy")]),
        "200"
    );
    eventually("Prometheus is healthy", async || {
        curl(&["-H", &bearer, &url("/-/healthy")]).contains("Healthy")
    })
    .await;
    scrape(directory.path(), &sidekey);
    let query = url("/api/v1/query");
    // A scrape that takes too long hides what the one before has found.
    let build = format!("{query}?query=last_over_time(sidekey_build_info%5B5m%5D)");
    eventually("Prometheus knows Sidekey's build", async || {
        first_sample(&curl(&["-H", &bearer, &build])).is_some()
    })
    .await;
    let sample = first_sample(&curl(&["-H", &bearer, &build])).unwrap();
    assert_eq!(sample["metric"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(sample["value"][1], "1");

    // By GET and by a POST form; without a key neither.
    let by_get = format!("{query}?query=max_over_time(up%7Bjob%3D%22sidekey%22%7D%5B5m%5D)");
    let once_up = "query=max_over_time(up{job=\"sidekey\"}[5m])";
    let form = ["--data-urlencode", once_up, &query];
    let by_post = [&["-H", bearer.as_str()][..], &form].concat();
    for answer in [curl(&["-H", &bearer, &by_get]), curl(&by_post)] {
        assert_eq!(first_sample(&answer).unwrap()["value"][1], "1", "{answer}");
    }
    assert_eq!(curl_status(&[&by_get]), "401");
    assert_eq!(curl_status(&form), "401");
    // The service's own errors come through as they are.
    let bad = curl(&["-H", &bearer, &format!("{query}?query=%7B")]);
    assert!(bad.contains("bad_data"), "{bad}");
    // Prometheus's own page, larger and compressed.
    let page = ["--compressed", "-H", &bearer, "-L", &url("/graph")];
    assert!(curl(&page).contains("</html>"));
}

fn scrape(directory: &Path, sidekey: &Sidekey) {
    let targets = json!([{"targets": [sidekey.admin.to_string()]}]).to_string();
    // Renamed into place: a reader never sees half of it.
    let new = directory.join("targets.new");
    std::fs::write(&new, targets).unwrap();
    std::fs::rename(new, directory.join("targets.json")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn httpbin_is_used_with_curl() {
    let httpbin = Service::httpbin();
    let sidekey = Sidekey::start(&config(httpbin.address, "")).await;
    let key = key(&sidekey).await;
    let bearer = format!("Authorization: Bearer {key}");
    let url = |path: &str| format!("http://{}{path}", sidekey.proxy);
    let get = |path: &str| curl(&["-H", &bearer, &url(path)]);

    assert_eq!(curl_status(&[&url("/get")]), "401");
    let seen: Value = serde_json::from_str(&get("/get?a=1&b=%20x")).unwrap();
    assert_eq!(seen["args"], json!({"a": "1", "b": " x"}));
    assert!(seen["headers"].get("Authorization").is_none(), "{seen}");
    let as_header = curl(&["-H", &format!("X-API-Key: {key}"), &url("/headers")]);
    assert!(!as_header.contains(&key), "{as_header}");
    assert_eq!(
        curl_status(&["-L", "-H", &bearer, &url("/redirect/3")]),
        "200"
    );
    assert_eq!(curl_status(&["-H", &bearer, &url("/status/418")]), "418");
    assert_eq!(get("/stream/20").lines().count(), 20);
    let zipped = curl(&["--compressed", "-H", &bearer, &url("/gzip")]);
    assert!(zipped.contains("\"gzipped\": true"), "{zipped}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("upload.txt");
    let content = "0123456789".repeat(300_000);
    std::fs::write(&file, &content).unwrap();
    // curl waits for 100 Continue before it sends a body of this size.
    let upload = [
        "-H",
        bearer.as_str(),
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "20",
        "--form",
        &format!("file=@{}", file.display()),
        &url("/post"),
    ];
    let answer: Value = serde_json::from_str(&curl(&upload)).unwrap();
    assert!(
        answer["files"]["file"] == content.as_str(),
        "the upload arrives whole"
    );
    // The same refused: no body is sent, and the answer says why.
    assert_eq!(curl_status(&upload[2..]), "401");
    // Two requests over one connection: the second needs no new one.
    let twice = [
        "-H",
        &bearer,
        &url("/get"),
        &url("/get"),
        "--write-out",
        "new=%{num_connects};",
    ];
    let twice = curl(&twice);
    assert!(
        twice.contains("new=1;") && twice.contains("new=0;"),
        "{twice}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn httpbin_is_used_with_a_python_client() {
    let httpbin = Service::httpbin();
    let sidekey = Sidekey::start(&config(httpbin.address, "")).await;
    let slow =
        json!({"rate_limits": [{"name": "slow", "quota": 1, "window_seconds": 1, "burst": 2}]});
    let slow = sidekey.create_key(slow).await.text;
    let mut command = Command::new(tool("python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client.py"))
        .arg(format!("http://{}", sidekey.proxy))
        .args([&key(&sidekey).await, &slow])
        .env("NO_PROXY", "*");
    let ended = run_command(command);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stdout.matches(" well\n").count(), 10, "{ended:?}");
}
