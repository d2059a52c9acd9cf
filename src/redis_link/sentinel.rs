//! Sentinels: servers that watch a master and its replicas, and know which of them is the master now.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Role};
use tokio::sync::Notify;

use super::target::{Access, within};
use super::url::Address;

/// How long one sentinel may take to answer.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// The way to the master of a name.
#[derive(Debug, Clone)]
pub(super) struct Sentinels {
    pub sentinels: Vec<Address>,
    pub master: String,
    pub sentinel_access: Access,
    pub server_access: Access,
}

impl Sentinels {
    /// Where the master is, as more than half of the sentinels say; or, if not so many answer, as most
    /// of them say. One who was cut off from the others may still name the old master.
    pub async fn find(&self) -> RedisResult<Address> {
        let (most, reason) = self.vote().await;
        match most {
            Some((address, _)) => Ok(address),
            None => Err(reason.unwrap_or_else(unknown_master)),
        }
    }

    /// Whether more than half of the sentinels say that the master is elsewhere than at `address`.
    pub async fn have_left(&self, address: &Address) -> bool {
        match self.vote().await.0 {
            Some((named, votes)) => named != *address && self.are_most(votes),
            None => false,
        }
    }

    fn are_most(&self, votes: usize) -> bool {
        votes * 2 > self.sentinels.len()
    }

    /// Where most of the sentinels that answer say that the master is, and how many of them; and why
    /// one did not answer.
    async fn vote(&self) -> (Option<(Address, usize)>, Option<RedisError>) {
        let mut asking: FuturesUnordered<_> = self
            .sentinels
            .iter()
            .map(|sentinel| within(SENTINEL_TIMEOUT, self.ask(sentinel)))
            .collect();
        let mut votes: Vec<(Address, usize)> = Vec::new();
        let mut reason = None;
        while let Some(answer) = asking.next().await {
            let address = match answer {
                Ok(address) => address,
                Err(error) => {
                    reason = Some(error);
                    continue;
                }
            };
            let index = votes.iter().position(|(named, _)| *named == address);
            let index = index.unwrap_or_else(|| {
                votes.push((address, 0));
                votes.len() - 1
            });
            votes[index].1 += 1;
            if self.are_most(votes[index].1) {
                break;
            }
        }
        (votes.into_iter().max_by_key(|(_, count)| *count), reason)
    }

    async fn ask(&self, sentinel: &Address) -> RedisResult<Address> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer: Option<(String, u16)> =
            self.sentinel_access.ask_once(sentinel, &question).await?;
        let (host, port) = answer.ok_or_else(unknown_master)?;
        Ok(Address { host, port })
    }

    /// A connection to the master, who has said that this is what it is. `gone` is told when it ends.
    pub async fn open(&self, gone: Arc<Notify>) -> RedisResult<(Address, MultiplexedConnection)> {
        let address = self.find().await?;
        let question = redis::cmd("ROLE");
        let (connection, role) = self.server_access.open(&address, &question, gone).await?;
        must_be_master(&role)?;
        Ok((address, connection))
    }
}

/// An error for whoever is not, or no longer, the master.
pub(super) fn must_be_master(role: &Role) -> RedisResult<()> {
    match role {
        Role::Primary { .. } => Ok(()),
        _ => Err(RedisError::from((
            redis::ErrorKind::Client,
            "the server that the sentinels name is not a master yet",
        ))),
    }
}

fn unknown_master() -> RedisError {
    RedisError::from((
        redis::ErrorKind::MasterNameNotFoundBySentinel,
        "no sentinel knows a master of the name in redis.url",
    ))
}
