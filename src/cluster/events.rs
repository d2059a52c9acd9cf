//! Change events through Redis: a word on a channel that makes the other instances look into the
//! database at once instead of at their next poll.
//!
//! A message holds its sender's id and nothing of a key. It has no authority: who gets one asks the
//! database, so a forged one costs a look, and a lost one costs `store.poll_interval_ms`. Failure:
//! everything here has limits of its own, and no request or change waits for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::time::timeout;

use super::{Announcer, Identity};
use crate::redis_link::{RedisLink, explain};
use crate::telemetry::Metrics;

/// Where instances tell each other that something has changed.
pub const CHANNEL: &str = "sidekey:changes";
/// How long one message may take, and how often it is tried: a connection that was lost is noticed
/// by the first that fails.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(500);
const PUBLISH_TRIES_MAX: usize = 2;
/// How long connecting and subscribing may take.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait between attempts to connect again, at least and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// After so long without a message the connection has to show that it is sound; one that did not last
/// so long was none.
const QUIET_MAX: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What is needed to tell and to be told.
#[derive(Clone)]
pub struct Events {
    pub link: RedisLink,
    pub identity: Identity,
    pub announcer: Announcer,
    pub metrics: Arc<Metrics>,
}

/// Why no more events come.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{}", explain(.0))]
    Redis(#[from] redis::RedisError),
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("the connection was closed")]
    Closed,
}

impl Events {
    /// Tells the others of every change that is announced, for ever.
    pub async fn tell(self) {
        let mut message = redis::cmd("PUBLISH");
        message.arg(CHANNEL).arg(&*self.identity.id);
        loop {
            self.announcer.told().await;
            for _ in 0..PUBLISH_TRIES_MAX {
                let sent = timeout(PUBLISH_TIMEOUT, self.link.query::<i64>(&message)).await;
                if matches!(sent, Ok(Ok(_))) {
                    break;
                }
                self.metrics.events_failed.inc();
            }
        }
    }

    /// Looks whenever another instance tells of a change, for ever.
    pub async fn listen(self) {
        let mut pause = RECONNECT_MIN;
        let mut is_away = false;
        loop {
            let lost = match self.connect().await {
                Err(lost) => lost,
                Ok(pubsub) => {
                    self.metrics.events_connected.set(1);
                    let mut session = std::pin::pin!(self.hear(pubsub));
                    // A server that accepts and closes is not there yet.
                    let Err(lost) = match timeout(QUIET_MAX, &mut session).await {
                        Ok(lost) => lost,
                        Err(_) => {
                            tracing::info!("changes are announced through Redis");
                            (pause, is_away) = (RECONNECT_MIN, false);
                            session.await
                        }
                    };
                    self.metrics.events_connected.set(0);
                    lost
                }
            };
            if !is_away {
                tracing::warn!(error = %lost, "changes are not announced through Redis; they are found by polling");
            }
            is_away = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    async fn connect(&self) -> Result<PubSub, Lost> {
        let mut pubsub = timeout(SUBSCRIBE_TIMEOUT, self.link.pubsub()).await??;
        timeout(SUBSCRIBE_TIMEOUT, pubsub.subscribe(CHANNEL)).await??;
        Ok(pubsub)
    }

    /// One connection, to its end.
    async fn hear(&self, pubsub: PubSub) -> Result<Infallible, Lost> {
        // For what was announced before.
        self.announcer.look();
        let (mut sink, mut messages) = pubsub.split();
        loop {
            match timeout(QUIET_MAX, messages.next()).await {
                Ok(Some(message)) => {
                    if message.get_payload_bytes() != self.identity.id.as_bytes() {
                        self.announcer.look();
                    }
                }
                Ok(None) => return Err(Lost::Closed),
                Err(_) => {
                    timeout(PING_TIMEOUT, sink.ping::<redis::Value>()).await??;
                }
            }
        }
    }
}
