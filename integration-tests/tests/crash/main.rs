//! kill -9 of the real broker under load, over and over on one data directory.
//!
//! In every round publishers send persistent messages to queues of their own choice and through a fanout exchange, consumers
//! acknowledge what they get, and at some moment the broker is killed. It is started again on the same directory, everything
//! is taken out and compared with what the clients know. `WARREN_CRASH_ROUNDS=100` asks for more rounds than the few of an
//! ordinary run, `WARREN_CRASH_SEED` for the choices of an earlier one.
//!
//! - `topology`: the queues, and which message goes where.
//! - `clients`: publishers and consumers, and what each of them knows when its connection breaks.
//! - `ledger`: the comparison.
//! - `damage`: files that are not what they were when the broker starts.
//! - `dead_letters`: messages on their way from queue to queue.
//! - `deduplication`: messages that are sent again.
//! - `backup`: the same load while backups are made, which are restored.
//! - `expiry`: a kill in the middle of messages that expire.
//! - `failing_disk`: an fdatasync that fails.

mod backup;
mod clients;
mod damage;
mod dead_letters;
mod deduplication;
mod delayed;
mod expiry;
mod failing_disk;
mod ledger;
mod topology;

use clients::{Clock, Consumed, Consumer, Publisher, Sent};
use integration_tests::id;
use integration_tests::peer::Peer;
use integration_tests::process::{Broker, Launch};
use integration_tests::raw::Raw;
use integration_tests::wire::{PERSISTENT, Reader};
use ledger::{Ledger, Totals};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

const ROUNDS: u64 = 5;
const PUBLISHERS: u64 = 4;
/// A round ends after so many confirms at most.
const CONFIRMS_MAX: u64 = 20_000;
/// Small segments, so that a round goes through many of them, recycles them and writes snapshots.
const SMALL: &str = "[storage]\nsegment_bytes = 1048576\nsnapshot_bytes = 4194304\ncheckpoint_interval_ms = 50\n";

#[test]
fn a_killed_broker_keeps_its_promises() {
    if Peer::from_env().is_some() {
        println!("skipped on the peer: it kills the broker");
        return;
    }
    let rounds = number("WARREN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("WARREN_CRASH_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("{rounds} rounds with WARREN_CRASH_SEED={seed}");
    let mut random = Random(seed | 1);
    let mut broker = Launch::new(env!("CARGO_BIN_EXE_warren-under-test")).config(SMALL).start();
    topology::declare(&mut open(broker.address()));
    let mut totals = Totals::default();
    for round in 1..=rounds {
        let (ended, mut ledger) = load_and_kill(broker, round, &mut random);
        broker = start_again(ended, round);
        let mut raw = open(broker.address());
        ledger.drain(&mut raw);
        let found = ledger.compare();
        println!("round {round}: {found}");
        totals.add(&found);
        promise_that_it_is_drained(&mut raw, round);
    }
    println!("{rounds} rounds: {totals}");
    let mut raw = open(broker.address());
    for round in 1..=rounds {
        let kept = raw.get(1, topology::FENCE, true).expect("a message of each round");
        assert_eq!(kept.text(), round.to_string(), "the messages that nobody took out, in order");
    }
    assert!(raw.get(1, topology::FENCE, true).is_none());
}

/// One round: everybody connects, then load until enough was confirmed, then the end in the middle of things.
fn load_and_kill(broker: Broker, round: u64, random: &mut Random) -> (Launch, Ledger) {
    let mut load = Load::start(&broker, round);
    // Sometimes at once, mostly not.
    load.wait(if random.below(5) == 0 { 1 + random.below(50) } else { 1 + random.below(CONFIRMS_MAX) });
    load.kill(broker)
}

/// The clients of a round while they are at work.
struct Load {
    round: u64,
    clock: Arc<Clock>,
    reports: Receiver<u64>,
    publishers: Vec<JoinHandle<Sent>>,
    consumers: Vec<JoinHandle<Consumed>>,
}

impl Load {
    fn start(broker: &Broker, round: u64) -> Self {
        let clock = Arc::new(Clock::default());
        let (report, reports) = channel();
        let consumers: Vec<_> =
            topology::CONSUMERS.iter().map(|spec| Consumer::new(open(broker.address()), spec, &clock)).collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| Publisher::new(open(broker.address()), (round, number), &clock, report.clone()))
            .collect();
        Self {
            round,
            clock,
            reports,
            consumers: consumers.into_iter().map(|consumer| thread::spawn(|| consumer.run())).collect(),
            publishers: publishers.into_iter().map(|publisher| thread::spawn(|| publisher.run())).collect(),
        }
    }

    /// Waits for so many more confirms.
    fn wait(&mut self, enough: u64) {
        let mut confirmed = 0;
        while confirmed < enough {
            confirmed += self.reports.recv().expect("the publishers ended early");
        }
    }

    fn kill(self, broker: Broker) -> (Launch, Ledger) {
        let launch = broker.kill9();
        let sent = self.publishers.into_iter().map(|publisher| publisher.join().expect("a publisher failed")).collect();
        let got = self.consumers.into_iter().map(|consumer| consumer.join().expect("a consumer failed")).collect();
        (launch, Ledger::new(self.round, sent, got, self.clock.confirmed_at()))
    }
}

/// Starts the broker on what is left: in some rounds it is killed again as soon as it is ready, in some it is stopped cleanly
/// once before anybody looks.
fn start_again(launch: Launch, round: u64) -> Broker {
    let broker = launch.start();
    match round % 4 {
        1 => broker.kill9().start(),
        3 => broker.restart(),
        _ => broker,
    }
}

/// What was acknowledged while draining must not come back in the next round: a confirm says that everything before it is on
/// disk.
fn promise_that_it_is_drained(raw: &mut Raw, round: u64) {
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw.publish(1, ("", topology::FENCE), 0, PERSISTENT, round.to_string().as_bytes());
    let confirm = raw.expect(1, id::BASIC_ACK);
    assert_eq!(Reader::new(&confirm).longlong(), 1);
}

fn open(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")))
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }
}
