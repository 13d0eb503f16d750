//! Consumers that come before others.

use crate::support::*;
use integration_tests::server::Server;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, Consumer};

async fn send_all(channel: &Channel, queue: &str, count: usize) {
    for number in numbers(count) {
        send(channel, "", queue, &number).await;
    }
}

/// A consumer with this priority and prefetch on a channel of its own.
async fn with_priority(server: &Server, queue: &str, priority: i32, prefetch: u16) -> (Channel, Consumer) {
    let channel = channel(server).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("qos");
    let consumer = consume_with(&channel, queue, BasicConsumeOptions::default(), table("x-priority", priority)).await;
    (channel, consumer)
}

#[test]
fn the_highest_gets_everything_while_it_has_credit() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let (low_channel, mut low) = with_priority(server, &queue, -3, 0).await;
        let default_channel = crate::support::channel(server).await;
        default_channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut default = consume(&default_channel, &queue, BasicConsumeOptions::default()).await;
        let (high_channel, mut high) = with_priority(server, &queue, 7, 2).await;

        send_all(&channel, &queue, 5).await;
        let first = next(&mut high).await;
        assert_eq!(body(&first), "0");
        assert_eq!(body(&next(&mut high).await), "1");
        assert_eq!(body(&next(&mut default).await), "2");
        assert_eq!(next_bodies(&mut low, 2).await, ["3", "4"]);
        assert_no_delivery(&high_channel, &mut high).await;
        assert_no_delivery(&default_channel, &mut default).await;

        // With credit again it is the first again.
        ack(&first).await;
        // An answer on the same channel: the acknowledgement has arrived.
        counts(&high_channel, &queue).await;
        send_all(&channel, &queue, 2).await;
        assert_eq!(body(&next(&mut high).await), "0");
        assert_eq!(body(&next(&mut low).await), "1");
        assert_no_delivery(&low_channel, &mut low).await;

        // When it is gone the next ones are served.
        let tag = high.tag().as_str().to_owned();
        high_channel.basic_cancel(tag.as_str().into(), BasicCancelOptions::default()).await.expect("cancel");
        send(&channel, "", &queue, "after").await;
        assert_eq!(body(&next(&mut low).await), "after");
    });
}

#[test]
fn equals_take_turns() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let (_low_channel, mut low) = with_priority(server, &queue, 0, 0).await;
        let (_a_channel, mut a) = with_priority(server, &queue, 2, 3).await;
        let (_b_channel, mut b) = with_priority(server, &queue, 2, 3).await;
        send_all(&channel, &queue, 8).await;
        assert_eq!(next_bodies(&mut a, 3).await, ["0", "2", "4"]);
        assert_eq!(next_bodies(&mut b, 3).await, ["1", "3", "5"]);
        assert_eq!(next_bodies(&mut low, 2).await, ["6", "7"]);
    });
}

#[test]
fn a_backlog_goes_to_the_highest_that_comes() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let (low_channel, mut low) = with_priority(server, &queue, 1, 1).await;
        send_all(&channel, &queue, 4).await;
        let first = next(&mut low).await;
        let (_high_channel, mut high) = with_priority(server, &queue, 2, 0).await;
        assert_eq!(next_bodies(&mut high, 3).await, ["1", "2", "3"]);
        ack(&first).await;
        assert_no_delivery(&low_channel, &mut low).await;
    });
}

#[test]
fn what_the_argument_may_be() {
    run(async |server| {
        let declaring = channel(server).await;
        let queue = queue(&declaring, QueueDeclareOptions::default()).await;
        for (value, kind) in
            [(text("1"), "longstr"), (AMQPValue::Boolean(true), "bool"), (AMQPValue::Double(1.0), "double")]
        {
            let channel = channel(server).await;
            let options = BasicConsumeOptions::default();
            let refused =
                channel.basic_consume(queue.as_str().into(), "".into(), options, table("x-priority", value)).await;
            let text = format!(
                "PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '{}': \
                 \"expected integer, got {kind}\"",
                server.vhost()
            );
            assert_fails(refused.map(drop), 406, &text);
        }
        let mut consumers = Vec::new();
        for value in [AMQPValue::ShortShortInt(-128), AMQPValue::LongLongInt(i64::MAX), AMQPValue::LongUInt(u32::MAX)] {
            let options = BasicConsumeOptions::default();
            consumers.push(consume_with(&declaring, &queue, options, table("x-priority", value)).await);
        }
        assert_eq!(counts(&declaring, &queue).await.1, 3);
    });
}
