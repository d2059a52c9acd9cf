//! Who is calling the port: the client's address, also behind proxies that are trusted to name it. It is
//! found once, before anything is answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::Extensions;
use axum::middleware::Next;
use axum::response::Response;

use super::AdminState;
use crate::forwarded;

#[derive(Debug, Clone, Copy)]
struct Client(IpAddr);

/// Finds it.
pub async fn find(
    State(state): State<Arc<AdminState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|peer| peer.0.ip());
    let client = forwarded::address(peer, request.headers(), &state.trusted_proxies);
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

/// The client of a request with these extensions.
pub fn of(extensions: &Extensions) -> IpAddr {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    extensions.get::<Client>().map_or(nobody, |client| client.0)
}
