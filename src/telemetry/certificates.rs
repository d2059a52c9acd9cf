//! When the certificates end that the configuration names: read now and then, so that somebody is told
//! before a connection fails.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use x509_parser::parse_x509_certificate;
use x509_parser::pem::Pem;

use super::Metrics;
use super::dependencies::Certificate;

/// How often it is looked.
pub(super) const INTERVAL: Duration = Duration::from_secs(3600);
/// The most bytes of a file: the system's bundle of all authorities has a quarter of a million.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// What a certificate's block is called.
const LABEL: &str = "CERTIFICATE";

/// A file with certificates in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    pub certificate: Certificate,
    pub path: PathBuf,
}

/// Shows when the certificates in `files` end, for ever. A file that can't be read is warned of once, and
/// what was known of it stays.
pub async fn keep_watching(files: Vec<NamedFile>, metrics: Arc<Metrics>) {
    let mut unreadable = vec![false; files.len()];
    loop {
        for (file, was_unreadable) in files.iter().zip(&mut unreadable) {
            let named = file.clone();
            // A file may be on a network.
            let end = tokio::task::spawn_blocking(move || read_end(&named)).await;
            let end = end.unwrap_or_else(|_| Err("can't be read".to_owned()));
            if let (Err(detail), false) = (&end, *was_unreadable) {
                tracing::warn!(certificate = file.certificate.as_str(), file = %file.path.display(), detail, "it is not known when a certificate ends");
            }
            *was_unreadable = end.is_err();
            if let Ok(unix_seconds) = end {
                metrics.show_certificate_end(file.certificate, unix_seconds);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn read_end(named: &NamedFile) -> Result<i64, String> {
    let file = File::open(&named.path).map_err(|error| format!("can't be read: {error}"))?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| format!("can't be read: {error}"))?;
    end_in(&text, named.certificate)
        .ok_or_else(|| "holds no certificate in PEM that can be read".to_owned())
}

/// When what is in `pem` ends, in seconds since the Unix epoch: a chain with its first certificate,
/// authorities with the last, because one that ends may stand beside its successor. Blocks that can't be
/// read are left out, as they are by who uses them.
pub fn end_in(pem: &[u8], certificate: Certificate) -> Option<i64> {
    let ends = Pem::iter_from_buffer(pem)
        .flatten()
        .filter(|block| block.label == LABEL)
        .filter_map(|block| end_of(&block.contents));
    if certificate.is_of_authorities() {
        ends.max()
    } else {
        ends.min()
    }
}

/// When a certificate ends.
pub(super) fn end_of(der: &[u8]) -> Option<i64> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
