//! Deliveries that must be acknowledged in time. Off unless asked for; then the message alone goes back.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::AMQPValue;

const ARGUMENT: &str = "x-consumer-timeout";
const WHY: &str = "RabbitMQ's closes channels or cancels consumers, and its classic queues have none";
/// Nobody waits for this one in a test.
const LONG_MS: i32 = 3_600_000;

/// basic.qos for later consumers of the channel.
fn limit(raw: &mut Raw, prefetch: u16) {
    raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(prefetch).octet(0), id::BASIC_QOS_OK);
}

/// basic.ack.
fn ack_tag(raw: &mut Raw, tag: u64, multiple: bool) {
    raw.method(1, id::BASIC_ACK, Bytes::new().longlong(tag).octet(u8::from(multiple)));
}

/// A queue with a timeout.
fn limited(raw: &mut Raw, ms: u32) -> String {
    let queue = unique("queue");
    raw.send_declare(1, &queue, 0, Bytes::new().field(ARGUMENT, b'i').long(ms).as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    queue
}

#[test]
fn the_message_goes_back_and_nothing_else_happens() {
    if peer_is_set(WHY) {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let queue = limited(&mut raw, 50);
    limit(&mut raw, 1);
    raw.consume(1, &queue, "c", 0);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"slow");
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"next");
    let first = raw.delivery(1);
    assert_eq!((first.text(), first.tag, first.redelivered), ("slow", 1, false));
    // Back at its place, and out again to the only one there is.
    let again = raw.delivery(1);
    assert_eq!((again.text(), again.tag, again.redelivered), ("slow", 2, true));
    // The late acknowledgement is no error, and settles nothing.
    ack_tag(&mut raw, 1, false);
    ack_tag(&mut raw, 2, false);
    let next = raw.delivery(1);
    assert_eq!((next.text(), next.tag, next.redelivered), ("next", 3, false));
    ack_tag(&mut raw, 3, false);
    // A tag that never was is one as before.
    ack_tag(&mut raw, 77, false);
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - unknown delivery tag 77", id::BASIC_ACK);
    raw.open_channel(1);
    assert_eq!(raw.declare(1, &queue, 1), (queue.clone(), 0, 0));
}

#[test]
fn somebody_else_gets_it_first() {
    if peer_is_set(WHY) {
        return;
    }
    let server = server();
    let mut slow = server.channel();
    let queue = limited(&mut slow, 100);
    limit(&mut slow, 1);
    slow.consume(1, &queue, "slow", 0);
    slow.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    assert_eq!(slow.delivery(1).tag, 1);
    let mut other = server.channel();
    other.consume(1, &queue, "other", 0);
    let delivery = other.delivery(1);
    assert_eq!((delivery.text(), delivery.redelivered), ("x", true));
    ack_tag(&mut other, delivery.tag, false);
    other.fence(1);
    // A multiple acknowledgement up to a tag that went back covers what is before it.
    ack_tag(&mut slow, 1, true);
    slow.fence(1);
    assert_eq!(slow.declare(1, &queue, 1), (queue.clone(), 0, 2));
}

#[test]
fn a_consumer_may_have_a_time_of_its_own() {
    if peer_is_set(WHY) {
        return;
    }
    run(async |server| {
        let sender = confirming(server).await;
        let patient = queue_with(&sender, QueueDeclareOptions::default(), table(ARGUMENT, LONG_MS)).await;
        let plain = queue(&sender, QueueDeclareOptions::default()).await;
        let options = BasicConsumeOptions::default();
        for queue in [&patient, &plain] {
            let channel = channel(server).await;
            channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
            let mut hasty = consume_with(&channel, queue, options, table(ARGUMENT, 20)).await;
            send(&sender, "", queue, "x").await;
            assert!(!next(&mut hasty).await.redelivered);
            assert!(next(&mut hasty).await.redelivered);
            channel.close(200, "".into()).await.expect("close");
        }
        // Zero is for ever, also where the queue says something else.
        let hasty = queue_with(&sender, QueueDeclareOptions::default(), table(ARGUMENT, 20)).await;
        let channel = channel(server).await;
        channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut patient = consume_with(&channel, &hasty, options, table(ARGUMENT, 0)).await;
        send(&sender, "", &hasty, "first").await;
        assert_eq!(body(&next(&mut patient).await), "first");
        let other = crate::support::channel(server).await;
        other.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut limited = consume(&other, &hasty, options).await;
        for _ in 0..2 {
            send(&sender, "", &hasty, "more").await;
        }
        // Those of the other come back, and the first never does.
        for _ in 0..3 {
            assert_eq!(body(&next(&mut limited).await), "more");
        }
    });
}

#[test]
fn what_was_got_goes_back_too() {
    if peer_is_set(WHY) {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let queue = limited(&mut raw, 30);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    assert!(!raw.get(1, &queue, false).expect("the message").redelivered);
    let again = std::iter::from_fn(|| Some(raw.get(1, &queue, true))).flatten().next().expect("it comes back");
    assert!(again.redelivered);
    ack_tag(&mut raw, 1, false);
    assert_works(&mut raw, 1);
}

#[test]
fn a_transaction_holds_its_acknowledgements() {
    if peer_is_set(WHY) {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let queue = limited(&mut raw, 30);
    raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"one");
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"two");
    raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    assert_eq!(raw.get(1, &queue, false).expect("a message").text(), "one");
    ack_tag(&mut raw, 1, false);
    assert_eq!(raw.get(1, &queue, false).expect("a message").text(), "two");
    // Only what no acknowledgement waits for comes back.
    let again = std::iter::from_fn(|| Some(raw.get(1, &queue, false))).flatten().next().expect("it comes back");
    assert_eq!((again.text(), again.redelivered), ("two", true));
    ack_tag(&mut raw, again.tag, false);
    raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    assert_eq!(raw.declare(1, &queue, 1).1, 0);
}

#[test]
fn what_the_arguments_may_be() {
    if peer_is_set(WHY) {
        return;
    }
    run(async |server| {
        let vhost = server.vhost();
        for (value, reason) in
            [(AMQPValue::LongInt(-1), "{value_negative,-1}"), (text("1"), "\"expected integer, got longstr\"")]
        {
            let channel = channel(server).await;
            let name = unique("queue");
            let arguments = table(ARGUMENT, value);
            let refused = declare(&channel, &name, QueueDeclareOptions::default(), arguments.clone()).await;
            let text = |name: &str| {
                format!(
                    "PRECONDITION_FAILED - invalid arg '{ARGUMENT}' for queue '{name}' in vhost '{vhost}': {reason}"
                )
            };
            assert_fails(refused, 406, &text(&name));
            let channel = crate::support::channel(server).await;
            let queue = queue(&channel, QueueDeclareOptions::default()).await;
            let options = BasicConsumeOptions::default();
            let refused = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments).await;
            assert_fails(refused.map(drop), 406, &text(&queue));
        }
        let channel = channel(server).await;
        let name = queue_with(&channel, QueueDeclareOptions::default(), table(ARGUMENT, LONG_MS)).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{ARGUMENT}' for queue '{name}' in vhost '{vhost}': \
             received '5' but current is '{LONG_MS}'"
        );
        assert_fails(declare(&channel, &name, QueueDeclareOptions::default(), table(ARGUMENT, 5)).await, 406, &text);
    });
}
