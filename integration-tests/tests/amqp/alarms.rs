//! Short of memory or disk: publishers are blocked and told, consumers go on, and publishing goes on by itself.

use crate::support::*;
use futures_util::StreamExt;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::server::Server;
use integration_tests::wire::{Bytes, NO_PROPERTIES, PERSISTENT, Reader};
use integration_tests::{id, unique};
use lapin::Event;
use lapin::options::QueueDeclareOptions;

const WARREN_ONLY: &str = "its alarms are set by the configuration file";
/// Every publisher is blocked, for good.
const ALWAYS: &str = "[memory]\nhigh_watermark = 0\n";

fn server_with(config: &str) -> Server {
    Server::own(launch().config(config))
}

fn confirming(server: &Server) -> Raw {
    let mut raw = server.channel();
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw
}

/// Reads a confirm and a connection.blocked in either order; returns the reason.
#[track_caller]
fn confirm_and_reason(raw: &mut Raw) -> String {
    let mut reason = None;
    for _ in 0..2 {
        let frame = raw.read();
        match frame.id() {
            Some(id::BASIC_ACK) => {}
            Some(id::CONNECTION_BLOCKED) => reason = Some(Reader::new(frame.arguments()).shortstr()),
            _ => panic!("{frame:?}"),
        }
    }
    reason.expect("connection.blocked")
}

#[test]
fn a_publisher_is_told_and_its_message_waits() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = server_with(ALWAYS);
    let mut raw = confirming(&server);
    let queue = raw.declare(1, "work", 0).0;
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"first");
    let blocked = raw.expect(0, id::CONNECTION_BLOCKED);
    assert_eq!(Reader::new(&blocked).shortstr(), "low on memory");
    raw.publish(1, ("", &queue), 0, PERSISTENT, b"second");
    // What it says from now on waits for the end of the alarm; who does not publish is served.
    let mut other = server.channel();
    assert_eq!(other.declare(1, &queue, 1).1, 0);
}

#[test]
fn reasons_name_what_is_short() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let disk = "[storage]\ndisk_free_limit = \"1000TB\"\n";
    for (config, expected) in [(disk.to_owned(), "low on disk"), (format!("{disk}{ALWAYS}"), "low on disk & memory")] {
        let server = server_with(&config);
        let mut raw = confirming(&server);
        let queue = raw.declare(1, "work", 2).0;
        raw.publish(1, ("", &queue), 0, PERSISTENT, b"");
        assert_eq!(confirm_and_reason(&mut raw), expected);
        // Consuming, settling and deleting go on.
        let mut consumer = server.channel();
        let message = consumer.get(1, &queue, true).expect("a message");
        assert_eq!(message.text(), "", "a message that ends with its header is taken");
        consumer.call(1, id::QUEUE_DELETE, Bytes::new().short(0).shortstr(&queue).octet(0), id::QUEUE_DELETE_OK);
    }
}

#[test]
fn a_client_that_did_not_ask_hears_nothing() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = server_with(ALWAYS);
    let mut raw = server.connect();
    let mut handshake = Handshake::plain("guest", "guest");
    handshake.properties = Bytes::new().field("capabilities", b'F').table([]).done();
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(1);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let queue = raw.declare(1, "work", 0).0;
    for _ in 0..3 {
        raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"");
    }
    // The first is taken and confirmed; connection.blocked would have come before that.
    raw.expect(1, id::BASIC_ACK);
    assert_eq!(server.channel().declare(1, &queue, 1).1, 1);
}

#[test]
fn who_does_not_publish_hears_nothing() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = server_with(ALWAYS);
    let mut publisher = confirming(&server);
    let queue = publisher.declare(1, "work", 0).0;
    publisher.publish(1, ("", &queue), 0, NO_PROPERTIES, b"");
    assert_eq!(confirm_and_reason(&mut publisher), "low on memory");
    let mut consumer = server.channel();
    consumer.consume(1, &queue, "", 0);
    let delivery = consumer.delivery(1);
    consumer.method(1, id::BASIC_ACK, Bytes::new().longlong(delivery.tag).octet(0));
    consumer.fence(1);
}

#[test]
fn a_blocked_client_with_heartbeats_stays() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = server_with(ALWAYS);
    let mut raw = server.connect();
    let mut handshake = Handshake::plain("guest", "guest");
    handshake.heartbeat = 1;
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(1);
    // So much that the socket is left unread: no heartbeat of ours would be seen.
    let mut writer = raw.writer();
    let flood = std::thread::spawn(move || {
        use integration_tests::wire;
        use std::io::Write;
        let body = [b'x'; 10_000];
        let mut message = wire::method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr("").shortstr("q").octet(0));
        message.extend(wire::frame(wire::HEADER, 1, &wire::header(body.len() as u64, NO_PROPERTIES)));
        message.extend(wire::frame(wire::BODY, 1, &body));
        while writer.write_all(&message).is_ok() {}
    });
    let mut blocked = false;
    for _ in 0..8 {
        let frame = raw.any_frame().expect("a frame: the connection is not given up");
        blocked |= frame.id() == Some(id::CONNECTION_BLOCKED);
    }
    assert!(blocked);
    raw.abort();
    flood.join().expect("the writer ends with the socket");
}

#[test]
fn lapin_hears_of_it() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = server_with(ALWAYS);
    block_on(async {
        let connection = connect(&server).await;
        let mut events = connection.events_listener();
        let channel = channel_of(&connection).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        drop(publish(&channel, "", &queue, "x").await);
        loop {
            let event = events.next().await.expect("an event");
            if let Event::ConnectionBlocked(reason) = event {
                assert_eq!(reason, "low on memory");
                break;
            }
        }
        let other = channel_of(&connect(&server).await).await;
        assert_eq!(counts(&other, &queue).await, (0, 0), "it waits");
    });
}

#[test]
fn publishing_goes_on_when_consumers_have_made_room() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const LIMIT: usize = 160 << 20;
    let server = server_with(&format!("[memory]\nhigh_watermark = {LIMIT}\n"));
    let mut publisher = confirming(&server);
    let mut consumer = server.channel();
    let queue = publisher.declare(1, &unique("queue"), 0).0;
    consumer.consume(1, &queue, "", 0);
    let body = vec![b'x'; 100_000];
    let mut published = 0;
    // Transient messages that were delivered and not acknowledged have no place but memory.
    loop {
        publisher.publish(1, ("", &queue), 0, NO_PROPERTIES, &body);
        published += 1;
        let frame = publisher.read();
        if frame.id() == Some(id::CONNECTION_BLOCKED) {
            assert_eq!(Reader::new(frame.arguments()).shortstr(), "low on memory");
            break;
        }
        assert_eq!(frame.id(), Some(id::BASIC_ACK), "{frame:?}");
        assert_eq!(consumer.delivery(1).content.body.len(), body.len());
        assert!(published * body.len() < 2 * LIMIT, "no alarm");
    }
    publisher.publish(1, ("", &queue), 0, NO_PROPERTIES, b"last");
    // All of them.
    consumer.method(1, id::BASIC_ACK, Bytes::new().longlong(0).octet(1).done());
    publisher.expect(0, id::CONNECTION_UNBLOCKED);
    assert_eq!(consumer.delivery(1).content.body.len(), body.len());
    assert_eq!(consumer.delivery(1).text(), "last");
}

#[test]
fn a_hundred_consumers_that_never_read_stay_within_the_limit() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const CONSUMERS: usize = 100;
    const LIMIT: u64 = 200 << 20;
    let server = server_with(&format!("[memory]\nhigh_watermark = {LIMIT}\n"));
    let mut publisher = confirming(&server);
    let queue = publisher.declare(1, &unique("queue"), 2).0;
    let mut deaf: Vec<Raw> = (0..CONSUMERS).map(|_| server.channel()).collect();
    for consumer in &mut deaf {
        consumer.consume(1, &queue, "", 2);
    }
    // A gigabyte, if nobody says stop: durable, so that the rest waits on disk.
    const MESSAGES: u64 = 10_000;
    let body = vec![b'x'; 100_000];
    let mut confirmed = 0;
    let mut blocked = false;
    for number in 1..=MESSAGES {
        publisher.publish(1, ("", &queue), 0, PERSISTENT, &body);
        while !blocked && number - confirmed > 20 {
            let frame = publisher.read();
            match frame.id() {
                Some(id::BASIC_ACK) => confirmed = Reader::new(frame.arguments()).longlong(),
                Some(id::CONNECTION_BLOCKED) => blocked = true,
                _ => panic!("{frame:?}"),
            }
        }
        if blocked {
            break;
        }
    }
    let peak = server.broker().expect("our own").peak_resident_bytes();
    println!("{confirmed} confirmed, blocked: {blocked}, {} MiB resident at most", peak >> 20);
    assert!(peak < LIMIT + (100 << 20), "{peak} bytes were resident");
    // One that begins to read gets what was meant for it.
    assert_eq!(deaf[0].delivery(1).content.body.len(), body.len());
}

#[test]
fn a_transient_queue_larger_than_the_limit_waits_on_disk() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const LIMIT: u64 = 150 << 20;
    const MESSAGES: u64 = 4_000;
    let server = server_with(&format!("[memory]\nhigh_watermark = {LIMIT}\n"));
    let broker = server.broker().expect("our own");
    let spill = broker.launch().home().join("data/spill");
    let files = || std::fs::read_dir(&spill).map_or(0, Iterator::count);
    let mut publisher = confirming(&server);
    let queue = publisher.declare(1, &unique("queue"), 0).0;
    let body = |number: u64| [number.to_be_bytes().as_slice(), &[b'x'; 100_000]].concat();
    let mut confirmed = 0;
    for number in 1..=MESSAGES {
        publisher.publish(1, ("", &queue), 0, NO_PROPERTIES, &body(number));
        // An alarm may come while the disk catches up, and must go by itself.
        while number - confirmed > 10 || (number == MESSAGES && confirmed < number) {
            let frame = publisher.read();
            match frame.id() {
                Some(id::BASIC_ACK) => confirmed = Reader::new(frame.arguments()).longlong(),
                Some(id::CONNECTION_BLOCKED | id::CONNECTION_UNBLOCKED) => {}
                _ => panic!("{frame:?}"),
            }
        }
    }
    let peak = broker.peak_resident_bytes();
    assert!(peak < LIMIT + (100 << 20), "{peak} bytes were resident");
    assert!(files() > 10);
    let mut consumer = server.channel();
    assert_eq!(u64::from(consumer.declare(1, &queue, 1).1), MESSAGES);
    consumer.consume(1, &queue, "", 2);
    for number in 1..=MESSAGES {
        assert_eq!(consumer.delivery(1).content.body, body(number));
    }
    // Some are there when the broker is killed: nothing of them is left behind for ever.
    let mut left = server.channel();
    left.declare(1, "rest", 0);
    for number in 1..=500 {
        left.publish(1, ("", "rest"), 0, NO_PROPERTIES, &body(number));
    }
    while files() == 0 {
        left.fence(1);
    }
    let launch = broker.launch().clone();
    // That kills it.
    drop(server);
    let broker = launch.start();
    assert_eq!(files(), 0);
    drop(broker);
}
