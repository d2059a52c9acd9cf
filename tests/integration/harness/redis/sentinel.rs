//! A master and a replica, watched by three sentinels.

use std::path::Path;
use std::process::Command;

use super::Redis;
use crate::harness::eventually;

/// The password that sentinels want to hear.
pub const SENTINEL_PASSWORD: &str = "for-sentinels";

pub struct Watched {
    /// The first of them is the master at the start.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

pub struct Sentinel(Redis);

impl Watched {
    /// New, empty servers with `arguments` for each.
    pub async fn start(arguments: &[&str]) -> Self {
        let program = Path::new("redis-server");
        let master = Redis::start_with(program, arguments).await;
        let port = master.port.to_string();
        let mut more = vec!["--replicaof", "127.0.0.1", &port];
        more.extend(arguments);
        let replica = Redis::start_with(program, &more).await;
        eventually("the replica follows", || async {
            let info: String = replica.query("INFO", &["replication"]).await.expect("text");
            info.contains("master_link_status:up")
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::start(master.port).await);
        }
        for sentinel in &sentinels {
            eventually("the sentinels know each other and the replica", || async {
                let info = sentinel.info().await;
                info.contains("slaves=1,sentinels=3")
            })
            .await;
        }
        let servers = vec![master, replica];
        Watched { servers, sentinels }
    }

    /// The hosts as they stand in a URL.
    pub fn hosts(&self) -> String {
        let all: Vec<String> = self.sentinels.iter().map(|one| one.0.address()).collect();
        all.join(",")
    }

    /// Whether `server` of `servers` says that it is the master.
    pub async fn is_master(&self, server: usize) -> bool {
        let role: redis::RedisResult<redis::Role> = self.servers[server].query("ROLE", &[]).await;
        matches!(role, Ok(redis::Role::Primary { .. }))
    }
}

impl Sentinel {
    async fn start(master: u16) -> Self {
        let mut sentinel = Redis::prepare(Path::new("redis-server"), &[]);
        sentinel.password = Some(SENTINEL_PASSWORD);
        let text = format!(
            "port {}\nbind 127.0.0.1\nrequirepass {SENTINEL_PASSWORD}\n\
             sentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor mymaster 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds mymaster 3000\n\
             sentinel failover-timeout mymaster 5000\n",
            sentinel.port
        );
        std::fs::write(sentinel.directory.path().join("sentinel.conf"), text).expect("a file");
        let mut command = Command::new("redis-server");
        command.args(["sentinel.conf", "--sentinel"]);
        sentinel.spawn(command).await;
        Sentinel(sentinel)
    }

    async fn info(&self) -> String {
        self.ask("INFO", &["sentinel"]).await.unwrap_or_default()
    }

    /// One command.
    pub async fn ask<T: redis::FromRedisValue>(
        &self,
        name: &str,
        arguments: &[&str],
    ) -> redis::RedisResult<T> {
        self.0.query(name, arguments).await
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.0.kill();
    }
}
