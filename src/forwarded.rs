//! Who is calling: the client's address, also behind proxies that are trusted to name it.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

/// The field that proxies append the address of their client to.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a connection from `peer`. Where that is a trusted proxy, the last address in
/// `X-Forwarded-For` that is not one; what stands to the left of it anybody could have written.
pub fn address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        .to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let lines: SmallVec<[&[u8]; 4]> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let comma = |b: &u8| *b == b',';
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(comma)) {
        // What is no address, or no text at all, ends the chain of trust.
        let hop = std::str::from_utf8(hop).unwrap_or_default();
        let Some(address) = parse_hop(hop.trim()) else {
            break;
        };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Whether `address` is one of ours.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// An address, also with a port and in brackets as some proxies write it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = match hop.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if hop.matches(':').count() == 1 => hop.split(':').next()?,
        None => hop,
    };
    bare.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, lines, client) in [
            ("192.0.2.1", vec!["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                vec!["203.0.113.9, 198.51.100.1"],
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                vec!["203.0.113.9, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                vec!["203.0.113.9", "198.51.100.1"],
                "198.51.100.1",
            ),
            ("10.0.0.1", vec!["nonsense, 10.0.0.2"], "10.0.0.2"),
            // Bytes that are no text hide nothing that stands behind them.
            (
                "10.0.0.1",
                vec!["203.0.113.9", "\u{e9}, 198.51.100.1"],
                "198.51.100.1",
            ),
            ("10.0.0.1", vec!["203.0.113.9, \u{e9}"], "10.0.0.1"),
            ("10.0.0.1", vec!["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("fd00::1", vec!["[2001:db8::1]:443"], "2001:db8::1"),
            ("fd00::1", vec!["198.51.100.1:5000"], "198.51.100.1"),
            ("fd00::1", vec!["2001:db8::2"], "2001:db8::2"),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append(X_FORWARDED_FOR, value);
            }
            let found = address(Some(peer.parse().unwrap()), &headers, &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }
}
