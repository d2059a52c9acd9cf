//! A pass that takes long, because mails do.

use super::disturbed::Disturbed;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pass_goes_by_the_time_and_ends() {
    let (world, smtp) = (World::new().await, Smtp::start("none"));
    for number in 1..=4 {
        let mut key = key(number);
        if number == 2 {
            key.expires_at = Some(day(76).plus(MINUTE));
        }
        world.add(&key).await;
    }
    let mut parts = world.parts(Some(mailer(&smtp.config())));
    let clock = world.clock.clone();
    parts.store = Arc::new(Disturbed::of(&world, move || {
        clock.advance(3 * MINUTE);
        Ok(())
    }));
    let instance = Reminders::new(parts);
    world.now_is(day(76));
    // The second has expired while the first was sent; and after five minutes there is an end.
    assert_eq!(instance.pass().await.unwrap(), sent(2));
    assert_eq!(instance.pass().await.unwrap(), sent(1));
    let to: Vec<_> = smtp.mails().into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(to, ["ops@1.example", "ops@3.example", "ops@4.example"]);
}
