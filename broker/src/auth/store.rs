//! Who exists and who may what. In memory behind one lock; every change goes to the journal inside the same critical
//! section, so the order in the log is the order in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use storage::{Lsn, TopologyChange};

use super::login::UserInfo;
use super::password::PasswordHash;
use super::patterns::{PatternError, Patterns};
use super::records::{self, Stored};
use crate::model::access::Permission;

/// Names travel as short strings.
const NAME_BYTES_MAX: usize = 255;

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

/// A change that is refused, or a stored record that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A name that is empty, too long or holds a NUL.
    #[error("user name {0:?} must have 1 to 255 bytes and no NUL")]
    InvalidName(String),
    /// Nobody may log in with an empty password.
    #[error("the password of user {0:?} may not be empty")]
    EmptyPassword(String),
    /// Not the base64 of salt and hash.
    #[error("the password hash of user {0:?} is not the base64 of a 4-byte salt and a SHA-256 hash")]
    InvalidHash(String),
    /// There is no such user.
    #[error("no such user {0:?}")]
    NoSuchUser(String),
    /// A permission's expression can't be used.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// What is stored can't be read.
    #[error("stored record {key:?}: {problem}")]
    Record {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a user will log in.
pub enum Credentials<'a> {
    /// With this password.
    Password(&'a str),
    /// With the password of this hash (base64 of salt and SHA-256).
    Hash(&'a str),
    /// Not with a password.
    None,
}

/// All users and permissions of a broker.
pub struct AuthStore {
    journal: Arc<dyn Journal>,
    state: RwLock<State>,
    /// Changes with the state. Readers take it before they read the state, so what they keep is never newer than they think.
    version: AtomicU64,
    pub(super) loopback_users: Vec<String>,
    pub(super) anonymous_user: Option<String>,
}

#[derive(Default)]
struct State {
    users: BTreeMap<String, User>,
}

/// One user with what they may do, by vhost.
pub(super) struct User {
    pub(super) info: UserInfo,
    pub(super) hash: Option<PasswordHash>,
    permissions: BTreeMap<String, Arc<Patterns>>,
}

impl AuthStore {
    /// Reads users and permissions from the stored pairs; pairs about other things are passed over.
    pub fn open<'a>(
        journal: Arc<dyn Journal>,
        settings: &crate::config::Auth,
        pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, AuthError> {
        let mut state = State::default();
        let mut permissions = Vec::new();
        for (key, value) in pairs {
            let Some(stored) = records::read(key, value) else {
                continue;
            };
            let problem = |problem| AuthError::Record { key: String::from_utf8_lossy(key).into_owned(), problem };
            match stored.map_err(problem)? {
                Stored::User { name, password_hash, tags } => {
                    let hash = match password_hash {
                        None => None,
                        Some(text) => Some(
                            PasswordHash::from_base64(&text)
                                .ok_or_else(|| problem("not a password hash".to_owned()))?,
                        ),
                    };
                    state.users.insert(name.clone(), User::new(&name, hash, &tags));
                }
                Stored::Permission { user, vhost, configure, write, read } => {
                    let patterns =
                        Patterns::new(&configure, &write, &read).map_err(|error| problem(error.to_string()))?;
                    permissions.push((user, vhost, patterns));
                }
            }
        }
        for (user, vhost, patterns) in permissions {
            // Users and their permissions are deleted in one atomic change, so none is ever left over.
            if let Some(user) = state.users.get_mut(&user) {
                user.permissions.insert(vhost, Arc::new(patterns));
            }
        }
        Ok(Self {
            journal,
            state: RwLock::new(state),
            version: AtomicU64::new(1),
            loopback_users: settings.loopback_users.clone(),
            anonymous_user: settings.anonymous_user.clone(),
        })
    }

    /// Whether there is no user at all.
    pub fn is_empty(&self) -> bool {
        self.state.read().users.is_empty()
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<UserInfo> {
        self.with_user(name, |user| user.info.clone())
    }

    /// What a user may do in a vhost.
    pub fn permission(&self, user: &str, vhost: &str) -> Option<Arc<Patterns>> {
        self.with_user(user, |user| user.permissions.get(vhost).cloned()).flatten()
    }

    /// Whether a user may open a vhost: any permission record will do, even one that allows nothing.
    pub fn vhost_access(&self, user: &str, vhost: &str) -> bool {
        self.permission(user, vhost).is_some()
    }

    /// Creates a user, or replaces the credentials and tags of one. Permissions stay.
    pub fn put_user(&self, name: &str, credentials: Credentials<'_>, tags: &[String]) -> Result<Lsn, AuthError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(AuthError::InvalidName(name.to_owned()));
        }
        let hash = match credentials {
            Credentials::Password("") => return Err(AuthError::EmptyPassword(name.to_owned())),
            Credentials::Password(password) => Some(PasswordHash::new(password)),
            Credentials::Hash(text) => {
                Some(PasswordHash::from_base64(text).ok_or_else(|| AuthError::InvalidHash(name.to_owned()))?)
            }
            Credentials::None => None,
        };
        let key = records::user_key(name);
        let value = records::user_value(hash.as_ref().map(PasswordHash::to_base64), tags)
            .map_err(|error| unwritable(&key, &error))?;
        Ok(self.change(vec![TopologyChange::Put { key, value }], |state| {
            let mut user = User::new(name, hash, tags);
            if let Some(old) = state.users.remove(name) {
                user.permissions = old.permissions;
            }
            state.users.insert(name.to_owned(), user);
        }))
    }

    /// Deletes a user with all permissions. Open connections stay, without any rights.
    pub fn delete_user(&self, name: &str) -> Result<Lsn, AuthError> {
        let mut state = self.state.write();
        let user = state.users.remove(name).ok_or_else(|| AuthError::NoSuchUser(name.to_owned()))?;
        let mut changes = vec![TopologyChange::Delete { key: records::user_key(name) }];
        changes.extend(
            user.permissions.keys().map(|vhost| TopologyChange::Delete { key: records::permission_key(name, vhost) }),
        );
        Ok(self.commit(changes))
    }

    /// Sets what a user may do in a vhost. Whether there is such a vhost is the caller's to know.
    pub fn put_permission(&self, user: &str, vhost: &str, patterns: Patterns) -> Result<Lsn, AuthError> {
        let key = records::permission_key(user, vhost);
        let value = records::permission_value(
            patterns.text(Permission::Configure),
            patterns.text(Permission::Write),
            patterns.text(Permission::Read),
        )
        .map_err(|error| unwritable(&key, &error))?;
        let mut state = self.state.write();
        let entry = state.users.get_mut(user).ok_or_else(|| AuthError::NoSuchUser(user.to_owned()))?;
        entry.permissions.insert(vhost.to_owned(), Arc::new(patterns));
        Ok(self.commit(vec![TopologyChange::Put { key, value }]))
    }

    /// Takes all of a user's rights in a vhost away; `None` when there were none.
    pub fn delete_permission(&self, user: &str, vhost: &str) -> Option<Lsn> {
        let mut state = self.state.write();
        state.users.get_mut(user)?.permissions.remove(vhost)?;
        let key = records::permission_key(user, vhost);
        Some(self.commit(vec![TopologyChange::Delete { key }]))
    }

    /// Forgets every permission in a vhost that is being deleted. `changes` are the vhost's own; all become durable as one.
    pub fn delete_vhost(&self, vhost: &str, mut changes: Vec<TopologyChange>) -> Lsn {
        let mut state = self.state.write();
        for (name, user) in &mut state.users {
            if user.permissions.remove(vhost).is_some() {
                let key = records::permission_key(name, vhost);
                changes.push(TopologyChange::Delete { key });
            }
        }
        self.commit(changes)
    }

    /// Goes up with every change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn with_user<T>(&self, name: &str, f: impl FnOnce(&User) -> T) -> Option<T> {
        self.state.read().users.get(name).map(f)
    }

    fn change(&self, changes: Vec<TopologyChange>, apply: impl FnOnce(&mut State)) -> Lsn {
        let mut state = self.state.write();
        apply(&mut state);
        self.commit(changes)
    }

    /// Called under the write lock, after the state has changed.
    fn commit(&self, changes: Vec<TopologyChange>) -> Lsn {
        self.version.fetch_add(1, Ordering::Release);
        self.journal.record(changes)
    }
}

impl User {
    fn new(name: &str, hash: Option<PasswordHash>, tags: &[String]) -> Self {
        Self { info: UserInfo { name: name.into(), tags: tags.into() }, hash, permissions: BTreeMap::new() }
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

fn unwritable(key: &[u8], error: &serde_json::Error) -> AuthError {
    AuthError::Record { key: String::from_utf8_lossy(key).into_owned(), problem: error.to_string() }
}
