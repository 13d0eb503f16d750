//! Who exists and who may what. In memory behind one lock; every change goes to the journal inside the same critical
//! section, so the order in the log is the order in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockWriteGuard};
use storage::{Lsn, TopologyChange};

use super::login::UserInfo;
use super::password::PasswordHash;
use super::patterns::Patterns;
use super::records::{self, Stored};
use super::topics::TopicPermission;
use crate::model::events::{Events, Fields};
use crate::model::limits::UserLimits;
use crate::model::log_limit::LogLimit;

/// Where changes become durable. The store's topology is the real one.
pub trait Journal: Send + Sync {
    /// Appends one atomic change and returns the position to wait for.
    fn record(&self, changes: Vec<TopologyChange>) -> Lsn;
}

impl Journal for storage::Store {
    fn record(&self, changes: Vec<TopologyChange>) -> Lsn {
        self.change_topology(changes)
    }
}

/// A stored record about users that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored record {key:?}: {problem}")]
pub struct AuthError {
    key: String,
    problem: String,
}

/// All users and permissions of a broker.
pub struct AuthStore {
    journal: Arc<dyn Journal>,
    state: RwLock<State>,
    /// Changes with the state. Readers take it before they read the state, so what they keep is never newer than they think.
    version: AtomicU64,
    pub(super) loopback_users: RwLock<Vec<String>>,
    pub(super) anonymous_user: Option<String>,
    pub(super) refusals: LogLimit,
    pub(super) events: OnceLock<Arc<Events>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) users: BTreeMap<String, User>,
}

/// Topic permissions of one user in one vhost, by exchange.
pub(super) type Topics = BTreeMap<String, TopicPermission>;

/// One user with what they may do, by vhost.
pub(super) struct User {
    pub(super) info: UserInfo,
    pub(super) hash: Option<PasswordHash>,
    pub(super) limits: UserLimits,
    pub(super) permissions: BTreeMap<String, Arc<Patterns>>,
    pub(super) topics: BTreeMap<String, Arc<Topics>>,
}

impl AuthStore {
    /// Reads users and permissions from the stored pairs; pairs about other things are passed over.
    pub fn open<'a>(
        journal: Arc<dyn Journal>,
        settings: &crate::config::Auth,
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, AuthError> {
        let mut state = State::default();
        let (mut permissions, mut topics) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            let Some(stored) = records::read(key, value) else {
                continue;
            };
            let problem = |problem| AuthError { key: String::from_utf8_lossy(key).into_owned(), problem };
            match stored.map_err(problem)? {
                Stored::User { name, hash, tags, limits } => {
                    let user = User::new(&name, hash, &tags, limits);
                    state.users.insert(name, user);
                }
                Stored::Permission { user, vhost, patterns } => permissions.push((user, vhost, patterns)),
                Stored::Topic { user, vhost, exchange, permission } => {
                    topics.push((user, vhost, exchange, permission));
                }
            }
        }
        // Users and their permissions are deleted in one atomic change, so none is ever left over.
        for (user, vhost, patterns) in permissions {
            if let Some(user) = state.users.get_mut(&user) {
                user.permissions.insert(vhost, Arc::new(patterns));
            }
        }
        for (user, vhost, exchange, permission) in topics {
            if let Some(user) = state.users.get_mut(&user) {
                Arc::make_mut(user.topics.entry(vhost).or_default()).insert(exchange, permission);
            }
        }
        Ok(Self {
            journal,
            state: RwLock::new(state),
            version: AtomicU64::new(1),
            loopback_users: RwLock::new(settings.loopback_users.clone()),
            anonymous_user: settings.anonymous_user.clone(),
            refusals: LogLimit::default(),
            events: OnceLock::new(),
        })
    }

    /// Where events of users go; only the first call counts.
    pub fn set_events(&self, events: Arc<Events>) {
        let _ = self.events.set(events);
    }

    /// Something has happened to a user. Called with nothing held.
    pub(super) fn emit(&self, key: &str, fields: impl FnOnce(Fields) -> Fields) {
        if let Some(events) = self.events.get() {
            events.emit(key, || fields(Fields::by_operator()));
        }
    }

    /// Whether there is no user at all.
    pub fn is_empty(&self) -> bool {
        self.state.read().users.is_empty()
    }

    /// Users who may connect from this machine only.
    pub fn loopback_users(&self) -> Vec<String> {
        self.loopback_users.read().clone()
    }

    /// Replaces the users who may connect from this machine only, until the broker restarts. Connections that are open stay.
    pub fn set_loopback_users(&self, users: Vec<String>) {
        *self.loopback_users.write() = users;
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<UserInfo> {
        self.with_user(name, |user| user.info.clone())
    }

    /// Goes up with every change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn with_user<T>(&self, name: &str, f: impl FnOnce(&User) -> T) -> Option<T> {
        self.state.read().users.get(name).map(f)
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read())
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// Called under the write lock, after the state has changed.
    pub(super) fn commit(&self, changes: Vec<TopologyChange>) -> Lsn {
        self.version.fetch_add(1, Ordering::Release);
        self.journal.record(changes)
    }
}

impl User {
    pub(super) fn new(name: &str, hash: Option<PasswordHash>, tags: &[String], limits: UserLimits) -> Self {
        let info = UserInfo { name: name.into(), tags: tags.into() };
        Self { info, hash, limits, permissions: BTreeMap::new(), topics: BTreeMap::new() }
    }
}

impl fmt::Debug for AuthStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthStore")
            .field("users", &self.state.read().users.len())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
