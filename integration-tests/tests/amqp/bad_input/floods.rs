//! Too much of everything: channels, announced bodies, deliveries and answers that nobody reads.

use super::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Frame, Raw};
use integration_tests::wire::{self, BODY, Bytes, HEADER, METHOD, NO_PROPERTIES, PERSISTENT};

#[test]
fn ten_thousand_channels() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const COUNT: u16 = 10_000;
    let open_all = |raw: &mut Raw| {
        let frames: Vec<_> = (1..=COUNT).flat_map(|channel| wire::method(channel, id::CHANNEL_OPEN, [0])).collect();
        raw.send(frames);
    };
    let (server, mut bystander) = victim("");
    let mut raw = server.open();
    open_all(&mut raw);
    for channel in 1..=2047 {
        raw.expect(channel, id::CHANNEL_OPEN_OK);
    }
    raw.expect_connection_close(
        530,
        "NOT_ALLOWED - number of channels opened (2047) has reached the negotiated channel_max (2047)",
        (0, 0),
    );
    assert_works(&mut bystander, 1);

    let (server, mut bystander) = victim("[limits]\nchannel_max = 20000\n");
    let mut raw = server.open();
    open_all(&mut raw);
    for channel in 1..=COUNT {
        raw.expect(channel, id::CHANNEL_OPEN_OK);
    }
    assert_works(&mut raw, 1);
    assert_works(&mut raw, COUNT);
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 400);
}

#[test]
fn bodies_that_are_announced_and_never_sent() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const CHANNELS: u16 = 2_000;
    let (server, mut bystander) = victim("");
    let mut raw = server.open();
    let mut bytes = Vec::new();
    for channel in 1..=CHANNELS {
        bytes.extend(wire::method(channel, id::CHANNEL_OPEN, [0]));
        let arguments = Bytes::new().short(0).shortstr("").shortstr("q").octet(0);
        bytes.extend(wire::method(channel, id::BASIC_PUBLISH, arguments));
        let header = wire::header(100 << 20, NO_PROPERTIES);
        bytes.extend(wire::frame(HEADER, channel, &header));
        bytes.extend(wire::frame(BODY, channel, &[b'x'; 1_000]));
    }
    raw.send(bytes);
    for channel in 1..=CHANNELS {
        raw.expect(channel, id::CHANNEL_OPEN_OK);
    }
    // The last answer came before the last body; one more question behind it shows that all was read.
    raw.open_channel(CHANNELS + 1);
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 300);
    // Half of them go on a little, then the client is gone.
    for channel in 1..=CHANNELS / 2 {
        raw.frame(BODY, channel, [b'x'; 1_000]);
    }
    assert_works(&mut raw, CHANNELS + 1);
    raw.abort();
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 300);
}

#[test]
fn incomplete_bodies_have_a_limit() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    // Two messages of the largest size, and at least 16 MiB, may be incomplete on one connection.
    const LARGEST: u64 = 8 << 20;
    let (server, mut bystander) = victim(&format!("[limits]\nmax_message_bytes = {LARGEST}\n"));
    let mut raw = server.open();
    let piece = vec![b'x'; 100_000];
    'channels: for channel in 1..=3 {
        raw.open_channel(channel);
        raw.begin_publish(channel, "", "q", 0);
        raw.frame(HEADER, channel, wire::header(LARGEST, NO_PROPERTIES));
        // All but the end.
        for _ in 0..LARGEST / 100_000 {
            if !raw.try_send(wire::frame(BODY, channel, &piece)) {
                break 'channels;
            }
        }
    }
    raw.expect_connection_close(506, "RESOURCE_ERROR - too many octets of incomplete messages", (0, 0));
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 200);
}

#[test]
fn a_publisher_faster_than_the_disk_is_held_and_goes_on() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    // One MiB may wait for the disk; forty times that comes without a pause, without confirms and without heartbeats.
    const COUNT: u32 = 2_000;
    let (server, mut bystander) = victim("[limits]\nuncommitted_bytes = 1048576\n");
    let mut raw = server.channel();
    let queue = raw.declare(1, "flood", 2).0;
    let body = vec![b'x'; 20_000];
    for _ in 0..COUNT {
        raw.publish(1, ("", &queue), 0, PERSISTENT, &body);
    }
    assert_eq!(raw.declare(1, &queue, 1), (queue.clone(), COUNT, 0));
    assert_works(&mut bystander, 1);
}

#[test]
fn a_client_that_never_reads_its_messages() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const READERS: usize = 40;
    const MESSAGES: usize = 100;
    let (server, mut bystander) = victim("");
    let mut deaf = Vec::new();
    for _ in 0..READERS {
        let mut raw = server.channel();
        let queue = raw.exclusive_queue(1);
        raw.bind(1, &queue, "amq.fanout", "", &[]);
        raw.consume(1, &queue, "", 2);
        deaf.push(raw);
    }
    // 20 MB in all; a copy for each of the clients that do not read would be 800.
    let body = vec![b'x'; 200_000];
    let mut publisher = server.channel();
    publisher.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for _ in 0..MESSAGES {
        publisher.publish(1, ("amq.fanout", ""), 0, NO_PROPERTIES, &body);
    }
    let mut confirmed = 0;
    while confirmed < MESSAGES as u64 {
        let arguments = publisher.expect(1, id::BASIC_ACK);
        confirmed = wire::Reader::new(&arguments).longlong();
    }
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 400);
    // Nothing was lost on the one that begins to read.
    let mut late = deaf.remove(0);
    for _ in 0..MESSAGES {
        assert_eq!(late.delivery(1).content.body.len(), body.len());
    }
}

#[test]
fn a_client_that_never_reads_its_answers() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const QUESTIONS: usize = 600_000;
    let (server, mut bystander) = victim("");
    let mut raw = server.channel();
    let mut writer = raw.writer();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let batch = wire::method(1, id::CHANNEL_FLOW, [1]).repeat(1_000);
        for _ in 0..QUESTIONS / 1_000 {
            if writer.write_all(&batch).is_err() {
                return;
            }
        }
    });
    for _ in 0..20 {
        assert_works(&mut bystander, 1);
    }
    assert_memory_below(&server, 200);
    // As soon as it reads, it gets every answer.
    let expected = Frame { kind: METHOD, channel: 1, payload: vec![0, 20, 0, 21, 1] };
    let mut bytes = Vec::new();
    let size = expected.payload.len() + 8;
    for _ in 0..QUESTIONS / 1_000 {
        bytes.extend(raw.read_bytes(size * 1_000).expect("the answers"));
        assert_eq!(bytes, wire::frame(expected.kind, expected.channel, &expected.payload).repeat(1_000));
        bytes.clear();
    }
    sender.join().expect("the sender");
    assert_memory_below(&server, 200);
}

#[test]
fn whoever_goes_on_closing_gets_no_answers_without_end() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    const CLOSES: usize = 2_000_000;
    let broker = launch().start();
    let mut raw = Raw::connect(broker.address());
    raw.send(b"AMQP\x00\x00\x09\x01");
    let close = wire::method(0, id::CONNECTION_CLOSE, Bytes::new().short(200).shortstr("").short(0).short(0));
    // Without a login, and without ever reading. The broker may end it before the last.
    let flood = close.repeat(CLOSES / 100);
    for _ in 0..100 {
        if !raw.try_send(&flood) {
            break;
        }
    }
    let mut other = Raw::connect(broker.address());
    other.login("guest", "guest");
    other.open("/");
    let peak = broker.peak_resident_bytes();
    assert!(peak < 64 << 20, "{peak}");
}
