//! How many messages a queue holds, for how long, and for how long the queue itself is there.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::Confirmation;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::AMQPValue;

fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

#[test]
fn the_oldest_messages_go() {
    run(async |server| {
        let channel = confirming(server).await;
        for (argument, max) in [("x-max-length", 3), ("x-max-length-bytes", 6)] {
            let queue = queue_with(&channel, durable(), table(argument, number(max))).await;
            for (count, properties) in [lapin::BasicProperties::default(), persistent()].into_iter().enumerate() {
                for body in ["m1", "m2", "m3", "m4", "m5"] {
                    send_with(&channel, "", &queue, body, properties.clone()).await;
                }
                assert_eq!(counts(&channel, &queue).await, (3, 0), "{argument}, round {count}");
                assert_eq!(drain(&channel, &queue).await, ["m3", "m4", "m5"]);
            }
        }
    });
}

#[test]
fn what_is_delivered_does_not_count_until_it_is_back() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue_with(&channel, durable(), table("x-max-length", number(1))).await;
        send(&channel, "", &queue, "held").await;
        let held = get(&channel, &queue).await.expect("a message").delivery;
        send(&channel, "", &queue, "ready").await;
        assert_eq!(counts(&channel, &queue).await, (1, 0));
        held.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.expect("basic.nack");
        assert_eq!(drain(&channel, &queue).await, ["ready"]);
    });
}

#[test]
fn no_length_at_all() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue_with(&channel, durable(), table("x-max-length", number(0))).await;
        send(&channel, "", &queue, "dropped").await;
        assert!(get(&channel, &queue).await.is_none());
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        send(&channel, "", &queue, "taken").await;
        assert_eq!(next_bodies(&mut consumer, 1).await, ["taken"]);
    });
}

#[test]
fn new_messages_are_refused() {
    run(async |server| {
        let channel = confirming(server).await;
        let dead = queue(&channel, durable()).await;
        for (overflow, goes_on) in [("reject-publish", false), ("reject-publish-dlx", true)] {
            let arguments = tables([
                ("x-max-length", number(2)),
                ("x-overflow", text(overflow)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&dead)),
            ]);
            let queue = queue_with(&channel, durable(), arguments).await;
            for (body, expected) in [("m1", true), ("m2", true), ("m3", false), ("m4", false)] {
                let confirm = publish(&channel, "", &queue, body).await.await.expect("a confirm");
                assert_eq!(matches!(confirm, Confirmation::Ack(_)), expected, "{overflow}: {body}");
            }
            assert_eq!(drain(&channel, &queue).await, ["m1", "m2"]);
            while goes_on && counts(&channel, &dead).await != (2, 0) {}
            assert_eq!(drain(&channel, &dead).await, if goes_on { vec!["m3", "m4"] } else { Vec::new() });
            // There is room again.
            send(&channel, "", &queue, "m5").await;
        }
    });
}

#[test]
fn a_consumer_makes_no_room_for_what_is_refused() {
    run(async |server| {
        let channel = confirming(server).await;
        let arguments = tables([("x-max-length", number(0)), ("x-overflow", text("reject-publish"))]);
        let queue = queue_with(&channel, durable(), arguments).await;
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let confirm = publish(&channel, "", &queue, "m").await.await.expect("a confirm");
        assert!(matches!(confirm, Confirmation::Nack(_)), "{confirm:?}");
        assert_no_delivery(&channel, &mut consumer).await;
    });
}

#[test]
fn messages_wait_for_as_long_as_the_queue_lets_them() {
    run(async |server| {
        let only_heads_expire = peer_is_set("what expires in the middle of a queue");
        let channel = confirming(server).await;
        let short = queue_with(&channel, durable(), table("x-message-ttl", number(30))).await;
        let long = queue_with(&channel, durable(), table("x-message-ttl", number(600_000))).await;
        let exchange = exchange(&channel, lapin::ExchangeKind::Fanout).await;
        bind(&channel, &short, &exchange, "").await;
        bind(&channel, &long, &exchange, "").await;
        for properties in [lapin::BasicProperties::default(), persistent()] {
            // To one queue, and one message to two.
            send_with(&channel, "", &short, "a", properties.clone()).await;
            send_with(&channel, &exchange, "", "b", properties.clone()).await;
            if !only_heads_expire {
                send_with(&channel, "", &long, "c", properties.clone().with_expiration("30".into())).await;
            }
            while counts(&channel, &short).await != (0, 0) {}
            while counts(&channel, &long).await != (1, 0) {}
            assert_eq!(drain(&channel, &long).await, ["b"]);
        }
        let never = queue_with(&channel, durable(), table("x-message-ttl", number(0))).await;
        send(&channel, "", &never, "never").await;
        assert!(get(&channel, &never).await.is_none());
        let mut consumer = consume(&channel, &never, no_ack()).await;
        send(&channel, "", &never, "now").await;
        assert_eq!(next_bodies(&mut consumer, 1).await, ["now"]);
    });
}

/// Publishes to a queue until there is none of that name: a publish is no use of it.
#[track_caller]
fn wait_until_gone(raw: &mut Raw, queue: &str) {
    let started = std::time::Instant::now();
    loop {
        raw.publish(1, ("", queue), 1, NO_PROPERTIES, b"x");
        let frame = raw.read();
        if frame.id() == Some(id::BASIC_RETURN) {
            raw.read_content(1);
            raw.expect(1, id::BASIC_ACK);
            return;
        }
        // RabbitMQ refuses what comes at the very end.
        assert!(matches!(frame.id(), Some(id::BASIC_ACK | id::BASIC_NACK)), "{frame:?}");
        assert!(started.elapsed() < integration_tests::DEADLINE, "it never ended");
    }
}

#[test]
fn a_queue_that_nobody_uses_ends() {
    let server = server();
    let mut raw = server.channel();
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let queue = unique("queue");
    let arguments = Bytes::new().field("x-expires", b'I').long(50);
    raw.send_declare(1, &queue, 2, arguments.as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    wait_until_gone(&mut raw, &queue);
    // A consumer keeps it, and the last one that leaves starts the time.
    raw.send_declare(1, &queue, 2, arguments.as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.consume(1, &queue, "stays", 2);
    raw.call(1, id::BASIC_CANCEL, Bytes::new().shortstr("stays").octet(0), id::BASIC_CANCEL_OK);
    wait_until_gone(&mut raw, &queue);
}

#[test]
fn limits_are_compared_and_checked() {
    let server = server();
    let mut raw = server.channel();
    let (queue, vhost) = (unique("queue"), server.vhost());
    for (name, value, reason) in [
        ("x-message-ttl", -1_i32, "{value_negative,-1}"),
        ("x-expires", 0, "{value_zero,0}"),
        ("x-max-length", -1, "{value_negative,-1}"),
        ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ] {
        raw.send_declare(1, &queue, 2, Bytes::new().field(name, b'I').long(value.cast_unsigned()).as_ref());
        let text =
            format!("PRECONDITION_FAILED - invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {reason}");
        raw.expect_channel_close(1, 406, &text, id::QUEUE_DECLARE);
        raw.open_channel(1);
    }
    raw.send_declare(1, &queue, 2, Bytes::new().field("x-overflow", b'S').longstr("sideways").as_ref());
    let text = format!(
        "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue '{queue}' in vhost '{vhost}': invalid_overflow"
    );
    raw.expect_channel_close(1, 406, &text, id::QUEUE_DECLARE);
    raw.open_channel(1);
    raw.send_declare(1, &queue, 2, Bytes::new().field("x-max-length", b'I').long(5).as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.send_declare(1, &queue, 2, Bytes::new().field("x-max-length", b'l').longlong(5).as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.send_declare(1, &queue, 2, Bytes::new().field("x-max-length", b'I').long(6).as_ref());
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue}' in vhost '{vhost}': \
         received '6' but current is '5'"
    );
    raw.expect_channel_close(1, 406, &text, id::QUEUE_DECLARE);
}
