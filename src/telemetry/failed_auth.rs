//! Requests through the proxy whose caller was not let in for what the credential is: why, and from what
//! kind of address. Closed lists; no address stands in a label.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use prometheus::IntCounter;

use super::addresses::Addresses;
use super::metrics::Metrics;
use super::outcome::{OUTCOMES, Outcome};

/// Outcomes that are a failed authentication. The label `reason`.
pub const REASONS: [Outcome; 8] = [
    Outcome::NoCredential,
    Outcome::AmbiguousCredential,
    Outcome::InvalidKey,
    Outcome::ExpiredKey,
    Outcome::DisabledKey,
    Outcome::SuspendedTenant,
    Outcome::AddressNotAllowed,
    Outcome::FailedAuthLimited,
];

/// What kind of address a client has. The label `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceClass {
    /// The same machine.
    Loopback,
    /// A network that the internet doesn't lead to.
    Private,
    Public,
}

impl SourceClass {
    pub const ALL: [SourceClass; 3] = [
        SourceClass::Loopback,
        SourceClass::Private,
        SourceClass::Public,
    ];

    pub fn of(address: IpAddr) -> Self {
        let (is_loopback, is_private) = match address.to_canonical() {
            IpAddr::V4(address) => (address.is_loopback(), is_private_v4(address)),
            IpAddr::V6(address) => (address.is_loopback(), is_private_v6(address)),
        };
        match (is_loopback, is_private) {
            (true, _) => SourceClass::Loopback,
            (false, true) => SourceClass::Private,
            (false, false) => SourceClass::Public,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceClass::Loopback => "loopback",
            SourceClass::Private => "private",
            SourceClass::Public => "public",
        }
    }
}

/// RFC 1918, link-local, carriers' shared addresses (RFC 6598), and no address at all.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_link_local()
        || address.is_unspecified()
        || (a == 100 && (64..128).contains(&b))
}

/// Unique local (RFC 4193), link-local, and no address at all.
fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local() || address.is_unspecified()
}

/// Their counters, found once.
#[derive(Debug, Clone)]
pub struct FailedAuthentications {
    /// By outcome; none where that is no failed authentication.
    counters: Vec<Option<[IntCounter; 3]>>,
    addresses: Arc<Addresses>,
}

impl FailedAuthentications {
    pub fn of(metrics: &Metrics) -> Self {
        let mut counters = vec![None; OUTCOMES];
        for reason in REASONS {
            counters[reason as usize] = Some(SourceClass::ALL.map(|source| {
                let labels = &[reason.as_str(), source.as_str()];
                metrics.failed_authentications.with_label_values(labels)
            }));
        }
        FailedAuthentications {
            counters,
            addresses: metrics.failed_addresses.clone(),
        }
    }

    /// Counts a refused request, if it was refused for what its credential is.
    pub fn count(&self, outcome: Outcome, client: IpAddr, now_us: u64) {
        let Some(Some(sources)) = self.counters.get(outcome as usize) else {
            return;
        };
        sources[SourceClass::of(client) as usize].inc();
        // Who has no key, or one that has expired, guesses at none.
        if matches!(outcome, Outcome::InvalidKey | Outcome::FailedAuthLimited) {
            self.addresses.see(client, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_class() {
        for (class, addresses) in [
            (
                SourceClass::Loopback,
                &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"][..],
            ),
            (
                SourceClass::Private,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "169.254.1.1",
                    "100.64.0.1",
                    "100.127.255.255",
                    "0.0.0.0",
                    "fc00::1",
                    "fdff::1",
                    "fe80::1",
                    "::",
                    "::ffff:10.0.0.1",
                ],
            ),
            (
                SourceClass::Public,
                &[
                    "8.8.8.8",
                    "172.32.0.1",
                    "100.63.0.1",
                    "100.128.0.1",
                    "192.169.0.1",
                    "2001:db8::1",
                    "fec0::1",
                    "::ffff:8.8.8.8",
                ],
            ),
        ] {
            for text in addresses {
                assert_eq!(SourceClass::of(text.parse().unwrap()), class, "{text}");
            }
        }
        for (index, class) in SourceClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
        }
    }

    #[test]
    fn only_failed_authentication_counts_and_only_wrong_keys_have_addresses() {
        let metrics = Metrics::new().unwrap();
        let failed = FailedAuthentications::of(&metrics);
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        for (n, outcome) in (0..).zip(Outcome::ALL) {
            failed.count(outcome, client(n), 0);
        }
        let text = metrics.text().unwrap();
        let counted = text
            .lines()
            .filter(|line| line.starts_with("sidekey_failed_authentications_total{"))
            .filter(|line| line.ends_with(" 1"));
        let counted: Vec<&str> = counted.collect();
        assert_eq!(counted.len(), REASONS.len(), "{counted:?}");
        assert!(
            counted
                .iter()
                .all(|line| line.contains("source=\"public\""))
        );
        assert_eq!(metrics.failed_addresses.estimate(0), 2);
    }
}
