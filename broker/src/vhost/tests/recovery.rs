//! What a restart finds.

use storage::QueueId;

use super::*;
use crate::model::message::Message;
use crate::queue::lanes::owner_of;
use crate::queue::signal::WakeList;
use crate::routing::kind::ExchangeKind;
use crate::vhost::{Recovery, recover};

impl Fixture {
    /// Stops the store in order and starts again from its directory.
    fn restart(self) -> (Self, Recovery) {
        let Self { vhost, store, directory } = self;
        drop(vhost);
        store.close(Vec::new()).expect("close");
        drop(store);
        let (store, recovered) = Store::open(Options::new(directory.path())).expect("store");
        let recovery = recover(&services(&store), recovered.topology, recovered.queues);
        let vhost = recovery.vhosts.first().expect("vhost").clone();
        let fixture = Self { vhost, store, directory };
        (fixture, recovery)
    }

    /// Everything there is, as sorted text.
    fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for exchange in self.vhost.exchanges() {
            let spec = exchange.spec();
            lines.push(format!(
                "exchange {:?} {:?} {} {} {} {:?}",
                spec.name,
                spec.kind,
                spec.durable,
                spec.auto_delete,
                spec.internal,
                spec.arguments.to_wire()
            ));
            for (destination, binding) in exchange.bindings() {
                let name = destination.name();
                lines.push(format!("binding {:?} {name:?} {binding:?}", spec.name));
            }
        }
        for queue in self.vhost.queues() {
            let spec = queue.spec();
            lines.push(format!(
                "queue {:?} {} {} {} {:?} {:?}",
                spec.name,
                queue.id(),
                spec.durable,
                spec.auto_delete,
                spec.exclusive,
                spec.arguments.to_wire()
            ));
        }
        lines.sort();
        lines
    }
}

fn durable_queue(name: &str) -> QueueRequest<'_> {
    QueueRequest { durable: true, ..queue(name) }
}

fn durable_exchange<'a>(name: &'a str, kind: &'a str) -> ExchangeRequest<'a> {
    ExchangeRequest { durable: true, ..exchange(name, kind) }
}

#[test]
fn durable_topology_comes_back() {
    let fixture = Fixture::new();
    let odd = "odd\0name\"\\ü";
    fixture
        .declare_exchange(ExchangeRequest {
            internal: true,
            auto_delete: true,
            arguments: arguments(&[
                ("alternate-exchange", text("amq.fanout")),
                ("nonsense", AMQPValue::Double(f64::NAN)),
            ]),
            ..durable_exchange("x", "headers")
        })
        .expect("exchange");
    fixture.declare_exchange(durable_exchange(odd, "topic")).expect("exchange");
    for name in ["q1", odd] {
        fixture.declare_queue(durable_queue(name)).expect("queue");
    }
    fixture
        .declare_queue(QueueRequest {
            auto_delete: true,
            arguments: arguments(&[("x-queue-mode", text("lazy"))]),
            ..durable_queue("q2")
        })
        .expect("queue");
    let red = arguments(&[("color", text("red")), ("x-match", text("any"))]);
    fixture.bind_with("x", "q1", "", &red).expect("bind");
    fixture.bind("x", odd, "k").expect("bind");
    fixture.bind(odd, odd, "a.\0#").expect("bind");
    fixture.bind(odd, odd, "a.#").expect("bind");
    fixture.bind("amq.topic", "q2", "#").expect("bind");
    fixture.bind_exchange("amq.direct", "x", "k").expect("bind");
    let before = fixture.dump();
    let (fixture, recovery) = fixture.restart();
    assert_eq!(recovery.damage, Vec::<String>::new());
    assert_eq!(fixture.dump(), before);
    // What came back can be changed as before: the reverse index was rebuilt too.
    assert_eq!(refusal(fixture.delete_queue("q1")), None);
    assert_eq!(refusal(fixture.delete_queue(odd)), None);
    assert!(!fixture.has_exchange("x"), "auto-delete");
    let after = fixture.dump();
    let (fixture, _) = fixture.restart();
    assert_eq!(fixture.dump(), after);
}

#[test]
fn the_rest_does_not() {
    let fixture = Fixture::new();
    let untouched = fixture.dump();
    fixture.with_exchange("transient-x", "fanout");
    fixture.with_queue("transient-q");
    fixture.declare_queue(QueueRequest { exclusive: true, ..durable_queue("exclusive") }).expect("queue");
    fixture.declare_queue(durable_queue("q")).expect("queue");
    fixture.declare_exchange(durable_exchange("x", "fanout")).expect("exchange");
    for (exchange, queue) in
        [("x", "transient-q"), ("x", "exclusive"), ("transient-x", "q"), ("transient-x", "transient-q")]
    {
        assert_eq!(fixture.bind(exchange, queue, ""), Ok(Lsn(0)));
    }
    fixture.delete_queue("q").expect("delete");
    fixture.vhost.delete_exchange(&Unrestricted, "x", false).expect("delete");
    let (fixture, recovery) = fixture.restart();
    assert_eq!(recovery.damage, Vec::<String>::new());
    assert_eq!(fixture.dump(), untouched);
}

/// A persistent message of this priority.
fn message(priority: u8) -> Arc<Message> {
    let properties = [0x18, 0, 2, priority];
    Arc::new(Message::new(b"\0\x01q", &properties, std::borrow::Cow::Borrowed(b"body"), true))
}

#[test]
fn all_levels_of_a_queue_come_back_and_go_with_it() {
    let fixture = Fixture::new();
    let arguments = arguments(&[("x-max-priority", AMQPValue::LongInt(10))]);
    let declared = fixture.declare_queue(QueueRequest { arguments, ..durable_queue("q") }).expect("queue");
    for priority in [0, 3, 3, 10, 200] {
        declared.queue.publish(&message(priority), &mut WakeList::default());
    }
    drop(declared);
    let (fixture, recovery) = fixture.restart();
    assert_eq!(recovery.damage, Vec::<String>::new());
    let queue = fixture.vhost.queue("q").expect("queue");
    assert_eq!(queue.message_count(), 5);
    let ids = queue.store_ids();
    let levels: Vec<(QueueId, u8)> = ids.iter().map(|id| owner_of(*id)).collect();
    assert_eq!(levels, [(queue.id(), 0), (queue.id(), 3), (queue.id(), 10)]);
    drop(queue);
    fixture.delete_queue("q").expect("delete");
    fixture.declare_queue(durable_queue("q")).expect("another of that name");
    let Fixture { vhost, store, directory } = fixture;
    drop((vhost, recovery));
    store.close(Vec::new()).expect("close");
    drop(store);
    let (store, found) = Store::open(Options::new(directory.path())).expect("store");
    assert!(found.queues.iter().all(|left| !ids.contains(&left.id)), "{:?}", found.queues);
    store.close(Vec::new()).expect("close");
}

#[test]
fn unbound_stays_unbound() {
    let fixture = Fixture::new();
    fixture.declare_queue(durable_queue("q")).expect("queue");
    fixture.bind("amq.direct", "q", "stays").expect("bind");
    fixture.bind("amq.direct", "q", "goes").expect("bind");
    fixture.unbind("amq.direct", "q", "goes").expect("unbind");
    fixture.bind_exchange("amq.direct", "amq.topic", "").expect("bind");
    fixture.unbind_exchange("amq.direct", "amq.topic", "").expect("unbind");
    let (fixture, _) = fixture.restart();
    let exchange = fixture.vhost.exchange("amq.direct").expect("exchange");
    assert_eq!(exchange.bindings().len(), 1);
    assert_eq!(fixture.routed("amq.direct", &["stays"]), ["q"]);
}

#[test]
fn positions_follow_the_log() {
    let fixture = Fixture::new();
    let first = fixture.declare_queue(durable_queue("q")).expect("queue").lsn;
    assert!(first > Lsn(0));
    let again = fixture.declare_queue(durable_queue("q")).expect("queue").lsn;
    assert_eq!(again, first, "the original may not be durable yet");
    let bound = fixture.bind("amq.direct", "q", "k").expect("bind");
    assert!(bound > first);
    assert_eq!(fixture.bind("amq.direct", "q", "k"), Ok(bound));
    let (_, deleted) = fixture.delete_queue("q").expect("delete");
    assert!(deleted > bound);
    assert_eq!(fixture.delete_queue("q"), Ok((0, deleted)));
    assert_eq!(fixture.declare_exchange(exchange("t", "fanout")), Ok(Lsn(0)));
    let transient = fixture.declare_queue(queue("t")).expect("queue").lsn;
    assert_eq!(transient, Lsn(0));
}

#[test]
fn damaged_records_are_named_and_the_rest_is_used() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (store, _) = Store::open(Options::new(directory.path())).expect("store");
    let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let topology = vec![
        record("vhost//", r#"{"v":1,"name":"/"}"#),
        record("vhost/new", r#"{"v":2,"name":"new","more":1}"#),
        record("queue//\0q", r#"{"v":1,"vhost":"/","name":"q","id":7,"auto_delete":false}"#),
        record("queue//\0half", r#"{"v":1,"vhost":"/","na"#),
        record(
            "exchange//\0x",
            r#"{"v":1,"vhost":"/","name":"x","type":"x-odd","auto_delete":false,"internal":false}"#,
        ),
        record(
            "binding//\0b",
            r#"{"v":1,"vhost":"/","source":"x","destination":"q","destination_type":"queue","routing_key":""}"#,
        ),
        record("user/guest", "{}"),
    ];
    let recovery = recover(&services(&store), topology, Vec::new());
    assert_eq!(recovery.vhosts.len(), 1);
    assert!(recovery.vhosts.iter().all(|vhost| vhost.queue("q").is_some()));
    assert_eq!(recovery.other, [record("user/guest", "{}")]);
    assert_eq!(recovery.damage.len(), 4);
    let damage = recovery.damage.join("\n");
    for expected in [
        "record vhost/new: version 2 is not known to this broker",
        "record exchange//\\x00x: no exchange type 'x-odd'",
        "record queue//\\x00half: ",
        "record binding//\\x00b: no exchange 'x'",
    ] {
        assert!(damage.contains(expected), "{expected} in {damage}");
    }
}

/// Declaring, recovering and deleting must not look at all the others each time.
#[test]
fn a_hundred_thousand_queues_and_bindings() {
    const COUNT: usize = 100_000;
    let fixture = Fixture::new();
    let name = |n: usize| format!("queue-{n}");
    for n in 0..COUNT {
        let name = name(n);
        fixture.declare_queue(durable_queue(&name)).expect("queue");
        fixture.bind("amq.topic", &name, &format!("a.{n}.*")).expect("bind");
        fixture.bind("amq.fanout", &name, "").expect("bind");
    }
    let (fixture, recovery) = fixture.restart();
    assert_eq!(recovery.damage, Vec::<String>::new());
    assert_eq!(fixture.vhost.queue_count(), COUNT);
    assert_eq!(fixture.routed("amq.topic", &["a.77777.x"]), [name(77_777)]);
    assert_eq!(fixture.routed("amq.fanout", &["", "cc"]).len(), COUNT);
    for n in 0..COUNT {
        fixture.delete_queue(&name(n)).expect("delete");
    }
    assert!(fixture.routed("amq.fanout", &[""]).is_empty());
    assert_eq!(fixture.vhost.queue_count(), 0);
}

/// Exchange ids and the order of bindings are others after a restart; the places of keys are not.
#[test]
fn keys_keep_their_places() {
    let fixture = Fixture::new();
    let by_header = arguments(&[("hash-header", text("h"))]);
    for (name, kind, arguments) in [
        ("consistent", "x-consistent-hash", Arguments::default()),
        ("by-header", "x-consistent-hash", by_header),
        ("modulus", "x-modulus-hash", Arguments::default()),
        ("random", "x-random", Arguments::default()),
        ("local", "x-local-random", Arguments::default()),
    ] {
        fixture.declare_exchange(ExchangeRequest { arguments, ..durable_exchange(name, kind) }).expect("exchange");
    }
    for (number, queue) in ["c", "a", "d", "b"].into_iter().enumerate() {
        fixture.declare_queue(durable_queue(queue)).expect("queue");
        for exchange in ["modulus", "random", "by-header", "consistent"] {
            fixture.bind(exchange, queue, &(number + 1).to_string()).expect("bind");
        }
        fixture.bind("local", queue, "").expect("bind");
    }
    let places = |fixture: &Fixture| {
        let mut places = Vec::new();
        for number in 0..200 {
            let key = number.to_string();
            let headers = arguments(&[("h", text(&key))]);
            for exchange in ["consistent", "by-header", "modulus"] {
                places.push(fixture.routed_with(exchange, &[&key], &headers).concat());
            }
        }
        places
    };
    let before = places(&fixture);
    let (fixture, recovery) = fixture.restart();
    assert_eq!(recovery.damage, [""; 0]);
    assert_eq!(places(&fixture), before);
    for (exchange, kind) in [("random", ExchangeKind::Random), ("local", ExchangeKind::LocalRandom)] {
        assert_eq!(fixture.vhost.exchange(exchange).map(|exchange| exchange.kind()), Some(kind));
        assert_eq!(fixture.routed(exchange, &["key"]).len(), 1);
    }
}
