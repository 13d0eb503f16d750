//! What a message costs on its way through a session, without a socket, and what routing it costs.
//! `cargo bench -p warren-broker`

use std::cell::RefCell;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use broker::auth::{self, AuthStore};
use broker::broker::Broker;
use broker::config::Settings;
use broker::model::ConnectionId;
use broker::model::arguments::Arguments;
use broker::model::clock::Clock;
use broker::queue::{Services, signal};
use broker::routing::kind::ExchangeKind;
use broker::routing::table::Table;
use broker::routing::target::{Identity, Target, TargetKind};
use broker::session::Session;
use divan::Bencher;
use divan::counter::ItemsCount;
use protocol::amqp::{FieldTable, LongString, basic, channel, confirm, connection, queue};
use protocol::{AMQPClass, Content, Decoded, address, decode_frame, put_ack, put_method, put_publish};
use storage::{Options, Store};
use tempfile::TempDir;

// The broker's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages of a round.
const MESSAGES: usize = 1_000;
const CHANNEL: u16 = 1;
const QUEUE: &str = "bench";
/// What a read of a busy socket brings, and a write of one takes, at most.
const BATCH_BYTES: usize = 128 * 1024;

fn main() {
    divan::main();
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Destination(usize);

impl Target for Destination {
    fn identity(&self) -> Identity<'_> {
        Identity { kind: TargetKind::Queue, name: QUEUE }
    }
}

/// Routes by each key in turn.
fn route(bencher: Bencher<'_, '_>, kind: ExchangeKind, bindings: &[(usize, String)], keys: &[String]) {
    let mut table = Table::new(kind);
    for (destination, key) in bindings {
        table.bind(&Destination(*destination), key, &Arguments::default());
    }
    bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
        let mut found = 0;
        for key in keys {
            table.route(black_box(key), None, &mut |destination: &Destination| found += destination.0);
        }
        found
    });
}

#[divan::bench]
fn route_direct_1000_queues(bencher: Bencher<'_, '_>) {
    let keys: Vec<String> = (0..MESSAGES).map(|number| format!("orders.{number:06}")).collect();
    let bindings: Vec<_> = keys.iter().cloned().enumerate().collect();
    route(bencher, ExchangeKind::Direct, &bindings, &keys);
}

#[divan::bench]
fn route_fanout_10_queues(bencher: Bencher<'_, '_>) {
    let bindings: Vec<_> = (0..10).map(|number| (number, String::new())).collect();
    route(bencher, ExchangeKind::Fanout, &bindings, &vec!["any".to_owned(); MESSAGES]);
}

#[divan::bench]
fn route_topic_1000_bindings(bencher: Bencher<'_, '_>) {
    let bindings: Vec<_> = (0..MESSAGES).map(|number| (0, format!("dev.{number}.*.status"))).collect();
    let keys: Vec<String> = (0..MESSAGES).map(|number| format!("dev.{number}.any.status")).collect();
    route(bencher, ExchangeKind::Topic, &bindings, &keys);
}

/// A broker with one client, whose socket is a buffer.
struct House {
    session: Session,
    out: Vec<u8>,
    _directory: TempDir,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, found) = Store::open(Options::new(directory.path())).expect("the store opens");
        let settings = Settings::defaults().expect("defaults");
        let services = Services::new(Arc::clone(&store), Clock::system());
        let auth = AuthStore::open(store, &settings.auth, []).expect("users");
        let recovery = broker::vhost::recover(&services, found.topology, found.queues);
        let broker = Arc::new(Broker::new(settings, services, Arc::new(auth), recovery.vhosts));
        broker.create_vhost("/");
        auth::prepare(&broker.auth, &broker.settings.default_user, &broker.settings.topology, |_| true)
            .expect("a user");
        let session = Session::new(broker, ConnectionId(1), IpAddr::from([127, 0, 0, 1]));
        let mut house = Self { session, out: Vec::new(), _directory: directory };
        house.log_in();
        house
    }

    fn log_in(&mut self) {
        use connection::AMQPMethod;

        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: LongString::from("\0guest\0guest"),
            locale: "en_US".into(),
        };
        let tune_ok = connection::TuneOk { channel_max: 10, frame_max: 131_072, heartbeat: 0 };
        self.method(0, AMQPClass::Connection(AMQPMethod::StartOk(start_ok)));
        self.method(0, AMQPClass::Connection(AMQPMethod::TuneOk(tune_ok)));
        let open = connection::Open { virtual_host: "/".into() };
        self.method(0, AMQPClass::Connection(AMQPMethod::Open(open)));
        self.method(CHANNEL, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        let declare = queue::Declare {
            queue: QUEUE.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.method(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    }

    fn consume(&mut self, no_ack: bool) {
        let consume = basic::Consume {
            queue: QUEUE.into(),
            consumer_tag: "consumer".into(),
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.method(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
    }

    fn method(&mut self, channel: u16, method: AMQPClass) {
        let mut octets = Vec::new();
        put_method(&mut octets, channel, &method);
        let before = self.out.len();
        self.feed(&octets);
        // An answer that vouches for something comes when the disk has it.
        for _ in 0..1_000 {
            self.wake();
            if self.out.len() > before {
                break;
            }
            thread::yield_now();
        }
    }

    /// One turn of the connection's task for each read of the socket.
    fn feed(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            self.session.begin_batch();
            let read = rest.len();
            while read - rest.len() < BATCH_BYTES
                && let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, 131_072)
            {
                self.session.on_frame(&frame);
                rest = &rest[consumed..];
            }
            self.session.finish_batch();
        }
    }

    /// What the task does when somebody has raised its signal, and one write.
    fn wake(&mut self) {
        let flags = self.session.signal().take();
        if flags & signal::DURABLE != 0 {
            self.session.on_durable();
        }
        self.session.finish_batch();
        self.session.write(&mut self.out, BATCH_BYTES);
        self.session.finish_batch();
    }

    /// Writes until so many octets have come out.
    fn read(&mut self, octets: usize) {
        let mut read = 0;
        while read < octets {
            self.out.clear();
            self.wake();
            read += self.out.len();
        }
    }
}

/// The frames of a round of publishes.
fn publishes(size: usize, persistent: bool) -> Vec<u8> {
    let address = address("", QUEUE);
    let properties: &[u8] = if persistent { &[0x10, 0x00, 2] } else { &[0x10, 0x00, 1] };
    let body = vec![b'x'; size];
    let mut octets = Vec::new();
    for _ in 0..MESSAGES {
        put_publish(&mut octets, CHANNEL, &Content { address: &address, properties, body: &body }, false, 131_072);
    }
    octets
}

/// Octets of a round of deliveries, measured.
fn deliveries(house: &mut House, round: &[u8]) -> usize {
    house.out.clear();
    house.feed(round);
    let mut len = 0;
    for _ in 0..MESSAGES {
        house.out.clear();
        house.wake();
        len += house.out.len();
    }
    len
}

/// Decode, route, enqueue, deliver, encode: all of it but the sockets.
#[divan::bench(args = [16, 1024])]
fn through_transient(bencher: Bencher<'_, '_>, size: usize) {
    let mut house = House::new();
    house.consume(true);
    let round = publishes(size, false);
    let out = deliveries(&mut house, &round);
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        house.feed(black_box(&round));
        house.read(out);
    });
}

/// Decode, route, enqueue; what is in the queue is thrown away outside the measurement.
#[divan::bench(args = [16, 1024])]
fn enqueue_transient(bencher: Bencher<'_, '_>, size: usize) {
    let house = RefCell::new(House::new());
    let round = publishes(size, false);
    let purge = || {
        let purge = queue::Purge { queue: QUEUE.into(), nowait: false };
        let mut house = house.borrow_mut();
        house.out.clear();
        house.method(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Purge(purge)));
    };
    bencher
        .counter(ItemsCount::new(MESSAGES))
        .with_inputs(purge)
        .bench_local_values(|()| house.borrow_mut().feed(black_box(&round)));
}

/// Deliver, encode, and the acknowledgement of each.
#[divan::bench]
fn deliver_and_ack(bencher: Bencher<'_, '_>) {
    let mut house = House::new();
    house.consume(false);
    let round = publishes(16, false);
    let out = deliveries(&mut house, &round);
    let mut tag = 0;
    let mut ack = |house: &mut House| {
        let mut octets = Vec::new();
        for _ in 0..MESSAGES {
            tag += 1;
            put_ack(&mut octets, CHANNEL, tag, false);
        }
        house.feed(&octets);
    };
    ack(&mut house);
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        house.feed(black_box(&round));
        house.read(out);
        ack(&mut house);
    });
}

/// A round of persistent messages up to the confirm of the last: with the commit, and the disk.
#[divan::bench(args = [16, 1024])]
fn commit_and_confirm(bencher: Bencher<'_, '_>, size: usize) {
    let mut house = House::new();
    house.method(CHANNEL, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })));
    house.consume(true);
    let round = publishes(size, true);
    house.out.clear();
    let mut out = 0;
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        house.feed(black_box(&round));
        // Confirms may come in any number of pieces; the last is the one that counts.
        out += MESSAGES as u64;
        let mut confirmed = 0;
        while confirmed < out {
            house.out.clear();
            house.wake();
            confirmed = confirmed.max(last_confirm(&house.out));
        }
    });
}

/// The highest delivery tag of the confirms among some frames.
fn last_confirm(octets: &[u8]) -> u64 {
    const ACK: &[u8] = &[0, 60, 0, 80];
    let mut last = 0;
    let mut rest = octets;
    while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, 131_072) {
        if let Some(arguments) = frame.payload.strip_prefix(ACK)
            && let Some(tag) = arguments.first_chunk()
        {
            last = last.max(u64::from_be_bytes(*tag));
        }
        rest = &rest[consumed..];
    }
    last
}
