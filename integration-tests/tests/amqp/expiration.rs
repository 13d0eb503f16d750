//! Messages that wait in a queue for a limited time only.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;

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
fn the_middle_of_a_queue_expires_behind_a_head_that_stays() {
    if peer_is_set("RabbitMQ lets only the head expire") {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }).await;
        for properties in [BasicProperties::default(), persistent()] {
            send_with(&channel, "", &queue, "head", properties.clone()).await;
            for (number, expiration) in ["40", "600000", "1", "20"].into_iter().enumerate() {
                let properties = properties.clone().with_expiration(expiration.into());
                send_with(&channel, "", &queue, &number.to_string(), properties).await;
            }
            send_with(&channel, "", &queue, "tail", properties).await;
            // Nobody consumes: the counts drop by themselves.
            while counts(&channel, &queue).await != (3, 0) {}
            assert_eq!(drain(&channel, &queue).await, ["head", "1", "tail"]);
        }
    });
}

#[test]
fn what_comes_back_after_its_time_is_not_ready_again() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(1).octet(0), id::BASIC_QOS_OK);
    raw.consume(1, &queue, "one at a time", 0);
    for properties in [properties("1"), Bytes::new().short(1 << 8).shortstr("1").done()] {
        raw.publish(1, ("", &queue), 0, &properties, b"held");
        let held = raw.delivery(1);
        assert_eq!(held.text(), "held");
        raw.publish(1, ("", &queue), 0, &properties, b"waits");
        wait_for_count(&mut raw, &queue, 0);
        raw.method(1, id::BASIC_NACK, Bytes::new().longlong(held.tag).octet(2));
        raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"next");
        let next = raw.delivery(1);
        assert_eq!(next.text(), "next");
        raw.method(1, id::BASIC_ACK, Bytes::new().longlong(next.tag).octet(0));
    }
}

#[test]
fn a_transactions_messages_expire_as_others_do() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    for expiration in ["1", "600000", "30"] {
        raw.publish(1, ("", &queue), 0, &properties(expiration), expiration.as_bytes());
    }
    raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    if peer_is_set("RabbitMQ lets only the head expire") {
        return;
    }
    wait_for_count(&mut raw, &queue, 1);
    assert_eq!(raw.get(1, &queue, true).expect("a message").text(), "600000");
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
