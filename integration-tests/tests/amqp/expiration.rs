//! Messages that wait in a queue for a limited time only.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};

/// Persistent, with this expiration.
fn properties(expiration: &str) -> Vec<u8> {
    Bytes::new().short((1 << 12) | (1 << 8)).octet(2).shortstr(expiration).done()
}

/// Asks for the number of ready messages until it is this one. The only way to see that time has passed, without a
/// guess at how much.
#[track_caller]
fn wait_for_count(raw: &mut Raw, queue: &str, count: u32) {
    let started = std::time::Instant::now();
    while raw.declare(1, queue, 1).1 != count {
        assert!(started.elapsed() < integration_tests::DEADLINE, "it never became {count}");
    }
}

#[test]
fn an_expiration_is_a_number_of_milliseconds() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    for (expiration, reason) in [
        ("-1", "{value_negative,-1}"),
        ("abc", "no_integer"),
        ("10ms", "{leftover_string,\"ms\"}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ] {
        raw.publish(1, ("", &queue), 0, &properties(expiration), b"x");
        let text = format!("PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}");
        raw.expect_channel_close(1, 406, &text, id::BASIC_PUBLISH);
        raw.open_channel(1);
    }
    for expiration in ["60000", "315360000000"] {
        raw.publish(1, ("", &queue), 0, &properties(expiration), b"x");
        let message = raw.get(1, &queue, true).expect("it has not expired");
        assert_eq!(message.content.properties, properties(expiration));
    }
}

#[test]
fn an_expired_message_is_gone() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    // RabbitMQ's counts overtake publishes, its confirms do not.
    for number in numbers(5) {
        raw.publish(1, ("", &queue), 0, &properties("50"), number.as_bytes());
        raw.expect(1, id::BASIC_ACK);
    }
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"stays");
    raw.expect(1, id::BASIC_ACK);
    wait_for_count(&mut raw, &queue, 1);
    assert_eq!(raw.get(1, &queue, true).expect("a message").text(), "stays");
    assert!(raw.get(1, &queue, true).is_none());
}

#[test]
fn zero_is_now_or_never() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, &properties("0"), b"never");
    assert!(raw.get(1, &queue, true).is_none());
    raw.consume(1, &queue, "waiting", 2);
    raw.publish(1, ("", &queue), 0, &properties("0"), b"now");
    assert_eq!(raw.delivery(1).text(), "now");
}

#[test]
fn what_a_consumer_holds_does_not_expire_in_its_hands() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, &properties("1000"), b"held");
    raw.publish(1, ("", &queue), 0, &properties("1000"), b"expires");
    let held = raw.get(1, &queue, false).expect("a message");
    assert_eq!(held.text(), "held");
    wait_for_count(&mut raw, &queue, 0);
    let ack = Bytes::new().longlong(held.tag).octet(0);
    raw.method(1, id::BASIC_ACK, ack);
    raw.fence(1);
}

#[test]
fn time_passes_while_the_broker_is_down() {
    if peer_is_set("it restarts the broker") {
        return;
    }
    let broker = launch().start();
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "queue", 2);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for (expiration, body) in [("1", "short"), ("600000", "long")] {
        raw.publish(1, ("", "queue"), 0, &properties(expiration), body.as_bytes());
        raw.expect(1, id::BASIC_ACK);
    }
    let server = Server::own(broker.kill9());
    let mut raw = server.channel();
    let message = raw.get(1, "queue", true).expect("a message");
    assert_eq!(message.text(), "long");
    assert_eq!(message.content.properties, properties("600000"));
    assert!(raw.get(1, "queue", true).is_none());
}
