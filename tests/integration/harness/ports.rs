//! Ports for servers that are started later, started again, or never.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that Linux gives to outgoing connections, and to who asks for port 0: nobody gets one of
/// them by chance while its server is down.
const FIRST: u32 = 10_000;
const COUNT: u32 = 32_768 - FIRST;
/// Runs of the tests side by side begin so far apart.
const RUN_STEP: u32 = 1_009;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A port on which nobody listens. No test gets it twice.
pub fn free_port() -> u16 {
    let offset = std::process::id().wrapping_mul(RUN_STEP) % COUNT;
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < COUNT, "no port is free");
        let port = u16::try_from(FIRST + (offset + taken) % COUNT).expect("a port");
        if is_free(port) {
            return port;
        }
    }
}

/// Some servers want the same port of both families.
fn is_free(port: u16) -> bool {
    let ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    let has_ipv6_user = ipv6.is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    !has_ipv6_user && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
