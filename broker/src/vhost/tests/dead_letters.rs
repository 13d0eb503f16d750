//! Where dead letters go by arguments and policies, and what becomes of those that nobody takes.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::model::clock::TimeSource;
use crate::model::death::Reason;
use crate::model::memory::Owner;
use crate::model::message::Message;
use crate::policy::{Policy, PolicyKind, PolicyRequest};
use crate::queue::Published;
use crate::queue::dead_letter::DeadLetterTo;
use crate::queue::signal::WakeList;
use crate::vhost::recover;

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

/// A vhost whose clock stands still, with what its queues use.
fn with_clock(store: &Arc<Store>) -> (Arc<Vhost>, Services, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
    let services = Services::new(store.clone(), Clock::of(Box::new(Hours(now_ms.clone()))));
    (Vhost::create("/", services.clone()).0, services, now_ms)
}

fn declare(vhost: &Vhost, name: &str, durable: bool, pairs: &[(&str, AMQPValue)]) -> Arc<Queue> {
    let request = QueueRequest { durable, arguments: arguments(pairs), ..queue(name) };
    vhost.declare_queue(&Unrestricted, request).expect("queue").queue
}

fn to_queue(name: &str) -> [(&'static str, AMQPValue); 2] {
    [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(name))]
}

/// Delivery mode 2.
const PERSISTENT: &[u8] = &[0x10, 0x00, 2];

fn message(queue: &str, body: Vec<u8>, deadline_ms: Option<u64>) -> Arc<Message> {
    let address = protocol::address("", queue);
    let mut message = Message::new(&address, PERSISTENT, Cow::Owned(body), true);
    if let Some(deadline_ms) = deadline_ms {
        message.expire_at(deadline_ms);
    }
    Arc::new(message)
}

fn publish(queue: &Arc<Queue>, message: &Arc<Message>) {
    let published = queue.publish(message, &mut WakeList::default());
    assert!(matches!(published, Published::Taken(_)));
}

/// Moves what waits, without waiting for reads.
fn move_all(vhost: &Vhost, services: &Services) {
    while let Some(queue) = services.dead_letters.pop() {
        vhost.move_dead(&queue, &mut WakeList::default());
    }
}

fn set_policy(vhost: &Vhost, settings: &Value) {
    let settings = settings.as_object().expect("settings").clone();
    let request =
        PolicyRequest { name: "p", pattern: "^q", definition: &settings, priority: None, apply_to: Some("queues") };
    vhost.set_policy(PolicyKind::Policy, Policy::new(PolicyKind::Policy, &request).unwrap()).unwrap();
}

fn target(exchange: &str, routing_key: Option<&str>) -> Option<Arc<DeadLetterTo>> {
    let routing_key = routing_key.map(Into::into);
    Some(Arc::new(DeadLetterTo { exchange: exchange.into(), routing_key, at_least_once: false }))
}

#[test]
fn a_policy_fills_in_what_the_arguments_leave_open() {
    let fixture = Fixture::new();
    let vhost = &fixture.vhost;
    let plain = declare(vhost, "q1", true, &[]);
    let own = declare(vhost, "q2", true, &[("x-dead-letter-exchange", text("own"))]);
    assert_eq!(plain.dead_letter_to(), None);
    set_policy(vhost, &json!({"dead-letter-exchange": "dlx", "dead-letter-routing-key": "key"}));
    let later = declare(vhost, "q3", true, &[]);
    assert_eq!(plain.dead_letter_to(), target("dlx", Some("key")));
    assert_eq!(own.dead_letter_to(), target("own", Some("key")));
    assert_eq!(later.dead_letter_to(), target("dlx", Some("key")));
    set_policy(vhost, &json!({"dead-letter-exchange": "other"}));
    assert_eq!(plain.dead_letter_to(), target("other", None));

    fixture.store.close(Vec::new()).unwrap();
    let (store, found) = Store::open(Options::new(fixture.directory.path())).unwrap();
    let recovered = recover(&services(&store), found.topology, found.queues);
    let again = recovered.vhosts.iter().find(|vhost| &**vhost.name() == "/").unwrap();
    assert_eq!(again.queue("q1").unwrap().dead_letter_to(), target("other", None));
    assert_eq!(again.queue("q2").unwrap().dead_letter_to(), target("own", None));
    again.clear_policy(PolicyKind::Policy, "p").unwrap();
    assert_eq!(again.queue("q1").unwrap().dead_letter_to(), None);
    assert_eq!(again.queue("q2").unwrap().dead_letter_to(), target("own", None));
}

#[test]
fn what_goes_round_by_itself_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(directory.path())).unwrap();
    let (vhost, services, now_ms) = with_clock(&store);
    let back = declare(&vhost, "back", true, &to_queue("forth"));
    let forth = declare(&vhost, "forth", true, &to_queue("back"));
    publish(&back, &message("back", vec![1], Some(services.timers.clock().now_ms() + 10)));
    now_ms.fetch_add(10, Ordering::Relaxed);
    assert_eq!(back.message_count(), 0);
    move_all(&vhost, &services);
    assert_eq!((back.message_count(), forth.message_count()), (0, 1));
    // Once more round would be a circle that no client has a part in.
    let moved = vhost
        .passage(&back, &back.dead_letter_to().unwrap(), &message("back", vec![1], None), Reason::Expired)
        .unwrap();
    forth.dead_letter_refused(&moved.message, Reason::MaxLen);
    move_all(&vhost, &services);
    assert_eq!((back.message_count(), forth.message_count()), (0, 1));
    let rejected = vhost
        .passage(&back, &back.dead_letter_to().unwrap(), &message("back", vec![1], None), Reason::Rejected)
        .unwrap();
    forth.dead_letter_refused(&rejected.message, Reason::MaxLen);
    move_all(&vhost, &services);
    assert_eq!((back.message_count(), forth.message_count()), (1, 1), "a client had a part in it");
}

#[test]
fn what_must_not_be_lost_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(directory.path())).unwrap();
    let (vhost, services, now_ms) = with_clock(&store);
    let source = declare(&vhost, "source", true, &[]);
    let to = DeadLetterTo { exchange: "later".into(), routing_key: None, at_least_once: true };
    source.set_dead_letter_to(Some(Arc::new(to)));
    let deadline_ms = services.timers.clock().now_ms() + 10;
    publish(&source, &message("source", vec![1], Some(deadline_ms)));
    publish(&source, &message("source", vec![2], None));
    now_ms.fetch_add(10, Ordering::Relaxed);
    services.timers.fire();
    move_all(&vhost, &services);
    assert!(!services.dead_letters.is_waiting(), "it waits for its next try");

    let request = exchange("later", "fanout");
    vhost.declare_exchange(&Unrestricted, request).unwrap();
    let target = declare(&vhost, "target", true, &[]);
    let none = Arguments::default();
    let binding = QueueBinding { queue: "target", exchange: "later", key: "", arguments: &none, connection: ME };
    vhost.bind_queue(&Unrestricted, binding).unwrap();
    assert!(!services.dead_letters.is_waiting());
    now_ms.fetch_add(5_000, Ordering::Relaxed);
    services.timers.fire();
    wait_until(&vhost, &services, || target.message_count() == 1);
    assert_eq!(source.message_count(), 1);
}

/// Moves dead letters as they come, also those that are read from disk, until something is so.
fn wait_until(vhost: &Vhost, services: &Services, is_so: impl Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        loop {
            move_all(vhost, services);
            if is_so() {
                return;
            }
            let came = tokio::time::timeout(std::time::Duration::from_secs(30), services.dead_letters.came());
            came.await.expect("nothing comes any more");
        }
    });
}

#[test]
fn a_long_line_waits_on_disk() {
    const COUNT: u32 = 1_000;
    const BYTES: usize = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(directory.path())).unwrap();
    let (vhost, services, now_ms) = with_clock(&store);
    let target = declare(&vhost, "target", true, &[]);
    let source = declare(&vhost, "source", true, &to_queue("target"));
    let deadline_ms = services.timers.clock().now_ms() + 10;
    for _ in 0..COUNT {
        publish(&source, &message("source", vec![7; BYTES], Some(deadline_ms)));
    }
    assert!(services.memory.held(Owner::Queues) > COUNT as usize * BYTES / 2);
    now_ms.fetch_add(10, Ordering::Relaxed);
    assert_eq!(source.message_count(), 0);
    assert!(services.memory.held(Owner::Queues) < 2 << 20, "the store has them: one MiB is enough");
    wait_until(&vhost, &services, || target.message_count() == COUNT);

    // All of them have moved, and none is in both places.
    store.close(Vec::new()).unwrap();
    let (_store, found) = Store::open(Options::new(directory.path())).unwrap();
    let messages = |queue: &Queue| {
        let found = found.queues.iter().find(|found| found.id == queue.id());
        found.map_or(0, |found| found.messages)
    };
    assert_eq!((messages(&source), messages(&target)), (0, u64::from(COUNT)));
}

#[test]
fn what_was_spilled_goes_too() {
    const COUNT: u32 = 400;
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(directory.path())).unwrap();
    let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
    let clock = Clock::of(Box::new(Hours(now_ms.clone())));
    let services = Services { resident_max_bytes: 20_000, ..Services::new(store.clone(), clock) };
    let vhost = Vhost::create("/", services.clone()).0;
    let target = declare(&vhost, "target", false, &[]);
    let source = declare(&vhost, "source", false, &to_queue("target"));
    let deadline_ms = services.timers.clock().now_ms() + 10;
    for number in 0..COUNT {
        // One in ten stays.
        let deadline_ms = (number % 10 != 0).then_some(deadline_ms);
        publish(&source, &message("source", vec![7; 500], deadline_ms));
    }
    assert_eq!(source.message_count(), COUNT);
    now_ms.fetch_add(10, Ordering::Relaxed);
    services.timers.fire();
    assert_eq!(source.message_count(), COUNT / 10);
    wait_until(&vhost, &services, || target.message_count() == COUNT / 10 * 9);
    assert_eq!(source.message_count(), COUNT / 10);
}

#[test]
fn a_successor_of_the_same_name_takes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::new(directory.path())).unwrap();
    let (vhost, services, now_ms) = with_clock(&store);
    let source = declare(&vhost, "source", false, &to_queue("target"));
    publish(&source, &message("source", vec![1], Some(services.timers.clock().now_ms() + 10)));
    now_ms.fetch_add(10, Ordering::Relaxed);
    assert_eq!(source.message_count(), 0);
    let (successor, _) = Vhost::create("/", services.clone());
    let target = declare(&successor, "target", false, &[]);
    let waiting = services.dead_letters.pop().expect("a queue with dead letters");
    successor.move_dead(&waiting, &mut WakeList::default());
    assert_eq!(target.message_count(), 0);
    let target = declare(&vhost, "target", false, &[]);
    vhost.move_dead(&waiting, &mut WakeList::default());
    assert_eq!(target.message_count(), 1);
}
