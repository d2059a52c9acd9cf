//! W3C Trace Context, and the spans that a collector gets: ids fit together on both sides of
//! Sidekey, and a collector that is away costs nobody anything.

use reqwest::Method;
use serde_json::json;
use sidekey::telemetry::trace_context::TraceContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::contract::log_line;
use crate::harness::certificates::make_certificates;
use crate::harness::collector::Collector;
use crate::harness::eventually;
use crate::harness::raw::{Answer, Raw, get, request};
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::upstream::{Scripted, Upstream, nobody};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// How often spans may be late at the end of the program.
const RUNS_MAX: usize = 3;

/// What a client says that records its trace.
fn traceparent() -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-01")
}

async fn send(sidekey: &Sidekey, text: String) -> (Answer, String) {
    let mut raw = Raw::connect(sidekey.proxy).await;
    raw.send(text).await;
    let answer = raw.read_answer().await;
    let id = answer.header("x-request-id").expect("an id").to_owned();
    (answer, id)
}

/// Routes that ask for no key, besides that of `config`.
const OPEN: &str =
    "[[routes]]\nname = \"open\"\npath = \"/open\"\nupstream = \"service\"\nauth = \"off\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_and_one_begins_where_there_is_none() {
    let upstream = Upstream::start().await;
    let more = format!("{OPEN}[log]\naccess = \"all\"\n");
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let state = "tracestate: a=1,b=2";
    let sound = traceparent();
    for (lines, goes_on) in [
        (vec![&sound[..], state], true),
        (vec![&sound], true),
        (vec![], false),
        (vec![state], false),
        (vec!["traceparent: 00-nonsense-01", state], false),
        (vec![&sound, &sound, state], false),
    ] {
        let (answer, id) = send(&sidekey, get("/open", &lines)).await;
        assert_eq!(answer.status, 200);
        let seen = upstream.last();
        let fields: Vec<_> = seen.headers.get_all("traceparent").iter().collect();
        assert_eq!(fields.len(), 1, "{lines:?}");
        let told = TraceContext::parse(fields[0].as_bytes()).expect("a sound field");
        let trace = told.trace_id.to_string();
        if goes_on {
            assert_eq!(
                format!("traceparent: {}", fields[0].to_str().unwrap()),
                sound
            );
        } else {
            assert_ne!(trace, TRACE);
            // Nothing is recorded here: that keeps no service from it.
            assert!(told.sampled);
        }
        let has_state = seen.header("tracestate").is_some();
        assert_eq!(has_state, goes_on && lines.contains(&state), "{lines:?}");
        assert_eq!(log_line(&sidekey, &id).await["trace_id"], trace);
    }
    // What is refused has a trace for the log.
    let (answer, id) = send(&sidekey, get("/", &[&sound])).await;
    assert_eq!(answer.status, 401);
    assert_eq!(log_line(&sidekey, &id).await["trace_id"], TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_fit_together_on_both_sides() {
    let upstream = Upstream::start().await;
    let collector = Collector::start().await;
    let more = format!("{}service_name = \"gate\"\n", collector.configuration());
    let token = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc");
    let sidekey = Sidekey::start_with(&config(upstream.address, &more), &[token]).await;
    let key = sidekey.create_key(json!({})).await;
    let bearer = format!("Authorization: Bearer {}", key.text);
    let lines = [
        &bearer,
        &traceparent(),
        "tracestate: a=1",
        "X-Answer-Status: 404",
    ];
    let (_, id) = send(&sidekey, request("POST", "/orders/7?a=b", &lines, "x")).await;
    let spans = collector.spans_of(&id, 2).await;
    let (server, client) = (&spans[0], &spans[1]);
    assert_eq!(server.trace_id(), TRACE);
    assert_eq!(server.parent_id(), PARENT);
    assert_eq!(client.trace_id(), TRACE);
    assert_eq!(client.parent_id(), server.span_id());
    let seen = upstream.last();
    let told = format!("00-{TRACE}-{}-01", client.span_id());
    assert_eq!(seen.header("traceparent"), Some(&told[..]));
    assert_eq!(seen.header("tracestate"), Some("a=1"));
    // OpenTelemetry's numbers for "server" and "client".
    assert_eq!((server.span.kind, client.span.kind), (2, 3));
    assert_eq!(server.span.name, "POST all");
    assert_eq!(client.span.name, "POST");
    for (name, expected) in [
        ("http.request.method", "POST"),
        ("http.route", "all"),
        ("url.path", "/orders/7"),
        ("client.address", "127.0.0.1"),
        ("sidekey.outcome", "forwarded"),
        ("sidekey.key_id", &key.id),
        ("sidekey.tenant_id", "acme"),
    ] {
        assert_eq!(server.text(name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(server.number("http.response.status_code"), Some(404));
    assert_eq!(client.number("http.response.status_code"), Some(404));
    assert_eq!(client.text("server.address").as_deref(), Some("127.0.0.1"));
    let port = i64::from(upstream.address.port());
    assert_eq!(client.number("server.port"), Some(port));
    // A service that finds nothing is no failure of the server, but one for who asked it.
    let failed = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
        span.status.as_ref().is_some_and(|status| status.code == 2)
    };
    assert!(!failed(&server.span) && failed(&client.span));
    // The status code says it; words would be beside it.
    assert_eq!(client.text("error.type").as_deref(), Some("404"));
    let standing = client.span.status.as_ref().expect("a status");
    assert_eq!(standing.message, "");
    let (a, b) = (&server.span, &client.span);
    assert!(a.start_time_unix_nano <= b.start_time_unix_nano);
    assert!(b.start_time_unix_nano <= b.end_time_unix_nano);
    assert!(b.end_time_unix_nano <= a.end_time_unix_nano);
    assert_eq!(server.resource("service.name").as_deref(), Some("gate"));
    assert!(server.resource("service.instance.id").is_some());
    assert_eq!(
        collector.header("authorization").as_deref(),
        Some("Bearer abc")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_failures_and_second_attempts_have_spans() {
    let upstream = Upstream::start().await;
    let collector = Collector::start().await;
    let gone = nobody();
    let more = format!(
        r#"
[[upstreams]]
name = "gone"
servers = ["{gone}"]
[[routes]]
name = "gone"
path = "/gone"
upstream = "gone"
auth = "off"
[[upstreams]]
name = "half"
servers = ["{gone}", "{}"]
[[routes]]
name = "half"
path = "/half"
upstream = "half"
auth = "off"
{}"#,
        upstream.address,
        collector.configuration()
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let (_, id) = send(&sidekey, get("/", &[])).await;
    let refused = collector.spans_of(&id, 1).await.remove(0);
    assert_eq!(
        refused.text("sidekey.outcome").as_deref(),
        Some("no_credential")
    );
    assert_eq!(refused.number("http.response.status_code"), Some(401));
    assert_eq!(refused.parent_id(), "");
    assert_eq!(refused.text("http.route").as_deref(), Some("all"));
    let (_, id) = send(&sidekey, get("/a//b", &[])).await;
    let lost = collector.spans_of(&id, 1).await.remove(0);
    assert_eq!(lost.text("http.route"), None);
    assert_eq!(lost.span.name, "GET");
    assert_eq!(refused.text("error.type"), None);

    let (_, id) = send(&sidekey, get("/gone", &[])).await;
    let spans = collector.spans_of(&id, 2).await;
    for (span, status) in [(&spans[0], Some(502)), (&spans[1], None)] {
        assert_eq!(span.text("error.type").as_deref(), Some("upstream_failed"));
        assert_eq!(span.number("http.response.status_code"), status);
        assert_eq!(span.span.status.as_ref().map(|status| status.code), Some(2));
    }

    let (answer, id) = send(&sidekey, get("/half", &[])).await;
    assert_eq!(answer.status, 200);
    let spans = collector.spans_of(&id, 2).await;
    assert_eq!(spans[1].number("http.request.resend_count"), Some(1));
    let port = i64::from(upstream.address.port());
    assert_eq!(spans[1].number("server.port"), Some(port));
    let told = format!("00-{}-{}-01", spans[0].trace_id(), spans[1].span_id());
    assert_eq!(upstream.last().header("traceparent"), Some(&told[..]));
}

/// The client is told 502, and the span of the call what the service said.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_nobody_asked_for_is_told_as_it_came() {
    let service = Scripted::start().await;
    let collector = Collector::start().await;
    let more = format!("{OPEN}{}", collector.configuration());
    let sidekey = Sidekey::start(&config(service.address, &more)).await;
    let serving = tokio::spawn(async move {
        let mut stream = service.accept().await;
        let _ = stream.read(&mut [0; 4096]).await.expect("a request");
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        stream.write_all(answer).await.expect("written");
        stream
    });
    let (answer, id) = send(&sidekey, get("/open", &[])).await;
    assert_eq!(answer.status, 502);
    let spans = collector.spans_of(&id, 2).await;
    let status = |at: usize| spans[at].number("http.response.status_code");
    assert_eq!((status(0), status(1)), (Some(502), Some(101)));
    for span in &spans {
        assert_eq!(span.text("error.type").as_deref(), Some("upstream_failed"));
    }
    drop(serving.await);
}

/// Whose trace is not recorded at its beginning has no spans here, and clients may not decide that
/// where they are not followed.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_sampled_is_recorded() {
    let upstream = Upstream::start().await;
    let collector = Collector::start().await;
    let not_recorded = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    for (setting, line, is_recorded) in [
        ("sample_ratio = 1.0", &not_recorded, false),
        ("sample_ratio = 0", &traceparent(), true),
        (
            "sample_ratio = 0\nfollow_parent = false",
            &traceparent(),
            false,
        ),
        (
            "sample_ratio = 1\nfollow_parent = false",
            &not_recorded,
            true,
        ),
    ] {
        let tracing = collector.configuration();
        let tracing = tracing.replace("sample_ratio = 1.0", setting);
        let mut found = false;
        for _ in 0..RUNS_MAX {
            let mut sidekey =
                Sidekey::start(&config(upstream.address, &format!("{OPEN}{tracing}"))).await;
            let (_, id) = send(&sidekey, get("/open", &[line])).await;
            // What waits is sent at the end, for which it has two seconds.
            sidekey.signal("TERM");
            assert!(sidekey.wait().success());
            let spans = collector.spans();
            found = spans
                .iter()
                .any(|seen| seen.text("sidekey.request_id").as_deref() == Some(&id));
            if found || !is_recorded {
                break;
            }
        }
        assert_eq!(found, is_recorded, "{setting}");
    }
}

/// One that refuses connections, and one that takes them and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let upstream = Upstream::start().await;
    let silent = Scripted::start().await;
    for (address, why) in [
        (nobody(), "Connection refused"),
        (silent.address, "operation timed out"),
    ] {
        let more = format!(
            "{OPEN}[tracing]\notlp_endpoint = \"http://{address}\"\nsample_ratio = 1\ntimeout_ms = 200\n"
        );
        let mut sidekey = Sidekey::start(&config(upstream.address, &more)).await;
        let failures = "sidekey_trace_export_failures_total";
        let dropped = "sidekey_trace_spans_dropped_total";
        assert_eq!(sidekey.metric(failures).await, 0.0);
        eventually("two batches are lost", || async {
            for _ in 0..10 {
                let answer = sidekey.request(Method::GET, "/open").send().await;
                assert_eq!(answer.expect("an answer").status(), 200);
            }
            sidekey.metric(failures).await >= 2.0
        })
        .await;
        eventually("their spans are counted", || async {
            sidekey.metric(dropped).await >= 4.0
        })
        .await;
        let told = || {
            let output = sidekey.output();
            output.matches("the collector takes no spans").count()
        };
        eventually("the log tells", || async { told() > 0 }).await;
        assert_eq!(told(), 1, "once, and not for each batch");
        let output = sidekey.output();
        let mut lines = output.lines();
        let line = lines.find(|line| line.contains("the collector takes no spans"));
        assert!(
            line.is_some_and(|line| line.contains(why)),
            "and why: {line:?}"
        );
        sidekey.signal("TERM");
        assert!(sidekey.wait().success());
    }
}

/// Something answers there, but wants another credential.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_told_with_its_status() {
    let upstream = Upstream::start().await;
    let refusing = Sidekey::start(&config(upstream.address, "")).await;
    let more = format!(
        "{OPEN}[tracing]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1\ntimeout_ms = 60000\n",
        refusing.proxy
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    send(&sidekey, get("/open", &[])).await;
    eventually("the log says why", || async {
        sidekey.output().contains("status code: 401")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_checked() {
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let collector = Collector::start_tls(directory.path()).await;
    let port = collector.address.port();
    let more = format!(
        "{OPEN}[tracing]\notlp_endpoint = \"https://localhost:{port}\"\nsample_ratio = 1\ntimeout_ms = 60000\n"
    );
    let config = config(upstream.address, &more);
    let strict = Sidekey::start(&config).await;
    send(&strict, get("/open", &[])).await;
    eventually("the log says why", || async {
        strict.output().contains("UnknownIssuer")
    })
    .await;
    assert_eq!(collector.spans().len(), 0);
    let authority = directory.path().join("ca.pem");
    let trusting = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let trusting = Sidekey::start_with(&config, &trusting).await;
    let (_, id) = send(&trusting, get("/open", &[])).await;
    collector.spans_of(&id, 2).await;
}

/// The limit of a batch may be longer than whoever stops the program waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_keeps_no_stop_waiting() {
    let upstream = Upstream::start().await;
    let silent = Scripted::start().await;
    let more = format!(
        "{OPEN}[tracing]\notlp_endpoint = \"http://{}\"\nsample_ratio = 1\ntimeout_ms = 60000\n",
        silent.address
    );
    let mut sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let (answer, _) = send(&sidekey, get("/open", &[])).await;
    assert_eq!(answer.status, 200);
    let _batch = silent.accept().await;
    sidekey.signal("TERM");
    assert!(sidekey.wait().success());
    eventually("the log tells", || async {
        let told = "spans that waited for the collector are lost";
        sidekey.output().contains(told)
    })
    .await;
}
