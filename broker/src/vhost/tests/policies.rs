//! Policies on queues and exchanges: what holds, who is told, what a restart keeps.

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::operation::OperationError;
use crate::policy::{Effective, Policy, PolicyKind, PolicyRequest};
use crate::vhost::{Exchange, Metadata, PolicyObserver, recover};

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, name: &str, policy: &Effective) {
        let own = policy.policy.as_deref().unwrap_or("-");
        let operator = policy.operator_policy.as_deref().unwrap_or("-");
        let settings = Value::Object(policy.definition.to_json());
        self.0.lock().push(format!("{name} {own} {operator} {settings}"));
    }

    fn take(&self) -> Vec<String> {
        let mut notes = std::mem::take(&mut *self.0.lock());
        notes.sort();
        notes
    }
}

impl PolicyObserver for Notes {
    fn queue_changed(&self, queue: &Arc<Queue>, policy: &Arc<Effective>) {
        self.add(&format!("queue {}", queue.spec().name), policy);
    }

    fn exchange_changed(&self, exchange: &Arc<Exchange>, policy: &Arc<Effective>) {
        assert_eq!(exchange.policy(), *policy);
        self.add(&format!("exchange {}", exchange.name()), policy);
    }
}

fn policy(kind: PolicyKind, name: &str, pattern: &str, apply_to: &str, settings: &Value, priority: i64) -> Policy {
    let (settings, priority): (Map<String, Value>, Value) = (settings.as_object().unwrap().clone(), json!(priority));
    let request =
        PolicyRequest { name, pattern, definition: &settings, priority: Some(&priority), apply_to: Some(apply_to) };
    Policy::new(kind, &request).unwrap()
}

fn set(vhost: &Vhost, name: &str, pattern: &str, apply_to: &str, settings: &Value) {
    vhost.set_policy(PolicyKind::Policy, policy(PolicyKind::Policy, name, pattern, apply_to, settings, 0)).unwrap();
}

#[test]
fn observers_hear_what_holds_now_and_only_when_it_changed() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let notes = Arc::new(Notes::default());
    vhost.observe_policies(notes.clone());
    fixture.with_queue("q1");
    fixture.with_queue("q2");
    fixture.with_exchange("x1", "fanout");
    set(vhost, "length", "1$", "all", &json!({"max-length": 5}));
    assert_eq!(notes.take(), [r#"exchange x1 length - {"max-length":5}"#, r#"queue q1 length - {"max-length":5}"#]);
    // The same again.
    set(vhost, "length", "1$", "all", &json!({"max-length": 5}));
    assert!(notes.take().is_empty());
    // One that loses, one that wins.
    let lower = policy(PolicyKind::Policy, "lower", "", "queues", &json!({"max-length": 7}), -1);
    vhost.set_policy(PolicyKind::Policy, lower).unwrap();
    assert_eq!(notes.take(), [r#"queue q2 lower - {"max-length":7}"#]);
    let operator = policy(PolicyKind::OperatorPolicy, "op", "^q", "queues", &json!({"max-length": 6}), 0);
    vhost.set_policy(PolicyKind::OperatorPolicy, operator).unwrap();
    assert_eq!(notes.take(), [r#"queue q1 length op {"max-length":5}"#, r#"queue q2 lower op {"max-length":6}"#]);
    // Replaced by one that matches something else.
    set(vhost, "length", "^x", "all", &json!({"max-length": 5}));
    assert_eq!(notes.take(), [r#"queue q1 lower op {"max-length":6}"#]);
    vhost.clear_policy(PolicyKind::OperatorPolicy, "op").unwrap();
    vhost.clear_policy(PolicyKind::Policy, "lower").unwrap();
    let last = notes.take();
    assert_eq!(last.len(), 4, "{last:?}");
    assert_eq!(&last[0], "queue q1 - - {}");
    assert_eq!(vhost.clear_policy(PolicyKind::Policy, "lower"), Err(OperationError::NoSuchParameter));
    assert_eq!(vhost.queue_policy(&vhost.queue("q1").unwrap()), Effective::default());
}

#[test]
fn an_alternate_exchange_by_policy_routes_at_once() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    fixture.with_exchange("x", "direct");
    fixture.with_exchange("other", "fanout");
    fixture.with_exchange("third", "fanout");
    fixture.with_queue("q");
    fixture.with_queue("r");
    fixture.bind("other", "q", "").unwrap();
    fixture.bind("third", "r", "").unwrap();
    let version = vhost.exchange("x").unwrap().version();
    assert!(fixture.routed("x", &["k"]).is_empty());
    set(vhost, "p", "^x$", "exchanges", &json!({"alternate-exchange": "other"}));
    assert!(vhost.exchange("x").unwrap().version() > version, "cached routes are made again");
    assert_eq!(fixture.routed("x", &["k"]), ["q"]);
    // One that is declared later has it from the start; an argument comes first.
    set(vhost, "p", "^[xy]$", "exchanges", &json!({"alternate-exchange": "other"}));
    let with = arguments(&[("alternate-exchange", text("third"))]);
    fixture.declare_exchange(ExchangeRequest { arguments: with, ..exchange("y", "direct") }).unwrap();
    assert_eq!(fixture.routed("y", &["k"]), ["r"]);
    vhost.delete_exchange(&Unrestricted, "y", false).unwrap();
    fixture.with_exchange("y", "direct");
    assert_eq!(fixture.routed("y", &["k"]), ["q"]);
    vhost.clear_policy(PolicyKind::Policy, "p").unwrap();
    assert!(fixture.routed("x", &["k"]).is_empty() && fixture.routed("y", &["k"]).is_empty());
}

#[test]
fn policies_parameters_and_settings_survive_a_restart() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let durable = |name| ExchangeRequest { durable: true, ..exchange(name, "direct") };
    fixture.declare_exchange(durable("x")).unwrap();
    set(vhost, "p", "^x$", "exchanges", &json!({"alternate-exchange": "amq.fanout"}));
    set(vhost, "gone", "", "all", &json!({"max-length": 1}));
    vhost.clear_policy(PolicyKind::Policy, "gone").unwrap();
    let operator = policy(PolicyKind::OperatorPolicy, "o", "q", "queues", &json!({"expires": 5}), 3);
    vhost.set_policy(PolicyKind::OperatorPolicy, operator).unwrap();
    vhost.set_parameter("shovel", "s", json!({"uri": "amqp://"})).unwrap();
    vhost.set_parameter("shovel", "t", json!(1)).unwrap();
    vhost.clear_parameter("shovel", "t").unwrap();
    assert_eq!(vhost.clear_parameter("shovel", "t"), Err(OperationError::NoSuchParameter));
    let metadata = Metadata { description: "d".into(), tags: vec!["t".into()], ..Metadata::default() };
    vhost.set_metadata(metadata.clone()).unwrap();
    vhost.set_limits(&json!({"max-queues": 7}).as_object().unwrap().clone()).unwrap();
    let Fixture { vhost, store, directory } = fixture;
    drop(vhost);
    store.close(Vec::new()).unwrap();
    drop(store);

    let (store, found) = Store::open(Options::new(directory.path())).unwrap();
    let recovery = recover(&services(&store), found.topology, found.queues);
    assert_eq!(recovery.damage, Vec::<String>::new());
    let vhost = &recovery.vhosts[0];
    assert_eq!((vhost.metadata(), vhost.limits().max_queues), (metadata, Some(7)));
    assert_eq!(vhost.exchange("x").unwrap().alternate().as_deref(), Some("amq.fanout"));
    let policies = vhost.policies();
    let names = |kind| policies.list(kind).map(|one| one.name().to_string()).collect::<Vec<_>>();
    assert_eq!((names(PolicyKind::Policy), names(PolicyKind::OperatorPolicy)), (vec!["p".into()], vec!["o".into()]));
    let parameters = vhost.parameters();
    assert_eq!(parameters.iter().count(), 1);
    assert_eq!(**parameters.get("shovel", "s").unwrap(), json!({"uri": "amqp://"}));
    store.close(Vec::new()).unwrap();
}

#[test]
fn the_time_for_acknowledgements_follows_the_policy_at_once() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let plain = fixture.declare_queue(QueueRequest { durable: true, ..queue("plain") }).unwrap().queue;
    let own = [("x-consumer-timeout", AMQPValue::LongInt(70))];
    let limited = fixture.declare_queue(QueueRequest { arguments: arguments(&own), ..queue("limited") }).unwrap().queue;
    let times = || [plain.ack_timeout_ms(), limited.ack_timeout_ms()];
    assert_eq!(times(), [0, 70]);
    set(vhost, "p", "", "queues", &json!({"consumer-timeout": 500}));
    assert_eq!(times(), [500, 70], "arguments come first");
    assert_eq!(fixture.with_queue("later").ack_timeout_ms(), 500);
    vhost.clear_policy(PolicyKind::Policy, "p").unwrap();
    assert_eq!(times(), [0, 70]);
}

#[test]
fn the_lower_delivery_limit_holds() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let quorum = |name, limit: Option<i32>| {
        let mut given = vec![("x-queue-type", text("quorum"))];
        given.extend(limit.map(|limit| ("x-delivery-limit", AMQPValue::LongInt(limit))));
        let request = QueueRequest { durable: true, arguments: arguments(&given), ..queue(name) };
        fixture.declare_queue(request).unwrap().queue
    };
    let queues = [quorum("plain", None), quorum("limited", Some(3)), quorum("unlimited", Some(-1))];
    let limits = || queues.each_ref().map(|queue| queue.delivery_limit());
    assert_eq!(limits(), [Some(20), Some(3), None]);
    set(vhost, "p", "", "queues", &json!({"delivery-limit": 5}));
    assert_eq!(limits(), [Some(5), Some(3), Some(5)]);
    assert_eq!(quorum("later", None).delivery_limit(), Some(5));
    set(vhost, "p", "", "queues", &json!({"delivery-limit": -1}));
    assert_eq!(limits(), [None, Some(3), None]);
    vhost.clear_policy(PolicyKind::Policy, "p").unwrap();
    assert_eq!(limits(), [Some(20), Some(3), None]);
}

#[test]
fn at_least_once_is_for_quorum_queues_that_refuse() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let kind = |kind: &str| arguments(&[("x-queue-type", text(kind))]);
    let declared = |name, kind_name: &str| {
        let request = QueueRequest { durable: true, arguments: kind(kind_name), ..queue(name) };
        fixture.declare_queue(request).unwrap().queue
    };
    let (quorum, classic) = (declared("q", "quorum"), declared("c", "classic"));
    let is_safe = || [&quorum, &classic].map(|queue| queue.dead_letter_to().is_some_and(|to| to.at_least_once));
    let letters = json!({"dead-letter-exchange": "dlx", "dead-letter-strategy": "at-least-once"});
    set(vhost, "p", "", "queues", &letters);
    assert_eq!(is_safe(), [false, false], "drop-head loses messages itself");
    let mut refusing = letters;
    refusing["overflow"] = json!("reject-publish");
    set(vhost, "p", "", "queues", &refusing);
    assert_eq!(is_safe(), [true, false]);
}
