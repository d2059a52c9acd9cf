//! Which option a field of the API belongs to. Options are called alike in all commands, so one table
//! serves them all.

const OPTIONS: &[(&str, &str)] = &[
    ("action", "--action"),
    ("actor", "--actor"),
    ("allowed_ips", "--allow-ip"),
    ("contact_email", "--contact-email"),
    ("cursor", "--cursor"),
    ("display_name", "--display-name"),
    ("environment", "--environment"),
    ("expires_at", "--expires-at or --expires-in"),
    ("expiring_before", "--expiring-before"),
    ("from", "--from"),
    ("grace_period_seconds", "--grace"),
    ("interval", "--interval"),
    ("key_id", "--key"),
    ("limit", "--limit"),
    ("max_keys", "--max-keys"),
    ("metadata", "--metadata"),
    ("name", "--name"),
    ("q", "--search"),
    ("rate_limits", "--rate-limit"),
    ("rotation_days", "--rotation-days"),
    ("scopes", "--scope"),
    ("sort", "--sort"),
    ("status", "--status"),
    ("tenant_id", "--tenant"),
    ("to", "--to"),
    ("unused_since", "--unused-since"),
];

/// The option of a field; `rate_limits[0].quota` belongs to that of `rate_limits`.
pub fn of_field(field: &str) -> Option<&'static str> {
    let name = field.split(['[', '.']).next().unwrap_or_default();
    let found = OPTIONS.iter().find(|(of, _)| *of == name);
    found.map(|(_, option)| *option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lead_to_options() {
        assert_eq!(of_field("scopes"), Some("--scope"));
        assert_eq!(of_field("rate_limits[0].quota"), Some("--rate-limit"));
        assert_eq!(of_field("colour"), None);
        assert_eq!(of_field(""), None);
    }
}
