//! What is sent in a key's life, and what is not.

use super::*;
use sidekey::key::Generation;
use sidekey::key::record::Standing;
use sidekey::key::tenant::TenantStanding;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_each_reminder_once_from_several_instances() {
    let (world, smtp) = (World::new().await, Smtp::start("starttls"));
    let one = key(1);
    world.add(&one).await;
    let instances = [(); 3].map(|()| world.instance(&smtp));
    // Every six hours for 120 days, all at once.
    for quarter in 0..=4 * 120 {
        world.now_is(made().plus(Duration::from_secs(6 * 3600) * quarter));
        let [a, b, c] = &instances;
        let (a, b, c) = tokio::join!(a.pass(), b.pass(), c.pass());
        for passed in [a, b, c] {
            passed.unwrap();
        }
    }
    let mails = smtp.mails();
    let subjects: Vec<String> = mails.iter().map(|mail| mail.header("Subject")).collect();
    let of = |rest: &str| format!("API key \"orders 1\" (000000000001): {rest}");
    assert_eq!(
        subjects,
        [
            of("replace its secret within 14 days"),
            of("replace its secret within 3 days"),
            of("replace its secret today"),
            of("its secret should have been replaced"),
            of("its secret should have been replaced"),
            of("its secret should have been replaced"),
            of("its secret should have been replaced"),
        ]
    );
    let first = &mails[0];
    assert_eq!(first.from, "keys@example.com");
    assert_eq!(first.to, ["ops@1.example"]);
    assert_eq!(first.login.as_deref(), Some("sidekey"));
    assert!(first.is_encrypted);
    assert_eq!(first.header("Date"), "Thu, 18 Mar 2027 00:00:00 +0000");
    assert_eq!(first.header("Auto-Submitted"), "auto-generated");
    assert_eq!(first.header("MIME-Version"), "1.0");
    assert!(
        first
            .header("Content-Type")
            .starts_with("multipart/alternative;")
    );
    for part in ["text/plain", "text/html"] {
        assert!(
            first
                .text
                .contains(&format!("Content-Type: {part}; charset=utf-8")),
            "{part}"
        );
    }
    assert!(
        first
            .text
            .contains("https://keys.example.com/keys/000000000001")
    );
    let ids: std::collections::BTreeSet<_> =
        mails.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), mails.len(), "each has one of its own");
    assert_eq!(world.count(ReminderResult::Sent), 7);
    let notes = world.noted(Action::KeyReminderSent).await;
    let steps: Vec<_> = notes
        .iter()
        .map(|note| note["reminder"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "14 days before",
            "3 days before",
            "on the day",
            "7 days after",
            "14 days after",
            "21 days after",
            "28 days after"
        ]
    );
    assert_eq!(notes[0]["to"], "ops@1.example");
    assert_eq!(notes[0]["rotation_due_at"], day(90).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_stop_the_latest_reminder_alone_is_sent() {
    let (world, smtp) = (World::new().await, Smtp::start("implicit"));
    for number in 1..=120 {
        world.add(&key(number)).await;
    }
    let instance = world.instance(&smtp);
    world.now_is(day(90 + 30));
    // More than one page of keys, and than one connection carries.
    assert_eq!(instance.pass().await.unwrap(), sent(120));
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    assert_eq!(smtp.mails().len(), 120);
    assert!(smtp.mails().iter().all(|mail| mail.is_encrypted));
    world.now_is(day(90 + 34));
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    world.now_is(day(90 + 35));
    assert_eq!(instance.pass().await.unwrap(), sent(120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_to_the_key_s_contact_or_else_to_its_tenant_s() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut anonymous = key(2);
    anonymous.contact_email = None;
    world.add(&key(1)).await;
    world.add(&anonymous).await;
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    let passed = instance.pass().await.unwrap();
    let expected = Passed {
        sent: 1,
        no_address: 1,
        ..Passed::default()
    };
    assert_eq!(passed, expected);
    assert_eq!(world.count(ReminderResult::NoAddress), 1);
    contact(&world, "boss@acme.example").await;
    world.now_is(day(87));
    assert_eq!(instance.pass().await.unwrap(), sent(2));
    let mails = smtp.mails();
    let mut to: Vec<_> = mails.iter().flat_map(|mail| mail.to.clone()).collect();
    to.sort();
    assert_eq!(to, ["boss@acme.example", "ops@1.example", "ops@1.example"]);
    let of_tenant = mails
        .iter()
        .find(|mail| mail.to == ["boss@acme.example"])
        .unwrap();
    assert!(of_tenant.text.contains("the contact of the key's tenant."));
    assert!(!of_tenant.is_encrypted && of_tenant.login.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_comes_later_hears_of_it_within_a_day() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let mut anonymous = key(1);
    anonymous.contact_email = None;
    world.add(&anonymous).await;
    let instance = world.instance(&smtp);
    for days in 76..80 {
        world.now_is(day(days));
        instance.pass().await.unwrap();
    }
    assert_eq!(world.count(ReminderResult::NoAddress), 1, "counted once");
    contact(&world, "boss@acme.example").await;
    world.now_is(day(80));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    world.now_is(day(86));
    assert_eq!(instance.pass().await.unwrap(), sent(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_can_use_has_no_reminder() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let keys: Vec<_> = (1..=6).map(key).collect();
    for key in &keys {
        world.add(key).await;
    }
    let instance = world.instance(&smtp);
    world
        .change(&keys[0], |key| key.standing = Standing::Revoked)
        .await;
    world
        .change(&keys[1], |key| key.standing = Standing::Disabled)
        .await;
    world
        .change(&keys[2], |key| key.expires_at = Some(day(70)))
        .await;
    world
        .change(&keys[3], |key| {
            key.secret_created_at = day(50);
            key.generation = Generation(50);
        })
        .await;
    world.change(&keys[4], |key| key.rotation_days = 365).await;
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    assert_eq!(smtp.mails()[0].to, ["ops@6.example"]);
    // Whoever is there again hears of it with the next reminder.
    world
        .change(&keys[1], |key| key.standing = Standing::Active)
        .await;
    world.change(&keys[2], |key| key.expires_at = None).await;
    assert_eq!(instance.pass().await.unwrap(), sent(1), "the disabled one");
    world.now_is(day(78));
    assert_eq!(instance.pass().await.unwrap(), sent(1), "the expired one");
    // With less time to live, another reminder is the latest.
    world.change(&keys[4], |key| key.rotation_days = 80).await;
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    assert!(smtp.mails()[3].header("Subject").ends_with("within 2 days"));
    world.change(&keys[4], |key| key.rotation_days = 365).await;
    // A suspended tenant's keys wait.
    world
        .change_tenant(|tenant| tenant.standing = TenantStanding::Suspended)
        .await;
    world.now_is(day(87));
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    world
        .change_tenant(|tenant| tenant.standing = TenantStanding::Active)
        .await;
    world.now_is(day(88));
    assert_eq!(instance.pass().await.unwrap(), sent(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_has_reminders_of_its_own() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    let one = key(1);
    world.add(&one).await;
    let instance = world.instance(&smtp);
    world.now_is(day(91));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    world
        .change(&one, |key| {
            key.secret_created_at = day(91);
            key.generation = Generation(91);
        })
        .await;
    for (days, number) in [
        (97, 0),
        (91 + 75, 0),
        (91 + 76, 1),
        (91 + 87, 1),
        (91 + 90, 1),
    ] {
        world.now_is(day(days));
        assert_eq!(instance.pass().await.unwrap(), sent(number), "{days}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_reminders_are_logged_once() {
    let world = World::new().await;
    world.add(&key(1)).await;
    let instance = Reminders::new(world.parts(None));
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap().logged, 1);
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    assert_eq!(world.count(ReminderResult::Logged), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_of_an_hour_have_a_limit_that_all_instances_share() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    // Those that nobody can be told of take no place in it.
    for number in 1..=2 {
        let mut anonymous = key(number);
        anonymous.contact_email = None;
        world.add(&anonymous).await;
    }
    for number in 3..=9 {
        world.add(&key(number)).await;
    }
    let instances = [(); 2].map(|()| {
        let mut parts = world.parts(Some(mailer(&smtp.config())));
        parts.settings.hourly_max = 3;
        Reminders::new(parts)
    });
    world.now_is(day(76));
    for expected in [3, 6, 7] {
        for instance in &instances {
            instance.pass().await.unwrap();
        }
        assert_eq!(smtp.mails().len(), expected);
        world.clock.advance(Duration::from_secs(3600));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_thousands_of_mails_at_once() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=25 {
        let mut key = key(number);
        key.contact_email = Some("boss@acme.example".to_owned());
        world.add(&key).await;
    }
    world.add(&key(26)).await;
    let instance = world.instance(&smtp);
    world.now_is(day(76));
    assert_eq!(instance.pass().await.unwrap(), sent(20 + 1));
    assert_eq!(instance.pass().await.unwrap(), sent(0));
    world.clock.advance(60 * MINUTE);
    assert_eq!(instance.pass().await.unwrap(), sent(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_due_are_counted() {
    let world = World::new().await;
    for number in 1..=5 {
        let mut key = key(number);
        key.rotation_days = u32::try_from(number * 10).unwrap();
        world.add(&key).await;
    }
    let mut expired = key(6);
    expired.rotation_days = 10;
    expired.expires_at = Some(day(5));
    world.add(&expired).await;
    let instance = Reminders::new(world.parts(None));
    let gauges = || {
        let metrics = &world.metrics;
        (
            metrics.keys_rotation_overdue.get(),
            metrics.keys_rotation_due.get(),
        )
    };
    for (now, counts) in [
        (day(0), (0, 2)),
        (day(6), (0, 2)),
        (day(10), (1, 1)),
        (day(30), (3, 1)),
    ] {
        world.now_is(now);
        world.store.settle(now).await.unwrap();
        instance.count().await;
        assert_eq!(gauges(), counts, "{now}");
    }
    world
        .change(&key(1), |key| key.standing = Standing::Disabled)
        .await;
    instance.count().await;
    assert_eq!(gauges(), (2, 1));
}
