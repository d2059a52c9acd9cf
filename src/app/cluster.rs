//! What an instance has to do with the others: it makes itself known, tells of changes and hears of them.

use std::sync::Arc;

use super::{AppError, failed};
use crate::clock::SharedClock;
use crate::cluster::{Announcer, Confirmations, Events, Identity, Presence, Roster, confirm};
use crate::config::Settings;
use crate::redis_link::RedisLink;
use crate::store::{InstanceStore, SqlStore};
use crate::telemetry::Metrics;

/// What this instance has to do with the others.
pub(super) struct Cluster {
    /// The id of this instance.
    pub instance: Arc<str>,
    pub announcer: Announcer,
    pub presence: Presence,
    pub confirmations: Confirmations,
}

impl Cluster {
    /// Makes this instance known, and listens to the others where there is a Redis to hear them.
    pub(super) async fn join(
        settings: &Settings,
        admin_port: u16,
        store: &SqlStore,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let identity = Identity::new(settings.store.instance_name.as_deref(), admin_port)
            .map_err(failed("the instance can't be given an id"))?;
        tracing::info!(instance = %identity.id, name = %identity.name, "starting");
        let instances: Arc<dyn InstanceStore> = Arc::new(store.clone());
        let (announcer, roster) = (Announcer::default(), Roster::new(metrics.clone()));
        let presence = Presence::join(
            &identity,
            settings.store.max_stale,
            instances.clone(),
            roster.clone(),
            clock.clone(),
        )
        .await
        .map_err(failed("the instance can't be noted in the store"))?;
        if let Some(redis) = &settings.limits.redis {
            // A connection of its own: decisions about limits live on other threads.
            let link = RedisLink::new(&redis.target);
            let events = Events {
                link,
                identity: identity.clone(),
                announcer: announcer.clone(),
                metrics: metrics.clone(),
            };
            tokio::spawn(events.clone().tell());
            tokio::spawn(events.listen());
        }
        let instance = identity.id.clone();
        let confirmations = Confirmations::new(confirm::Parts {
            identity,
            keys: Arc::new(store.clone()),
            store: instances,
            roster,
            wait: settings.store.propagation_wait,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        Ok(Cluster {
            instance,
            announcer,
            presence,
            confirmations,
        })
    }
}
