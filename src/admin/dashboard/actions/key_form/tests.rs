use super::*;
use crate::key::Policy;
use crate::key::record::tests::record;

fn now() -> Timestamp {
    Timestamp::parse("2027-01-01T12:00:00.250Z").unwrap()
}

fn catalogue() -> Catalogue {
    Catalogue::new(vec![
        "orders:read".parse().unwrap(),
        "orders:write".parse().unwrap(),
    ])
}

fn form(pairs: &[(&str, &str)]) -> KeyForm {
    let pairs = pairs.iter();
    let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    KeyForm::of_pairs(&pairs.collect::<Vec<_>>(), now())
}

fn body(pairs: &[(&str, &str)]) -> Value {
    let (body, errors) = form(pairs).new_body();
    assert_eq!(errors, []);
    Value::Object(body)
}

fn bad(pairs: &[(&str, &str)]) -> Vec<String> {
    let (_, errors) = form(pairs).new_body();
    errors.into_iter().map(|error| error.field).collect()
}

#[test]
fn what_is_typed_becomes_the_body_of_the_api() {
    let body = body(&[
        ("csrf", "x"),
        ("name", "Orders"),
        ("tenant_id", " acme "),
        ("environment", "test"),
        ("scopes", "orders:read"),
        ("scopes", "orders:write"),
        ("more_scopes", "shop:*, orders:read"),
        ("limits", "own"),
        ("limit_name", "a"),
        ("limit_quota", "10"),
        ("limit_window", "60"),
        ("limit_burst", ""),
        ("expiry", "at"),
        ("expires_at", "2027-06-01T09:30"),
        ("allowed_ips", "10.0.0.0/8\r\n\r\n192.0.2.1 \r\n"),
        ("contact_email", " ops@example.com"),
        ("rotation_days", "30"),
        ("metadata", "team = Orders\r\ncost=7"),
    ]);
    assert_eq!(
        body,
        json!({
            "name": "Orders", "tenant_id": "acme", "environment": "test",
            "scopes": ["orders:read", "orders:write", "shop:*"],
            "rate_limits": [{"name": "a", "quota": 10, "window_seconds": 60, "burst": null}],
            "expires_at": "2027-06-01T09:30:00Z", "allowed_ips": ["10.0.0.0/8", "192.0.2.1"],
            "contact_email": "ops@example.com", "rotation_days": 30,
            "metadata": {"team": "Orders", "cost": "7"},
        })
    );
}

#[test]
fn what_is_left_empty_is_the_api_s_default() {
    let body = body(&[("name", ""), ("limits", "default"), ("expiry", "never")]);
    assert_eq!(
        body,
        json!({
            "name": "", "environment": "", "scopes": [], "rate_limits": null, "expires_at": null,
            "allowed_ips": [], "contact_email": null, "rotation_days": null, "metadata": {},
        })
    );
}

#[test]
fn days_are_counted_from_the_opening_of_the_form() {
    let sent = [("opened", "2027-01-01T00:00:00.500Z"), ("expiry", "30")];
    assert_eq!(body(&sent)["expires_at"], "2027-01-31T00:00:00Z");
    assert_eq!(
        body(&[("expiry", "90")])["expires_at"],
        "2027-04-01T12:00:00Z"
    );
    let shown = form(&sent).expiry_choices();
    assert_eq!(shown[0].1.exact, "2027-01-31T00:00:00Z");
}

#[test]
fn limits_can_be_none_and_what_is_not_chosen_does_not_count() {
    let none = [
        ("limits", "none"),
        ("limit_name", "half"),
        ("limit_quota", "x"),
    ];
    assert_eq!(body(&none)["rate_limits"], json!([]));
    let never = [("expiry", "never"), ("expires_at", "nonsense")];
    assert_eq!(body(&never)["expires_at"], Value::Null);
}

#[test]
fn what_can_not_be_a_body_is_told_all_at_once() {
    let fields = bad(&[
        ("limits", "own"),
        ("limit_name", "a"),
        ("limit_quota", "many"),
        ("limit_window", "60"),
        ("expiry", "at"),
        ("expires_at", "tomorrow"),
        ("metadata", "nothing"),
    ]);
    assert_eq!(fields, ["rate_limits[0].quota", "expires_at", "metadata"]);
    // What the API can refuse is left to it.
    let (body, errors) = form(&[("rotation_days", "soon"), ("allowed_ips", "here")]).new_body();
    assert_eq!(errors, []);
    assert_eq!(body["rotation_days"], "soon");
    assert_eq!(body["allowed_ips"], json!(["here"]));
}

#[test]
fn a_form_that_is_sent_as_it_was_changes_nothing() {
    let mut key = record();
    key.scopes = ["orders:read", "gone:scope", "orders:*", "sidekey:keys:read"]
        .map(|scope| scope.parse().unwrap())
        .to_vec();
    key.expires_at = Some(Timestamp::parse("2028-01-01T00:00:07.123Z").unwrap());
    key.rate_limits = Some(vec![Policy {
        name: "a".to_owned(),
        quota: 1,
        window_seconds: 2,
        burst: Some(3),
    }]);
    key.metadata.insert("deep".to_owned(), json!({"a": [1]}));
    let before = KeyForm::of_record(&key, &catalogue(), now());
    assert_eq!(before.scopes, ["orders:read", "sidekey:keys:read"]);
    assert_eq!(before.more_scopes, "gone:scope orders:*");
    assert_eq!(before.expires_at, "2028-01-01T00:00:07");
    let (body, errors) = before.clone().change_body(&before);
    assert_eq!((body.len(), errors.len()), (0, 0), "{body:?}");

    let mut after = before.clone();
    after.expiry = "never".to_owned();
    after.limits = "default".to_owned();
    after.contact_email = String::new();
    after.rotation_days = String::new();
    after.scopes.clear();
    let (body, _) = after.change_body(&before);
    assert_eq!(body["expires_at"], Value::Null);
    assert_eq!(body["rate_limits"], Value::Null);
    assert_eq!(body["rotation_days"], Value::Null);
    assert_eq!(body["scopes"], json!(["gone:scope", "orders:*"]));
    assert_eq!(
        body.get("contact_email").is_some(),
        key.contact_email.is_some()
    );
    assert!(!body.contains_key("metadata") && !body.contains_key("name"));
}

#[test]
fn every_place_for_an_error_has_its_order() {
    let fields = form(&[]).fields();
    let place = |name: &str| fields.iter().position(|field| field == name).unwrap();
    assert!(place("rate_limits") < place("rate_limits[0].name"));
    assert!(place("rate_limits[0].burst") < place("rate_limits[2].name"));
    assert!(place("rate_limits[2].burst") < place("expires_at"));
}
