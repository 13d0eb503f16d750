//! Broken handshakes, garbage, frames and names that are not what they say.

use super::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, PROTOCOL_HEADER};
use integration_tests::unique;
use integration_tests::wire::{self, BODY, Bytes, METHOD, NO_PROPERTIES};

#[test]
fn half_a_handshake_is_dropped_in_time() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("[listeners]\nhandshake_timeout_ms = 300\n");
    let handshake = Handshake::plain("guest", "guest");
    let start_ok = wire::method(0, id::CONNECTION_START_OK, handshake.start_ok());
    // Nothing, half a header, silence after connection.start, half a start-ok.
    let sent: [Vec<u8>; 4] =
        [Vec::new(), b"AMQ".to_vec(), PROTOCOL_HEADER.to_vec(), [PROTOCOL_HEADER, &start_ok[..20]].concat()];
    for bytes in sent {
        let mut raw = server.connect();
        raw.send(&bytes);
        while let Some(frame) = raw.next_frame() {
            assert_eq!(frame.id(), Some(id::CONNECTION_START), "{frame:?}");
        }
    }
    // Silence after tune-ok counts as well: the handshake ends with open-ok.
    let mut raw = server.connect();
    raw.handshake(&handshake);
    raw.expect_end();
    assert_works(&mut bystander, 1);
}

#[test]
fn garbage_ends_the_connection() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut garbage = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect()
    };
    for round in 0..120 {
        let mut raw = match round % 3 {
            0 => server.connect(),
            1 => {
                let mut raw = server.connect();
                raw.start();
                raw
            }
            _ => server.channel(),
        };
        raw.try_send(garbage(2_000));
        raw.finish_writing();
        while raw.read_bytes(1).is_some() {}
    }
    assert_works(&mut bystander, 1);
    assert_memory_below(&server, 300);
}

#[test]
fn frames_that_lie_about_their_length() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let (server, mut bystander) = victim("");
    let lies = |kind: u8, channel: u16, claimed: u32, sent: &[u8]| {
        Bytes::new().octet(kind).short(channel).long(claimed).raw(sent).done()
    };
    for (what, bytes) in [
        ("4 GiB", lies(METHOD, 1, u32::MAX, b"")),
        ("2 GiB", lies(BODY, 1, 1 << 31, b"x")),
        ("shorter than sent", lies(METHOD, 1, 5, &[0, 20, 0, 20, 1, 0xCE, 0, 1])),
        ("too short for its end", lies(METHOD, 1, 4, &[0, 20, 0, 20, 1, 0xCE])),
        ("longer than sent", lies(METHOD, 1, 100, &[0, 20, 0, 20, 1, 0xCE])),
    ] {
        let mut raw = server.channel();
        raw.send(bytes);
        raw.finish_writing();
        while let Some(frame) = raw.next_frame() {
            let id = frame.id();
            let expected = [id::CHANNEL_FLOW_OK, id::CONNECTION_CLOSE];
            assert!(id.is_some_and(|id| expected.contains(&id)), "{what}: {frame:?}");
        }
        assert_works(&mut bystander, 1);
    }
    // Before tune the limit is small.
    let mut raw = server.connect();
    raw.start();
    raw.send(lies(METHOD, 0, 1_000_000, &[0, 10, 0, 11]));
    assert_ended(&mut raw, "a large start-ok");
    assert_works(&mut bystander, 1);
}

#[test]
fn names_of_255_octets_work_everywhere() {
    let server = server();
    let mut raw = server.channel();
    let long = |subject: &str| {
        let mut name = unique(subject);
        while name.len() < 255 {
            name.push('n');
        }
        name
    };
    let (exchange, queue, key, tag) = (long("exchange"), long("queue"), long("key"), long("tag"));
    raw.exchange(1, &exchange, "topic", 0);
    raw.declare(1, &queue, 4);
    raw.bind(1, &queue, &exchange, &key, &[]);
    assert_eq!(raw.consume(1, &queue, &tag, 2), tag);
    raw.publish(1, (&exchange, &key), 0, NO_PROPERTIES, b"x");
    let message = raw.delivery(1);
    assert_eq!(message.exchange, exchange);
    assert_eq!(message.routing_key, key);
    assert_eq!(message.consumer, tag);
}

#[test]
fn names_that_are_not_utf_8_are_refused() {
    let server = server();
    let mut bystander = server.channel();
    let name = [b'q', 0xC3, 0x28];
    let declare = Bytes::new().short(0).shortstr(name).octet(0).table([]);
    let consume = Bytes::new().short(0).shortstr("q").shortstr(name).octet(0).table([]);
    for (id, arguments) in [(id::QUEUE_DECLARE, declare), (id::BASIC_CONSUME, consume)] {
        let mut raw = server.channel();
        raw.method(1, id, arguments);
        let text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
        raw.expect_connection_close(501, text, (0, 0));
        assert_works(&mut bystander, 1);
    }
}

#[test]
fn binary_keys_properties_and_header_names_are_passed_on() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, "amq.fanout", "", &[]);
    let key = [b'k', 0xC3, 0x28];
    let headers = Bytes::new().shortstr([0xff, 0xfe]).octet(b'V').done();
    // Headers and correlation-id.
    let properties = Bytes::new().short(0x2400).longstr(&headers).shortstr([0x00, 0xff]).done();
    raw.method(1, id::BASIC_PUBLISH, Bytes::new().short(0).shortstr("amq.fanout").shortstr(key).octet(0).done());
    raw.content(1, &properties, b"body");
    let get = Bytes::new().short(0).shortstr(&queue).octet(1).done();
    let answer = raw.call(1, id::BASIC_GET, get, id::BASIC_GET_OK);
    let address = Bytes::new().shortstr("amq.fanout").shortstr(key).done();
    assert!(answer.windows(address.len()).any(|window| window == address), "{answer:?}");
    let content = raw.read_content(1);
    assert_eq!((content.properties, content.body), (properties, b"body".to_vec()));
}
