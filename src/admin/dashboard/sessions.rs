//! How sessions begin, last and end. They are the same for every instance.

use std::sync::Arc;
use std::time::Duration;

use super::token::Token;
use crate::clock::{SharedClock, Timestamp};
use crate::config::settings::DashboardSettings;
use crate::key::{Generation, KeyId};
use crate::store::{Session, SessionStore, StoreError};

/// A session that is in use is noted as seen about this often at most: not on every page.
const TOUCH_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// But so many times within the time after which it would end.
const TOUCHES_MIN: u32 = 8;
/// How often it is looked for what has ended.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Who is signed in, wherever.
pub struct Sessions {
    store: Arc<dyn SessionStore>,
    idle: Duration,
    max: Duration,
    clock: SharedClock,
}

impl Sessions {
    pub fn new(
        store: Arc<dyn SessionStore>,
        settings: &DashboardSettings,
        clock: SharedClock,
    ) -> Self {
        Sessions {
            store,
            idle: settings.session_idle,
            max: settings.session_max,
            clock,
        }
    }

    /// Begins one for whoever has proven the secret of `generation`, under a token that nobody has seen.
    pub async fn begin(&self, key: KeyId, generation: Generation) -> Result<Token, StoreError> {
        let token = Token::random().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let now = self.clock.now();
        let session = Session {
            id: token.id(),
            key_id: key,
            generation,
            created_at: now,
            seen_at: now,
        };
        self.store.add_session(&session).await?;
        Ok(token)
    }

    /// The session of `token`, which has now been seen; `None` where it has ended.
    pub async fn find(&self, token: &Token) -> Result<Option<Session>, StoreError> {
        let now = self.clock.now();
        let found = self.store.session(&token.id()).await?;
        let Some(session) = found.filter(|session| self.lasts(session, now)) else {
            return Ok(None);
        };
        let touch_after = TOUCH_INTERVAL_MAX.min(self.idle / TOUCHES_MIN);
        if session.seen_at <= now.minus(touch_after) {
            // It lasts all the same, and is touched with the next page.
            if let Err(error) = self.store.touch_session(&session.id, now).await {
                tracing::warn!(%error, "a session of the dashboard could not be noted as seen");
            }
        }
        Ok(Some(session))
    }

    fn lasts(&self, session: &Session, now: Timestamp) -> bool {
        session.created_at > now.minus(self.max) && session.seen_at > now.minus(self.idle)
    }

    /// Ends the session of `token`, if there is one.
    pub async fn end(&self, token: &Token) -> Result<(), StoreError> {
        self.store.end_session(&token.id()).await
    }

    async fn forget(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let (created, seen) = (now.minus(self.max), now.minus(self.idle));
        self.store.forget_sessions(created, seen).await
    }
}

/// Forgets sessions that have ended, for ever.
pub async fn keep_forgetting(sessions: Arc<Sessions>) {
    let mut is_failing = false;
    loop {
        match sessions.forget().await {
            Ok(true) => {
                // Others have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "sessions of the dashboard that have ended can't be forgotten");
                }
                is_failing = true;
            }
        }
        tokio::time::sleep(FORGET_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests;
