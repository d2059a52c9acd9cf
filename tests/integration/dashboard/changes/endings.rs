//! Regenerating, revoking, disabling, ending an old secret.

use serde_json::json;

use super::*;
use crate::harness::fleet::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_made_once_and_the_old_one_works_as_long_as_was_chosen() {
    let world = World::start().await;
    let admin = world.admin().await;
    let old = world.sidekey.create_key(json!({"name": "rotated"})).await;
    let path = format!("/{}/regenerate", old.id);
    let form = admin.get(&path).await;
    assert_page(&form, 200);
    let revision = value_of(&form.text, "revision");
    let fields = [("revision", &*revision), ("grace", "3600")];
    let page = admin.send(&path, &fields).await;
    assert_page(&page, 200);
    let new = secret_of(&page.text);
    assert!(
        page.text.contains("The old secret works until"),
        "{}",
        page.text
    );
    for secret in [&new, &old.text] {
        assert_eq!(world.sidekey.status("/orders", secret).await, 200);
    }
    // Sent twice, it makes no third.
    let again = admin.send(&path, &fields).await;
    assert_page(&again, 412);
    assert!(again.text.contains("changed meanwhile"), "{}", again.text);
    assert!(!again.text.contains("new-key"), "{}", again.text);
    for secret in [&new, &old.text] {
        assert_eq!(world.sidekey.status("/orders", secret).await, 200);
    }

    // The old one can be ended early, and more than once.
    let path = format!("/{}/end-overlap", old.id);
    assert_page(&admin.get(&path).await, 200);
    for _ in 0..2 {
        assert_done(&admin.send(&path, &[]).await, &old.id, "overlap-ended");
    }
    assert_eq!(world.sidekey.status("/orders", &old.text).await, 401);
    assert_eq!(world.sidekey.status("/orders", &new).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_period_is_chosen_and_not_left_out() {
    let world = World::start().await;
    let admin = world.admin().await;
    let old = world.sidekey.create_key(json!({"name": "k"})).await;
    let path = format!("/{}/regenerate", old.id);
    for grace in [
        &[("revision", "1")][..],
        &[("revision", "1"), ("grace", "own"), ("grace_own", "")],
        &[("revision", "1"), ("grace", "own"), ("grace_own", SCRIPT)],
        &[
            ("revision", "1"),
            ("grace", "own"),
            ("grace_own", "99999999"),
        ],
    ] {
        let page = admin.send(&path, grace).await;
        assert_page(&page, 422);
        assert!(!error_of(&page.text, "grace-own").is_empty(), "{grace:?}");
        assert_eq!(value_of(&page.text, "revision"), "1");
    }
    assert_eq!(world.sidekey.status("/orders", &old.text).await, 200);
    let fields = [("revision", "1"), ("grace", "0")];
    let page = admin.send(&path, &fields).await;
    assert_page(&page, 200);
    assert_eq!(world.sidekey.status("/orders", &old.text).await, 401);
    assert_eq!(
        world
            .sidekey
            .status("/orders", &secret_of(&page.text))
            .await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_revoked_by_who_writes_its_name() {
    let world = World::start().await;
    let admin = world.admin().await;
    let key = world
        .sidekey
        .create_key(json!({"name": "Orders of ACME"}))
        .await;
    let path = format!("/{}/revoke", key.id);
    let form = admin.get(&path).await;
    assert_page(&form, 200);
    assert!(form.text.contains("It was never used."), "{}", form.text);
    for wrong in ["", "orders of acme", SCRIPT] {
        let page = admin
            .send(&path, &[("revision", "1"), ("confirm_name", wrong)])
            .await;
        assert_page(&page, 422);
        assert!(!error_of(&page.text, "confirm-name").is_empty(), "{wrong}");
        assert!(
            page.text.contains(&format!("value=\"{}\"", escaped(wrong))),
            "{wrong}"
        );
    }
    // Somebody has changed it since the form was opened.
    let right = [("revision", "1"), ("confirm_name", "Orders of ACME")];
    world
        .sidekey
        .change_key(&key.id, json!({"rotation_days": 5}))
        .await;
    assert_page(&admin.send(&path, &right).await, 412);
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 200);
    let right = [("revision", "2"), ("confirm_name", " Orders of  ACME ")];
    for _ in 0..2 {
        assert_done(&admin.send(&path, &right).await, &key.id, "revoked");
    }
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 401);

    // A revoked key is offered nothing, and nothing is done with it.
    let fields = [("revision", "3"), ("grace", "0"), ("name", "x")];
    for action in ["edit", "regenerate", "disable", "enable", "end-overlap"] {
        let path = format!("/{}/{action}", key.id);
        for page in [admin.get(&path).await, admin.send(&path, &fields).await] {
            assert_page(&page, 409);
            assert!(
                page.text.contains("The key is revoked"),
                "{action}: {}",
                page.text
            );
        }
    }
    assert_page(&admin.get(&path).await, 409);
    assert_eq!(world.key(&key.id).await["status"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_disabled_and_enabled() {
    let world = World::start().await;
    let admin = world.admin().await;
    let key = world.sidekey.create_key(json!({"name": "k"})).await;
    let form = admin.get(&format!("/{}/disable", key.id)).await;
    assert_page(&form, 200);
    let revision = value_of(&form.text, "revision");
    let path = format!("/{}/disable", key.id);
    for _ in 0..2 {
        let reply = admin.send(&path, &[("revision", &revision)]).await;
        assert_done(&reply, &key.id, "disabled");
    }
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 401);
    // A form for the key as it was before is of no use.
    let path = format!("/{}/enable", key.id);
    assert_page(&admin.send(&path, &[("revision", &revision)]).await, 412);
    assert_page(&admin.get(&path).await, 200);
    assert_done(&admin.send(&path, &[]).await, &key.id, "enabled");
    assert_eq!(world.sidekey.status("/orders", &key.text).await, 200);
}

/// Whoever holds `sidekey:keys:write` replaces and ends its own key, and has to sign in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_end_itself() {
    let world = World::start().await;
    let fields = json!({"name": "self", "scopes": ["sidekey:keys:write"]});
    let own = world.sidekey.create_key(fields).await;
    let visit = Visit::of(&world.sidekey, &own.text).await;
    let path = format!("/{}/regenerate", own.id);
    let form = visit.get(&path).await;
    assert!(
        form.text.contains("that you have signed in with"),
        "{}",
        form.text
    );
    let fields = [("revision", "1"), ("grace", "0")];
    let page = visit.send(&path, &fields).await;
    assert_page(&page, 200);
    assert!(page.text.contains("sign in again"), "{}", page.text);
    let new = key(own.id, secret_of(&page.text));
    assert!(!visit.person.is_signed_in().await);
    let visit = Visit::of(&world.sidekey, &new.text).await;
    let path = format!("/{}/revoke", new.id);
    let fields = [("revision", "2"), ("confirm_name", "self")];
    assert_done(&visit.send(&path, &fields).await, &new.id, "revoked");
    assert!(!visit.person.is_signed_in().await);
}

/// What not every instance has confirmed is not told as if it held everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_confirmed_a_change_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite://{}/keys.db", directory.path().display());
    let more = "[store]\npropagation_wait_ms = 10000\nmax_stale_seconds = 300\n";
    let mut fleet = Fleet::start(2, &store, None, more).await;
    let mut second = fleet.all.pop().expect("two");
    let first = &fleet.all[0];
    let admin = Visit::of(first, &first.admin_key()).await;
    let gone = first.create_key(json!({"name": "gone"})).await;
    let rotated = first.create_key(json!({"name": "rotated"})).await;
    let off = format!("/{}/disable", gone.id);
    assert_done(&admin.send(&off, &[]).await, &gone.id, "disabled");

    second.kill();
    let revocation = [("confirm_name", "gone"), ("revision", "2")];
    let path = format!("/{}/revoke", gone.id);
    let reply = admin.send(&path, &revocation).await;
    assert_done(&reply, &gone.id, "revoked&unconfirmed=1");
    let page = admin
        .get(&format!("/{}?done=revoked&unconfirmed=1", gone.id))
        .await;
    assert_page(&page, 200);
    let told = |text: &str| {
        let (_, notice) = text.split_once("id=\"unconfirmed\">")?;
        Some(notice.split("</p>").next().expect("its end").to_owned())
    };
    let notice = told(&page.text).expect("a notice");
    assert!(
        notice.contains(">two<") && notice.contains("5 minutes"),
        "{notice}"
    );

    let path = format!("/{}/regenerate", rotated.id);
    let page = admin
        .send(&path, &[("revision", "1"), ("grace", "0")])
        .await;
    assert_page(&page, 200);
    let notice = told(&page.text).expect("a notice");
    assert!(notice.contains(">two<"), "{notice}");
    assert!(!page.text.contains("from now on"), "{}", page.text);

    // No address makes a page say so where it does not hold.
    let alone = World::start().await;
    let key = alone.sidekey.create_key(json!({"name": "k"})).await;
    let page = alone.admin().await;
    let page = page
        .get(&format!("/{}?done=revoked&unconfirmed=1", key.id))
        .await;
    assert_eq!(told(&page.text), None);
}
