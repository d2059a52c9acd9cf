//! `sidekey secrets`: moving hashes and mint keys to Vault, and rotating the mint key. Both work on the
//! stores themselves, so they need the configuration of the instances and their rights.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;

use crate::clock::{SharedClock, SystemClock};
use crate::config;
use crate::config::Settings;
use crate::config::settings::SecretsSettings;
use crate::secrets::{EmbeddedSecrets, SecretError, VaultSecrets, moving};
use crate::store::SqlStore;
use crate::telemetry::Metrics;
use crate::telemetry::logs;

#[derive(Subcommand)]
pub enum Secrets {
    /// Move key hashes and mint keys from the database to Vault (secrets.backend = "vault")
    Move {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
        /// Copy only: leave everything in the database too
        #[arg(long)]
        keep: bool,
    },
    /// Put a new mint key in front of the others, which are still believed
    RotateMintKey {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
        config: PathBuf,
    },
}

pub fn run(command: &Secrets) -> ExitCode {
    match command {
        Secrets::Move { config, keep } => {
            carry_out(config, async |stores| move_all(stores, *keep).await)
        }
        Secrets::RotateMintKey { config } => carry_out(config, rotate),
    }
}

/// The stores of a configuration.
struct Stores {
    settings: Settings,
    store: SqlStore,
    clock: SharedClock,
}

impl Stores {
    fn embedded(&self) -> EmbeddedSecrets {
        EmbeddedSecrets::new(self.store.pools().clone(), self.clock.clone())
    }

    /// `None` where the configuration has no Vault.
    async fn vault(&self) -> Result<Option<VaultSecrets>, String> {
        let SecretsSettings::Vault(settings) = &self.settings.secrets else {
            return Ok(None);
        };
        let metrics = Metrics::new().map_err(|error| error.to_string())?;
        let vault = VaultSecrets::open(settings.clone(), self.clock.clone(), Arc::new(metrics));
        vault.await.map(Some).map_err(text)
    }
}

fn text(error: SecretError) -> String {
    error.to_string()
}

/// Runs `work` on the stores of the configuration at `path`; prints what it says.
fn carry_out(path: &Path, work: impl AsyncFnOnce(&Stores) -> Result<String, String>) -> ExitCode {
    let settings = match super::load(path) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let _log = logs::start(&settings.log);
    super::block_on(async {
        println!("{}", with_stores(settings, work).await?);
        Ok(ExitCode::SUCCESS)
    })
}

async fn with_stores(
    settings: Settings,
    work: impl AsyncFnOnce(&Stores) -> Result<String, String>,
) -> Result<String, String> {
    let store = SqlStore::open(&settings.store.url).await;
    let stores = Stores {
        store: store.map_err(|error| format!("the store can't be opened: {error}"))?,
        settings,
        clock: Arc::new(SystemClock::new()),
    };
    let done = work(&stores).await;
    stores.store.close().await;
    done
}

async fn move_all(stores: &Stores, keep: bool) -> Result<String, String> {
    let Some(vault) = stores.vault().await? else {
        return Err("secrets.backend is \"embedded\": give the configuration that the instances will have after the move, with secrets.backend = \"vault\"".to_owned());
    };
    let moved = moving::run(&stores.embedded(), &vault, keep).await;
    let moved = moved.map_err(|error| error.to_string())?;
    Ok(format!(
        "Vault has {} mint keys; {} keys with {} hashes were in the database, {} of them were copied, {} removed from the database",
        moved.mint_keys, moved.keys, moved.hashes, moved.copied, moved.removed
    ))
}

async fn rotate(stores: &Stores) -> Result<String, String> {
    let count = match stores.vault().await? {
        Some(vault) => vault.rotate_mint_key().await,
        None => stores.embedded().rotate_mint_key().await,
    };
    Ok(format!(
        "there are {} mint keys now, and the newest mints as soon as an instance is started again",
        count.map_err(text)?
    ))
}
