use super::*;
use crate::key::TenantSettings;
use crate::key::record::tests::record;

const DAY_MS: i64 = 86_400_000;
const LINK: &str = "https://keys.example.com/dashboard/settings/developers/api-keys/4fzN8cQ2pLrT";

/// The mail about `key`, so many days after its secret is due, as it is sent.
fn mail(key: &KeyRecord, days: i64, link: Option<&str>) -> String {
    let tenant = TenantRecord::new(
        key.tenant_id.clone(),
        TenantSettings {
            display_name: Some("Acme & Sons".to_owned()),
            ..TenantSettings::default()
        },
        key.created_at,
    );
    let step_at = Timestamp::from_millis(key.rotation_due_at().as_millis() + days * DAY_MS);
    let about = About {
        key,
        tenant: Some(&tenant),
        contact: Contact::Tenant,
        step_at,
        now: step_at,
        link: link.map(str::to_owned),
    };
    let head = Letterhead {
        from: &"Sidekey <keys@example.com>".parse().unwrap(),
        reply_to: Some(&"help@example.com".parse().unwrap()),
        to: "ops@acme.example".parse().unwrap(),
    };
    let bytes = compose(&about, &head).unwrap().formatted();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_ascii(), "every server takes it");
    // Long lines are broken by an equals sign at their end, and it is written as a number itself.
    text.replace("=\r\n", "").replace("=3D", "=")
}

#[test]
fn a_mail_says_what_to_do_by_when() {
    let text = mail(&record(), -14, Some(LINK));
    for part in [
        "From: Sidekey <keys@example.com>\r\n",
        "Reply-To: help@example.com\r\n",
        "To: ops@acme.example\r\n",
        "Subject: API key \"test\" (4fzN8cQ2pLrT): replace its secret within 14 days\r\n",
        // 1970-04-01 is 90 days after the secret was made, and this is 14 days before.
        "Date: Wed, 18 Mar 1970 00:00:01 +0000\r\n",
        "Message-ID: <rotation.4fzN8cQ2pLrT.1.6566401000@example.com>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "Content-Type: multipart/alternative;",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Type: text/html; charset=utf-8\r\n",
        "should be replaced within 14 days.",
        "should be replaced <strong>within 14 days</strong>.",
        "sk_live_4fzN8cQ2pLrT_...a1B2",
        "Acme & Sons (acme)",
        "1 April 1970, 00:00 UTC",
        "sidekey keys regenerate 4fzN8cQ2pLrT --grace 24h",
        "the contact of the key's tenant.",
        "longer than 90 days",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(text.matches(LINK).count(), 2, "{text}");
}

#[test]
fn a_mail_without_an_address_of_the_dashboard_names_the_command() {
    let text = mail(&record(), 0, None);
    assert!(text.contains("replace its secret today\r\n"), "{text}");
    assert!(!text.contains("http"), "{text}");
    assert!(
        text.contains("in the dashboard; on the command line"),
        "{text}"
    );
}

#[test]
fn a_mail_says_for_how_long_it_is_overdue() {
    for (days, words) in [(7, "replaced 7 days ago"), (364, "364 days ago")] {
        let text = mail(&record(), days, Some(LINK));
        assert!(
            text.contains("its secret should have been replaced\r\n"),
            "{text}"
        );
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(
        (when(1), when(-1)),
        ("within 1 day".into(), "1 day ago".into())
    );
}

#[test]
fn what_is_pasted_into_a_name_does_no_harm() {
    let mut key = record();
    let secret = "s".repeat(54);
    key.name = format!("<b>a</b>\r\nBcc: x@y.example\r\n\r\nsk_live_4fzN8cQ2pLrT_{secret}");
    let text = mail(&key, -3, Some(LINK));
    assert!(!text.contains("ssss"), "{text}");
    assert!(!text.contains("\nBcc:"), "{text}");
    let html = text.split("Content-Type: text/html").nth(1).unwrap();
    assert!(!html.contains("<b>"), "{html}");
    assert!(html.contains("&#60;b&#62;a"), "{html}");
    key.name = "n".repeat(500);
    assert!(mail(&key, -3, None).contains(&format!(" {}...\r\n", "n".repeat(NAME_LEN_MAX))));
}
