//! What a row names, against what a secret store has. Pure.

use crate::clock::Timestamp;
use crate::key::record::Standing;
use crate::key::{Generation, TenantId};
use crate::store::Claim;

/// Why nothing needs a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoRow,
    /// The row belongs to another tenant.
    OtherTenant,
    Revoked,
    /// The row names another generation.
    Unnamed,
}

impl Reason {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoRow => "there is no such key",
            Reason::OtherTenant => "the key belongs to another tenant",
            Reason::Revoked => "the key is revoked",
            Reason::Unnamed => "the key does not use it",
        }
    }
}

/// What is wrong with one key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Hashes that nothing needs.
    pub leftovers: Vec<(Generation, Reason)>,
    /// The generation whose hash is missing, so that a key which is not revoked can't work.
    pub lacks: Option<Generation>,
}

impl Comparison {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.leftovers.is_empty() && self.lacks.is_none()
    }
}

/// Compares the row of a key with the hashes that `tenant` has for it.
pub fn compare(
    tenant: &TenantId,
    row: Option<&Claim>,
    stored: &[Generation],
    now: Timestamp,
) -> Comparison {
    let reason = match row {
        None => Reason::NoRow,
        Some(row) if row.tenant_id != *tenant => Reason::OtherTenant,
        Some(row) if row.standing == Standing::Revoked => Reason::Revoked,
        Some(_) => Reason::Unnamed,
    };
    let own = row.filter(|row| row.tenant_id == *tenant);
    let is_named = |generation| own.is_some_and(|row| row.names(generation, now));
    let leftovers = stored.iter().filter(|generation| !is_named(**generation));
    let lacks = own
        .filter(|row| row.standing != Standing::Revoked && !stored.contains(&row.generation))
        .map(|row| row.generation);
    Comparison {
        leftovers: leftovers.map(|generation| (*generation, reason)).collect(),
        lacks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::record::{PreviousSecret, tests::record};

    const NOW: i64 = 5000;

    fn claim(standing: Standing, generation: i64, previous: Option<(i64, i64)>) -> Claim {
        let mut row = Claim::from(&record());
        row.standing = standing;
        row.generation = Generation(generation);
        row.previous = previous.map(|(generation, until)| PreviousSecret {
            generation: Generation(generation),
            valid_until: Timestamp::from_millis(until),
        });
        row
    }

    /// The generations that are left over, and the one that is missing.
    fn compared(tenant: &str, row: Option<&Claim>, stored: &[i64]) -> (Vec<i64>, Option<i64>) {
        let stored: Vec<Generation> = stored.iter().copied().map(Generation).collect();
        let now = Timestamp::from_millis(NOW);
        let found = compare(&tenant.parse().unwrap(), row, &stored, now);
        let leftovers = found.leftovers.iter().map(|(generation, _)| generation.0);
        (leftovers.collect(), found.lacks.map(|lacks| lacks.0))
    }

    /// A row, the generations stored, those that are left over, and the one that is missing.
    type Case = (Claim, &'static [i64], &'static [i64], Option<i64>);

    #[test]
    fn a_row_names_its_current_secret_and_one_in_grace() {
        use Standing::{Active, Disabled, Revoked};
        let (until, over) = (Some((1, NOW + 1)), Some((1, NOW)));
        #[rustfmt::skip]
        let cases: &[Case] = &[
            (claim(Active, 1, None),     &[1],       &[],        None),
            (claim(Active, 1, None),     &[],        &[],        Some(1)),
            (claim(Active, 1, None),     &[2, 1],    &[2],       None),
            (claim(Active, 1, None),     &[2],       &[2],       Some(1)),
            (claim(Active, 2, None),     &[2, 1],    &[1],       None),
            (claim(Active, 2, until),    &[2, 1],    &[],        None),
            (claim(Active, 2, over),     &[2, 1],    &[1],       None),
            (claim(Active, 2, until),    &[2],       &[],        None),
            (claim(Active, 2, until),    &[1],       &[],        Some(2)),
            (claim(Active, 3, until),    &[3, 2, 1], &[2],       None),
            (claim(Disabled, 1, None),   &[1],       &[],        None),
            (claim(Disabled, 1, None),   &[],        &[],        Some(1)),
            (claim(Disabled, 2, over),   &[2, 1],    &[1],       None),
            (claim(Revoked, 1, None),    &[],        &[],        None),
            (claim(Revoked, 2, until),   &[2, 1],    &[2, 1],    None),
        ];
        for (row, stored, leftovers, lacks) in cases {
            let expected = (leftovers.to_vec(), *lacks);
            assert_eq!(compared("acme", Some(row), stored), expected, "{row:?}");
            // A neighbour's hashes under the same id are nobody's, and say nothing about the key.
            let other = (stored.to_vec(), None);
            assert_eq!(compared("other", Some(row), stored), other, "{row:?}");
        }
        assert_eq!(compared("acme", None, &[2, 1]), (vec![2, 1], None));
        assert_eq!(compared("acme", None, &[]), (vec![], None));
    }

    #[test]
    fn the_reason_is_told() {
        let now = Timestamp::from_millis(NOW);
        for (tenant, row, reason) in [
            ("acme", None, Reason::NoRow),
            ("other", Some(Standing::Active), Reason::OtherTenant),
            ("acme", Some(Standing::Revoked), Reason::Revoked),
            ("acme", Some(Standing::Active), Reason::Unnamed),
        ] {
            let row = row.map(|standing| claim(standing, 1, None));
            let tenant = tenant.parse().unwrap();
            let found = compare(&tenant, row.as_ref(), &[Generation(7)], now);
            assert_eq!(found.leftovers, [(Generation(7), reason)]);
        }
    }

    #[test]
    fn an_expired_key_keeps_its_hash() {
        let mut key = record();
        key.expires_at = Some(Timestamp::from_millis(1));
        let row = Claim::from(&key);
        assert_eq!(compared("acme", Some(&row), &[1]), (vec![], None));
    }
}
