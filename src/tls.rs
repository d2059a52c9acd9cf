//! The cryptography of TLS connections to stores: one provider for the whole process.

/// Makes *ring* the provider of whoever does not bring its own. Calling it again changes nothing.
pub fn use_ring() {
    let provider = rustls::crypto::ring::default_provider();
    // An error says that there is one already.
    let _ = provider.install_default();
}
