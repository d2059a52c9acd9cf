//! Limits: of a pass, of a connection, and of how long a mail server is waited for.

use super::*;
use crate::harness::eventually;
use serde_json::json;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_has_a_limit() {
    let world = World::new().await;
    for number in 1..=201 {
        world.add(&key(number)).await;
    }
    let instance = Reminders::new(world.parts(None));
    world.now_is(day(76));
    for logged in [200, 1, 0] {
        assert_eq!(instance.pass().await.unwrap().logged, logged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_some_mails_only() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=60 {
        world.add(&key(number)).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap(), sent(60));
    let mails = smtp.mails();
    let of = |connection| mails.iter().filter(|m| m.connection == connection).count();
    assert_eq!((of(1), of(2)), (50, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_closed_after_a_mail_is_no_outage() {
    let world = World::new().await;
    let smtp = Smtp::start_with("none", json!({ "closes_after": 1 }));
    for number in 1..=3 {
        world.add(&key(number)).await;
    }
    world.now_is(day(76));
    assert_eq!(world.instance(&smtp).pass().await.unwrap(), sent(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_the_connection_is_away() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut closing = key(1);
    closing.contact_email = Some("closing@acme.example".to_owned());
    world.add(&closing).await;
    world.add(&key(2)).await;
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    let expected = Passed {
        failed: 1,
        ..Passed::default()
    };
    assert_eq!(instance.pass().await.unwrap(), expected, "the other waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let world = World::new().await;
    world.add(&key(1)).await;
    let silent = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let config = format!(
        "[smtp]\nhost = \"localhost\"\nport = {}\ntls = \"none\"\nfrom = \"keys@example.com\"\n\
         timeout_seconds = 1\n",
        silent.local_addr().unwrap().port()
    );
    let instance = Reminders::new(world.parts(Some(mailer(&config))));
    world.now_is(day(76));
    // Less than it would be waited for by default.
    let passed = tokio::time::timeout(Duration::from_secs(29), instance.pass()).await;
    assert_eq!(passed.expect("an end").unwrap().failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_grow_while_the_mail_server_is_away() {
    let (world, mut smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=5 {
        world.add(&key(number)).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    smtp.stop();
    // By the minute: after a failure comes a pause of one, then of two, then of four.
    for failed in [1, 1, 0, 1, 0, 0, 0, 1] {
        assert_eq!(instance.pass().await.unwrap().failed, failed);
        world.clock.advance(MINUTE);
    }
    smtp.launch();
    world.now_is(day(77));
    assert_eq!(instance.pass().await.unwrap(), sent(5));
    // They begin again with one.
    smtp.stop();
    world.now_is(day(87));
    for failed in [1, 1, 0, 1] {
        assert_eq!(instance.pass().await.unwrap().failed, failed);
        world.clock.advance(MINUTE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_no_reminders_has_the_figures_alone() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=40 {
        world.add(&key(number)).await;
    }
    world.now_is(day(90));
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    parts.settings.is_enabled = false;
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(Reminders::new(parts).run(stopping));
    eventually("they are counted", || async {
        world.metrics.keys_rotation_overdue.get() == 40
    })
    .await;
    stop.send_replace(true);
    running.await.unwrap();
    assert!(smtp.mails().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_of_ascii_has_mail_where_the_server_knows_such() {
    let world = World::new().await;
    let smtp = Smtp::start_with("none", json!({ "utf8": true }));
    let mut one = key(1);
    one.contact_email = Some("räte@acme.example".to_owned());
    world.add(&one).await;
    world.now_is(day(76));
    assert_eq!(world.instance(&smtp).pass().await.unwrap(), sent(1));
    assert_eq!(smtp.mails()[0].to, ["räte@acme.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_cannot_be_read_holds_nobody_up() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    world.add(&key(1)).await;
    contact(&world, "boss@acme.example").await;
    sqlx::query("UPDATE tenants SET rate_limits = 'nonsense' WHERE id = 'acme'")
        .execute(world.store.writer())
        .await
        .unwrap();
    world.now_is(day(76));
    assert_eq!(world.instance(&smtp).pass().await.unwrap(), sent(1));
}
