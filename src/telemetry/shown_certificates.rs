//! When the certificates end that servers behind Sidekey show.
//!
//! The proxy's library keeps them to itself, so now and then a connection is opened to look at them, and
//! closed again: nothing is asked on it. Whether a certificate is to be trusted is none of the questions
//! here; requests find that out.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;

use super::Metrics;
use super::certificates::{Rounds, end_of};
use super::dependencies::Certificate;

/// How long a look may take: name, connection and handshake.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 8 << 10;

/// Where a server with TLS is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsServer {
    pub host: String,
    pub port: u16,
}

/// Shows when the first certificate of `servers` ends, for ever. A server that can't be looked at is
/// warned of once, and what was known of it stays.
pub async fn keep_looking(servers: Vec<TlsServer>, metrics: Arc<Metrics>) {
    if servers.is_empty() {
        return;
    }
    let mut ends = BTreeMap::new();
    let mut first = None;
    let mut rounds = Rounds::new(servers.len());
    loop {
        for (at, server) in servers.iter().enumerate() {
            if !rounds.is_due(at) {
                continue;
            }
            let looked = look(server).await;
            let begins_to_fail = rounds.note(at, looked.is_ok());
            match looked {
                Ok(end) => {
                    ends.insert(server, end);
                }
                Err(error) if begins_to_fail => {
                    tracing::warn!(server = %server.host, port = server.port, %error, "it is not known when a server's certificate ends");
                }
                Err(_) => {}
            }
        }
        let now_first = ends.iter().min_by_key(|(_, end)| **end);
        let now_first = now_first.map(|(server, end)| (*server, *end));
        if let (Some((server, end)), true) = (now_first, now_first != first) {
            // The metric has no name of a server.
            tracing::info!(server = %server.host, port = server.port, unix_seconds = end, "of the upstreams' certificates its one ends first");
            metrics.show_certificate_end(Certificate::Upstream, end);
        }
        first = now_first;
        rounds.next().await;
    }
}

/// When the certificate of `server` ends, in seconds since the Unix epoch. What it shows beside its own
/// says little: a root that nobody needs any more may be there for years after its end.
pub async fn look(server: &TlsServer) -> io::Result<i64> {
    let looking = async {
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        let connection = shake_hands(&stream, &server.host).await?;
        let shown = connection.peer_certificates().unwrap_or_default();
        let end = shown.first().and_then(|own| end_of(own));
        end.ok_or_else(|| io::Error::other("it shows no certificate that can be read"))
    };
    tokio::time::timeout(LOOK_TIMEOUT, looking).await?
}

async fn shake_hands(stream: &TcpStream, host: &str) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let settings = Arc::new(settings().map_err(io::Error::other)?);
    let mut connection = ClientConnection::new(settings, name).map_err(io::Error::other)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    while connection.is_handshaking() {
        send(stream, &mut connection).await?;
        if !connection.is_handshaking() {
            break;
        }
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => receive(&mut connection, &buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    connection.send_close_notify();
    send(stream, &mut connection).await?;
    Ok(connection)
}

fn receive(connection: &mut ClientConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // After the other side has said that it closes, nothing more is taken.
        if connection.read_tls(&mut bytes)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        connection.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

async fn send(stream: &TcpStream, connection: &mut ClientConnection) -> io::Result<()> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    let mut left = &bytes[..];
    while !left.is_empty() {
        stream.writable().await?;
        match stream.try_write(left) {
            Ok(length) => left = &left[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn settings() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker { schemes }))
        .with_no_client_auth())
}

/// Who only looks, and says nothing that matters to whom.
#[derive(Debug)]
struct Onlooker {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
