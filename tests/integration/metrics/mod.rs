//! What /metrics says of the program and of what it depends on: every metric is told in docs/metrics.md,
//! the text has nothing that Prometheus' own tool objects to, and each number moves when it should.

mod census;
mod certificates;
mod document;
mod outages;
mod stack;

use crate::harness::run::run_command;

use stack::Stack;

/// The text as Prometheus' own tool sees it: names, types, units, help.
#[tokio::test(flavor = "multi_thread")]
async fn the_text_is_as_prometheus_wants_it() {
    let stack = Stack::start().await;
    let key = stack.sidekey.create_key(serde_json::json!({})).await;
    assert_eq!(stack.sidekey.status("/", &key.text).await, 200);
    let text = stack.sidekey.metrics().await;
    let file = stack.sidekey.directory().join("metrics.txt");
    std::fs::write(&file, &text).unwrap();
    let mut check = std::process::Command::new("sh");
    check
        .args(["-c", "promtool check metrics < metrics.txt"])
        .current_dir(stack.sidekey.directory());
    let ended = run_command(check);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
    // What is declared is there, but for what has no series yet.
    for declaration in sidekey::telemetry::metrics::DECLARATIONS {
        let help = format!("# HELP {} {}\n", declaration.name, declaration.help);
        let may_be_missing = !declaration.labels.is_empty();
        assert!(text.contains(&help) || may_be_missing, "{help}");
    }
    // What the document says of the process itself is what is there, and all of it.
    let document = document::text();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE process_") {
            let name = rest.split(' ').next().unwrap_or_default();
            assert!(document.contains(&format!("`process_{name}`")), "{name}");
        }
    }
    let told = document.matches("`process_").count();
    assert_eq!(text.matches("# TYPE process_").count(), told);
}
