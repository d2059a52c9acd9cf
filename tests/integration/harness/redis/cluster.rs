//! A cluster of three masters, of Valkey servers.

use super::{Redis, valkey};
use crate::harness::eventually;
use crate::harness::ports::free_port;

pub struct Cluster {
    pub servers: Vec<Redis>,
}

/// First and last slot of each server.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl Cluster {
    /// A new, empty cluster with `arguments` for every server.
    pub async fn start(arguments: &[&str]) -> Self {
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for (first, last) in SLOTS {
            let bus = free_port().to_string();
            let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
            all.extend(["--cluster-node-timeout", "5000"]);
            // The others go on when one is away.
            all.extend(["--cluster-require-full-coverage", "no"]);
            all.extend(arguments);
            let server = Redis::start_with(&valkey(), &all).await;
            let range = ["ADDSLOTSRANGE", first, last];
            server.ask("CLUSTER", &range).await.expect("slots");
            servers.push(server);
            buses.push(bus);
        }
        for (number, server) in servers.iter().enumerate() {
            let epoch = ["SET-CONFIG-EPOCH", &(number + 1).to_string()];
            server.ask("CLUSTER", &epoch).await.expect("an epoch");
        }
        for (server, bus) in servers.iter().zip(&buses).skip(1) {
            let meet = ["MEET", "127.0.0.1", &server.port.to_string(), bus];
            servers[0].ask("CLUSTER", &meet).await.expect("a meeting");
        }
        let cluster = Cluster { servers };
        cluster.settled().await;
        cluster
    }

    /// Waits until every server knows that all slots are served.
    pub async fn settled(&self) {
        for server in &self.servers {
            eventually("the cluster is complete", || async {
                let info: String = server.query("CLUSTER", &["INFO"]).await.unwrap_or_default();
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
    }

    /// The hosts as they stand in a URL.
    pub fn hosts(&self) -> String {
        let all: Vec<String> = self.servers.iter().map(Redis::address).collect();
        all.join(",")
    }
}
