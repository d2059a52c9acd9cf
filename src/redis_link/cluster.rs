//! A cluster: which of its masters has which slots of the key space, and a connection to each.
//!
//! Every master has a connection that comes back by itself ([`Node`]), so one that is away costs the
//! others nothing. The map of slots is read from the masters themselves: at first, when a call was sent
//! on to another server, while one is away, and every now and then. Several are asked, others each time:
//! one that was cut off from the rest still tells the old map. Until a new map is there, calls follow
//! the redirections that servers answer with.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};

use super::node::{Node, Place};
use super::target::{Access, within};
use super::url::Address;

const SLOTS: usize = 16_384;
/// Redirections that one call follows.
const REDIRECTS_MAX: usize = 3;
/// How often the map is read at least, and at most.
const MAP_AGE_MAX: Duration = Duration::from_secs(10);
const MAP_AGE_MIN: Duration = Duration::from_millis(200);
/// How long one server may take to tell the map.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);
/// So many servers are asked for the map at once.
const TELLERS_MAX: usize = 3;
/// Servers that are remembered; a cluster has at most 1000.
const NODES_MAX: usize = 2000;

/// A handle to a cluster.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    access: Access,
    seeds: Vec<Address>,
    map: watch::Sender<Reading>,
    /// Somebody has seen that the map is out of date.
    is_old: Notify,
    is_started: AtomicBool,
    turn: AtomicUsize,
}

type Reading = Option<RedisResult<Arc<Map>>>;

/// Which node has which slot.
#[derive(Default)]
struct Map {
    /// Indices into `nodes`; an index past its end is a slot that nobody has.
    slots: Vec<u16>,
    nodes: Vec<(Address, Node)>,
}

impl Cluster {
    pub fn new(seeds: Vec<Address>, access: Access) -> Self {
        Cluster(Arc::new(Inner {
            access,
            seeds,
            map: watch::Sender::new(None),
            is_old: Notify::new(),
            is_started: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        }))
    }

    /// Whether any of the masters can be reached.
    pub fn is_up(&self) -> bool {
        match &*self.0.map.borrow() {
            Some(Ok(map)) => map.nodes.iter().any(|(_, node)| node.is_up()),
            _ => false,
        }
    }

    async fn map(&self) -> RedisResult<Arc<Map>> {
        if !self.0.is_started.swap(true, Ordering::Relaxed) {
            tokio::spawn(follow(Arc::downgrade(&self.0)));
        }
        if let Some(map) = &*self.0.map.borrow() {
            return map.clone();
        }
        let mut map = self.0.map.subscribe();
        match map.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(map)) => map.clone(),
            _ => Err(nobody("the map of the cluster is not read any more")),
        }
    }

    /// The master that has `key`.
    pub async fn node_of(&self, key: &[u8]) -> RedisResult<Node> {
        let map = self.map().await?;
        let index = map.slots.get(usize::from(slot(key)));
        let node = index.and_then(|index| map.nodes.get(usize::from(*index)));
        match node {
            Some((_, node)) => Ok(node.clone()),
            None => {
                self.0.is_old.notify_one();
                Err(nobody("no server of the cluster has the slot of the key"))
            }
        }
    }

    /// A master that can be reached, another one each time.
    pub async fn any_node(&self) -> RedisResult<Node> {
        let map = self.map().await?;
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let count = map.nodes.len();
        let in_turn = (0..count).map(|n| &map.nodes[turn.wrapping_add(n) % count].1);
        let mut found = None;
        for node in in_turn {
            node.start();
            if node.is_up() {
                return Ok(node.clone());
            }
            found = found.or(Some(node));
        }
        let found = found.ok_or_else(|| nobody("no server of the cluster has any slots"))?;
        Ok(found.clone())
    }

    /// Runs `command` on `node`, or wherever that sends it; the node that answered is left in `node`.
    pub async fn call(&self, node: &mut Node, command: &Cmd) -> RedisResult<Value> {
        let mut result = node.call(command).await;
        for _ in 0..REDIRECTS_MAX {
            let Err(error) = &result else {
                return result;
            };
            let Some((address, is_asking)) = redirection(node, error).await else {
                break;
            };
            // What is on its way stays on the map until it has arrived.
            if !is_asking {
                self.0.is_old.notify_one();
            }
            *node = self.node_at(address).await?;
            result = if is_asking {
                node.call_asking(command).await
            } else {
                node.call(command).await
            };
        }
        if let Err(error) = &result
            && makes_old(error)
        {
            self.0.is_old.notify_one();
        }
        result
    }

    async fn node_at(&self, address: Address) -> RedisResult<Node> {
        let map = self.map().await?;
        let known = map.nodes.iter().find(|(at, _)| *at == address);
        Ok(match known {
            Some((_, node)) => node.clone(),
            // It lives as long as this call. The next map has it.
            None => Node::new(Place::Server(address, self.0.access.clone())),
        })
    }
}

/// Where a server says that a key is, and whether it is only on its way there.
async fn redirection(node: &Node, error: &RedisError) -> Option<(Address, bool)> {
    let (to, _) = error.redirect_node()?;
    let is_asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
    let (host, port) = to.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host {
        "" | "?" => node.address().await.ok()?.host,
        host => host.to_owned(),
    };
    Some((Address { host, port }, is_asking))
}

/// Whether another server may have what was asked for.
fn makes_old(error: &RedisError) -> bool {
    let kinds = [
        ServerErrorKind::ReadOnly,
        ServerErrorKind::ClusterDown,
        ServerErrorKind::MasterDown,
        ServerErrorKind::Moved,
    ];
    error.is_io_error() || kinds.map(ErrorKind::Server).contains(&error.kind())
}

fn nobody(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, what))
}

/// Keeps the map up to date until the last handle of the cluster is gone.
async fn follow(cluster: Weak<Inner>) {
    let mut seeds: Vec<(Address, Node)> = Vec::new();
    loop {
        let Some(inner) = cluster.upgrade() else {
            return;
        };
        if seeds.is_empty() {
            let new = |address: &Address| {
                let place = Place::Server(address.clone(), inner.access.clone());
                (address.clone(), Node::new(place))
            };
            seeds = inner.seeds.iter().map(new).collect();
        }
        let known = match &*inner.map.borrow() {
            Some(Ok(map)) => map.clone(),
            _ => Arc::default(),
        };
        match inner.read_map(&known, &seeds).await {
            Ok(map) => {
                // A master that is away has no one else who would say so.
                let all_up = map.nodes.iter().all(|(_, node)| node.is_up());
                inner.map.send_replace(Some(Ok(Arc::new(map))));
                // They are for the beginning, and for when all others are gone.
                seeds.clear();
                wait(inner, &cluster, all_up).await;
            }
            Err(reason) => {
                // An old map is better than none: who is away says so at once.
                if known.nodes.is_empty() {
                    inner.map.send_replace(Some(Err(reason)));
                }
                drop(inner);
                tokio::time::sleep(MAP_AGE_MIN).await;
            }
        }
    }
}

async fn wait(inner: Arc<Inner>, cluster: &Weak<Inner>, all_up: bool) {
    tokio::time::sleep(MAP_AGE_MIN).await;
    drop(inner);
    let rest = if all_up {
        MAP_AGE_MAX
    } else {
        Duration::from_secs(1)
    };
    // In steps, so that a cluster that nobody uses any more is forgotten.
    let _ = tokio::time::timeout(rest, async {
        while let Some(inner) = cluster.upgrade() {
            if tokio::time::timeout(MAP_TIMEOUT, inner.is_old.notified())
                .await
                .is_ok()
            {
                return;
            }
        }
    })
    .await;
}

impl Inner {
    /// The map as most of a few known servers tell it, which are others each time. Those that are up
    /// come first.
    async fn read_map(&self, known: &Map, seeds: &[(Address, Node)]) -> RedisResult<Map> {
        let all = known.nodes.iter().chain(seeds);
        let (mut up, away): (Vec<_>, Vec<_>) = all.partition(|(_, node)| node.is_up());
        fastrand::shuffle(&mut up);
        let mut reason = None;
        for tellers in up.chunks(TELLERS_MAX).chain(away.chunks(TELLERS_MAX)) {
            let asking = tellers.iter().map(|(address, node)| ask(address, node));
            let mut told = Vec::new();
            for answer in join_all(asking).await {
                match answer {
                    Ok(ranges) => told.push(ranges),
                    Err(error) => reason = Some(error),
                }
            }
            if let Some(ranges) = most_told(told) {
                // Of two for one address the later one stays: the one that is in use.
                let all = seeds.iter().chain(&known.nodes);
                let known = all.map(|(at, node)| (at.clone(), node.clone())).collect();
                return Ok(self.build(ranges, known));
            }
        }
        Err(reason.unwrap_or_else(|| nobody("redis.url names no server of the cluster")))
    }

    /// The map of `ranges`. Nodes that are known keep their connections.
    fn build(&self, ranges: Vec<Range>, mut known: HashMap<Address, Node>) -> Map {
        let mut map = Map {
            slots: vec![u16::MAX; SLOTS],
            nodes: Vec::new(),
        };
        let mut indices: HashMap<Address, u16> = HashMap::new();
        for (first, last, master) in ranges {
            let count = map.nodes.len();
            let index = *indices.entry(master).or_insert_with_key(|master| {
                let node = known.remove(master).unwrap_or_else(|| {
                    Node::new(Place::Server(master.clone(), self.access.clone()))
                });
                node.start();
                map.nodes.push((master.clone(), node));
                u16::try_from(count).unwrap_or(u16::MAX)
            });
            for slot in first..=last {
                map.slots[slot] = index;
            }
        }
        map
    }
}

/// First slot, last slot and master.
type Range = (usize, usize, Address);

/// The ranges that one server tells, in order.
async fn ask(address: &Address, node: &Node) -> RedisResult<Vec<Range>> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = within(MAP_TIMEOUT, node.call(&question)).await?;
    let ranges = read_ranges(&answer, address);
    let masters: HashSet<&Address> = ranges.iter().map(|(.., master)| master).collect();
    if masters.is_empty() || masters.len() > NODES_MAX {
        return Err(nobody("no server of the cluster has any slots"));
    }
    Ok(ranges)
}

/// What most servers told; of what equally many did, the first.
fn most_told(mut told: Vec<Vec<Range>>) -> Option<Vec<Range>> {
    let votes = |ranges| told.iter().filter(|other| *other == ranges).count();
    let most = (0..told.len())
        .rev()
        .max_by_key(|index| votes(&told[*index]))?;
    Some(told.swap_remove(most))
}

/// The ranges in the answer to CLUSTER SLOTS, in order. What can't be read is left out.
fn read_ranges(answer: &Value, teller: &Address) -> Vec<Range> {
    let Value::Array(ranges) = answer else {
        return Vec::new();
    };
    let read = |range: &Value| {
        let Value::Array(parts) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = parts.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) if host.as_slice() == b"?" => return None,
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            _ => teller.host.clone(),
        };
        let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        (last < SLOTS).then_some((first, last, Address { host, port }))
    };
    let mut ranges: Vec<Range> = ranges.iter().filter_map(read).collect();
    // Not every version tells them in the same order.
    ranges.sort_unstable_by_key(|(first, last, _)| (*first, *last));
    ranges
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::cluster_routing::Slot;

    use super::*;
    use crate::redis_link::url;

    fn same_slot(key: &[u8]) -> bool {
        Slot::new(slot(key)) == Some(Slot::for_key(key))
    }

    #[test]
    fn a_hash_tag_decides_the_slot() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        for key in [
            "{a}b",
            "x{a}y{b}",
            "{}a",
            "{a",
            "a}",
            "",
            "sidekey:{acme}:k:p",
        ] {
            assert!(same_slot(key.as_bytes()), "{key}");
        }
        assert_eq!(
            slot(b"sidekey:{acme}:a:day"),
            slot(b"sidekey:{acme}:b:hour")
        );
    }

    proptest! {
        #[test]
        fn slots_are_those_of_another_library(key in "[{}a-c]{0,12}") {
            prop_assert!(same_slot(key.as_bytes()));
        }
    }

    #[test]
    fn what_a_server_tells_is_read_with_care() {
        let teller = url::address("teller:1", 1).unwrap();
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let range = |first, last, host: Value, port| {
            let master = Value::Array(vec![host, Value::Int(port), Value::Nil]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master])
        };
        let answer = Value::Array(vec![
            range(0, 10, host("a"), 7000),
            range(11, 20, host(""), 7001),
            range(21, 30, Value::Nil, 7002),
            range(31, 40, host("?"), 7003),
            range(41, 99_999, host("a"), 7004),
            range(-1, 5, host("a"), 7005),
            range(41, 50, host("a"), 0),
            Value::Nil,
            Value::Array(vec![]),
        ]);
        let ranges = read_ranges(&answer, &teller);
        let read: Vec<String> = ranges
            .iter()
            .map(|(first, last, at)| format!("{first}-{last} {at}"))
            .collect();
        assert_eq!(
            read,
            ["0-10 a:7000", "11-20 teller:7001", "21-30 teller:7002"]
        );
    }
    #[test]
    fn the_map_is_what_most_servers_tell() {
        let told = |port| vec![(0, 5, url::address("a", port).unwrap())];
        let most = |ports: &[u16]| most_told(ports.iter().map(|port| told(*port)).collect());
        assert_eq!(most(&[]), None);
        assert_eq!(most(&[1, 2, 2]), Some(told(2)));
        assert_eq!(most(&[2, 1, 2]), Some(told(2)));
        assert_eq!(most(&[1, 2, 3]), Some(told(1)));
        assert_eq!(most(&[3, 2]), Some(told(3)));
    }
}
