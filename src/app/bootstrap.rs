//! The first start on an empty store: one admin key, in a file.

use std::io::Write;
use std::path::Path;

use secrecy::ExposeSecret;

use super::{AppError, failed};
use crate::key::Environment;
use crate::key::record::ROTATION_DAYS_DEFAULT;
use crate::manage::{KeyError, KeyService, NewKey};

/// The tenant of the first admin key.
const BOOTSTRAP_TENANT: &str = "sidekey";

/// On an empty store: one admin key, written to a file that only its owner can read. The file
/// comes before the row, so that a crash never leaves a store that nobody can enter.
pub(super) async fn bootstrap(keys: &KeyService, file: &Path) -> Result<(), AppError> {
    let is_empty = async || {
        let empty = keys.store.is_empty().await;
        empty.map_err(failed("the store can't be read"))
    };
    if !is_empty().await? {
        return Ok(());
    }
    // Instances that share a directory take turns, so that none writes over another's file.
    let _turn = lock_directory(file).map_err(|error| {
        AppError(format!(
            "the directory of {} can't be made or opened: {error}; check admin.bootstrap_key_file",
            file.display()
        ))
    })?;
    if !is_empty().await? {
        return Ok(());
    }
    let new = NewKey {
        name: "Bootstrap admin key".to_owned(),
        tenant_id: BOOTSTRAP_TENANT
            .parse()
            .map_err(failed("the first admin key can't be made"))?,
        environment: Environment::Live,
        scopes: vec![
            "sidekey:admin"
                .parse()
                .map_err(failed("the first admin key can't be made"))?,
        ],
        rate_limits: None,
        expires_at: None,
        allowed_ips: Vec::new(),
        contact_email: None,
        rotation_days: ROTATION_DAYS_DEFAULT,
        metadata: serde_json::Map::new(),
    };
    let minted = keys
        .mint(new.environment, None)
        .map_err(failed("the first admin key can't be made"))?;
    write_private(file, minted.text.expose_secret()).map_err(|error| {
        AppError(format!(
            "the first admin key can't be written to {}: {error}; check admin.bootstrap_key_file",
            file.display()
        ))
    })?;
    match keys.create_first(new, minted).await {
        Ok(issued) => {
            tracing::info!(key_id = %issued.record.id, file = %file.display(), "the first admin key was written to its file");
            Ok(())
        }
        Err(KeyError::Conflict(_)) => {
            tracing::info!("another instance has made the first admin key");
            // It was never stored.
            std::fs::remove_file(file).map_err(failed(
                "the file of an admin key that is none can't be removed",
            ))
        }
        Err(error) => Err(failed("the first admin key can't be stored")(error)),
    }
}

/// Locks the directory of `file` against other instances until the result is dropped.
fn lock_directory(file: &Path) -> std::io::Result<std::fs::File> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)?;
    let directory = std::fs::File::open(directory)?;
    // Not every network file system can; then one instance should start first.
    if let Err(error) = rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive) {
        tracing::warn!(%error, "the directory of the first admin key can't be locked");
    }
    Ok(directory)
}

/// Writes `text` and a line break to a file of mode 0600, all or nothing.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
