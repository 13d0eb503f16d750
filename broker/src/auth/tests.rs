//! Users and permissions through changes and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Map;
use storage::{Lsn, TopologyChange};

use super::*;
use crate::model::access::Permission;
use crate::model::arguments::{Arguments, string};
use crate::model::events::{EventSink, Events};
use crate::model::operation::OperationError;

/// A journal that keeps the pairs as the store would.
#[derive(Default)]
pub(super) struct Memory {
    pairs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    lsn: AtomicU64,
}

impl Journal for Memory {
    fn record(&self, changes: Vec<TopologyChange>) -> Lsn {
        let mut pairs = self.pairs.lock();
        for change in changes {
            match change {
                TopologyChange::Put { key, value } => {
                    pairs.insert(key, value);
                }
                TopologyChange::Delete { key } => {
                    assert!(pairs.remove(&key).is_some(), "deleted what is not there");
                }
                TopologyChange::DropQueue(_) => panic!("no queue here"),
            }
        }
        Lsn(self.lsn.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Memory {
    pub(super) fn open(self: &Arc<Self>) -> Arc<AuthStore> {
        let settings = crate::config::Settings::defaults().unwrap().auth;
        let pairs = self.pairs.lock().clone();
        let pairs = pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let journal: Arc<dyn Journal> = self.clone();
        Arc::new(AuthStore::open(journal, &settings, pairs).unwrap())
    }

    fn keys(&self) -> Vec<String> {
        let pairs = self.pairs.lock();
        pairs.keys().map(|key| String::from_utf8(key.clone()).unwrap()).collect()
    }
}

fn patterns(configure: &str, write: &str, read: &str) -> Patterns {
    Patterns::new(configure, write, read).unwrap()
}

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn limits(json: &str) -> Map<String, serde_json::Value> {
    serde_json::from_str(json).unwrap()
}

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn users_and_permissions_are_recovered() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    assert!(store.is_empty());
    store.put_user("ann", Credentials::Password("00123"), &tags(&["monitoring"])).unwrap();
    store.put_permission("ann", "/", patterns("", "^w", ".*")).unwrap();
    assert_eq!(memory.keys(), ["permission/ann\0/", "user/ann"]);

    let store = memory.open();
    assert_eq!(&*store.user("ann").unwrap().tags, ["monitoring"]);
    let permission = store.permission("ann", "/").unwrap();
    assert_eq!(permission.text(Permission::Write), "^w");
    assert!(store.vhost_access("ann", "/"));
    assert!(!store.vhost_access("ann", "other"));
    assert!(!store.vhost_access("bob", "/"));
}

#[test]
fn records_have_a_version_and_no_password() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    store.put_user("ann", Credentials::Password("sesame"), &[]).unwrap();
    let value = memory.pairs.lock()[&b"user/ann".to_vec()].clone();
    let json: serde_json::Value = serde_json::from_slice(&value).unwrap();
    assert_eq!(json["v"], 1);
    assert!(!json.to_string().contains("sesame"));
    assert!(!format!("{store:?}").contains("ann"));
}

#[test]
fn a_record_from_the_future_or_a_broken_one_is_named() {
    let settings = crate::config::Settings::defaults().unwrap().auth;
    let open = |key: &'static [u8], value: &'static str| {
        let journal: Arc<dyn Journal> = Arc::new(Memory::default());
        AuthStore::open(journal, &settings, [(key, value.as_bytes())]).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(
        open(b"user/ann", r#"{"v":2,"password_hash":null,"tags":[]}"#),
        Err("stored record \"user/ann\": written by another version of warren (format 2, this one reads 1)".into())
    );
    let broken = open(b"user/ann", r#"{"v":1,"password_hash":"SECRET","tags":[]}"#).unwrap_err();
    assert!(broken.ends_with("not a password hash") && !broken.contains("SECRET"));
    let broken = open(b"user/ann", r#"{"v":"SECRET"}"#).unwrap_err();
    assert!(broken.contains("unreadable JSON") && !broken.contains("SECRET"));
    assert!(open(b"permission/ann", r#"{"v":1,"configure":"","write":"","read":""}"#).is_err());
    assert!(open(b"queue/x", "whatever").is_ok());
}

#[test]
fn what_can_not_be_a_user_is_refused() {
    let store = Arc::new(Memory::default()).open();
    let long = "n".repeat(256);
    for name in ["", "a\0b", &long] {
        let error = store.put_user(name, Credentials::Password("x"), &[]).unwrap_err();
        assert!(matches!(error, OperationError::BadArgument(_)), "{error}");
    }
    let missing = OperationError::NoSuchUser("ann".into());
    assert_eq!(store.put_permission("ann", "/", patterns("", "", "")), Err(missing.clone()));
    let topic = TopicPermission::new("", "").unwrap();
    assert_eq!(store.put_topic_permission("ann", "/", "x", topic), Err(missing.clone()));
    assert_eq!(store.set_credentials("ann", Credentials::None), Err(missing.clone()));
    assert_eq!(store.set_tags("ann", &[]), Err(missing.clone()));
    assert_eq!(store.set_limits("ann", &Map::new()), Err(missing.clone()));
    assert_eq!(store.clear_limits("ann", None), Err(missing.clone()));
    assert_eq!(store.delete_user("ann"), Err(missing));
    assert!(store.is_empty());
}

#[test]
fn a_user_is_added_once_and_can_be_replaced() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    store.add_user("ann", Credentials::Password("a"), &tags(&["monitoring"])).unwrap();
    let again = store.add_user("ann", Credentials::Password("b"), &[]).unwrap_err();
    assert_eq!(again.to_string(), "User \"ann\" already exists");
    assert!(store.authenticate("ann", "a", HERE).is_ok());
    store.set_limits("ann", &limits(r#"{"max-channels": 3}"#)).unwrap();
    store.put_user("ann", Credentials::Password("b"), &[]).unwrap();
    let store = memory.open();
    assert!(store.authenticate("ann", "a", HERE).is_err() && store.authenticate("ann", "b", HERE).is_ok());
    let user = store.definition("ann").unwrap();
    assert_eq!((user.tags.len(), user.limits.max_channels), (0, Some(3)));
}

#[test]
fn passwords_tags_and_limits_change_one_by_one() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    store.add_user("ann", Credentials::Password("a"), &[]).unwrap();
    store.set_credentials("ann", Credentials::Password("b")).unwrap();
    assert!(store.authenticate("ann", "a", HERE).is_err() && store.authenticate("ann", "b", HERE).is_ok());
    store.set_credentials("ann", Credentials::None).unwrap();
    assert_eq!(store.authenticate("ann", "b", HERE), Err(AuthFailure::NoPassword("ann".into())));
    // RabbitMQ takes an empty password, and nobody can log in with it.
    store.set_credentials("ann", Credentials::Password("")).unwrap();
    assert_eq!(store.authenticate("ann", "", HERE), Err(AuthFailure::EmptyPassword("ann".into())));
    let hash = PasswordHash::new("c");
    store.set_credentials("ann", Credentials::Hash(hash.clone())).unwrap();
    store.set_tags("ann", &tags(&["administrator"])).unwrap();
    store.set_limits("ann", &limits(r#"{"max-connections": 1, "max-channels": 2}"#)).unwrap();
    let refused = store.set_limits("ann", &limits(r#"{"max-connections": 7, "max-foo": 1}"#)).unwrap_err();
    assert_eq!(refused.to_string(), "Unrecognised terms [{<<\"max-foo\">>,1}] in user-limits");
    store.clear_limits("ann", Some("max-channels")).unwrap();

    let store = memory.open();
    assert!(store.authenticate("ann", "c", HERE).is_ok());
    let [user] = store.users().try_into().unwrap_or_else(|users| panic!("{users:?}"));
    assert_eq!(user.tags, ["administrator"]);
    assert_eq!((user.limits.max_connections, user.limits.max_channels), (Some(1), None));
    assert_eq!(user.hash.unwrap().to_base64(), hash.to_base64());
    store.clear_limits("ann", None).unwrap();
    assert!(store.limits("ann").unwrap().is_empty());
    assert_eq!(store.user("ann").unwrap().tags.as_ref(), ["administrator"]);
}

#[test]
fn a_sha512_hash_is_recovered_as_such() {
    let memory = Arc::new(Memory::default());
    let text = "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=";
    let hash = PasswordHash::from_definition(Some("rabbit_password_hashing_sha512"), text).unwrap();
    memory.open().add_user("ann", Credentials::Hash(hash), &[]).unwrap();
    let store = memory.open();
    assert!(store.authenticate("ann", "test12", HERE).is_ok() && store.authenticate("ann", "test1", HERE).is_err());
    assert_eq!(store.definition("ann").unwrap().hash.unwrap().algorithm(), HashAlgorithm::Sha512);
}

#[test]
fn topic_permissions_are_recovered_and_go_with_their_user_and_vhost() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    for user in ["ann", "bob"] {
        store.add_user(user, Credentials::None, &[]).unwrap();
        for (vhost, exchange) in [("v", "x"), ("v", "y"), ("w", "x")] {
            let permission = TopicPermission::new("^{username}", exchange).unwrap();
            store.put_topic_permission(user, vhost, exchange, permission).unwrap();
        }
    }
    let listed = |store: &AuthStore| -> Vec<String> {
        let all = store.topic_permissions(None);
        all.iter()
            .map(|one| format!("{} {} {} {}", one.user, one.vhost, one.exchange, one.permission.text(Permission::Read)))
            .collect()
    };
    let all = ["ann v x x", "ann v y y", "ann w x x", "bob v x x", "bob v y y", "bob w x x"];
    assert_eq!(listed(&store), all);
    let store = memory.open();
    assert_eq!(listed(&store), all);
    assert_eq!(store.topic_permissions(Some("bob")).len(), 3);
    assert!(store.delete_topic_permission("ann", "v", Some("z")).is_none());
    assert!(store.delete_topic_permission("ann", "u", None).is_none());
    store.delete_topic_permission("ann", "v", Some("y")).unwrap();
    store.delete_topic_permission("bob", "v", None).unwrap();
    assert_eq!(listed(&store), ["ann v x x", "ann w x x", "bob w x x"]);
    store.delete_vhost("w", Vec::new());
    assert_eq!(listed(&memory.open()), ["ann v x x"]);
    store.delete_user("ann").unwrap();
    assert_eq!(memory.keys(), ["user/bob"]);
}

#[test]
fn permissions_are_listed() {
    let store = Arc::new(Memory::default()).open();
    for user in ["ann", "bob"] {
        store.add_user(user, Credentials::None, &[]).unwrap();
        store.put_permission(user, "v", patterns("c", "w", "r")).unwrap();
    }
    let names: Vec<_> = store.permissions(None).into_iter().map(|one| (one.user, one.vhost)).collect();
    assert_eq!(names, [("ann".to_owned(), "v".to_owned()), ("bob".to_owned(), "v".to_owned())]);
    let [one] = store.permissions(Some("bob")).try_into().unwrap_or_else(|all| panic!("{all:?}"));
    assert_eq!(one.patterns.text(Permission::Write), "w");
    assert!(store.permissions(Some("eve")).is_empty());
}

#[test]
fn changing_a_user_keeps_permissions_and_deleting_takes_them() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    store.put_user("ann", Credentials::Password("a"), &[]).unwrap();
    for vhost in ["/", "v"] {
        store.put_permission("ann", vhost, patterns("", "", "")).unwrap();
    }
    store.put_user("ann", Credentials::None, &[]).unwrap();
    assert!(store.vhost_access("ann", "v"));
    let version = store.version();
    store.delete_user("ann").unwrap();
    assert!(store.version() > version);
    assert!(!store.vhost_access("ann", "v"));
    assert!(memory.keys().is_empty());
}

#[test]
fn permissions_can_be_taken_away_one_by_one_and_with_a_vhost() {
    let memory = Arc::new(Memory::default());
    let store = memory.open();
    for user in ["ann", "bob"] {
        store.put_user(user, Credentials::Password("a"), &[]).unwrap();
        store.put_permission(user, "v", patterns("", "", "")).unwrap();
        store.put_permission(user, "w", patterns("", "", "")).unwrap();
    }
    assert!(store.delete_permission("ann", "w").is_some());
    assert!(store.delete_permission("ann", "w").is_none());
    assert!(store.delete_permission("eve", "w").is_none());
    store.delete_vhost("v", vec![TopologyChange::Put { key: b"vhost/marker".to_vec(), value: Vec::new() }]);
    assert_eq!(memory.keys(), ["permission/bob\0w", "user/ann", "user/bob", "vhost/marker"]);
    assert!(!store.vhost_access("bob", "v") && store.vhost_access("bob", "w"));
}

#[test]
fn the_real_store_brings_users_back() {
    let directory = tempfile::tempdir().unwrap();
    let settings = crate::config::Settings::defaults().unwrap().auth;
    let open = || {
        let mut options = storage::Options::new(directory.path());
        options.segment_bytes = 64 * 1024;
        let (log, recovered) = storage::Store::open(options).unwrap();
        let pairs = recovered.topology.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let auth = AuthStore::open(log.clone(), &settings, pairs).unwrap();
        (log, auth)
    };
    let (log, auth) = open();
    auth.put_user("ann", Credentials::Password("a"), &tags(&["x"])).unwrap();
    auth.put_permission("ann", "/", patterns("", "^w", "")).unwrap();
    auth.put_user("bob", Credentials::Password("b"), &[]).unwrap();
    auth.delete_user("bob").unwrap();
    log.close(Vec::new()).unwrap();
    drop((log, auth));

    let (log, auth) = open();
    let here = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    assert!(auth.authenticate("ann", "a", here).is_ok());
    assert!(auth.vhost_access("ann", "/"));
    assert!(auth.user("bob").is_none());
    log.close(Vec::new()).unwrap();
}

/// Keeps the events it is shown: their keys, and who acts.
#[derive(Default)]
struct Listener(Mutex<Vec<(String, Arguments)>>);

impl EventSink for Listener {
    fn is_listened_to(&self) -> bool {
        true
    }

    fn publish(&self, key: &str, fields: Arguments) {
        self.0.lock().push((key.to_owned(), fields));
    }
}

#[test]
fn what_operators_do_to_users_is_told() {
    let auth = Arc::<Memory>::default().open();
    let listener = Arc::new(Listener::default());
    let events = Arc::new(Events::default());
    let sink: std::sync::Weak<Listener> = Arc::downgrade(&listener);
    events.set_sink(sink);
    auth.set_events(events);
    let told = |key: &str, fields: &[(&str, &str)]| {
        let (seen, arguments) = listener.0.lock().remove(0);
        assert_eq!(seen, key);
        for (name, value) in fields.iter().chain(&[("user_who_performed_action", "rmq-cli")]) {
            assert_eq!(arguments.get(name).and_then(string).as_deref(), Some(*value), "{name} of {key}");
        }
    };
    auth.add_user("u", Credentials::Password("p"), &["monitoring".to_owned()]).unwrap();
    told("user.created", &[("name", "u")]);
    told("user.tags.set", &[("name", "u")]);
    auth.set_credentials("u", Credentials::None).unwrap();
    told("user.password.cleared", &[("name", "u")]);
    auth.set_credentials("u", Credentials::Password("q")).unwrap();
    told("user.password.changed", &[("name", "u")]);
    auth.put_permission("u", "/", patterns("c", "w", "r")).unwrap();
    told("permission.created", &[("user", "u"), ("vhost", "/"), ("configure", "c"), ("write", "w"), ("read", "r")]);
    auth.put_topic_permission("u", "/", "x", TopicPermission::new("w", "r").unwrap()).unwrap();
    told("topic.permission.created", &[("user", "u"), ("exchange", "x"), ("write", "w"), ("read", "r")]);
    auth.delete_topic_permission("u", "/", None).unwrap();
    told("topic.permission.deleted", &[("user", "u"), ("exchange", "x")]);
    auth.delete_permission("u", "/").unwrap();
    told("permission.deleted", &[("user", "u"), ("vhost", "/")]);
    auth.delete_user("u").unwrap();
    told("user.deleted", &[("name", "u")]);
    assert!(listener.0.lock().is_empty() && auth.delete_user("u").is_err());
}
