//! The services behind: their servers, used in turn, and which of them can't be reached just now.
//!
//! Host names are resolved ahead of requests, never on a proxy thread. A server that refused a
//! connection is left alone for a moment where there is another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};

use crate::config::settings::{Server, UpstreamSettings};

/// How long a server that could not be reached is left alone.
const PAUSE_US: u64 = 5_000_000;
/// One request tries at most this many servers.
pub const ATTEMPTS_MAX: usize = 3;
/// How long one name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One address of one server.
#[derive(Debug)]
pub struct Endpoint {
    /// Which of the upstream's servers it is an address of.
    server: usize,
    address: SocketAddr,
    /// What Pingora needs to connect, ready to be copied.
    peer: HttpPeer,
    paused_until_us: AtomicU64,
}

impl Endpoint {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What Pingora needs to connect to it.
    pub fn peer(&self) -> Box<HttpPeer> {
        Box::new(self.peer.clone())
    }

    /// Leaves this endpoint alone for a moment.
    pub fn pause(&self, now_us: u64) {
        self.paused_until_us
            .store(now_us.saturating_add(PAUSE_US), Ordering::Relaxed);
    }

    fn is_paused(&self, now_us: u64) -> bool {
        self.paused_until_us.load(Ordering::Relaxed) > now_us
    }
}

/// A service behind Sidekey.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    servers: Vec<Server>,
    options: PeerOptions,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
}

impl Upstream {
    /// An upstream whose names are not resolved yet.
    pub fn new(settings: &UpstreamSettings) -> Self {
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(settings.connect_timeout);
        options.total_connection_timeout = Some(settings.connect_timeout * 2);
        options.read_timeout = Some(settings.read_timeout);
        options.write_timeout = Some(settings.read_timeout);
        options.idle_timeout = Some(settings.idle_timeout);
        Upstream {
            name: settings.name.clone(),
            servers: settings.servers.clone(),
            options,
            endpoints: ArcSwap::default(),
            turn: AtomicUsize::new(0),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many endpoints are known.
    pub fn endpoint_count(&self) -> usize {
        self.endpoints.load().len()
    }

    /// Whether one of the servers is the built-in echo.
    pub fn has_echo(&self) -> bool {
        self.servers.contains(&Server::Echo)
    }

    /// Resolves all names again. What can't be resolved keeps the addresses that it had.
    pub async fn resolve(&self, echo: Option<SocketAddr>) {
        let known = self.endpoints.load_full();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let (host, tls, addresses) = match server {
                Server::Echo => ("localhost", false, echo.into_iter().collect()),
                Server::Host { host, port, tls } => {
                    (host.as_str(), *tls, look_up(host, *port).await)
                }
            };
            // The name that a certificate must be for.
            let server_name = if tls { host.to_owned() } else { String::new() };
            let is_known = |endpoint: &&Arc<Endpoint>| endpoint.server == index;
            if addresses.is_empty() {
                tracing::warn!(upstream = %self.name, server = %host, "the name of a server can't be resolved");
                endpoints.extend(known.iter().filter(is_known).cloned());
                continue;
            }
            for address in addresses {
                let same = known
                    .iter()
                    .filter(is_known)
                    .find(|endpoint| endpoint.address == address);
                endpoints.push(same.cloned().unwrap_or_else(|| {
                    let mut peer = HttpPeer::new(address, tls, server_name.clone());
                    peer.options = self.options.clone();
                    Arc::new(Endpoint {
                        server: index,
                        address,
                        peer,
                        paused_until_us: AtomicU64::new(0),
                    })
                }));
            }
        }
        self.endpoints.store(Arc::new(endpoints));
    }

    /// The endpoint whose turn it is, but none of `tried`; a paused one only where all are.
    pub fn pick(&self, tried: &[SocketAddr], now_us: u64) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        if endpoints.is_empty() {
            return None;
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || {
            (0..endpoints.len()).map(|step| &endpoints[start.wrapping_add(step) % endpoints.len()])
        };
        let fresh = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.address);
        in_turn()
            .filter(fresh)
            .find(|endpoint| !endpoint.is_paused(now_us))
            .or_else(|| in_turn().find(fresh))
            .cloned()
    }

    #[cfg(test)]
    pub fn empty() -> Self {
        Upstream::new(&UpstreamSettings {
            name: "empty".into(),
            servers: vec![],
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
        })
    }
}

async fn look_up(host: &str, port: u16) -> Vec<SocketAddr> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn upstream(servers: &[&str]) -> Upstream {
        let servers = servers
            .iter()
            .map(|text| {
                let address: SocketAddr = text.parse().unwrap();
                Server::Host {
                    host: address.ip().to_string(),
                    port: address.port(),
                    tls: false,
                }
            })
            .collect();
        let upstream = Upstream {
            servers,
            ..Upstream::empty()
        };
        upstream.resolve(None).await;
        upstream
    }

    fn port(endpoint: Option<Arc<Endpoint>>) -> u16 {
        endpoint.map_or(0, |endpoint| endpoint.address.port())
    }

    #[tokio::test]
    async fn servers_take_turns() {
        let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"]).await;
        let ports: Vec<u16> = (0..6).map(|_| port(upstream.pick(&[], 0))).collect();
        assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_server_that_failed_is_left_alone_for_a_moment() {
        let upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2"]).await;
        let failed = upstream.pick(&[], 0).unwrap();
        failed.pause(0);
        for _ in 0..4 {
            assert_eq!(port(upstream.pick(&[], 0)), 2);
        }
        assert_eq!(
            port(upstream.pick(&["127.0.0.1:2".parse().unwrap()], 0)),
            1,
            "better than none"
        );
        let later: Vec<u16> = (0..2).map(|_| port(upstream.pick(&[], PAUSE_US))).collect();
        assert!(later.contains(&1));
        assert_eq!(
            port(upstream.pick(
                &[
                    "127.0.0.1:1".parse().unwrap(),
                    "127.0.0.1:2".parse().unwrap()
                ],
                0
            )),
            0
        );
    }

    #[tokio::test]
    async fn a_name_that_stops_resolving_keeps_its_own_addresses() {
        let mut upstream = upstream(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]).await;
        for server in &mut upstream.servers[1..] {
            *server = Server::Host {
                host: "no-such-host.invalid".into(),
                port: 1,
                tls: false,
            };
        }
        for _ in 0..3 {
            upstream.resolve(None).await;
            assert_eq!(upstream.endpoint_count(), 3);
        }
    }

    #[tokio::test]
    async fn resolving_again_keeps_what_is_known() {
        let upstream = upstream(&["127.0.0.1:1"]).await;
        let before = upstream.pick(&[], 0).unwrap();
        upstream.resolve(None).await;
        assert!(Arc::ptr_eq(&before, &upstream.pick(&[], 0).unwrap()));
    }
}
