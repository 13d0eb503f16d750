//! What an operator does with permissions.

use std::sync::Arc;

use storage::{Lsn, TopologyChange};

use super::patterns::Patterns;
use super::records;
use super::store::{AuthStore, Topics, User};
use super::topics::TopicPermission;
use super::users::no_such_user;
use crate::model::access::Permission;
use crate::model::operation::{OperationError, check_name};

/// A permission with whose it is and where.
#[derive(Clone, Debug)]
pub struct PermissionDefinition {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// What they may do.
    pub patterns: Arc<Patterns>,
}

/// A topic permission with whose it is and where.
#[derive(Clone, Debug)]
pub struct TopicPermissionDefinition {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// For which exchange.
    pub exchange: String,
    /// Which keys they may use.
    pub permission: TopicPermission,
}

impl AuthStore {
    /// What a user may do in a vhost.
    pub fn permission(&self, user: &str, vhost: &str) -> Option<Arc<Patterns>> {
        self.with_user(user, |user| user.permissions.get(vhost).cloned()).flatten()
    }

    /// Whether a user may open a vhost: any permission record will do, even one that allows nothing.
    pub fn vhost_access(&self, user: &str, vhost: &str) -> bool {
        self.permission(user, vhost).is_some()
    }

    /// A user's topic permissions in a vhost, by exchange.
    pub(super) fn topics(&self, user: &str, vhost: &str) -> Option<Arc<Topics>> {
        self.with_user(user, |user| user.topics.get(vhost).cloned()).flatten()
    }

    /// Sets what a user may do in a vhost. Whether there is such a vhost is the caller's to know.
    ///
    /// # Errors
    ///
    /// When there is no such user.
    pub fn put_permission(&self, user: &str, vhost: &str, patterns: Patterns) -> Result<Lsn, OperationError> {
        let put = TopologyChange::Put {
            key: records::permission_key(user, vhost),
            value: records::permission_value(&patterns).map_err(unwritable)?,
        };
        let mut state = self.write();
        let entry = state.users.get_mut(user).ok_or_else(|| no_such_user(user))?;
        let patterns = Arc::new(patterns);
        entry.permissions.insert(vhost.to_owned(), Arc::clone(&patterns));
        let lsn = self.commit(vec![put]);
        drop(state);
        self.emit("permission.created", |fields| {
            let fields = fields.text("user", user).text("vhost", vhost);
            [("configure", Permission::Configure), ("write", Permission::Write), ("read", Permission::Read)]
                .into_iter()
                .fold(fields, |fields, (name, permission)| fields.text(name, patterns.text(permission)))
        });
        Ok(lsn)
    }

    /// Takes all of a user's rights in a vhost away; `None` when there were none.
    pub fn delete_permission(&self, user: &str, vhost: &str) -> Option<Lsn> {
        let mut state = self.write();
        state.users.get_mut(user)?.permissions.remove(vhost)?;
        let key = records::permission_key(user, vhost);
        let lsn = self.commit(vec![TopologyChange::Delete { key }]);
        drop(state);
        self.emit("permission.deleted", |fields| fields.text("user", user).text("vhost", vhost));
        Some(lsn)
    }

    /// Sets which keys a user may use with an exchange. Whether there are such a vhost and exchange is the caller's to know.
    ///
    /// # Errors
    ///
    /// When there is no such user, or the exchange's name can be none.
    pub fn put_topic_permission(
        &self,
        user: &str,
        vhost: &str,
        exchange: &str,
        permission: TopicPermission,
    ) -> Result<Lsn, OperationError> {
        check_name("exchange", exchange)?;
        let put = TopologyChange::Put {
            key: records::topic_key(user, vhost, exchange),
            value: records::topic_value(&permission).map_err(unwritable)?,
        };
        let mut state = self.write();
        let entry = state.users.get_mut(user).ok_or_else(|| no_such_user(user))?;
        let topics = entry.topics.entry(vhost.to_owned()).or_default();
        Arc::make_mut(topics).insert(exchange.to_owned(), permission.clone());
        let lsn = self.commit(vec![put]);
        drop(state);
        self.emit("topic.permission.created", |fields| {
            let fields = fields.text("user", user).text("vhost", vhost).text("exchange", exchange);
            let (write, read) = (permission.text(Permission::Write), permission.text(Permission::Read));
            fields.text("write", write).text("read", read)
        });
        Ok(lsn)
    }

    /// Takes a user's topic permission for an exchange away, or all of them in the vhost; `None` when there were none. Every
    /// key is allowed again.
    pub fn delete_topic_permission(&self, user: &str, vhost: &str, exchange: Option<&str>) -> Option<Lsn> {
        let mut state = self.write();
        let entry = state.users.get_mut(user)?;
        let topics = entry.topics.get_mut(vhost)?;
        let removed = match exchange {
            None => std::mem::take(topics),
            Some(exchange) => {
                let (name, permission) = Arc::make_mut(topics).remove_entry(exchange)?;
                Arc::new(Topics::from([(name, permission)]))
            }
        };
        if topics.is_empty() {
            entry.topics.remove(vhost);
        }
        let lsn = self.commit(deleted_topics(user, vhost, &removed).collect());
        drop(state);
        for exchange in removed.keys() {
            self.emit("topic.permission.deleted", |fields| {
                fields.text("user", user).text("vhost", vhost).text("exchange", exchange)
            });
        }
        Some(lsn)
    }

    /// Forgets every permission in a vhost that is being deleted. `changes` are the vhost's own; all become durable as one.
    pub fn delete_vhost(&self, vhost: &str, mut changes: Vec<TopologyChange>) -> Lsn {
        let mut state = self.write();
        for (name, user) in &mut state.users {
            if user.permissions.remove(vhost).is_some() {
                let key = records::permission_key(name, vhost);
                changes.push(TopologyChange::Delete { key });
            }
            if let Some(topics) = user.topics.remove(vhost) {
                changes.extend(deleted_topics(name, vhost, &topics));
            }
        }
        self.commit(changes)
    }

    /// The permissions of one user or of all, by user and vhost.
    pub fn permissions(&self, user: Option<&str>) -> Vec<PermissionDefinition> {
        let mut list = Vec::new();
        self.each_user(user, |name, user| {
            list.extend(user.permissions.iter().map(|(vhost, patterns)| PermissionDefinition {
                user: name.to_owned(),
                vhost: vhost.clone(),
                patterns: Arc::clone(patterns),
            }));
        });
        list
    }

    /// The topic permissions of one user or of all, by user, vhost and exchange.
    pub fn topic_permissions(&self, user: Option<&str>) -> Vec<TopicPermissionDefinition> {
        let mut list = Vec::new();
        self.each_user(user, |name, user| {
            for (vhost, topics) in &user.topics {
                list.extend(topics.iter().map(|(exchange, permission)| TopicPermissionDefinition {
                    user: name.to_owned(),
                    vhost: vhost.clone(),
                    exchange: exchange.clone(),
                    permission: permission.clone(),
                }));
            }
        });
        list
    }

    fn each_user(&self, only: Option<&str>, mut f: impl FnMut(&str, &User)) {
        self.read(|state| {
            for (name, user) in state.users.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
                f(name, user);
            }
        });
    }
}

fn deleted_topics(user: &str, vhost: &str, topics: &Topics) -> impl Iterator<Item = TopologyChange> {
    topics.keys().map(move |exchange| TopologyChange::Delete { key: records::topic_key(user, vhost, exchange) })
}

fn unwritable(error: serde_json::Error) -> OperationError {
    OperationError::Unwritable(error.to_string())
}
