//! The way to Redis, whatever its topology: one server, Sentinel, or Cluster. Whoever needs Redis (shared
//! limits, change events) gets it here, so that addresses, TLS, users and reconnecting are told once.
//!
//! `url` reads `redis.url`, `target` is what is configured and opens connections, `node` keeps one of
//! them, `sentinel` finds a master, `cluster` knows which master has which keys.
//!
//! Must never decide what an outage means: callers have their own limits on time, and breakers. A
//! server that is known to be away is not waited for.

mod cluster;
mod node;
mod sentinel;
mod target;
pub mod url;

use redis::aio::{ConnectionLike, PubSub};
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult,
    ScriptInvocation, ServerErrorKind, Value,
};

use target::Access;
pub use target::{Target, Trust};

use cluster::Cluster;
use node::{Node, Place};
use sentinel::Sentinels;
use url::Topology;

/// A handle to Redis, which connects when it is first used and again whenever it has to. Its
/// connections live on the runtime where it is used first: who has another runtime wants a link of
/// its own.
#[derive(Clone)]
pub struct RedisLink {
    servers: Servers,
    access: Access,
}

#[derive(Clone)]
enum Servers {
    One(Node),
    Cluster(Cluster),
}

impl RedisLink {
    /// A link to what `target` names. Nothing is connected yet.
    pub fn new(target: &Target) -> Self {
        let access = target.servers.clone();
        let servers = match target.topology.clone() {
            Topology::Single(address) => {
                Servers::One(Node::new(Place::Server(address, access.clone())))
            }
            Topology::Sentinel { sentinels, master } => {
                Servers::One(Node::new(Place::Master(Sentinels {
                    sentinels,
                    master,
                    sentinel_access: target.sentinels.clone(),
                    server_access: access.clone(),
                })))
            }
            Topology::Cluster(seeds) => Servers::Cluster(Cluster::new(seeds, access.clone())),
        };
        RedisLink { servers, access }
    }

    /// Runs a script, which is loaded where the server does not know it. In a cluster its keys have
    /// to share a hash tag.
    pub async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> RedisResult<T> {
        call.invoke_async(&mut Caller::new(&self.servers)).await
    }

    /// Runs one command. In a cluster it must not be about a key: any of the servers gets it.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut Caller::new(&self.servers)).await
    }

    /// A connection of its own on which messages can be awaited. It ends when it breaks. A server that
    /// hangs does not break it.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        let node = match &self.servers {
            Servers::One(node) => node.clone(),
            Servers::Cluster(cluster) => cluster.any_node().await?,
        };
        self.access.pubsub(&node.address().await?).await
    }

    /// Whether `error` is about one server of several, or one slot, which need not bother calls to
    /// others: the server is away, or the slot is on its way to another server, or nobody has it. The
    /// error came at once, and will until that is over.
    pub fn is_about_one_of_several(&self, error: &RedisError) -> bool {
        match &self.servers {
            Servers::One(_) => false,
            Servers::Cluster(cluster) => {
                let is_about_one = error.is_io_error()
                    || matches!(
                        error.kind(),
                        ErrorKind::ClusterConnectionNotFound
                            | ErrorKind::Server(
                                ServerErrorKind::TryAgain | ServerErrorKind::MasterDown
                            )
                    );
                is_about_one && cluster.is_up()
            }
        }
    }
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisLink")
    }
}

/// The commands of one call. A script that is not known is loaded on the server that said so.
struct Caller<'a> {
    servers: &'a Servers,
    node: Option<Node>,
}

impl<'a> Caller<'a> {
    fn new(servers: &'a Servers) -> Self {
        Caller {
            servers,
            node: None,
        }
    }

    async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        let cluster = match self.servers {
            Servers::One(node) => return node.call(command).await,
            Servers::Cluster(cluster) => cluster,
        };
        let mut node = match (self.node.take(), script_key(command)) {
            (Some(node), _) => node,
            (None, Some(key)) => cluster.node_of(key).await?,
            (None, None) => cluster.any_node().await?,
        };
        let result = cluster.call(&mut node, command).await;
        self.node = Some(node);
        result
    }
}

/// The first key of a script's call.
fn script_key(command: &Cmd) -> Option<&[u8]> {
    let argument = |index| match command.args_iter().nth(index) {
        Some(redis::Arg::Simple(text)) => Some(text),
        _ => None,
    };
    if argument(0) != Some(b"EVALSHA") || argument(2) == Some(b"0") {
        return None;
    }
    argument(3)
}

impl ConnectionLike for Caller<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.call(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async { Err((ErrorKind::Client, "commands go one by one").into()) })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// What went wrong, and what to do where that is known. Holds no secret: passwords are in no error.
pub fn explain(error: &RedisError) -> String {
    let text = error.to_string();
    let is_refused =
        error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS");
    let what_to_do = match error.kind() {
        _ if is_refused => {
            return "the server refuses the user or password; put the right USER:PASSWORD@ into redis.url"
                .to_owned();
        }
        _ if error.code() == Some("NOAUTH") => "put USER:PASSWORD@ into redis.url",
        ErrorKind::Server(ServerErrorKind::NoPerm) => RIGHTS,
        // What a script may not do is told in each version's own words.
        ErrorKind::Server(_)
            if [
                "NOPERM",
                "ACL failure",
                "can't run this command",
                "can't access at least one",
            ]
            .iter()
            .any(|words| text.contains(words)) =>
        {
            RIGHTS
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            "redis.url leads to a replica; name the master, or its sentinels"
        }
        ErrorKind::Server(ServerErrorKind::Moved) => {
            "the server belongs to a cluster; write redis-cluster:// in redis.url"
        }
        _ if text.contains("UnknownIssuer") => {
            "name the authority of its certificate in redis.ca_file"
        }
        _ if text.contains("cluster support disabled") => {
            "the server belongs to no cluster; write redis:// in redis.url"
        }
        _ => return text,
    };
    format!("{text}; {what_to_do}")
}

const RIGHTS: &str = "give the user the rights that config/redis-users.conf shows";
