//! What happens where a mail can't be sent, or where a process ends in the middle of it.

use super::disturbed::Disturbed;
use super::*;
use parking_lot::Mutex;
use serde_json::json;
use sidekey::store::reminders::{ClaimEnd, Claimed, Left, ReminderClaim};
use tokio::sync::watch;

fn failed(failed: usize) -> Passed {
    Passed {
        failed,
        ..Passed::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_mail_server_is_away_reminders_wait() {
    let (world, mut smtp) = (World::new().await, Smtp::start("starttls"));
    for number in 1..=3 {
        world.add(&key(number)).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    smtp.stop();
    // One key tries it; the others don't wait for the same.
    assert_eq!(instance.pass().await.unwrap(), failed(1));
    assert_eq!(instance.pass().await.unwrap(), sent(0), "it is left alone");
    for _ in 0..10 {
        world.clock.advance(15 * MINUTE);
        assert_eq!(instance.pass().await.unwrap(), failed(1));
    }
    smtp.launch();
    world.clock.advance(15 * MINUTE);
    assert_eq!(instance.pass().await.unwrap(), sent(3));
    assert_eq!(smtp.mails().len(), 3);
    assert_eq!(world.count(ReminderResult::Failed), 11);
    let notes = world.noted(Action::KeyReminderSent).await;
    let attempts = notes.iter().map(|note| note["attempts"].as_i64().unwrap());
    assert_eq!(
        attempts.sum::<i64>(),
        3,
        "an outage is no attempt: {notes:?}"
    );
    assert!(world.noted(Action::KeyReminderFailed).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_costs_nobody_a_reminder() {
    let (world, mut smtp) = (World::new().await, Smtp::start("none"));
    world.add(&key(1)).await;
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    smtp.stop();
    // Two days, and more attempts than a mail has that the server does not take.
    let mut failures = 0;
    for _ in 0..2 * 24 * 4 {
        let passed = instance.pass().await.unwrap();
        assert_eq!(passed.given_up, 0);
        failures += passed.failed;
        world.clock.advance(15 * MINUTE);
    }
    assert!(failures > 20, "{failures}");
    assert!(world.noted(Action::KeyReminderFailed).await.is_empty());
    smtp.launch();
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    let notes = world.noted(Action::KeyReminderSent).await;
    assert_eq!(notes[0]["attempts"], 1);
    assert_eq!(notes[0]["reminder"], "14 days before");
    world.now_is(day(87));
    assert_eq!(instance.pass().await.unwrap(), sent(1), "the next one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_refused_is_not_tried_again() {
    let (world, smtp) = (World::new().await, Smtp::start("starttls"));
    for (number, email) in [
        (1, "bounce@acme.example"),
        (2, "ops@acme.example"),
        (3, "no address at all@"),
        (4, "räte@acme.example"),
    ] {
        let mut key = key(number);
        key.contact_email = Some(email.to_owned());
        world.add(&key).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    let passed = instance.pass().await.unwrap();
    let expected = Passed {
        sent: 1,
        given_up: 3,
        ..Passed::default()
    };
    assert_eq!(passed, expected);
    world.clock.advance(DAY);
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    let notes = world.noted(Action::KeyReminderFailed).await;
    assert_eq!(notes[0]["to"], "bounce@acme.example");
    assert_eq!(notes[0]["attempts"], 1);
    let reason = notes[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("550") && reason.contains("no such mailbox"),
        "{reason}"
    );
    assert_eq!(world.count(ReminderResult::GivenUp), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_not_taken_now_is_tried_again_and_holds_nobody_up() {
    let (world, smtp) = (World::new().await, Smtp::start("starttls"));
    for (number, email) in [
        (1, "later@acme.example"),
        (2, "never@acme.example"),
        (3, "ops@acme.example"),
    ] {
        let mut key = key(number);
        key.contact_email = Some(email.to_owned());
        world.add(&key).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    let passed = instance.pass().await.unwrap();
    assert_eq!((passed.sent, passed.failed), (1, 2));
    world.clock.advance(MINUTE);
    let passed = instance.pass().await.unwrap();
    assert_eq!((passed.sent, passed.failed), (1, 1));
    for _ in 0..24 {
        world.clock.advance(60 * MINUTE);
        instance.pass().await.unwrap();
    }
    assert_eq!(smtp.mails().len(), 2);
    assert_eq!(world.count(ReminderResult::GivenUp), 1);
    assert_eq!(world.count(ReminderResult::Failed), 1 + 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_no_refused_mail() {
    let (world, smtp) = (World::new().await, Smtp::start("starttls"));
    world.add(&key(1)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2-the-wrong-one\n").unwrap();
    let right = format!("password = \"{}\"", crate::harness::smtp::PASSWORD);
    let from_file = format!("password_file = \"{}\"", file.display());
    let config = smtp.config().replace(&right, &from_file);
    let instance = Reminders::new(world.parts(Some(mailer(&config))));
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap(), failed(1));
    // The file is read again.
    std::fs::write(&file, format!("{}\n", crate::harness::smtp::PASSWORD)).unwrap();
    world.clock.advance(MINUTE);
    assert_eq!(instance.pass().await.unwrap(), sent(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_that_are_wrong_stop_all_mails_and_give_none_up() {
    let world = World::new().await;
    world.add(&key(1)).await;
    world.now_is(day(76));
    let other = tempfile::tempdir().unwrap();
    crate::tls::make_certificates(other.path());
    let stranger = other.path().join("ca.pem").display().to_string();
    let (encrypted, plain) = (Smtp::start("starttls"), Smtp::start("none"));
    let authority = encrypted.authority().display().to_string();
    for config in [
        encrypted.config().replace(&authority, &stranger),
        // The certificate is for another name.
        encrypted.config().replace("\"localhost\"", "\"127.0.0.1\""),
        encrypted.config().replace("\"starttls\"", "\"implicit\""),
        encrypted.config().replace("keys@", "stranger@"),
        // No encryption where it is asked for: no mail.
        plain.config().replace("\"none\"", "\"starttls\""),
    ] {
        let config = format!("{config}timeout_seconds = 5\n");
        let instance = Reminders::new(world.parts(Some(mailer(&config))));
        assert_eq!(instance.pass().await.unwrap(), failed(1), "{config}");
        world.clock.advance(4 * 60 * MINUTE);
    }
    assert!(encrypted.mails().is_empty() && plain.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_closed_to_us_costs_nobody_a_reminder() {
    let world = World::new().await;
    let closed = Smtp::start_with("none", json!({ "is_closed_relay": true }));
    for number in 1..=2 {
        world.add(&key(number)).await;
    }
    let instance = world.instance(&closed);
    world.now_is(day(76));
    for _ in 0..12 {
        assert_eq!(instance.pass().await.unwrap(), failed(1));
        world.clock.advance(20 * MINUTE);
    }
    assert!(world.noted(Action::KeyReminderFailed).await.is_empty());
    // Somebody has put it right.
    let open = Smtp::start("none");
    world.clock.advance(DAY);
    assert_eq!(world.instance(&open).pass().await.unwrap(), sent(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_alone_is_refused_by_a_rule_holds_nobody_up() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut abroad = key(2);
    abroad.contact_email = Some("abroad@acme.example".to_owned());
    for key in [key(1), abroad, key(3)] {
        world.add(&key).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    let passed = instance.pass().await.unwrap();
    assert_eq!((passed.sent, passed.failed), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_think_about_a_mail() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut slow = key(1);
    slow.contact_email = Some("slow@acme.example".to_owned());
    world.add(&slow).await;
    // Less than it thinks.
    let config = format!("{}timeout_seconds = 4\n", smtp.config());
    let instance = Reminders::new(world.parts(Some(mailer(&config))));
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_may_have_been_taken_is_sent_once_more_at_most() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut silent = key(2);
    silent.contact_email = Some("silent@acme.example".to_owned());
    world.add(&key(1)).await;
    world.add(&silent).await;
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    // On a connection that has carried a mail: no reason to send it again at once.
    let passed = instance.pass().await.unwrap();
    assert_eq!((passed.sent, passed.failed), (1, 1));
    assert_eq!(smtp.mails().len(), 2);
    world.clock.advance(15 * MINUTE);
    assert_eq!(instance.pass().await.unwrap().given_up, 1);
    world.clock.advance(DAY);
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    assert_eq!(smtp.mails().len(), 3);
    let notes = world.noted(Action::KeyReminderFailed).await;
    let reason = notes[0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("it may have been taken"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_log_in_works() {
    for without in ["PLAIN", "LOGIN"] {
        let world = World::new().await;
        let smtp = Smtp::start_with("starttls", json!({ "without": [without] }));
        world.add(&key(1)).await;
        world.now_is(day(76));
        assert_eq!(
            world.instance(&smtp).pass().await.unwrap(),
            sent(1),
            "{without}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_has_begun_when_it_ends_another_one_does() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    world.add(&key(1)).await;
    world.now_is(day(76));
    let record = world.store.get(key(1).id).await.unwrap().unwrap();
    // Claimed, and no word since.
    let claim = ReminderClaim {
        key: &record,
        step_at: day(76),
        token: "gone",
        now: day(76),
        until: day(76).plus(10 * MINUTE),
        hourly_max: Some(10),
    };
    let claimed = world.store.claim_reminder(&claim).await.unwrap();
    assert_eq!(claimed, Claimed::Attempt(1));
    let instance = world.instance(&smtp);
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    world.clock.advance(10 * MINUTE);
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    // The one that was thought gone comes back late: its word does not count.
    let end = ClaimEnd {
        key_id: record.id,
        token: "gone".to_owned(),
        left: Left::Again,
        next_at: day(76),
        note: None,
    };
    assert!(!world.store.end_claim(&end).await.unwrap());
    assert_eq!(instance.pass().await.unwrap(), sent(0));
}

/// A store that loses the first words about what came of mails.
fn forgetful(world: &World, losses: u32) -> Disturbed {
    let left = Mutex::new(losses);
    Disturbed::of(world, move || {
        let mut left = left.lock();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(StoreError::Unavailable("a test".to_owned()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_gone_does_not_go_again_because_the_database_was_away() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    world.add(&key(1)).await;
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    parts.store = Arc::new(forgetful(&world, 3));
    let instance = Reminders::new(parts);
    world.now_is(day(76));
    for _ in 0..3 {
        instance.pass().await.unwrap_err();
        world.clock.advance(MINUTE);
    }
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    world.clock.advance(60 * MINUTE);
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    assert_eq!(smtp.mails().len(), 1);
    assert_eq!(world.noted(Action::KeyReminderSent).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_which_nobody_knows_comes_again_after_ten_minutes_as_the_same() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    world.add(&key(1)).await;
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    parts.store = Arc::new(forgetful(&world, 1));
    world.now_is(day(76));
    // It ends between the mail and the note of it.
    Reminders::new(parts).pass().await.unwrap_err();
    let other = world.instance(&smtp);
    world.clock.advance(10 * MINUTE - Duration::from_millis(1));
    assert_eq!(other.pass().await.unwrap(), sent(0));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(other.pass().await.unwrap(), sent(1));
    let ids: Vec<_> = smtp
        .mails()
        .iter()
        .map(|mail| mail.header("Message-ID"))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_does_not_send_what_is_left() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=40 {
        world.add(&key(number)).await;
    }
    world.now_is(day(76));
    let (stop, stopping) = watch::channel(false);
    let mut store = Disturbed::of(&world, || Ok(()));
    store.after_end = Box::new(move || {
        stop.send_replace(true);
    });
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    parts.store = Arc::new(store);
    Reminders::new(parts).run(stopping).await;
    let mails = smtp.mails().len();
    assert!((1..40).contains(&mails), "{mails}");
    // What is sent is noted.
    assert_eq!(world.noted(Action::KeyReminderSent).await.len(), mails);
}
