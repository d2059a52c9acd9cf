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

/// How soon it is looked again where a look has failed: upstreams often start together with Sidekey.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Of so many rounds one looks at everything: one an hour.
const ROUNDS: u32 = 60;
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

/// What is to be looked at when: all of it every hour, and what has failed every minute.
#[derive(Debug)]
pub(super) struct Rounds {
    failing: Vec<bool>,
    number: u32,
}

impl Rounds {
    pub fn new(count: usize) -> Self {
        Rounds {
            failing: vec![false; count],
            number: 0,
        }
    }

    pub fn is_due(&self, at: usize) -> bool {
        self.number == 0 || self.failing.get(at).is_some_and(|failing| *failing)
    }

    /// Notes what came of a look, and says whether it begins to fail.
    pub fn note(&mut self, at: usize, is_ok: bool) -> bool {
        let Some(failing) = self.failing.get_mut(at) else {
            return false;
        };
        let was_failing = std::mem::replace(failing, !is_ok);
        !is_ok && !was_failing
    }

    /// Waits until the next round.
    pub async fn next(&mut self) {
        tokio::time::sleep(RETRY_INTERVAL).await;
        self.advance();
    }

    fn advance(&mut self) {
        self.number = (self.number + 1) % ROUNDS;
    }
}

/// Shows when the certificates in `files` end, for ever. A file that can't be read is warned of once, and
/// what was known of it stays.
pub async fn keep_watching(files: Vec<NamedFile>, metrics: Arc<Metrics>) {
    let mut rounds = Rounds::new(files.len());
    loop {
        for (at, file) in files.iter().enumerate() {
            if !rounds.is_due(at) {
                continue;
            }
            let named = file.clone();
            // A file may be on a network.
            let end = tokio::task::spawn_blocking(move || read_end(&named)).await;
            let end = end.unwrap_or_else(|_| Err("can't be read".to_owned()));
            let begins_to_fail = rounds.note(at, end.is_ok());
            match end {
                Ok(unix_seconds) => metrics.show_certificate_end(file.certificate, unix_seconds),
                Err(detail) if begins_to_fail => {
                    tracing::warn!(certificate = file.certificate.as_str(), file = %file.path.display(), detail, "it is not known when a certificate ends");
                }
                Err(_) => {}
            }
        }
        rounds.next().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_looked_at_each_minute_and_the_rest_each_hour() {
        let mut rounds = Rounds::new(2);
        assert!(rounds.is_due(0) && rounds.is_due(1));
        assert!(!rounds.note(0, true) && rounds.note(1, false));
        rounds.advance();
        assert!(!rounds.is_due(0) && rounds.is_due(1));
        // It is told once.
        assert!(!rounds.note(1, false));
        rounds.advance();
        assert!(rounds.is_due(1) && !rounds.note(1, true));
        rounds.advance();
        assert!(!rounds.is_due(1));
        for _ in 3..ROUNDS {
            rounds.advance();
        }
        assert!(rounds.is_due(0) && rounds.is_due(1));
    }
}
