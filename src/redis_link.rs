//! The way to Redis, whatever its topology: one server, Sentinel, or Cluster. Whoever needs Redis (shared
//! limits, change events) gets it here, so that addresses, TLS, users and reconnecting are told once.
//!
//! Must never decide what an outage means: callers have their own limits on time, and breakers.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisResult, ScriptInvocation};
use secrecy::{ExposeSecret, SecretString};

/// Calls that may wait for their answer at the same time; more are answered as an outage.
const CALLS_MAX: usize = 10_000;
/// How long to wait between attempts to connect again, at least and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection on which nothing is acknowledged for so long is given up.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle to Redis, which connects when it is first used and again whenever it has to.
#[derive(Clone)]
pub struct RedisLink {
    client: Client,
    connection: ConnectionManager,
}

impl RedisLink {
    /// A link to the server of `url`. Nothing is connected yet; the connection lives on the runtime
    /// where it is used first.
    pub fn new(url: &SecretString) -> RedisResult<Self> {
        let info = url.expose_secret().into_connection_info()?;
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(UNACKNOWLEDGED_TIMEOUT);
        let client = Client::open(info.set_tcp_settings(tcp))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Callers have a limit around the whole call, reconnecting included.
            .set_response_timeout(None)
            .set_min_delay(RECONNECT_MIN)
            .set_max_delay(RECONNECT_MAX)
            .set_concurrency_limit(CALLS_MAX);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(RedisLink { client, connection })
    }

    /// Runs a script, which is loaded where the server does not know it.
    pub async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> RedisResult<T> {
        call.invoke_async(&mut self.connection.clone()).await
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// A connection of its own on which messages can be awaited. It ends when it breaks.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        self.client.get_async_pubsub().await
    }
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may come with a password.
        f.write_str("RedisLink")
    }
}
