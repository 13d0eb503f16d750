//! Who is connected: how to reach each connection, and how many a user, a virtual host and the node have open.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::OpenConnection;
use crate::model::ConnectionId;
use crate::model::arguments::Arguments;
use crate::model::collections::Map;
use crate::model::limits::{Limit, reached};
use crate::model::peer::PeerTls;
use crate::queue::signal::{self, Signal};

/// All connections of a broker.
pub(super) struct Connections {
    state: Mutex<State>,
    count: watch::Sender<usize>,
    /// Open channels of all connections.
    channels: AtomicUsize,
}

#[derive(Default)]
struct State {
    all: HashMap<ConnectionId, Connection>,
    /// Connections that have a virtual host.
    open: usize,
    vhosts: Map<Arc<str>, usize>,
    users: Map<Arc<str>, Arc<Usage>>,
}

struct Connection {
    signal: Arc<Signal>,
    open: Arc<OpenConnection>,
    facts: ConnectionFacts,
    opened: Option<Opened>,
    /// Why it is to be closed.
    reason: Option<Arc<str>>,
}

/// What a connection is known by to operators.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFacts {
    /// What RabbitMQ calls its name: `client -> broker`.
    pub name: String,
    /// What encrypts it.
    pub tls: Option<Arc<PeerTls>>,
    /// The client's socket address and the broker's.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What the client says about itself.
    pub client_properties: Arguments,
    /// The SASL mechanism of its login.
    pub mechanism: String,
    /// When it was accepted, in milliseconds of the wall clock.
    pub connected_at_ms: u64,
}

/// A connection that has a virtual host.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its number.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: Arc<str>,
    /// Where it is open.
    pub vhost: Arc<str>,
    /// What else is known.
    pub facts: ConnectionFacts,
    /// Its channels and what it counts.
    pub open: Arc<OpenConnection>,
}

struct Opened {
    vhost: Arc<str>,
    user: Arc<str>,
}

/// What one user has open on the node.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    connections: AtomicUsize,
    channels: AtomicUsize,
}

/// Which limit leaves no room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionLimit {
    /// The node's.
    Node(i64),
    /// The virtual host's.
    Vhost(i64),
    /// The user's.
    User(i64),
}

/// Which limit leaves no room for another channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelLimit {
    /// The node's.
    Node(i64),
    /// The user's.
    User(i64),
}

/// The limits a new connection has to keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionLimits {
    pub(crate) node: Limit,
    pub(crate) vhost: Limit,
    pub(crate) user: Limit,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), count: watch::Sender::new(0), channels: AtomicUsize::new(0) }
    }

    pub(super) fn add(&self, id: ConnectionId, signal: &Arc<Signal>, open: &Arc<OpenConnection>) {
        let mut state = self.state.lock();
        let connection = Connection {
            signal: Arc::clone(signal),
            open: Arc::clone(open),
            facts: ConnectionFacts::default(),
            opened: None,
            reason: None,
        };
        state.all.insert(id, connection);
        self.count.send_replace(state.all.len());
    }

    pub(super) fn remove(&self, id: ConnectionId) {
        self.close(id);
        let mut state = self.state.lock();
        state.all.remove(&id);
        self.count.send_replace(state.all.len());
    }

    /// The connection opens a virtual host. Checking and counting are one step, so that no two take the last place.
    pub(super) fn open(
        &self,
        id: ConnectionId,
        vhost: &Arc<str>,
        user: &Arc<str>,
        limits: ConnectionLimits,
    ) -> Result<Arc<Usage>, ConnectionLimit> {
        let mut state = self.state.lock();
        let in_vhost = state.vhosts.get(vhost).copied().unwrap_or_default();
        let usage = state.users.get(user).cloned().unwrap_or_default();
        if let Some(limit) = reached(limits.node, state.open) {
            return Err(ConnectionLimit::Node(limit));
        }
        if let Some(limit) = reached(limits.vhost, in_vhost) {
            return Err(ConnectionLimit::Vhost(limit));
        }
        if let Some(limit) = reached(limits.user, usage.connections.load(Ordering::Relaxed)) {
            return Err(ConnectionLimit::User(limit));
        }
        // Whoever is not known here is never closed here either.
        let Some(connection) = state.all.get_mut(&id) else {
            return Ok(usage);
        };
        connection.opened = Some(Opened { vhost: Arc::clone(vhost), user: Arc::clone(user) });
        usage.connections.fetch_add(1, Ordering::Relaxed);
        state.users.insert(Arc::clone(user), Arc::clone(&usage));
        state.vhosts.insert(Arc::clone(vhost), in_vhost + 1);
        state.open += 1;
        Ok(usage)
    }

    /// The connection's place is free again. Doing it again changes nothing.
    pub(super) fn close(&self, id: ConnectionId) {
        let mut state = self.state.lock();
        let Some(Opened { vhost, user }) = state.all.get_mut(&id).and_then(|connection| connection.opened.take())
        else {
            return;
        };
        state.open -= 1;
        if let Some(count) = state.vhosts.get_mut(&vhost) {
            *count -= 1;
            if *count == 0 {
                state.vhosts.remove(&vhost);
            }
        }
        if let Some(usage) = state.users.get(&user)
            && usage.connections.fetch_sub(1, Ordering::Relaxed) == 1
        {
            state.users.remove(&user);
        }
    }

    /// A channel opens, if the limits of node and user allow it.
    pub(super) fn open_channel(&self, usage: &Usage, node: Limit, user: Limit) -> Result<(), ChannelLimit> {
        take(&self.channels, node).map_err(ChannelLimit::Node)?;
        take(&usage.channels, user).map_err(|limit| {
            self.channels.fetch_sub(1, Ordering::Relaxed);
            ChannelLimit::User(limit)
        })
    }

    pub(super) fn close_channels(&self, usage: &Usage, count: usize) {
        self.channels.fetch_sub(count, Ordering::Relaxed);
        usage.channels.fetch_sub(count, Ordering::Relaxed);
    }

    /// Tells every connection the same.
    pub(super) fn raise_all(&self, flag: u8) {
        for connection in self.state.lock().all.values() {
            connection.signal.raise(flag);
        }
    }

    /// Tells the connections of a virtual host to go; gives their number.
    pub(super) fn close_vhost(&self, vhost: &str, reason: &str) -> usize {
        self.close_those(reason, |connection| connection.opened.as_ref().is_some_and(|opened| *opened.vhost == *vhost))
    }

    /// Notes something about a connection.
    pub(super) fn note(&self, id: ConnectionId, note: impl FnOnce(&mut ConnectionFacts)) {
        if let Some(connection) = self.state.lock().all.get_mut(&id) {
            note(&mut connection.facts);
        }
    }

    /// What is known of a connection.
    pub(super) fn facts(&self, id: ConnectionId) -> Option<ConnectionFacts> {
        self.state.lock().all.get(&id).map(|connection| connection.facts.clone())
    }

    /// The connections that have a virtual host, by number.
    pub(super) fn list(&self) -> Vec<ConnectionInfo> {
        let state = self.state.lock();
        let mut list: Vec<_> = state
            .all
            .iter()
            .filter_map(|(id, connection)| {
                let Opened { vhost, user } = connection.opened.as_ref()?;
                let (user, vhost) = (Arc::clone(user), Arc::clone(vhost));
                let (facts, open) = (connection.facts.clone(), Arc::clone(&connection.open));
                Some(ConnectionInfo { id: *id, user, vhost, facts, open })
            })
            .collect();
        list.sort_unstable_by_key(|info| info.id);
        list
    }

    /// Tells one connection to go; false when there is none of that id.
    pub(super) fn close_one(&self, id: ConnectionId, reason: &str) -> bool {
        let mut state = self.state.lock();
        let Some(connection) = state.all.get_mut(&id) else {
            return false;
        };
        connection.reason.get_or_insert_with(|| reason.into());
        connection.signal.raise(signal::FORCED);
        true
    }

    fn close_those(&self, reason: &str, which: impl Fn(&Connection) -> bool) -> usize {
        let reason: Arc<str> = reason.into();
        let mut state = self.state.lock();
        let mut count = 0;
        for connection in state.all.values_mut().filter(|connection| which(connection)) {
            connection.reason.get_or_insert_with(|| Arc::clone(&reason));
            connection.signal.raise(signal::FORCED);
            count += 1;
        }
        count
    }

    /// Why the connection is to be closed.
    pub(super) fn reason(&self, id: ConnectionId) -> Option<Arc<str>> {
        self.state.lock().all.get(&id)?.reason.clone()
    }

    /// Connections that are open in a virtual host.
    pub(super) fn in_vhost(&self, vhost: &str) -> usize {
        self.state.lock().vhosts.get(vhost).copied().unwrap_or_default()
    }

    /// Connections and channels that a user has open.
    pub(super) fn of_user(&self, user: &str) -> (usize, usize) {
        let state = self.state.lock();
        state
            .users
            .get(user)
            .map_or((0, 0), |usage| (usage.connections.load(Ordering::Relaxed), usage.channels.load(Ordering::Relaxed)))
    }

    /// Open channels of all connections.
    pub(super) fn channel_count(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Connections that have a virtual host.
    pub(super) fn open_count(&self) -> usize {
        self.state.lock().open
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

/// Counts one more, unless the limit is reached: then that is the error.
fn take(counter: &AtomicUsize, limit: Limit) -> Result<(), i64> {
    let more = |used| reached(limit, used).is_none().then_some(used + 1);
    match counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
        Ok(_) => Ok(()),
        Err(_) => Err(limit.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::outbox::Outbox;

    fn limits(node: i64, vhost: i64, user: i64) -> ConnectionLimits {
        ConnectionLimits { node: Some(node), vhost: Some(vhost), user: Some(user) }
    }

    fn open() -> Arc<OpenConnection> {
        let outbox = Outbox::new(usize::MAX, Arc::default(), Arc::default());
        Arc::new(OpenConnection::new(Arc::new(outbox), Arc::default()))
    }

    fn add(connections: &Connections, id: u64) -> ConnectionId {
        let id = ConnectionId(id);
        connections.add(id, &Arc::default(), &open());
        id
    }

    #[test]
    fn places_are_counted_for_node_vhost_and_user() {
        let connections = Connections::new();
        let (v, w): (Arc<str>, Arc<str>) = ("v".into(), "w".into());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let ids: Vec<_> = (0..4).map(|id| add(&connections, id)).collect();
        let open = |id: usize, vhost: &Arc<str>, user: &Arc<str>, limits| {
            connections.open(ids[id], vhost, user, limits).map(|_| ())
        };
        open(0, &v, &ann, limits(2, 1, 1)).unwrap();
        assert_eq!(open(1, &w, &ann, limits(2, 1, 1)), Err(ConnectionLimit::User(1)));
        assert_eq!(open(1, &v, &ann, limits(2, 1, 1)), Err(ConnectionLimit::Vhost(1)));
        open(1, &w, &bob, limits(2, 1, 1)).unwrap();
        assert_eq!(open(2, &v, &ann, limits(2, 1, 1)), Err(ConnectionLimit::Node(2)));
        assert_eq!(open(2, &v, &ann, limits(0, 0, 0)), Err(ConnectionLimit::Node(0)));
        open(2, &v, &ann, limits(-1, -1, -1)).unwrap();
        assert_eq!((connections.in_vhost("v"), connections.of_user("ann")), (2, (2, 0)));
        for id in [0, 0, 2] {
            connections.close(ids[id]);
        }
        assert_eq!((connections.in_vhost("v"), connections.of_user("ann")), (0, (0, 0)));
        connections.remove(ids[1]);
        open(3, &w, &bob, limits(1, 1, 1)).unwrap();
        let state = connections.state.lock();
        assert_eq!((state.all.len(), state.open, state.vhosts.len(), state.users.len()), (3, 1, 1, 1));
    }

    #[test]
    fn channels_are_counted_for_node_and_user() {
        let connections = Connections::new();
        let (ann, bob) = (Usage::default(), Usage::default());
        connections.open_channel(&ann, Some(3), Some(2)).unwrap();
        connections.open_channel(&ann, Some(3), Some(2)).unwrap();
        assert_eq!(connections.open_channel(&ann, Some(3), Some(2)), Err(ChannelLimit::User(2)));
        connections.open_channel(&bob, Some(3), None).unwrap();
        assert_eq!(connections.open_channel(&bob, Some(3), None), Err(ChannelLimit::Node(3)));
        assert_eq!(connections.open_channel(&bob, Some(-1), Some(0)), Err(ChannelLimit::User(0)));
        connections.close_channels(&ann, 2);
        connections.open_channel(&ann, Some(2), Some(1)).unwrap();
        assert_eq!(connections.channels.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_connection_is_told_once_why_it_has_to_go() {
        let connections = Connections::new();
        let signal = Arc::new(Signal::default());
        let id = ConnectionId(7);
        connections.add(id, &signal, &open());
        assert_eq!(connections.close_vhost("v", "gone"), 0);
        connections.open(id, &"v".into(), &"ann".into(), ConnectionLimits::default()).unwrap();
        assert_eq!(connections.close_vhost("v", "gone"), 1);
        assert!(connections.close_one(id, "later") && !connections.close_one(ConnectionId(8), "nobody"));
        assert_eq!(signal.take(), signal::FORCED);
        assert_eq!(connections.reason(id).as_deref(), Some("gone"));
    }
}
