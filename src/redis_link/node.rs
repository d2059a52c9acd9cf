//! One connection to one server, or to whichever server is the master now, that comes back by itself.
//!
//! A task of its own opens the connection, looks after it every second, and opens it again when it
//! breaks, whether or not a call has noticed: one attempt at a time, however many calls fail meanwhile. While an attempt after a good
//! connection runs, calls wait for it; once it has failed they are answered at once, with the reason.
//! So are they when the server hangs: a caller that goes away without an answer has the connection looked
//! after at once, and until that is answered nobody else waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};

use super::explain;
use super::sentinel::{Sentinels, must_be_master};
use super::target::{Access, ask, within};
use super::url::Address;

/// How often a connection is looked after.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A server that takes longer to answer that is away.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// When a caller gave up waiting, and the server takes longer than this to show that it is there, calls
/// are answered at once until it does.
const DOUBT_AFTER: Duration = Duration::from_millis(50);
/// After so many checks of a master its sentinels are asked whether it still is the one.
const CHECKS_PER_VOTE: u64 = 5;
/// How long to wait between attempts to connect, at least and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Reasons that are logged in one outage: the first, and others that come after it.
const REASONS_MAX: u32 = 5;

/// Where a connection leads.
#[derive(Debug)]
pub(super) enum Place {
    Server(Address, Access),
    Master(Sentinels),
}

/// A handle to the connection.
#[derive(Clone)]
pub(super) struct Node(Arc<Inner>);

struct Inner {
    place: Place,
    state: watch::Sender<State>,
    /// A caller went away without an answer.
    unanswered: Arc<Notify>,
    is_started: AtomicBool,
}

#[derive(Clone)]
enum State {
    /// Not used yet, or an attempt runs that may well succeed.
    Opening,
    Up(Up),
    /// It may hang.
    Doubted(Up),
    Away(RedisError),
}

#[derive(Clone)]
struct Up {
    connection: MultiplexedConnection,
    address: Address,
    /// Tells one connection from the next.
    number: u64,
}

impl Node {
    pub fn new(place: Place) -> Self {
        Node(Arc::new(Inner {
            place,
            state: watch::Sender::new(State::Opening),
            unanswered: Arc::default(),
            is_started: AtomicBool::new(false),
        }))
    }

    /// Whether there is a connection to a server that answers.
    pub fn is_up(&self) -> bool {
        matches!(*self.0.state.borrow(), State::Up(_))
    }

    /// Opens the connection, if nobody has yet. It lives on the runtime from which this is called.
    pub fn start(&self) {
        if !self.0.is_started.swap(true, Ordering::Relaxed) {
            tokio::spawn(tend(Arc::downgrade(&self.0)));
        }
    }

    async fn up(&self) -> RedisResult<Up> {
        self.start();
        if let Some(settled) = self.0.state.borrow().settled() {
            return settled;
        }
        let mut state = self.0.state.subscribe();
        let state = state.wait_for(|state| state.settled().is_some()).await;
        let settled = state.ok().and_then(|state| state.settled());
        settled.unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()))
    }

    /// Where the server is. For a master: where it was when the connection was opened.
    pub async fn address(&self) -> RedisResult<Address> {
        Ok(self.up().await?.address)
    }

    /// Runs one command.
    pub async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        let mut up = self.up().await?;
        let call = Unanswered(&self.0.unanswered);
        let result = ask(&mut up.connection, command).await;
        call.answered();
        self.note(up.number, result)
    }

    /// Runs one command on a key that is on its way to this server.
    pub async fn call_asking(&self, command: &Cmd) -> RedisResult<Value> {
        let mut up = self.up().await?;
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        // The first answer, to ASKING, is of no interest.
        let call = Unanswered(&self.0.unanswered);
        let result = up.connection.send_packed_commands(&both, 1, 1).await;
        call.answered();
        let result =
            result.and_then(|mut values| values.pop().unwrap_or(Value::Nil).extract_error());
        self.note(up.number, result)
    }

    fn note(&self, number: u64, result: RedisResult<Value>) -> RedisResult<Value> {
        if let Err(error) = &result
            && self.0.place.is_broken_by(error)
        {
            self.0.lose(number);
        }
        result
    }
}

/// A call that waits. Callers have limits of their own: one that is dropped may have taken too long.
struct Unanswered<'a>(&'a Notify);

impl Unanswered<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl State {
    fn settled(&self) -> Option<RedisResult<Up>> {
        match self {
            State::Opening => None,
            State::Up(up) => Some(Ok(up.clone())),
            State::Doubted(_) => {
                let hangs = "the server does not answer";
                let error = std::io::Error::new(std::io::ErrorKind::TimedOut, hangs);
                Some(Err(error.into()))
            }
            State::Away(reason) => Some(Err(reason.clone())),
        }
    }

    /// Whether the connection of that number has not been lost.
    fn has(&self, number: u64) -> bool {
        matches!(self, State::Up(up) | State::Doubted(up) if up.number == number)
    }
}

impl Place {
    /// Opens a connection. `gone` is told when it ends.
    async fn open(&self, gone: Arc<Notify>) -> RedisResult<(Address, MultiplexedConnection)> {
        match self {
            Place::Server(address, access) => {
                let ping = redis::cmd("PING");
                let (connection, _) = access.open::<Value>(address, &ping, gone).await?;
                Ok((address.clone(), connection))
            }
            Place::Master(sentinels) => sentinels.open(gone).await,
        }
    }

    async fn check(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        match self {
            Place::Server(..) => redis::cmd("PING").exec_async(connection).await,
            Place::Master(_) => must_be_master(&redis::cmd("ROLE").query_async(connection).await?),
        }
    }

    /// Whether the sentinels have chosen another master than the one at `address`, which may not have
    /// heard of it.
    async fn has_moved_from(&self, address: &Address) -> bool {
        match self {
            Place::Server(..) => false,
            Place::Master(sentinels) => sentinels.have_left(address).await,
        }
    }

    /// Whether nothing more is to be expected of a connection after `error`.
    fn is_broken_by(&self, error: &RedisError) -> bool {
        let is_demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
            && matches!(self, Place::Master(_));
        is_demoted
            || error.is_io_error()
            || error.is_unrecoverable_error()
            // Whom the server does not know any more may be let in anew.
            || error.code() == Some("NOAUTH")
    }

    /// For the log.
    fn name(&self) -> String {
        match self {
            Place::Server(address, _) => address.to_string(),
            Place::Master(sentinels) => format!("the master {}", sentinels.master),
        }
    }
}

impl Inner {
    fn lose(&self, number: u64) {
        self.replace(number, State::Opening);
    }

    /// Puts `next` in the place of the connection of that number, if nobody else has.
    fn replace(&self, number: u64, next: State) {
        self.state.send_if_modified(|state| {
            let is_this_one = state.has(number);
            if is_this_one {
                *state = next;
            }
            is_this_one
        });
    }

    /// Whether the server is there, and still what it has to be. While one that is `suspect` is slow to
    /// say so, nobody waits for it.
    async fn check(&self, up: &Up, is_suspect: bool) -> RedisResult<()> {
        let mut connection = up.connection.clone();
        let check = within(CHECK_TIMEOUT, self.place.check(&mut connection));
        if !is_suspect {
            return check.await;
        }
        let mut check = std::pin::pin!(check);
        if let Ok(result) = tokio::time::timeout(DOUBT_AFTER, &mut check).await {
            return result;
        }
        self.replace(up.number, State::Doubted(up.clone()));
        let result = check.await;
        if result.is_ok() {
            self.replace(up.number, State::Up(up.clone()));
        }
        result
    }
}

/// Opens and keeps the connection until its last handle is gone.
async fn tend(node: Weak<Inner>) {
    let mut outage = Outage::default();
    let mut delay = RECONNECT_MIN;
    for number in 0.. {
        let Some(inner) = node.upgrade() else {
            return;
        };
        let gone = Arc::new(Notify::new());
        match inner.place.open(gone.clone()).await {
            Ok((address, connection)) => {
                outage.ended(&address);
                let up = Up {
                    connection,
                    address,
                    number,
                };
                inner.state.send_replace(State::Up(up.clone()));
                let (state, unanswered) = (inner.state.subscribe(), inner.unanswered.clone());
                drop(inner);
                if keep(&node, state, up, &gone, &unanswered).await == Kept::ForAWhile {
                    delay = RECONNECT_MIN;
                    continue;
                }
                if let Some(inner) = node.upgrade() {
                    let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
                    inner.state.send_replace(State::Away(closed.into()));
                }
            }
            Err(reason) => {
                outage.goes_on(&inner.place, &reason);
                inner.state.send_replace(State::Away(reason));
            }
        }
        // Not all instances at the same moment.
        tokio::time::sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        delay = (delay * 2).min(RECONNECT_MAX);
    }
}

/// How long a connection was good for.
#[derive(PartialEq, Eq)]
enum Kept {
    ForAWhile,
    /// Its successor may not do better: it has to wait.
    Shortly,
}

/// Looks after a connection until it is lost, or until nobody wants it any more.
async fn keep(
    node: &Weak<Inner>,
    mut state: watch::Receiver<State>,
    up: Up,
    gone: &Notify,
    unanswered: &Notify,
) -> Kept {
    let mut kept = Kept::Shortly;
    for number in 1u64.. {
        let (is_gone, is_suspect) = tokio::select! {
            _ = state.wait_for(|state| !state.has(up.number)) => return kept,
            () = gone.notified() => (true, false),
            () = unanswered.notified() => (false, true),
            () = tokio::time::sleep(CHECK_INTERVAL) => (false, false),
        };
        let Some(inner) = node.upgrade() else {
            return kept;
        };
        if is_gone {
            inner.lose(up.number);
            return kept;
        }
        match inner.check(&up, is_suspect).await {
            // A right that is missing does not come with a new connection.
            Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::NoPerm) => {
                // Of a server that hangs no new connection is to be waited for.
                let hangs = error.is_timeout();
                let next = if hangs {
                    State::Away(error)
                } else {
                    State::Opening
                };
                inner.replace(up.number, next);
                return kept;
            }
            _ => kept = Kept::ForAWhile,
        }
        if number % CHECKS_PER_VOTE == 0 && inner.place.has_moved_from(&up.address).await {
            inner.lose(up.number);
            return kept;
        }
    }
    kept
}

/// What was logged of an outage.
#[derive(Default)]
struct Outage {
    reasons: u32,
    last: String,
}

impl Outage {
    fn goes_on(&mut self, place: &Place, reason: &RedisError) {
        let reason = explain(reason);
        if reason == self.last || self.reasons >= REASONS_MAX {
            return;
        }
        let server = place.name();
        tracing::warn!(server, reason, "a Redis server can't be used");
        self.reasons += 1;
        self.last = reason;
    }

    fn ended(&mut self, address: &Address) {
        if self.reasons > 0 {
            tracing::info!(server = %address, "a Redis server can be used again");
        }
        *self = Outage::default();
    }
}
