//! The program as a whole: a mail with a link that leads to the key's page, what the API and the metrics tell
//! of it, and what programs that use a key are told.

use reqwest::Method;
use serde_json::json;
use sqlx::AnyPool;

use crate::harness::eventually;
use crate::harness::run::run;
use crate::harness::sidekey::{Sidekey, config};
use crate::harness::smtp::{PASSWORD, Smtp};
use crate::harness::upstream::{Upstream, nobody};

const FIELD: &str = "sidekey-rotation-due-in-days";

/// Makes the secret of a key so many days older. Whoever has the key in memory is told by the change that
/// follows.
pub async fn age(sidekey: &Sidekey, id: &str, days: i64) {
    sqlx::any::install_default_drivers();
    let file = sidekey.directory().join("data/sidekey.db");
    let pool = AnyPool::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE api_keys SET secret_created_at = secret_created_at - $1 WHERE id = $2")
        .bind(days * 86_400_000)
        .bind(id.to_owned())
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    sidekey
        .change_key(id, json!({"metadata": {"aged": days}}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_a_key_is_reminded_of_it() {
    let (upstream, smtp) = (Upstream::start().await, Smtp::start("starttls"));
    let more = format!(
        "[dashboard]\nurl = \"https://keys.example.com\"\n[reminders]\ninterval_seconds = 1\n{}",
        smtp.config()
    );
    let sidekey = Sidekey::start(&config(upstream.address, &more)).await;
    let key = sidekey
        .create_key(json!({"name": "Orders", "contact_email": "ops@acme.example"}))
        .await;
    let young = sidekey
        .create_key(json!({"contact_email": "young@acme.example"}))
        .await;
    let pasted = sidekey
        .create_key(json!({"name": format!("copy of {}", key.text), "contact_email": "bounce@acme.example"}))
        .await;
    age(&sidekey, &key.id, 80).await;
    age(&sidekey, &pasted.id, 97).await;
    let series = |result: &str| format!("sidekey_reminders_total{{result=\"{result}\"}}");
    for result in ["sent", "given_up"] {
        eventually(&format!("one mail is {result}"), || async {
            sidekey.metric(&series(result)).await == 1.0
        })
        .await;
    }
    let mail = &smtp.mails()[0];
    assert_eq!(mail.to, ["ops@acme.example"]);
    assert!(
        mail.header("Subject").ends_with("within 10 days"),
        "{mail:?}"
    );
    let page = format!("/dashboard/settings/developers/api-keys/{}", key.id);
    assert!(
        mail.text
            .contains(&format!("https://keys.example.com{page}")),
        "{mail:?}"
    );
    let answer = sidekey
        .client
        .get(format!("http://{}{page}", sidekey.admin))
        .send()
        .await
        .unwrap();
    // There is such a page: who is not signed in is led to the form.
    assert_eq!(answer.status(), 303);
    // Results are counted before they are written down.
    let event = async |action: &str| {
        let path = format!("/api/v1/platform/audit-events?action={action}");
        let list = async || sidekey.ask(Method::GET, &path, None).await.json();
        eventually(action, || async { list().await["data"][0].is_object() }).await;
        list().await["data"][0].clone()
    };
    let sent = event("key.reminder_sent").await;
    assert_eq!(sent["key_id"], key.id);
    assert_eq!(sent["actor"]["type"], "system");
    assert_eq!(sent["details"]["reminder"], "14 days before");
    let failed = event("key.reminder_failed").await;
    assert_eq!(failed["key_id"], pasted.id);
    assert_eq!(failed["details"]["to"], "bounce@acme.example");
    // The gauges are counted every few minutes, and first at the start.
    for gauge in ["sidekey_keys_rotation_overdue", "sidekey_keys_rotation_due"] {
        assert!(
            sidekey
                .metrics()
                .await
                .contains(&format!("# TYPE {gauge} gauge"))
        );
    }
    let all = smtp
        .mails()
        .iter()
        .map(|mail| mail.text.clone())
        .collect::<String>();
    for secret in [&key.text, &young.text, &pasted.text] {
        let secret = &secret[secret.len() - 54..];
        for (what, text) in [("a mail", &all), ("the log", &sidekey.output())] {
            assert!(!text.contains(secret), "a secret is in {what}: {text}");
        }
    }
    assert!(!sidekey.output().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_send_one_mail() {
    let (upstream, smtp) = (Upstream::start().await, Smtp::start("none"));
    let postgres = crate::harness::postgres::Postgres::start().await;
    let more = format!(
        "[store]\nurl = \"{}\"\n[reminders]\ninterval_seconds = 1\n{}",
        postgres.url(),
        smtp.config()
    );
    let config = config(upstream.address, &more);
    let one = Sidekey::start(&config).await;
    let other = Sidekey::start(&config).await;
    let mut keys = Vec::new();
    for number in 0..20 {
        let email = format!("ops@{number}.example");
        keys.push(one.create_key(json!({"contact_email": email})).await.id);
    }
    let pool = AnyPool::connect(&postgres.url()).await.unwrap();
    for id in &keys {
        sqlx::query("UPDATE api_keys SET secret_created_at = secret_created_at - $1 WHERE id = $2")
            .bind(90 * 86_400_000_i64)
            .bind(id.clone())
            .execute(&pool)
            .await
            .unwrap();
    }
    let sent = "sidekey_reminders_total{result=\"sent\"}";
    eventually("all mails are sent", || async {
        one.metric(sent).await + other.metric(sent).await >= 20.0
    })
    .await;
    let mut to: Vec<_> = smtp
        .mails()
        .iter()
        .flat_map(|mail| mail.to.clone())
        .collect();
    assert_eq!(to.len(), 20);
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 20);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_how_many_days_are_left() {
    let upstream = Upstream::start().await;
    let on =
        "[reminders]\nresponse_header = true\nenabled = false\n[self_service]\nenabled = true\n";
    let sidekey = Sidekey::start(&config(upstream.address, on)).await;
    let key = sidekey.create_key(json!({"rotation_days": 30})).await;
    let long = sidekey.create_key(json!({"rotation_days": 365})).await;
    let narrow = sidekey
        .create_key(json!({"rotation_days": 3, "rate_limits": [{"name": "one", "quota": 1, "window_seconds": 3600}]}))
        .await;
    let told = async |path: &str, key: &str| {
        let answer = sidekey.get(path, key).await;
        let field = answer.headers().get_all(FIELD).iter().collect::<Vec<_>>();
        assert!(field.len() <= 1, "{field:?}");
        let days = field.first().map(|days| days.to_str().unwrap().to_owned());
        (answer.status().as_u16(), days)
    };
    assert_eq!(told("/", &key.text).await, (200, Some("30".to_owned())));
    assert_eq!(
        told("/.well-known/api-key", &key.text).await,
        (200, Some("30".to_owned()))
    );
    assert_eq!(told("/", &long.text).await, (200, None));
    // Refusals tell it as well, but nobody who has no right secret.
    assert_eq!(told("/", &narrow.text).await, (200, Some("3".to_owned())));
    assert_eq!(told("/", &narrow.text).await, (429, Some("3".to_owned())));
    let wrong = format!("{}x", &key.text[..key.text.len() - 1]);
    assert_eq!(told("/", &wrong).await, (401, None));
    age(&sidekey, &key.id, 32).await;
    eventually("it is overdue", || async {
        told("/", &key.text).await.1.as_deref() == Some("-2")
    })
    .await;
    // Whoever still has the old secret is told when it ends.
    let new = sidekey.regenerate_key(&key.id, 3 * 86_400 - 60).await;
    assert_eq!(told("/", &key.text).await, (200, Some("3".to_owned())));
    assert_eq!(told("/", &new.text).await, (200, Some("30".to_owned())));
    let off = Sidekey::start(&config(upstream.address, "")).await;
    let key = off.create_key(json!({"rotation_days": 1})).await;
    assert!(!off.get("/", &key.text).await.headers().contains_key(FIELD));
}

#[test]
fn a_test_mail_shows_whether_mails_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let check = |settings: &str, to: &str| {
        let file = directory.path().join("sidekey.toml");
        std::fs::write(file, config(nobody(), settings)).unwrap();
        let arguments = ["check", "--config", "sidekey.toml", "--mail-to", to];
        run(directory.path(), &arguments, &[])
    };
    for tls in ["starttls", "implicit", "none"] {
        let mut smtp = Smtp::start(tls);
        let sent = check(&smtp.config(), "ops@acme.example");
        assert_eq!(sent.code, Some(0), "{tls}: {sent:?}");
        assert!(
            sent.stdout.contains("has taken a mail to ops@acme.example"),
            "{sent:?}"
        );
        let [mail] = &smtp.mails()[..] else {
            panic!("one mail");
        };
        assert_eq!(mail.to, ["ops@acme.example"]);
        assert_eq!(mail.from, "keys@example.com");
        assert_eq!(mail.is_encrypted, tls != "none");
        assert_eq!(mail.login.is_some(), tls != "none");
        assert_eq!(mail.header("Subject"), "A test mail from Sidekey");
        assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
        let refused = check(&smtp.config(), "bounce@acme.example");
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains("there is no such mailbox"),
            "{refused:?}"
        );
        if tls != "none" {
            let other = smtp.config().replace(PASSWORD, "another");
            let unknown = check(&other, "ops@acme.example");
            assert_eq!(unknown.code, Some(1), "{unknown:?}");
            assert!(
                unknown.stderr.contains("the login is refused"),
                "{unknown:?}"
            );
        }
        smtp.stop();
        let away = check(&smtp.config(), "ops@acme.example");
        assert_eq!(away.code, Some(1), "{away:?}");
        assert!(away.stderr.contains("no connection"), "{away:?}");
        for ended in [sent, refused, away] {
            assert!(!format!("{ended:?}").contains(PASSWORD));
        }
    }
    let none = check("", "ops@acme.example");
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("set smtp.host"), "{none:?}");
    assert_eq!(check("", "nobody").code, Some(2));
}
