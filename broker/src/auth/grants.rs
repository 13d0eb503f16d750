//! What one connection may do. Decisions are remembered until users or permissions change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use protocol::error::{AmqpError, ReplyCode};

use super::patterns::Patterns;
use super::store::{AuthStore, Topics};
use super::topics::TopicMatcher;
use crate::model::access::{Access, Permission, Resource};
use crate::model::collections::Map;

/// Decisions one connection remembers. A publisher asks about the same few exchanges again and again; a client that names
/// a new resource every time must not make us remember them all.
const REMEMBERED_MAX: usize = 16;

/// The name under which patterns see the default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// The rights of one user in one vhost.
pub struct Grants {
    store: Arc<AuthStore>,
    user: Arc<str>,
    vhost: Arc<str>,
    /// The version for which something is known to be unlimited, and in the lowest bits what: see [`Grants::is_noted`].
    unlimited: AtomicU64,
    decisions: Mutex<Decisions>,
}

#[derive(Default)]
struct Decisions {
    /// The version of the store all of this is from; the store's own start at 1.
    version: u64,
    patterns: Option<Arc<Patterns>>,
    remembered: Vec<Decision>,
    /// Which one the next new decision replaces.
    oldest: usize,
    topics: Option<Arc<Topics>>,
    /// Those that were used, with the user's name filled in.
    matchers: Map<Box<str>, TopicMatcher>,
}

struct Decision {
    permission: Permission,
    name: Box<str>,
    is_allowed: bool,
}

/// Where the version begins beside the bits.
const VERSION_SHIFT: u32 = 4;
/// There is no topic permission: every key is allowed.
const NO_TOPICS: u64 = 8;

const PERMISSIONS: [Permission; 3] = [Permission::Configure, Permission::Write, Permission::Read];

fn bit(permission: Permission) -> u64 {
    match permission {
        Permission::Configure => 1,
        Permission::Write => 2,
        Permission::Read => 4,
    }
}

impl Grants {
    /// The rights of `user` in `vhost`, as they are at each check.
    pub fn new(store: Arc<AuthStore>, user: Arc<str>, vhost: Arc<str>) -> Self {
        Self { store, user, vhost, unlimited: AtomicU64::new(0), decisions: Mutex::new(Decisions::default()) }
    }

    /// The vhost.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    fn is_allowed(&self, permission: Permission, name: &str) -> bool {
        let version = self.store.version();
        if self.is_noted(version, bit(permission)) {
            return true;
        }
        self.decisions(version).decide(permission, name)
    }

    fn is_topic_allowed(&self, permission: Permission, exchange: &str, key: &str) -> bool {
        let version = self.store.version();
        if self.is_noted(version, NO_TOPICS) {
            return true;
        }
        self.decisions(version).decide_topic((&self.user, &self.vhost), permission, exchange, key)
    }

    /// Whether a topic permission may say no to anything: one load and no lock.
    pub fn limits_topics(&self) -> bool {
        !self.is_noted(self.store.version(), NO_TOPICS)
    }

    /// What was decided under this version, which is now.
    fn decisions(&self, version: u64) -> MutexGuard<'_, Decisions> {
        let mut decisions = self.decisions.lock();
        if decisions.version != version {
            *decisions = Decisions {
                version,
                patterns: self.store.permission(&self.user, &self.vhost),
                topics: self.store.topics(&self.user, &self.vhost),
                ..Decisions::default()
            };
            self.note(version, &decisions);
        }
        decisions
    }

    /// One load and no lock for the common permission `.*`.
    fn is_noted(&self, version: u64, bit: u64) -> bool {
        let noted = self.unlimited.load(Ordering::Relaxed);
        noted >> VERSION_SHIFT == version && noted & bit != 0
    }

    fn note(&self, version: u64, decisions: &Decisions) {
        let patterns = decisions.patterns.as_deref();
        let mut bits = PERMISSIONS
            .into_iter()
            .filter(|permission| patterns.is_some_and(|all| all.allows_everything(*permission)))
            .map(bit)
            .sum::<u64>();
        if decisions.topics.is_none() {
            bits |= NO_TOPICS;
        }
        self.unlimited.store(version << VERSION_SHIFT | bits, Ordering::Relaxed);
    }
}

impl Decisions {
    fn decide(&mut self, permission: Permission, name: &str) -> bool {
        let Some(patterns) = &self.patterns else {
            return false;
        };
        let known = self.remembered.iter().find(|known| known.permission == permission && *known.name == *name);
        if let Some(known) = known {
            return known.is_allowed;
        }
        let is_allowed = patterns.allows(permission, name);
        let decision = Decision { permission, name: name.into(), is_allowed };
        match self.remembered.get_mut(self.oldest) {
            Some(oldest) => *oldest = decision,
            None => self.remembered.push(decision),
        }
        self.oldest = (self.oldest + 1) % REMEMBERED_MAX;
        is_allowed
    }
}

impl Decisions {
    fn decide_topic(&mut self, (user, vhost): (&str, &str), permission: Permission, exchange: &str, key: &str) -> bool {
        let Some(topic) = self.topics.as_ref().and_then(|topics| topics.get(exchange)) else {
            return true;
        };
        if let Some(matcher) = self.matchers.get(exchange) {
            return matcher.allows(permission, key);
        }
        let matcher = topic.for_user(user, vhost);
        let is_allowed = matcher.allows(permission, key);
        self.matchers.insert(exchange.into(), matcher);
        is_allowed
    }
}

fn verb(permission: Permission) -> &'static str {
    match permission {
        Permission::Configure => "configure",
        Permission::Write => "write",
        Permission::Read => "read",
    }
}

impl Access for Grants {
    fn check(&self, permission: Permission, resource: Resource<'_>) -> Result<(), AmqpError> {
        let (kind, name) = match resource {
            Resource::Exchange("") => ("exchange", DEFAULT_EXCHANGE),
            Resource::Exchange(name) => ("exchange", name),
            Resource::Queue(name) => ("queue", name),
        };
        if self.is_allowed(permission, name) {
            return Ok(());
        }
        let access = verb(permission);
        let (vhost, user) = (&self.vhost, &self.user);
        Err(AmqpError::new(
            ReplyCode::AccessRefused,
            format_args!("{access} access to {kind} '{name}' in vhost '{vhost}' refused for user '{user}'"),
        ))
    }

    fn check_topic(&self, permission: Permission, exchange: &str, key: &str) -> Result<(), AmqpError> {
        if self.is_topic_allowed(permission, exchange, key) {
            return Ok(());
        }
        let (access, vhost, user) = (verb(permission), &self.vhost, &self.user);
        Err(AmqpError::new(
            ReplyCode::AccessRefused,
            format_args!(
                "{access} access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
            ),
        ))
    }

    fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("user", &self.user).field("vhost", &self.vhost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Memory;
    use crate::auth::{Credentials, TopicPermission};

    fn store(configure: &str, write: &str, read: &str) -> Arc<AuthStore> {
        let store = Arc::new(Memory::default()).open();
        store.put_user("ann", Credentials::Password("a"), &[]).unwrap();
        permit(&store, configure, write, read);
        store
    }

    fn permit(store: &AuthStore, configure: &str, write: &str, read: &str) {
        let patterns = Patterns::new(configure, write, read).unwrap();
        store.put_permission("ann", "v", patterns).unwrap();
    }

    fn grants(store: &Arc<AuthStore>) -> Grants {
        Grants::new(store.clone(), "ann".into(), "v".into())
    }

    fn refusal(grants: &Grants, permission: Permission, resource: Resource<'_>) -> String {
        let error = grants.check(permission, resource).unwrap_err();
        assert_eq!(error.code, ReplyCode::AccessRefused);
        assert!(!error.is_connection_error());
        error.text
    }

    #[test]
    fn a_refusal_says_what_was_refused_to_whom() {
        let grants = grants(&store("", "^w", ""));
        assert_eq!(grants.user(), "ann");
        assert!(grants.check(Permission::Write, Resource::Exchange("w1")).is_ok());
        assert_eq!(
            refusal(&grants, Permission::Write, Resource::Exchange("x")),
            "ACCESS_REFUSED - write access to exchange 'x' in vhost 'v' refused for user 'ann'"
        );
        assert_eq!(
            refusal(&grants, Permission::Configure, Resource::Queue("q")),
            "ACCESS_REFUSED - configure access to queue 'q' in vhost 'v' refused for user 'ann'"
        );
        assert_eq!(
            refusal(&grants, Permission::Read, Resource::Queue("w1")),
            "ACCESS_REFUSED - read access to queue 'w1' in vhost 'v' refused for user 'ann'"
        );
    }

    #[test]
    fn the_default_exchange_is_amq_default() {
        let grants = grants(&store("", "^amq\\.default$", ""));
        assert!(grants.check(Permission::Write, Resource::Exchange("")).is_ok());
        assert_eq!(
            refusal(&grants, Permission::Configure, Resource::Exchange("")),
            "ACCESS_REFUSED - configure access to exchange 'amq.default' in vhost 'v' refused for user 'ann'"
        );
        assert!(grants.check(Permission::Write, Resource::Queue("")).is_err());
    }

    #[test]
    fn changes_apply_to_the_next_check() {
        let store = store(".*", ".*", "^a");
        let grants = grants(&store);
        let may = |permission, name| grants.check(permission, Resource::Queue(name)).is_ok();
        assert!(may(Permission::Configure, "q") && may(Permission::Read, "a"));
        assert!(!may(Permission::Read, "b"));
        permit(&store, ".*", "", "^b");
        assert!(may(Permission::Configure, "q") && !may(Permission::Write, "q"));
        assert!(may(Permission::Read, "b") && !may(Permission::Read, "a"));
        store.delete_user("ann").unwrap();
        assert!(!may(Permission::Configure, "q") && !may(Permission::Read, "b"));
        store.put_user("ann", Credentials::Password("a"), &[]).unwrap();
        assert!(!may(Permission::Configure, "q"));
        permit(&store, ".*", "", "");
        assert!(may(Permission::Configure, "q"));
    }

    #[test]
    fn rights_are_those_of_one_vhost() {
        let store = store(".*", ".*", ".*");
        let elsewhere = Grants::new(store, "ann".into(), "other".into());
        assert!(elsewhere.check(Permission::Read, Resource::Queue("q")).is_err());
        assert_eq!(elsewhere.vhost(), "other");
    }

    #[test]
    fn topic_permissions_limit_keys_of_their_exchange() {
        let store = store(".*", ".*", ".*");
        let grants = grants(&store);
        let check = |permission, exchange, key| grants.check_topic(permission, exchange, key);
        assert!(check(Permission::Write, "t", "anything").is_ok());
        assert!(!grants.limits_topics());
        let set = |write, read| {
            let permission = TopicPermission::new(write, read).unwrap();
            store.put_topic_permission("ann", "v", "t", permission).unwrap();
        };
        set("^{username}\\.", "^{vhost}\\.");
        assert!(grants.limits_topics());
        for _ in 0..2 {
            assert!(check(Permission::Write, "t", "ann.x").is_ok());
            assert!(check(Permission::Read, "t", "v.x").is_ok());
            assert!(check(Permission::Write, "other", "x").is_ok());
            let error = check(Permission::Write, "t", "bob.x").unwrap_err();
            assert_eq!(error.code, ReplyCode::AccessRefused);
            assert_eq!(
                error.text,
                "ACCESS_REFUSED - write access to topic 'bob.x' in exchange 't' in vhost 'v' refused for user 'ann'"
            );
            let error = check(Permission::Read, "t", "ann.x").unwrap_err();
            assert!(error.text.starts_with("ACCESS_REFUSED - read access to topic 'ann.x' in"), "{}", error.text);
        }
        set("^bob", "");
        assert!(check(Permission::Write, "t", "bob.x").is_ok() && check(Permission::Write, "t", "ann.x").is_err());
        store.delete_topic_permission("ann", "v", Some("t")).unwrap();
        assert!(check(Permission::Write, "t", "ann.x").is_ok() && !grants.limits_topics());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_right() {
        let grants = grants(&store("", "[02468]$", ""));
        for round in 0..3 {
            for i in 0..100_u32 {
                let name = format!("q{i}");
                let allowed = grants.check(Permission::Write, Resource::Queue(&name)).is_ok();
                assert_eq!(allowed, i % 2 == 0, "round {round}, {name}");
                assert!(grants.check(Permission::Read, Resource::Queue(&name)).is_err());
            }
        }
        assert_eq!(grants.decisions.lock().remembered.len(), REMEMBERED_MAX);
    }
}
