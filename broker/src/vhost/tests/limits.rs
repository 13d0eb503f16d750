//! Limits of queues by policy, and queues that end for want of use.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::model::clock::TimeSource;
use crate::model::message::Message;
use crate::policy::{Policy, PolicyKind, PolicyRequest};
use crate::queue::Published;
use crate::queue::signal::WakeList;

/// Time in milliseconds that passes when a test says so.
struct Hours(Arc<AtomicU64>);

impl TimeSource for Hours {
    fn wall_ms(&self) -> u64 {
        self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn with_clock(store: &Arc<Store>) -> (Arc<Vhost>, Services, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
    let services = Services::new(store.clone(), Clock::of(Box::new(Hours(now_ms.clone()))));
    (Vhost::create("/", services.clone()).0, services, now_ms)
}

fn set_policy(vhost: &Vhost, kind: PolicyKind, settings: &Value) {
    let settings = settings.as_object().expect("settings").clone();
    let request =
        PolicyRequest { name: "p", pattern: "^q", definition: &settings, priority: None, apply_to: Some("queues") };
    vhost.set_policy(kind, Policy::new(kind, &request).unwrap()).unwrap();
}

fn publish(queue: &Arc<Queue>, bodies: &[&str]) -> Vec<bool> {
    let mut taken = Vec::new();
    for body in bodies {
        let message =
            Message::new(&protocol::address("", "q"), &[0x10, 0, 2], Cow::Owned(body.as_bytes().to_vec()), true);
        let published = queue.publish(&Arc::new(message), &mut WakeList::default());
        taken.push(matches!(published, Published::Taken(_)));
    }
    taken
}

#[test]
fn a_length_concerns_what_is_there_and_a_time_what_comes() {
    let fixture = Fixture::new();
    let (vhost, _, now_ms) = with_clock(&fixture.store);
    let queue = vhost.declare_queue(&Unrestricted, QueueRequest { durable: true, ..queue("q") }).unwrap().queue;
    assert_eq!(publish(&queue, &["1", "2", "3", "4"]), [true; 4]);
    set_policy(&vhost, PolicyKind::Policy, &json!({"max-length": 3}));
    assert_eq!(queue.message_count(), 3);
    set_policy(&vhost, PolicyKind::OperatorPolicy, &json!({"max-length": 2}));
    assert_eq!(queue.message_count(), 2, "the smaller one holds");
    vhost.clear_policy(PolicyKind::OperatorPolicy, "p").unwrap();
    set_policy(&vhost, PolicyKind::Policy, &json!({"max-length": 3, "overflow": "reject-publish", "message-ttl": 10}));
    assert_eq!(publish(&queue, &["5", "6"]), [true, false]);
    now_ms.fetch_add(10, Ordering::Relaxed);
    assert_eq!(queue.message_count(), 2, "only what came later has a time");
    vhost.clear_policy(PolicyKind::Policy, "p").unwrap();
    assert_eq!(publish(&queue, &["7", "8"]), [true, true]);
    now_ms.fetch_add(10, Ordering::Relaxed);
    assert_eq!(queue.message_count(), 4);
}

#[test]
fn a_queue_ends_after_its_last_use() {
    let fixture = Fixture::new();
    let (vhost, services, now_ms) = with_clock(&fixture.store);
    let request = QueueRequest { durable: true, ..queue("q") };
    let queue = vhost.declare_queue(&Unrestricted, request.clone()).unwrap().queue;
    set_policy(&vhost, PolicyKind::Policy, &json!({"expires": 100}));
    let after = |ms| {
        now_ms.fetch_add(ms, Ordering::Relaxed);
        services.timers.fire();
        services.unused.take()
    };
    assert!(after(60).is_empty());
    vhost.declare_queue(&Unrestricted, request).unwrap();
    assert!(after(60).is_empty(), "a declare is use");
    vhost.declare_queue_passive(&Unrestricted, "q", ME).unwrap();
    assert!(after(60).is_empty(), "so is a passive one");
    publish(&queue, &["no use"]);
    let ended = after(40);
    assert!(ended.len() == 1 && Arc::ptr_eq(&ended[0], &queue));
    vhost.delete_queue_object(&ended[0], true);
    assert!(vhost.queue("q").is_none());
    assert!(after(1_000).is_empty());
}

#[test]
fn at_the_head_only_when_a_policy_wants_it() {
    let fixture = Fixture::new();
    let (vhost, services, now_ms) = with_clock(&fixture.store);
    let queue = vhost.declare_queue(&Unrestricted, QueueRequest { durable: true, ..queue("q") }).unwrap().queue;
    set_policy(&vhost, PolicyKind::Policy, &json!({"message-expiry": "head"}));
    let publish = |ttl_ms: Option<u64>| {
        let address = protocol::address("", "q");
        let mut message = Message::new(&address, &[0x10, 0, 2], Cow::Borrowed(b"x"), true);
        if let Some(ttl_ms) = ttl_ms {
            message.expire_at(services.timers.clock().now_ms() + ttl_ms);
        }
        queue.publish(&Arc::new(message), &mut WakeList::default());
    };
    let pass = |ms: u64| {
        now_ms.fetch_add(ms, Ordering::Relaxed);
        services.timers.fire();
        queue.message_count()
    };
    publish(Some(50));
    publish(Some(1_000));
    publish(Some(10));
    publish(None);
    publish(Some(10));
    assert_eq!(pass(49), 5);
    assert_eq!(pass(1), 4, "the first was next");
    assert_eq!(pass(949), 4, "nobody looks behind the one that has time");
    assert_eq!(pass(1), 2, "two are over, and one of them had waited for the other");
    assert_eq!(pass(1_000_000), 2, "the one behind a message without an end");
    set_policy(&vhost, PolicyKind::Policy, &json!({"message-expiry": "anywhere"}));
    assert_eq!(queue.message_count(), 1, "now all that are over go");
}
