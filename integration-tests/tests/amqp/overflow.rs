//! What becomes of messages for which a queue has no room: which ones go, where to, and what publishers are told.

use crate::deaths::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::options::{BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// A queue of this length whose dead letters go to another one.
async fn limited(channel: &Channel, max: i64, overflow: &str, dead: &str) -> String {
    let arguments = tables([
        ("x-max-length", number(max)),
        ("x-overflow", text(overflow)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(dead)),
    ]);
    queue_with(channel, durable(), arguments).await
}

async fn is_taken(channel: &Channel, exchange: &str, key: &str, body: &str) -> bool {
    let confirm = publish(channel, exchange, key, body).await.await.expect("a confirm");
    matches!(confirm, Confirmation::Ack(_))
}

#[test]
fn what_is_dropped_says_why() {
    run(async |server| {
        let channel = confirming(server).await;
        let dead = queue(&channel, durable()).await;
        for (overflow, max, gone) in [("drop-head", 1, "m1"), ("reject-publish-dlx", 1, "m2"), ("drop-head", 0, "m1")] {
            let queue = limited(&channel, max, overflow, &dead).await;
            send_with(&channel, "", &queue, "m1", persistent()).await;
            publish_with(&channel, "", &queue, "m2", persistent()).await.await.expect("a confirm");
            let message = got(&channel, &dead).await;
            assert_eq!(body(&message), gone, "{overflow} {max}");
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("", dead.as_str()));
            assert!(!message.redelivered);
            assert_eq!(deaths(&message), [death(&queue, "maxlen", 1, "", &[&queue])]);
            let maxlen = ["maxlen", queue.as_str(), ""];
            assert_first_and_last(&message, maxlen, maxlen);
            assert_eq!(headers_of(&message).inner().len(), 7);
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("queue.delete");
            channel.queue_purge(dead.as_str().into(), QueuePurgeOptions::default()).await.expect("queue.purge");
        }
    });
}

#[test]
fn the_oldest_go_in_their_order() {
    run(async |server| {
        let channel = confirming(server).await;
        let dead = queue(&channel, durable()).await;
        let queue = limited(&channel, 2, "drop-head", &dead).await;
        for body in ["m1", "m2", "m3", "m4", "m5"] {
            send(&channel, "", &queue, body).await;
        }
        let mut gone = Vec::new();
        for _ in 0..3 {
            gone.push(body(&got(&channel, &dead).await));
        }
        assert_eq!(gone, ["m1", "m2", "m3"]);
        assert_eq!(drain(&channel, &queue).await, ["m4", "m5"]);
    });
}

#[test]
fn the_head_is_the_highest_priority() {
    run(async |server| {
        let channel = confirming(server).await;
        for limit in ["x-max-length", "x-max-length-bytes"] {
            let arguments = tables([("x-max-priority", number(5)), (limit, number(3))]);
            let queue = queue_with(&channel, durable(), arguments).await;
            for (place, priority) in [5u8, 1, 3, 2, 4].into_iter().enumerate() {
                let properties = BasicProperties::default().with_priority(priority);
                let properties = properties.with_delivery_mode(place as u8 % 2 + 1);
                send_with(&channel, "", &queue, &priority.to_string(), properties).await;
            }
            assert_eq!(drain(&channel, &queue).await, ["3", "2", "1"], "{limit}");
        }
    });
}

#[test]
fn only_bodies_count() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue_with(&channel, durable(), table("x-max-length-bytes", number(10))).await;
        let properties = || BasicProperties::default().with_message_id("a long id of a message".into());
        for body in ["1234", "5678", "", "90ab"] {
            send_with(&channel, "", &queue, body, properties()).await;
        }
        assert_eq!(drain(&channel, &queue).await, ["5678", "", "90ab"]);
        // One that is too large by itself takes all before it along.
        for body in ["1234", "", "12345678901"] {
            send_with(&channel, "", &queue, body, properties()).await;
        }
        assert_eq!(counts(&channel, &queue).await, (0, 0));
    });
}

#[test]
fn both_lengths_hold() {
    run(async |server| {
        let channel = confirming(server).await;
        let arguments = tables([("x-max-length", number(3)), ("x-max-length-bytes", number(4))]);
        let queue = queue_with(&channel, durable(), arguments).await;
        for (body, left) in [("1", 1), ("2", 2), ("3", 3), ("4", 3), ("55", 3), ("66", 2), ("", 3), ("", 3)] {
            send(&channel, "", &queue, body).await;
            assert_eq!(counts(&channel, &queue).await, (left, 0), "after {body:?}");
        }
        assert_eq!(drain(&channel, &queue).await, ["66", "", ""]);
    });
}

#[test]
fn what_comes_back_may_be_too_much() {
    run(async |server| {
        let channel = confirming(server).await;
        let dead = queue(&channel, durable()).await;
        for overflow in ["drop-head", "reject-publish"] {
            let queue = limited(&channel, 2, overflow, &dead).await;
            send(&channel, "", &queue, "m1").await;
            send(&channel, "", &queue, "m2").await;
            let held = get(&channel, &queue).await.expect("a message").delivery;
            get(&channel, &queue).await.expect("a message");
            send(&channel, "", &queue, "m3").await;
            send(&channel, "", &queue, "m4").await;
            held.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.expect("basic.nack");
            if overflow == "drop-head" {
                let gone = got(&channel, &dead).await;
                assert_eq!(body(&gone), "m1");
                assert_eq!(deaths(&gone), [death(&queue, "maxlen", 1, "", &[&queue])]);
                assert_eq!(drain(&channel, &queue).await, ["m3", "m4"]);
            } else {
                // Nothing leaves a queue that refuses.
                assert_eq!(drain(&channel, &queue).await, ["m1", "m3", "m4"]);
            }
        }
    });
}

#[test]
fn one_queue_without_room_is_enough_for_a_nack() {
    run(async |server| {
        let channel = confirming(server).await;
        let dead = queue(&channel, durable()).await;
        let full = limited(&channel, 1, "reject-publish", &dead).await;
        let fuller = limited(&channel, 0, "reject-publish-dlx", &dead).await;
        let open = queue(&channel, durable()).await;
        let exchange = exchange(&channel, ExchangeKind::Fanout).await;
        for queue in [&full, &open] {
            bind(&channel, queue, &exchange, "").await;
        }
        assert!(is_taken(&channel, &exchange, "", "m1").await);
        assert!(!is_taken(&channel, &exchange, "", "m2").await);
        bind(&channel, &fuller, &exchange, "").await;
        assert!(!is_taken(&channel, &exchange, "", "m3").await);
        assert_eq!(drain(&channel, &full).await, ["m1"]);
        assert_eq!(drain(&channel, &open).await, ["m1", "m2", "m3"]);
        let gone = got(&channel, &dead).await;
        assert_eq!(body(&gone), "m3");
        assert_eq!(deaths(&gone), [death(&fuller, "maxlen", 1, &exchange, &[""])]);
        // There is room again in one of them.
        assert!(!is_taken(&channel, &exchange, "", "m4").await);
        assert_eq!(drain(&channel, &full).await, ["m4"]);
    });
}

#[test]
fn a_dead_letter_without_room_is_gone() {
    run(async |server| {
        let channel = confirming(server).await;
        let nobody = queue(&channel, durable()).await;
        let full = limited(&channel, 1, "reject-publish", &nobody).await;
        let queue = limited(&channel, 1, "drop-head", &full).await;
        for body in ["m1", "m2", "m3"] {
            send_with(&channel, "", &queue, body, persistent()).await;
        }
        assert_eq!(body(&got(&channel, &full).await), "m1");
        assert_eq!(drain(&channel, &queue).await, ["m3"]);
        assert_eq!(counts(&channel, &nobody).await, (0, 0));
    });
}

#[test]
fn what_a_transaction_has_room_for_stays() {
    let server = server();
    let mut raw = server.channel();
    let (full, open) = (unique("queue"), unique("queue"));
    let limits = Bytes::new().field("x-max-length", b'I').long(1).field("x-overflow", b'S').longstr("reject-publish");
    raw.send_declare(1, &full, 2, limits.as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.declare(1, &open, 2);
    raw.publish(1, ("", &open), 0, NO_PROPERTIES, b"acknowledged");
    let tag = raw.get(1, &open, false).expect("a message").tag;
    raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    for body in ["f1", "f2"] {
        raw.publish(1, ("", &full), 0, NO_PROPERTIES, body.as_bytes());
    }
    raw.publish(1, ("", &open), 0, NO_PROPERTIES, b"o1");
    raw.publish(1, ("", &unique("nobody")), 1, NO_PROPERTIES, b"returned");
    raw.method(1, id::BASIC_ACK, Bytes::new().longlong(tag).octet(0));
    raw.method(1, id::TX_COMMIT, []);
    raw.expect(1, id::BASIC_RETURN);
    assert_eq!(raw.read_content(1).body, b"returned");
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - partial tx completion", id::TX_COMMIT);
    raw.open_channel(1);
    let mut left = |queue| raw.get(1, queue, true).map(|message| message.text().to_owned());
    assert_eq!([left(&full), left(&full)], [Some("f1".into()), None]);
    assert_eq!([left(&open), left(&open)], [Some("o1".into()), None]);
}

#[test]
fn a_transaction_pushes_out_what_is_there() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = queue_with(&channel, durable(), table("x-max-length", number(2))).await;
        channel.tx_select().await.expect("tx.select");
        for body in ["m1", "m2", "m3"] {
            publish(&channel, "", &queue, body).await;
        }
        channel.tx_commit().await.expect("tx.commit");
        assert_eq!(counts(&channel, &queue).await, (2, 0));
        publish(&channel, "", &queue, "m4").await;
        channel.tx_commit().await.expect("tx.commit");
        assert_eq!(drain(&channel, &queue).await, ["m3", "m4"]);
    });
}
