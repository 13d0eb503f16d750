//! Publishers that are held: what they are told, what goes on, and what becomes of what they sent.

use std::sync::Arc;

use broker::broker::Alarm;
use broker::config::Watermark;
use broker::model::ConnectionId;
use broker::model::memory::Owner;
use broker::queue::signal;
use broker::session::{Phase, Session};
use protocol::{Decoded, FrameKind, decode_frame, method_ids};

use crate::simulation::House;
use crate::support::{LOST, Release};
use crate::wire::{self, Args, Id, Reader};

const BLOCKED: Id = (10, 60);
const UNBLOCKED: Id = (10, 61);

/// A client that sends what it is told and remembers the methods that come back.
struct Plain {
    session: Session,
    seen: Vec<(u16, Id, Vec<u8>)>,
}

impl Plain {
    /// A client with channels 1 and 2 open; `blocked` is whether it wants to be told.
    fn new(house: &House, number: u64, blocked: bool) -> Self {
        let peer: std::net::IpAddr = [127, 0, 0, 1].into();
        let session = Session::new(Arc::clone(&house.broker), ConnectionId(number), peer);
        let mut client = Self { session, seen: Vec::new() };
        let capability = [b"\x12connection.blockedt".as_slice(), &[u8::from(blocked)]].concat();
        let mut properties = b"\x0ccapabilitiesF".to_vec();
        properties.extend((capability.len() as u32).to_be_bytes());
        properties.extend(capability);
        let start_ok = Args::new(wire::START_OK).octets(&properties).text("PLAIN").octets(b"\0guest\0guest");
        client.send(&[start_ok.text("en_US").frame(0)]);
        client.send(&[Args::new(wire::TUNE_OK).short(2047).long(131_072).short(0).frame(0)]);
        client.send(&[Args::new(wire::OPEN).text("/").text("").octet(0).frame(0)]);
        for channel in [1, 2] {
            client.send(&[Args::new(wire::CHANNEL_OPEN).text("").frame(channel)]);
        }
        client.turn();
        assert_eq!(client.session.phase(), Phase::Running);
        client.seen.clear();
        client
    }

    /// One batch of frames.
    fn send(&mut self, frames: &[Vec<u8>]) {
        self.session.begin_batch();
        for frame in frames {
            let Ok(Decoded::Frame { frame, .. }) = decode_frame(frame, 0) else { panic!("half a frame") };
            self.session.on_frame(&frame);
        }
        self.session.finish_batch();
    }

    /// What its task does when it is woken, and a look at what was written.
    fn turn(&mut self) {
        let flags = self.session.signal().take();
        if flags & signal::DURABLE != 0 {
            self.session.on_durable();
        }
        if flags & signal::ALARM != 0 {
            self.session.on_alarm();
        }
        let mut octets = Vec::new();
        loop {
            let limit = octets.len() + (1 << 16);
            if !self.session.write(&mut octets, limit) {
                break;
            }
        }
        self.session.finish_batch();
        let mut rest = octets.as_slice();
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, 0) {
            rest = &rest[consumed..];
            if frame.kind == FrameKind::Method {
                let id = method_ids(frame.payload).expect("a method");
                self.seen.push((frame.channel, id, frame.payload[4..].to_vec()));
            }
        }
        assert!(rest.is_empty(), "half a frame");
    }

    fn publish(&mut self, channel: u16, queue: &str, body: &[u8]) {
        self.send(&wire::publish(channel, queue, false, false, body));
    }

    fn publish_persistent(&mut self, channel: u16, queue: &str, body: &[u8]) {
        self.send(&wire::publish(channel, queue, false, true, body));
    }

    fn declare(&mut self, channel: u16, queue: &str, durable: bool) {
        let bits = u8::from(durable) << 1;
        self.send(&[Args::new(wire::DECLARE).short(0).text(queue).octet(bits).octets(&[]).frame(channel)]);
    }

    fn consume(&mut self, channel: u16, queue: &str, no_ack: bool) {
        let bits = u8::from(no_ack) << 1;
        let args = Args::new(wire::CONSUME).short(0).text(queue).text("").octet(bits).octets(&[]);
        self.send(&[args.frame(channel)]);
    }

    fn ack(&mut self, channel: u16, tag: u64) {
        self.send(&[Args::new(wire::ACK).longlong(tag).octet(0).frame(channel)]);
    }

    fn close(&mut self) {
        self.send(&[Args::new(wire::CLOSE).short(200).text("").short(0).short(0).frame(0)]);
    }

    /// The methods that have come since the last call.
    fn heard(&mut self) -> Vec<(u16, Id)> {
        self.turn();
        self.seen.drain(..).map(|(channel, id, _)| (channel, id)).collect()
    }

    /// The reason of the connection.blocked that is all that has come.
    fn blocked(&mut self) -> String {
        self.turn();
        let [(0, BLOCKED, arguments)] = self.seen.as_slice() else { panic!("{:?}", self.seen) };
        let reason = Reader(arguments).text();
        self.seen.clear();
        reason
    }
}

/// A broker with a transient and a durable queue.
fn house() -> House {
    house_with(|_| {})
}

fn house_with(set: impl FnOnce(&mut broker::config::Settings)) -> House {
    let house = House::with(set);
    let mut client = Plain::new(&house, 99, false);
    client.declare(1, "fast", false);
    client.declare(1, "safe", true);
    house.disk.wait_durable();
    assert_eq!(client.heard(), [(1, wire::DECLARE_OK); 2]);
    client.close();
    house
}

fn ready(house: &House, queue: &str) -> u32 {
    house.queue(queue).message_count()
}

#[test]
fn the_first_publish_during_an_alarm_blocks_and_waits() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    client.publish(1, "fast", b"before");
    assert!(house.broker.set_alarm(Alarm::Memory, true));
    assert!(!house.broker.set_alarm(Alarm::Memory, true), "it is on already");
    assert_eq!(client.heard(), []);
    client.publish(1, "fast", b"first");
    assert_eq!(client.blocked(), "low on memory");
    assert_eq!(ready(&house, "fast"), 1);
    client.publish(1, "fast", b"second");
    client.publish(2, "fast", b"third");
    assert_eq!(client.heard(), []);
    assert_eq!(ready(&house, "fast"), 1);
    assert!(house.broker.set_alarm(Alarm::Memory, false));
    assert_eq!(client.heard(), [(0, UNBLOCKED)]);
    assert_eq!(ready(&house, "fast"), 4);
    client.publish(1, "fast", b"fourth");
    assert_eq!(client.heard(), []);
    assert_eq!(ready(&house, "fast"), 5);
}

#[test]
fn a_second_alarm_is_not_told_and_both_must_end() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut early = Plain::new(&house, 1, true);
    house.broker.set_alarm(Alarm::Disk, true);
    early.publish(1, "fast", b"x");
    assert_eq!(early.blocked(), "low on disk");
    house.broker.set_alarm(Alarm::Memory, true);
    assert_eq!(early.heard(), []);
    let mut late = Plain::new(&house, 2, true);
    assert_eq!(late.heard(), [], "it has not published");
    late.publish(1, "fast", b"x");
    assert_eq!(late.blocked(), "low on disk & memory");
    house.broker.set_alarm(Alarm::Disk, false);
    assert_eq!((early.heard(), late.heard()), (vec![], vec![]));
    late.publish(1, "fast", b"x");
    assert_eq!(ready(&house, "fast"), 0);
    house.broker.set_alarm(Alarm::Memory, false);
    assert_eq!((early.heard(), late.heard()), (vec![(0, UNBLOCKED)], vec![(0, UNBLOCKED)]));
    assert_eq!(ready(&house, "fast"), 3);
    house.broker.set_alarm(Alarm::Disk, true);
    late.publish(1, "fast", b"x");
    assert_eq!(late.blocked(), "low on disk", "again, by the next publish");
}

#[test]
fn a_client_that_did_not_ask_is_held_without_a_word() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, false);
    house.broker.set_alarm(Alarm::Memory, true);
    client.publish(1, "fast", b"first");
    client.publish(1, "fast", b"second");
    assert_eq!(client.heard(), []);
    assert_eq!(ready(&house, "fast"), 0);
    house.broker.set_alarm(Alarm::Memory, false);
    assert_eq!(client.heard(), []);
    assert_eq!(ready(&house, "fast"), 2);
}

#[test]
fn consumers_go_on() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut publisher = Plain::new(&house, 1, true);
    let mut consumer = Plain::new(&house, 2, true);
    for _ in 0..3 {
        publisher.publish(1, "fast", b"x");
    }
    house.broker.set_alarm(Alarm::Memory, true);
    consumer.consume(1, "fast", false);
    assert_eq!(consumer.heard(), [(1, wire::CONSUME_OK), (1, wire::DELIVER), (1, wire::DELIVER), (1, wire::DELIVER)]);
    consumer.ack(1, 3);
    assert_eq!(house.queue("fast").unacked_count(), 2);
    assert!(consumer.session.may_read());
}

#[test]
fn a_blocked_client_that_consumes_acknowledges_on() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    client.publish(1, "fast", b"1");
    client.publish(1, "fast", b"2");
    client.consume(2, "fast", false);
    assert_eq!(client.heard().len(), 3);
    house.broker.set_alarm(Alarm::Memory, true);
    client.publish(1, "safe", b"first");
    assert_eq!(client.blocked(), "low on memory");
    client.publish(1, "safe", b"second");
    client.ack(2, 1);
    assert_eq!(house.queue("fast").unacked_count(), 1);
    client.publish(2, "safe", b"third");
    // Behind a publish that is parked: an acknowledgement must not take effect before it.
    client.ack(2, 2);
    assert_eq!(house.queue("fast").unacked_count(), 1);
    assert_eq!(ready(&house, "safe"), 0);
    house.broker.set_alarm(Alarm::Memory, false);
    assert_eq!(client.heard(), [(0, UNBLOCKED)]);
    assert_eq!(house.queue("fast").unacked_count(), 0);
    assert_eq!(ready(&house, "safe"), 3);
}

#[test]
fn a_channel_keeps_its_order() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    house.broker.set_alarm(Alarm::Disk, true);
    client.publish(1, "fast", b"1");
    client.publish(1, "fast", b"2");
    let get = Args::new(wire::GET).short(0).text("fast").octet(1).frame(1);
    client.send(&[get.clone(), get.clone(), get]);
    client.send(&[Args::new(wire::CHANNEL_CLOSE).short(200).text("").short(0).short(0).frame(1)]);
    client.send(&[Args::new(wire::CHANNEL_OPEN).text("").frame(1)]);
    assert_eq!(client.blocked(), "low on disk");
    house.broker.set_alarm(Alarm::Disk, false);
    let answers = [wire::GET_OK, wire::GET_OK, wire::GET_EMPTY, wire::CHANNEL_CLOSE_OK, wire::CHANNEL_OPEN_OK];
    let mut expected = vec![(0, UNBLOCKED)];
    expected.extend(answers.map(|id| (1, id)));
    assert_eq!(client.heard(), expected);
}

#[test]
fn a_blocked_client_can_say_goodbye() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    house.broker.set_alarm(Alarm::Memory, true);
    for _ in 0..5 {
        client.publish(1, "fast", b"x");
    }
    assert_eq!(client.blocked(), "low on memory");
    client.close();
    assert_eq!(client.heard(), [(0, wire::CLOSE_OK)]);
    assert_eq!(client.session.phase(), Phase::Left);
    assert_eq!(ready(&house, "fast"), 5, "nothing that came before is lost");
}

#[test]
fn what_a_client_sent_before_it_hung_up_is_taken() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    house.broker.set_alarm(Alarm::Memory, true);
    for _ in 0..5 {
        client.publish(1, "fast", b"x");
    }
    assert_eq!(ready(&house, "fast"), 0);
    client.session.on_hangup();
    assert_eq!(ready(&house, "fast"), 5);
}

#[test]
fn an_error_in_what_was_parked_still_answers_the_close() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    house.broker.set_alarm(Alarm::Memory, true);
    client.publish(1, "fast", b"x");
    client.publish(1, "fast", b"x");
    // A method that only brokers send.
    client.send(&[Args::new(wire::OPEN).text("/").text("").octet(0).frame(1)]);
    assert_eq!(client.blocked(), "low on memory");
    client.close();
    assert_eq!(client.heard(), [(0, wire::CLOSE), (0, wire::CLOSE_OK)]);
    assert_eq!(ready(&house, "fast"), 2);
}

#[test]
fn what_is_parked_is_bounded() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut publisher = Plain::new(&house, 1, true);
    let mut both = Plain::new(&house, 2, true);
    both.consume(2, "safe", true);
    house.broker.set_alarm(Alarm::Memory, true);
    let body = [0; 1000];
    let parked = |client: &mut Plain| {
        let before = ready(&house, "fast");
        let mut sent = 0;
        while client.session.may_read() {
            client.publish(1, "fast", &body);
            sent += 1;
            assert!(sent < 3_000, "it is read without end");
        }
        assert_eq!(ready(&house, "fast"), before);
        sent * body.len()
    };
    assert_eq!(parked(&mut publisher), body.len(), "who only publishes is not read any more");
    publisher.publish(1, "fast", &body);
    let more = parked(&mut both);
    assert!((900_000..1_100_000).contains(&more), "{more} octets for one that consumes");
    let held = |house: &House| {
        let owners = house.broker.memory_use().owners;
        owners.iter().find(|(owner, _)| *owner == Owner::Parked).expect("an owner").1
    };
    assert!(held(&house) > 1_000_000);
    house.broker.set_alarm(Alarm::Memory, false);
    publisher.turn();
    both.turn();
    assert!(publisher.session.may_read() && both.session.may_read());
    assert_eq!(ready(&house, "fast") as usize, 2 + more / body.len());
    assert_eq!(held(&house), 0);
}

#[test]
fn an_alarm_does_not_wait_for_the_disk_to_be_told() {
    let house = house();
    let _release = Release(&house.disk.gate);
    let mut client = Plain::new(&house, 1, true);
    house.disk.gate.hold_syncs();
    client.declare(1, "new", true);
    house.broker.set_alarm(Alarm::Disk, true);
    client.publish(2, "fast", b"x");
    assert_eq!(client.blocked(), "low on disk", "ahead of a declare-ok that waits for the disk");
    house.broker.set_alarm(Alarm::Disk, false);
    assert_eq!(client.heard(), [(0, UNBLOCKED)]);
}

#[test]
fn behind_a_slow_disk_a_client_that_consumes_acknowledges_on() {
    const CAP: u64 = 50_000;
    let house = house_with(|settings| settings.limits.uncommitted_bytes = CAP);
    let _release = Release(&house.disk.gate);
    let mut publisher = Plain::new(&house, 1, true);
    let mut both = Plain::new(&house, 2, true);
    both.publish(1, "fast", b"x");
    both.consume(2, "fast", false);
    assert_eq!(both.heard(), [(2, wire::CONSUME_OK), (2, wire::DELIVER)]);
    house.disk.gate.hold_syncs();
    while publisher.session.may_read() {
        publisher.publish_persistent(1, "safe", &[0; 1000]);
    }
    let before = ready(&house, "safe");
    assert!(both.session.may_read());
    both.publish_persistent(1, "safe", b"parked");
    both.ack(2, 1);
    assert_eq!(house.queue("fast").unacked_count(), 0);
    assert_eq!(ready(&house, "safe"), before);
    house.disk.gate.release_syncs();
    while ready(&house, "safe") == before {
        wait_for_signal(&both);
        both.turn();
    }
    assert_eq!(ready(&house, "safe"), before + 1);
    assert_eq!(both.heard(), [], "no alarm, no word");
}

/// One that waits for nothing of its own.
#[test]
fn who_is_not_read_for_what_others_have_written_is_woken() {
    const CAP: u64 = 50_000;
    let house = house_with(|settings| settings.limits.uncommitted_bytes = CAP);
    let _release = Release(&house.disk.gate);
    let mut publisher = Plain::new(&house, 1, true);
    let mut other = Plain::new(&house, 2, true);
    other.publish(1, "fast", b"x");
    other.turn();
    house.disk.gate.hold_syncs();
    while publisher.session.may_read() {
        publisher.publish_persistent(1, "safe", &[0; 1000]);
    }
    assert!(!other.session.may_read_or_waits());
    house.disk.gate.release_syncs();
    while !other.session.may_read_or_waits() {
        wait_for_signal(&other);
        other.turn();
    }
}

fn wait_for_signal(client: &Plain) {
    let begun = std::time::Instant::now();
    while !client.session.signal().is_raised() {
        assert!(begun.elapsed() < LOST, "nobody told it that the disk has caught up");
        std::thread::yield_now();
    }
}

#[test]
fn consumers_that_do_not_read_share_a_budget() {
    const LIMIT: u64 = 8 << 20;
    const CONSUMERS: u64 = 40;
    let house = house_with(|settings| settings.memory.high_watermark = Watermark::Bytes(LIMIT));
    let _release = Release(&house.disk.gate);
    let mut consumers: Vec<Plain> = (0..CONSUMERS).map(|number| Plain::new(&house, number, true)).collect();
    for (number, consumer) in consumers.iter_mut().enumerate() {
        consumer.consume(1, "fast", number % 2 == 0);
    }
    let mut publisher = Plain::new(&house, CONSUMERS, true);
    const MESSAGES: usize = 20_000;
    for _ in 0..MESSAGES {
        publisher.publish(1, "fast", &[0; 1000]);
    }
    let held = house.broker.memory_use().owners.iter().find(|(owner, _)| *owner == Owner::Outboxes).expect("one").1;
    // A quarter of the limit, what each may always have, and what is not told yet.
    let most = LIMIT as usize / 4 + CONSUMERS as usize * (64 + 16 + 2) * 1024;
    assert!(held > LIMIT as usize / 8 && held < most, "{held} of at most {most} octets");
    assert!(ready(&house, "fast") > 10_000, "the rest is in the queue");
    let mut read = 0;
    let mut moved = std::time::Instant::now();
    while read < MESSAGES {
        let before = read;
        for consumer in &mut consumers {
            consumer.turn();
            let tags: Vec<u64> = consumer.seen.drain(..).filter(|(_, id, _)| *id == wire::DELIVER).map(|_| 0).collect();
            read += tags.len();
            consumer.send(&[Args::new(wire::NACK).longlong(0).octet(1).frame(1)]);
        }
        // What memory has no room for comes from disk, which takes a moment.
        if read > before {
            moved = std::time::Instant::now();
        }
        assert!(moved.elapsed() < LOST, "a consumer that was refused has been forgotten: {read} read");
        std::thread::yield_now();
    }
    assert_eq!(read, MESSAGES);
}

#[test]
fn open_transactions_are_bounded() {
    let house = house_with(|settings| settings.memory.high_watermark = Watermark::Bytes(4 << 20));
    let _release = Release(&house.disk.gate);
    let mut small = Plain::new(&house, 1, true);
    let mut large = Plain::new(&house, 2, true);
    for client in [&mut small, &mut large] {
        client.send(&[Args::new(wire::TX).frame(1)]);
        assert_eq!(client.heard(), [(1, wire::TX_OK)]);
    }
    small.publish(1, "fast", b"x");
    while large.session.phase() == Phase::Running {
        large.publish(1, "fast", &[0; 10_000]);
        assert!(house.broker.memory_use().counted() < 1 << 30);
    }
    large.turn();
    let (_, id, arguments) = large.seen.last().expect("a close");
    assert_eq!((*id, &arguments[..2]), (wire::CLOSE, 506_u16.to_be_bytes().as_slice()));
    let mut reader = Reader(&arguments[2..]);
    assert_eq!(reader.text(), "RESOURCE_ERROR - too many octets in open transactions");
    assert_eq!(ready(&house, "fast"), 0);
    small.send(&[Args::new(wire::COMMIT).frame(1)]);
    assert_eq!(small.heard(), [(1, wire::COMMIT_OK)]);
    assert_eq!(ready(&house, "fast"), 1);
}
