//! Changing keys.

use serde_json::json;

use super::*;

/// The fields of an edit form as they are, with `changes` over them.
fn fields_of<'a>(page: &'a str, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
    let kept = [
        "revision",
        "opened",
        "contact_email",
        "rotation_days",
        "more_scopes",
    ];
    let mut fields: Vec<(&str, String)> = Vec::new();
    for name in kept {
        let at = page.find(&format!("name=\"{name}\"")).expect(name);
        let tag = &page[at..at + page[at..].find('>').expect("its end")];
        let (_, value) = tag.split_once(" value=\"").expect("a value");
        fields.push((name, value.split('"').next().expect("its end").to_owned()));
    }
    for (name, value) in changes {
        fields.retain(|(field, _)| field != name);
        fields.push((name, (*value).to_owned()));
    }
    fields
}

fn borrowed<'a>(fields: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    fields
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_is_changed_and_nothing_else() {
    let world = World::start().await;
    let admin = world.admin().await;
    let key = world
        .sidekey
        .create_key(json!({
            "name": "before", "scopes": ["orders:read", "shop:*"], "metadata": {"deep": {"a": [1]}},
            "expires_at": "2099-01-01T00:00:07.250Z", "contact_email": "old@acme.example",
        }))
        .await;
    let before = world.key(&key.id).await;
    let path = format!("/{}/edit", key.id);
    let page = admin.get(&path).await;
    assert_page(&page, 200);
    assert!(
        page.text.contains("value=\"orders:read\" checked"),
        "{}",
        page.text
    );
    assert!(
        page.text.contains("value=\"2099-01-01T00:00:07\""),
        "{}",
        page.text
    );
    let fields = fields_of(
        &page.text,
        &[
            ("name", "after"),
            ("scopes", "orders:read"),
            ("limits", "none"),
            ("expiry", "at"),
            ("expires_at", "2099-01-01T00:00:07"),
            ("contact_email", ""),
            (
                "metadata",
                "{\r\n  \"deep\": {\r\n    \"a\": [\r\n      1\r\n    ]\r\n  }\r\n}",
            ),
        ],
    );
    let reply = admin.send(&path, &borrowed(&fields)).await;
    assert_done(&reply, &key.id, "saved");
    let after = world.key(&key.id).await;
    assert_eq!(after["name"], "after");
    assert_eq!(after["rate_limits"], json!([]));
    assert_eq!(after["contact_email"], Value::Null);
    for same in [
        "scopes",
        "expires_at",
        "metadata",
        "rotation_days",
        "allowed_ips",
        "tenant_id",
    ] {
        assert_eq!(after[same], before[same], "{same}");
    }
    // The form was filled in before that change.
    let stale = admin.send(&path, &borrowed(&fields)).await;
    assert_page(&stale, 412);
    assert!(stale.text.contains("changed meanwhile"), "{}", stale.text);
    // One that says no version changes nothing either.
    assert_page(&admin.send(&path, &[("name", "x")]).await, 412);
    assert_eq!(world.key(&key.id).await["name"], "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_can_not_be_is_told_beside_its_field() {
    let world = World::start().await;
    let admin = world.admin().await;
    let key = world.sidekey.create_key(json!({"name": "n"})).await;
    let path = format!("/{}/edit", key.id);
    let page = admin.get(&path).await;
    let changes = [
        ("name", " "),
        ("limits", "default"),
        ("expiry", "at"),
        ("expires_at", "soon"),
        ("contact_email", SCRIPT),
    ];
    let fields = fields_of(&page.text, &changes);
    let page = admin.send(&path, &borrowed(&fields)).await;
    assert_page(&page, 422);
    for id in ["key-name", "key-expires-at", "key-contact-email"] {
        assert!(!error_of(&page.text, id).is_empty(), "{id}");
    }
    assert!(
        page.text
            .contains(&format!("value=\"{}\"", escaped(SCRIPT))),
        "{}",
        page.text
    );
    assert_eq!(value_of(&page.text, "revision"), "1");
    assert_eq!(world.key(&key.id).await["name"], "n");

    // The writer of one tenant can't make a key that administrates.
    let writer = world.colleague(&["sidekey:keys:write"]).await;
    let page = writer.get(&path).await;
    let fields = fields_of(&page.text, &[("name", "n"), ("scopes", "sidekey:admin")]);
    let page = writer.send(&path, &borrowed(&fields)).await;
    assert_page(&page, 403);
    assert!(page.text.contains("Only an administrator"), "{}", page.text);
}
