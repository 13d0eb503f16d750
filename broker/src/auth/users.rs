//! What an operator does with users: add, delete, passwords, tags, limits.

use serde_json::{Map, Value};
use storage::{Lsn, TopologyChange};

use super::login::UserInfo;
use super::password::PasswordHash;
use super::records;
use super::store::{AuthStore, User};
use crate::model::limits::UserLimits;
use crate::model::operation::{OperationError, check_name};

/// How a user will log in.
pub enum Credentials<'a> {
    /// With this password. Nobody can log in with an empty one.
    Password(&'a str),
    /// With the password of this hash.
    Hash(PasswordHash),
    /// Not with a password.
    None,
}

/// A user as definitions have them. The hash is a secret: `Debug` hides it.
#[derive(Clone, Debug)]
pub struct UserDefinition {
    /// Their name.
    pub name: String,
    /// Their password's hash, if they can have logged in with one.
    pub hash: Option<PasswordHash>,
    /// Their tags.
    pub tags: Vec<String>,
    /// Their limits.
    pub limits: UserLimits,
}

impl Credentials<'_> {
    fn into_hash(self) -> Option<PasswordHash> {
        match self {
            Self::Password(password) => Some(PasswordHash::new(password)),
            Self::Hash(hash) => Some(hash),
            Self::None => None,
        }
    }
}

impl AuthStore {
    /// Creates a user.
    ///
    /// # Errors
    ///
    /// When there is one of that name, or the name can be nobody's.
    pub fn add_user(&self, name: &str, credentials: Credentials<'_>, tags: &[String]) -> Result<Lsn, OperationError> {
        self.create_or_replace(name, credentials, tags, false)
    }

    /// Creates a user, or replaces the credentials and tags of one. Permissions and limits stay.
    ///
    /// # Errors
    ///
    /// When the name can be nobody's.
    pub fn put_user(&self, name: &str, credentials: Credentials<'_>, tags: &[String]) -> Result<Lsn, OperationError> {
        self.create_or_replace(name, credentials, tags, true)
    }

    fn create_or_replace(
        &self,
        name: &str,
        credentials: Credentials<'_>,
        tags: &[String],
        may_exist: bool,
    ) -> Result<Lsn, OperationError> {
        let (lsn, is_new) = self.replace_user(name, credentials, tags, may_exist)?;
        if is_new {
            self.emit("user.created", |fields| fields.text("name", name));
        }
        if !tags.is_empty() || !is_new {
            self.emit("user.tags.set", |fields| fields.text("name", name).list("tags", tags));
        }
        Ok(lsn)
    }

    /// True with a new user.
    fn replace_user(
        &self,
        name: &str,
        credentials: Credentials<'_>,
        tags: &[String],
        may_exist: bool,
    ) -> Result<(Lsn, bool), OperationError> {
        check_name("user", name)?;
        let hash = credentials.into_hash();
        let mut state = self.write();
        let old = state.users.get(name);
        if old.is_some() && !may_exist {
            return Err(OperationError::UserExists(name.to_owned()));
        }
        let limits = old.map(|user| user.limits).unwrap_or_default();
        let put = put_user(name, hash.as_ref(), tags, limits)?;
        let is_new = old.is_none();
        let mut user = User::new(name, hash, tags, limits);
        if let Some(old) = state.users.remove(name) {
            (user.permissions, user.topics) = (old.permissions, old.topics);
        }
        state.users.insert(name.to_owned(), user);
        Ok((self.commit(vec![put]), is_new))
    }

    /// Deletes a user with all permissions. Open connections stay, without any rights.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn delete_user(&self, name: &str) -> Result<Lsn, OperationError> {
        let mut state = self.write();
        let user = state.users.remove(name).ok_or_else(|| no_such_user(name))?;
        let mut changes = vec![TopologyChange::Delete { key: records::user_key(name) }];
        let delete = |key| TopologyChange::Delete { key };
        changes.extend(user.permissions.keys().map(|vhost| delete(records::permission_key(name, vhost))));
        for (vhost, topics) in &user.topics {
            changes.extend(topics.keys().map(|exchange| delete(records::topic_key(name, vhost, exchange))));
        }
        let lsn = self.commit(changes);
        drop(state);
        self.emit("user.deleted", |fields| fields.text("name", name));
        Ok(lsn)
    }

    /// Changes how a user logs in: another password, a hash, or none. Open connections stay.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn set_credentials(&self, name: &str, credentials: Credentials<'_>) -> Result<Lsn, OperationError> {
        let hash = credentials.into_hash();
        let key = if hash.is_some() { "user.password.changed" } else { "user.password.cleared" };
        let lsn = self.change_user(name, |user| {
            user.hash = hash;
            Ok(())
        })?;
        self.emit(key, |fields| fields.text("name", name));
        Ok(lsn)
    }

    /// Replaces a user's tags. Connections keep those of their login.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn set_tags(&self, name: &str, tags: &[String]) -> Result<Lsn, OperationError> {
        let lsn = self.change_user(name, |user| {
            user.info.tags = tags.into();
            Ok(())
        })?;
        self.emit("user.tags.set", |fields| fields.text("name", name).list("tags", tags));
        Ok(lsn)
    }

    /// Sets the limits that are given: `max-connections`, `max-channels`. What is open beyond them stays open.
    ///
    /// # Errors
    ///
    /// When there is no such user, or with RabbitMQ's text for what can't be a limit.
    pub fn set_limits(&self, name: &str, limits: &Map<String, Value>) -> Result<Lsn, OperationError> {
        self.change_user(name, |user| {
            user.limits = user.limits.with(limits).map_err(OperationError::Invalid)?;
            Ok(())
        })
    }

    /// Takes a limit away, or all of them.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn clear_limits(&self, name: &str, limit: Option<&str>) -> Result<Lsn, OperationError> {
        self.change_user(name, |user| {
            user.limits = user.limits.without(limit);
            Ok(())
        })
    }

    /// What a user may have open.
    pub fn limits(&self, name: &str) -> Option<UserLimits> {
        self.with_user(name, |user| user.limits)
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<UserDefinition> {
        self.read(|state| state.users.values().map(User::definition).collect())
    }

    /// One user.
    pub fn definition(&self, name: &str) -> Option<UserDefinition> {
        self.with_user(name, User::definition)
    }

    fn change_user(
        &self,
        name: &str,
        change: impl FnOnce(&mut Parts) -> Result<(), OperationError>,
    ) -> Result<Lsn, OperationError> {
        let mut state = self.write();
        let user = state.users.get_mut(name).ok_or_else(|| no_such_user(name))?;
        let mut parts = Parts { info: user.info.clone(), hash: user.hash.clone(), limits: user.limits };
        change(&mut parts)?;
        let put = put_user(name, parts.hash.as_ref(), &parts.info.tags, parts.limits)?;
        (user.info, user.hash, user.limits) = (parts.info, parts.hash, parts.limits);
        Ok(self.commit(vec![put]))
    }
}

/// What a user's record has.
struct Parts {
    info: UserInfo,
    hash: Option<PasswordHash>,
    limits: UserLimits,
}

impl User {
    fn definition(&self) -> UserDefinition {
        UserDefinition {
            name: self.info.name.as_ref().to_owned(),
            hash: self.hash.clone(),
            tags: self.info.tags.to_vec(),
            limits: self.limits,
        }
    }
}

pub(super) fn no_such_user(name: &str) -> OperationError {
    OperationError::NoSuchUser(name.to_owned())
}

fn put_user(
    name: &str,
    hash: Option<&PasswordHash>,
    tags: &[String],
    limits: UserLimits,
) -> Result<TopologyChange, OperationError> {
    let value =
        records::user_value(hash, tags, limits).map_err(|error| OperationError::Unwritable(error.to_string()))?;
    Ok(TopologyChange::Put { key: records::user_key(name), value })
}
