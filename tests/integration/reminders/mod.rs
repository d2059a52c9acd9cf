//! Reminders to replace a key's secret: what the store keeps of them on both engines, what is sent through a
//! real mail server while a clock moves by hand, and the program as a whole.

mod bounds;
mod disturbed;
mod failures;
mod lives;
mod long;
pub mod program;
mod store;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sidekey::audit::Action;
use sidekey::audit::seal::Sealer;
use sidekey::clock::{ManualClock, SharedClock, Timestamp};
use sidekey::config::settings::ReminderSettings;
use sidekey::key::{KeyRecord, TenantRecord, TenantSettings};
use sidekey::reminders::send::Mailer;
use sidekey::reminders::{Parts, Passed, Reminders};
use sidekey::store::audit::EventFilter;
use sidekey::store::{
    AuditStore, Journal, KeyStore, ReminderStore, SqlStore, StoreError, TenantStore,
};
use sidekey::telemetry::Metrics;
use sidekey::telemetry::reminders::ReminderResult;
use tempfile::TempDir;

use crate::harness::noted;
use crate::harness::smtp::Smtp;
use crate::postgres;

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// Where secrets were made: 2027-01-01T00:00:00Z.
fn made() -> Timestamp {
    Timestamp::from_millis(1_798_761_600_000)
}

/// So many days after that.
fn day(days: u32) -> Timestamp {
    made().plus(DAY * days)
}

/// A key whose secret was made then and is due 90 days later; `ops@NUMBER.example` is its contact.
fn key(number: i64) -> KeyRecord {
    KeyRecord {
        name: format!("orders {number}"),
        tenant_id: "acme".parse().unwrap(),
        contact_email: Some(format!("ops@{number}.example")),
        created_at: made(),
        updated_at: made(),
        secret_created_at: made(),
        ..postgres::record(number)
    }
}

/// Instances that share a database, a clock and a mail server.
struct World {
    _directory: TempDir,
    store: SqlStore,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/keys.db", directory.path().display());
        let store = SqlStore::open(&SecretString::from(url)).await.unwrap();
        Self::of(directory, store)
    }

    fn of(directory: TempDir, store: SqlStore) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let clock = ManualClock::at(made());
        let journal = Journal::new(Sealer::new(&[]), clock.clone(), &metrics);
        World {
            _directory: directory,
            store: store.with_journal(journal),
            clock,
            metrics,
        }
    }

    /// Moves the clock, on only.
    fn now_is(&self, moment: Timestamp) {
        use sidekey::clock::Clock;
        let on = moment.as_millis() - self.clock.now().as_millis();
        self.clock
            .advance(Duration::from_millis(on.try_into().expect("it goes on")));
    }

    async fn add(&self, key: &KeyRecord) {
        self.store.insert(key, &noted()).await.unwrap();
    }

    /// Writes `change` of a key, as its next revision.
    async fn change(&self, key: &KeyRecord, change: impl FnOnce(&mut KeyRecord)) -> KeyRecord {
        let mut changed = self.store.get(key.id).await.unwrap().unwrap();
        change(&mut changed);
        changed.revision += 1;
        self.store.update(&changed, &noted()).await.unwrap();
        changed
    }

    async fn change_tenant(&self, change: impl FnOnce(&mut TenantRecord)) {
        let id = "acme".parse().unwrap();
        let mut tenant = self.store.tenant(&id).await.unwrap().unwrap();
        change(&mut tenant);
        tenant.revision += 1;
        self.store.update_tenant(&tenant, &noted()).await.unwrap();
    }

    fn parts(&self, mailer: Option<Mailer>) -> Parts {
        let clock: SharedClock = self.clock.clone();
        Parts {
            store: Arc::new(self.store.clone()),
            tenants: Arc::new(self.store.clone()),
            mailer,
            settings: ReminderSettings {
                is_enabled: true,
                interval: MINUTE,
                hourly_max: 1000,
                has_response_header: false,
            },
            pages: Some("https://keys.example.com/keys".to_owned()),
            clock,
            metrics: self.metrics.clone(),
        }
    }

    /// An instance that sends to `smtp`.
    fn instance(&self, smtp: &Smtp) -> Reminders {
        Reminders::new(self.parts(Some(mailer(&smtp.config()))))
    }

    fn count(&self, result: ReminderResult) -> u64 {
        self.metrics.reminders(result).get()
    }

    /// The details of what was noted, oldest first.
    async fn noted(&self, action: Action) -> Vec<serde_json::Value> {
        let filter = EventFilter {
            action: Some(action),
            ..EventFilter::default()
        };
        let range = self.store.event_range(&filter).await.unwrap();
        let page = self.store.events(&filter, range, 100).await.unwrap();
        let mut details: Vec<_> = page
            .entries
            .iter()
            .map(|entry| serde_json::from_str(&entry.details).unwrap())
            .collect();
        details.reverse();
        details
    }
}

/// What sends mails by this `[smtp]`.
fn mailer(smtp: &str) -> Mailer {
    let text = format!(
        "{}{smtp}",
        "[[upstreams]]\nname = \"s\"\nservers = [\"127.0.0.1:9\"]\n[[routes]]\nname = \"all\"\nupstream = \"s\"\n"
    );
    let settings = sidekey::config::parse(&text, &Vec::new()).unwrap();
    Mailer::new(&settings.smtp.unwrap()).unwrap()
}

/// What a pass did that has sent so many and nothing else.
fn sent(sent: usize) -> Passed {
    Passed {
        sent,
        ..Passed::default()
    }
}

async fn contact(world: &World, email: &str) {
    let settings = TenantSettings {
        contact_email: Some(email.to_owned()),
        ..TenantSettings::default()
    };
    world
        .change_tenant(|tenant| tenant.settings = settings)
        .await;
}
