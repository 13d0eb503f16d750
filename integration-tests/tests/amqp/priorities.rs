//! Queues that hand out messages by their priority.

use crate::support::*;
use integration_tests::unique;
use lapin::BasicProperties;
use lapin::Channel;
use lapin::options::{
    BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::AMQPValue;

fn priority(priority: u8) -> BasicProperties {
    BasicProperties::default().with_priority(priority)
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

async fn priority_queue(channel: &Channel, max: u8) -> String {
    queue_with(channel, durable(), table("x-max-priority", AMQPValue::ShortShortUInt(max))).await
}

/// Publishes bodies that say the priority.
async fn send_priorities(channel: &Channel, queue: &str, priorities: &[Option<u8>]) {
    for (number, wanted) in priorities.iter().enumerate() {
        let (text, properties) = match wanted {
            Some(wanted) => (format!("{wanted}/{number}"), priority(*wanted)),
            None => (format!("-/{number}"), BasicProperties::default()),
        };
        send_with(channel, "", queue, &text, properties.with_delivery_mode(number as u8 % 2 + 1)).await;
    }
}

#[test]
fn the_highest_priority_comes_first() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 5).await;
        send_priorities(&channel, &queue, &[Some(1), None, Some(9), Some(5), Some(0), Some(3), Some(5)]).await;
        // What is above the highest counts as the highest; nothing said is 0.
        assert_eq!(drain(&channel, &queue).await, ["9/2", "5/3", "5/6", "3/5", "1/0", "-/1", "0/4"]);
    });
}

#[test]
fn the_property_arrives_as_it_was_published() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 5).await;
        send_with(&channel, "", &queue, "x", priority(200)).await;
        let got = get(&channel, &queue).await.expect("the message");
        assert_eq!(got.delivery.properties.priority(), &Some(200));
    });
}

#[test]
fn all_levels_up_to_255() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 255).await;
        for level in 0..=255u8 {
            publish_with(&channel, "", &queue, &level.wrapping_mul(77).to_string(), priority(level.wrapping_mul(77)))
                .await;
        }
        send(&channel, "", &queue, "last").await;
        let expected: Vec<String> =
            (0..=255u8).rev().map(|level| level.to_string()).chain(["last".to_owned()]).collect();
        assert_eq!(drain(&channel, &queue).await, expected);
    });
}

#[test]
fn a_consumer_gets_the_highest_that_is_there() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 9).await;
        send_priorities(&channel, &queue, &[Some(1), Some(2), Some(3)]).await;
        let receiver = channel_of(&connect(server).await).await;
        receiver.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut consumer = consume(&receiver, &queue, BasicConsumeOptions::default()).await;
        let third = next(&mut consumer).await;
        assert_eq!(body(&third), "3/2");
        send_priorities(&channel, &queue, &[Some(8), Some(2)]).await;
        ack(&third).await;
        for expected in ["8/0", "2/1", "2/1", "1/0"] {
            let delivery = next(&mut consumer).await;
            assert_eq!(body(&delivery), expected);
            ack(&delivery).await;
        }
    });
}

#[test]
fn a_requeue_keeps_the_priority_and_the_place() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 9).await;
        send_priorities(&channel, &queue, &[Some(1), Some(5), Some(5), Some(5), Some(9)]).await;
        for _ in 0..3 {
            get(&channel, &queue).await.expect("a message");
        }
        // Everything that is out, at once.
        channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await.expect("nack");
        for (expected, redelivered) in [("9/4", true), ("5/1", true), ("5/2", true), ("5/3", false), ("1/0", false)] {
            let got = get(&channel, &queue).await.expect("a message").delivery;
            assert_eq!((body(&got).as_str(), got.redelivered), (expected, redelivered));
        }
    });
}

#[test]
fn counts_purge_and_delete_are_of_all_priorities() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 9).await;
        send_priorities(&channel, &queue, &[Some(1), Some(5), None, Some(9)]).await;
        assert_eq!(counts(&channel, &queue).await, (4, 0));
        let got = get(&channel, &queue).await.expect("a message");
        assert_eq!(got.message_count, 3);
        assert_eq!(channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.expect("purge"), 3);
        assert!(get(&channel, &queue).await.is_none());
        send_priorities(&channel, &queue, &[Some(1), Some(5)]).await;
        let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("delete");
        assert_eq!(deleted, 2);
    });
}

#[test]
fn each_priority_expires_by_itself() {
    if peer_is_set("RabbitMQ looks at the first message of the highest priority only") {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let queue = priority_queue(&channel, 9).await;
        for level in [1, 9] {
            send_with(&channel, "", &queue, "short", priority(level).with_expiration("1".into())).await;
            send_with(&channel, "", &queue, &format!("long {level}"), priority(level)).await;
        }
        while counts(&channel, &queue).await.0 > 2 {}
        assert_eq!(drain(&channel, &queue).await, ["long 9", "long 1"]);
    });
}

#[test]
fn a_transaction_is_delivered_by_priority() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = priority_queue(&channel, 9).await;
        channel.tx_select().await.expect("tx.select");
        for (level, mode) in [(1, 2), (9, 1), (5, 2), (9, 2)] {
            publish_with(&channel, "", &queue, &format!("{level}"), priority(level).with_delivery_mode(mode)).await;
        }
        assert_eq!(counts(&channel, &queue).await.0, 0);
        channel.tx_commit().await.expect("tx.commit");
        assert_eq!(drain(&channel, &queue).await, ["9", "9", "5", "1"]);
    });
}

#[test]
fn without_the_argument_priorities_mean_nothing() {
    run(async |server| {
        let channel = confirming(server).await;
        let priorities = [None, Some(1), Some(9), Some(0), None, Some(255)];
        let plain = queue(&channel, durable()).await;
        send_priorities(&channel, &plain, &priorities).await;
        assert_eq!(drain(&channel, &plain).await, ["-/0", "1/1", "9/2", "0/3", "-/4", "255/5"]);
        // With it there are two at least.
        for max in [0, 1] {
            let two = priority_queue(&channel, max).await;
            send_priorities(&channel, &two, &priorities).await;
            assert_eq!(drain(&channel, &two).await, ["1/1", "9/2", "255/5", "-/0", "0/3", "-/4"], "{max}");
        }
    });
}

#[test]
fn what_the_argument_may_be() {
    run(async |server| {
        for (value, reason) in [
            (AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (AMQPValue::LongInt(256), "{max_value_exceeded,256}"),
            (AMQPValue::LongLongInt(1 << 40), "{max_value_exceeded,1099511627776}"),
            (text("5"), "\"expected integer, got longstr\""),
            (AMQPValue::Boolean(true), "\"expected integer, got bool\""),
        ] {
            let channel = channel(server).await;
            let name = unique("queue");
            let refused = declare(&channel, &name, durable(), table("x-max-priority", value)).await;
            let vhost = server.vhost();
            let text = format!(
                "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue '{name}' in vhost '{vhost}': {reason}"
            );
            assert_fails(refused, 406, &text);
        }
    });
}

#[test]
fn a_redeclare_must_name_the_same_highest() {
    run(async |server| {
        let first = channel(server).await;
        let name = priority_queue(&first, 5).await;
        let again = declare(&first, &name, durable(), table("x-max-priority", AMQPValue::LongLongInt(5))).await;
        again.expect("any type of integer");
        let vhost = server.vhost();
        let start =
            format!("PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue '{name}' in vhost '{vhost}'");
        for (arguments, end) in [
            (table("x-max-priority", AMQPValue::LongInt(6)), "received '6' but current is '5'"),
            (table("x-max-priority", AMQPValue::LongInt(256)), "received '256' but current is '5'"),
            (Default::default(), "received none but current is the value '5' of type 'unsignedbyte'"),
        ] {
            let channel = channel(server).await;
            assert_fails(declare(&channel, &name, durable(), arguments).await, 406, &format!("{start}: {end}"));
        }
    });
}
