//! What is configured about Redis: where it is, as whom to come, and whom to trust. Connections are
//! opened from here, so that every one of them has the same limits.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::url::{self, Address, Login, Topology};

/// Calls that may wait for their answer at the same time on one connection; more wait for their turn.
const CALLS_MAX: usize = 10_000;
/// A connection on which nothing is acknowledged for so long is given up.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to open a connection and to hear a first answer on it.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where Redis is and how to be let in.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) topology: Topology,
    pub(super) servers: Access,
    pub(super) sentinels: Access,
}

/// Whom TLS trusts, and as whom it comes. All in PEM.
#[derive(Debug, Default)]
pub struct Trust {
    /// The only authorities to trust; the system's where there is none.
    pub authorities: Option<Vec<u8>>,
    /// A certificate, and its key.
    pub identity: Option<(Vec<u8>, SecretString)>,
}

/// How to be let in by one kind of server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    login: Option<Login>,
    database: u32,
    /// Without it, connections are not encrypted. Its contents are not printed.
    tls: Option<TlsCertificates>,
}

impl Target {
    /// What `url` says, with `trust` for TLS. An error does not quote the URL.
    pub fn new(url: &SecretString, trust: &Trust) -> Result<Self, String> {
        let url = url::parse(url.expose_secret())?;
        let tls = url.tls.then(|| trust.certificates());
        let (login, database) = (url.login, url.database);
        Ok(Target {
            topology: url.topology,
            servers: Access {
                login,
                database,
                tls: tls.clone(),
            },
            sentinels: Access {
                login: None,
                database: 0,
                tls,
            },
        })
    }

    /// The same, with a login of their own for sentinels.
    pub fn with_sentinel_login(mut self, login: Option<Login>) -> Self {
        self.sentinels.login = login;
        self
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.servers.tls.is_some()
    }

    /// Whether sentinels are asked for the server.
    pub fn has_sentinels(&self) -> bool {
        matches!(self.topology, Topology::Sentinel { .. })
    }
}

impl Trust {
    fn certificates(&self) -> TlsCertificates {
        let identity = self.identity.as_ref();
        TlsCertificates {
            client_tls: identity.map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone(),
                client_key: key.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: self.authorities.clone(),
        }
    }

    /// What can't be used of it.
    pub fn problem(&self) -> Option<String> {
        let address = Address {
            host: "localhost".to_owned(),
            port: 1,
        };
        let access = Access {
            login: None,
            database: 0,
            tls: Some(self.certificates()),
        };
        access
            .client(&address, ProtocolVersion::RESP2)
            .err()
            .map(|error| error.to_string())
    }
}

impl Access {
    fn client(&self, address: &Address, protocol: ProtocolVersion) -> RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        // The library's own greeting needs a right that nothing else needs.
        let mut settings = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_protocol(protocol)
            .set_db(i64::from(self.database));
        if let Some(login) = &self.login {
            settings = settings.set_password(login.password.expose_secret());
            if let Some(user) = &login.user {
                settings = settings.set_username(user);
            }
        }
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(UNACKNOWLEDGED_TIMEOUT);
        let place = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let info = place
            .into_connection_info()?
            .set_redis_settings(settings)
            .set_tcp_settings(tcp);
        match &self.tls {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }

    /// What `question` is answered at `address`, on a connection for this alone.
    pub(super) async fn ask_once<T: FromRedisValue>(
        &self,
        address: &Address,
        question: &Cmd,
    ) -> RedisResult<T> {
        let client = self.client(address, ProtocolVersion::RESP2)?;
        let (_, answer) = open(&client, &settings(), question).await?;
        Ok(answer)
    }

    /// A connection to `address`, which has answered `greeting` with `T`. `gone` is told when it ends.
    pub(super) async fn open<T: FromRedisValue>(
        &self,
        address: &Address,
        greeting: &Cmd,
        gone: Arc<Notify>,
    ) -> RedisResult<(MultiplexedConnection, T)> {
        // Only with version 3 of the protocol does the library say that a connection has ended.
        let client = self.client(address, ProtocolVersion::RESP3)?;
        let settings = settings().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                gone.notify_one();
            }
            Ok::<(), std::convert::Infallible>(())
        });
        open(&client, &settings, greeting).await
    }

    /// A connection to `address` on which messages can be awaited.
    pub(super) async fn pubsub(&self, address: &Address) -> RedisResult<PubSub> {
        let client = self.client(address, ProtocolVersion::RESP2)?;
        within(OPEN_TIMEOUT, client.get_async_pubsub()).await
    }
}

fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(OPEN_TIMEOUT))
        // Callers have a limit around the whole call.
        .set_response_timeout(None)
        .set_concurrency_limit(CALLS_MAX)
}

async fn open<T: FromRedisValue>(
    client: &Client,
    settings: &AsyncConnectionConfig,
    greeting: &Cmd,
) -> RedisResult<(MultiplexedConnection, T)> {
    let opening = async {
        let mut connection = client
            .get_multiplexed_async_connection_with_config(settings)
            .await?;
        let answer = greeting.query_async(&mut connection).await?;
        Ok((connection, answer))
    };
    within(OPEN_TIMEOUT, opening).await
}

/// One command on `connection`, with the server's refusals as errors.
pub(super) async fn ask(
    connection: &mut impl ConnectionLike,
    command: &Cmd,
) -> RedisResult<redis::Value> {
    connection
        .req_packed_command(command)
        .await?
        .extract_error()
}

/// `call`, or an error after `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(RedisError::from(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        ))),
    }
}
