//! Prefetch per consumer and per channel, and whose turn it is.

use crate::support::*;
use integration_tests::id;
use integration_tests::server::Server;
use integration_tests::wire::Bytes;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::{Channel, Consumer};

#[test]
fn prefetch_limits_what_a_consumer_holds() {
    run(async |server| {
        let (channel, queue) = filled(server, 10).await;
        qos(&channel, 3, false).await;
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let first = next(&mut consumer).await;
        assert_eq!(next_bodies(&mut consumer, 2).await, ["1", "2"]);
        assert_no_delivery(&channel, &mut consumer).await;
        assert_eq!(counts(&channel, &queue).await, (7, 1));

        ack(&first).await;
        let fourth = next(&mut consumer).await;
        assert_eq!(body(&fourth), "3");
        assert_no_delivery(&channel, &mut consumer).await;
        let reject = BasicRejectOptions { requeue: false };
        fourth.reject(reject).await.expect("reject");
        let fifth = next(&mut consumer).await;
        assert_eq!(body(&fifth), "4");
        assert_no_delivery(&channel, &mut consumer).await;
        // A requeued message frees credit like any other, and is the first in line for it.
        let nack = BasicNackOptions { multiple: false, requeue: true };
        fifth.nack(nack).await.expect("nack");
        let again = next(&mut consumer).await;
        assert_eq!((body(&again), again.redelivered), ("4".to_owned(), true));
        assert_no_delivery(&channel, &mut consumer).await;
    });
}

#[test]
fn a_multiple_ack_frees_all_it_covers() {
    run(async |server| {
        let (channel, queue) = filled(server, 10).await;
        qos(&channel, 4, false).await;
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut consumer, 4).await, numbers(4));
        ack_up_to(&channel, 3).await;
        assert_eq!(next_bodies(&mut consumer, 3).await, ["4", "5", "6"]);
        assert_no_delivery(&channel, &mut consumer).await;
        ack_up_to(&channel, 0).await;
        assert_eq!(next_bodies(&mut consumer, 3).await, ["7", "8", "9"]);
    });
}

#[test]
fn prefetch_holds_for_consumers_that_come_later() {
    run(async |server| {
        let (channel, queue) = filled(server, 20).await;
        qos(&channel, 2, false).await;
        let mut two = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut two, 2).await, ["0", "1"]);
        qos(&channel, 3, false).await;
        let mut three = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut three, 3).await, ["2", "3", "4"]);
        qos(&channel, 0, false).await;
        assert_no_delivery(&channel, &mut two).await;
        assert_no_delivery(&channel, &mut three).await;
        let mut all = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut all, 15).await, numbers(20)[5..]);
        assert_no_delivery(&channel, &mut two).await;
    });
}

#[test]
fn a_global_limit_is_shared_by_the_channel() {
    run(async |server| {
        let (channel, queue) = filled(server, 20).await;
        qos(&channel, 3, true).await;
        let mut one = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let first = next(&mut one).await;
        assert_eq!(next_bodies(&mut one, 2).await, ["1", "2"]);
        let mut two = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_no_delivery(&channel, &mut one).await;
        assert_no_delivery(&channel, &mut two).await;
        ack(&first).await;
        assert_eq!(merged(&mut one, &mut two).await, "3");
        assert_no_delivery(&channel, &mut one).await;
        assert_no_delivery(&channel, &mut two).await;
        // Raising the limit resumes at once.
        qos(&channel, 5, true).await;
        let mut more = [merged(&mut one, &mut two).await, merged(&mut one, &mut two).await];
        more.sort();
        assert_eq!(more, ["4", "5"]);
        assert_no_delivery(&channel, &mut one).await;
        assert_no_delivery(&channel, &mut two).await;
        // So does lifting it.
        qos(&channel, 0, true).await;
        let mut rest = Vec::new();
        for _ in 6..20 {
            rest.push(merged(&mut one, &mut two).await);
        }
        rest.sort_by_key(|body| body.parse::<u32>().ok());
        assert_eq!(rest, numbers(20)[6..]);
    });
}

#[test]
fn both_limits_hold_together() {
    run(async |server| {
        let (channel, queue) = filled(server, 10).await;
        qos(&channel, 2, false).await;
        qos(&channel, 3, true).await;
        let mut one = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut one, 2).await, ["0", "1"]);
        assert_no_delivery(&channel, &mut one).await;
        let mut two = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut two, 1).await, ["2"]);
        assert_no_delivery(&channel, &mut two).await;
        assert_no_delivery(&channel, &mut one).await;
    });
}

#[test]
fn a_global_limit_does_not_reach_other_channels() {
    run(async |server| {
        let (limited, queue) = filled(server, 10).await;
        qos(&limited, 1, true).await;
        let mut one = consume(&limited, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut one, 1).await, ["0"]);
        let free = channel(server).await;
        let mut two = consume(&free, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut two, 9).await, numbers(10)[1..]);
    });
}

#[test]
fn no_ack_consumers_have_no_limit() {
    run(async |server| {
        let (channel, queue) = filled(server, 50).await;
        qos(&channel, 1, false).await;
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        assert_eq!(next_bodies(&mut consumer, 50).await, numbers(50));
    });
}

#[test]
fn consumers_take_turns() {
    run(async |server| {
        let publisher = confirming(server).await;
        let connection = connect(server).await;
        let queue = queue(&publisher, QueueDeclareOptions::default()).await;
        let mut consumers = Vec::new();
        for _ in 0..3 {
            let channel = channel_of(&connection).await;
            consumers.push(consume(&channel, &queue, no_ack()).await);
        }
        for number in numbers(30) {
            send(&publisher, "", &queue, &number).await;
        }
        for (turn, consumer) in consumers.iter_mut().enumerate() {
            let expected: Vec<_> = (turn..30).step_by(3).map(|n| n.to_string()).collect();
            assert_eq!(next_bodies(consumer, 10).await, expected);
        }
    });
}

#[test]
fn consumers_of_one_channel_take_turns() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mut one = consume(&channel, &queue, no_ack()).await;
        let mut two = consume(&channel, &queue, no_ack()).await;
        for number in numbers(10) {
            publish(&channel, "", &queue, &number).await;
        }
        assert_eq!(next_bodies(&mut one, 5).await, ["0", "2", "4", "6", "8"]);
        assert_eq!(next_bodies(&mut two, 5).await, ["1", "3", "5", "7", "9"]);
    });
}

#[test]
fn a_consumer_without_credit_is_left_out() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        qos(&channel, 1, false).await;
        let mut slow = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let mut fast = consume(&channel, &queue, no_ack()).await;
        send(&channel, "", &queue, "first").await;
        let held = next(&mut slow).await;
        assert_eq!(body(&held), "first");
        for number in numbers(5) {
            send(&channel, "", &queue, &number).await;
        }
        assert_eq!(next_bodies(&mut fast, 5).await, numbers(5));
        ack(&held).await;
        // Its credit is back, and so is its place in the round.
        assert_no_delivery(&channel, &mut slow).await;
        send(&channel, "", &queue, "a").await;
        send(&channel, "", &queue, "b").await;
        let mut bodies = next_bodies(&mut slow, 1).await;
        bodies.extend(next_bodies(&mut fast, 1).await);
        bodies.sort();
        assert_eq!(bodies, ["a", "b"]);
    });
}

#[test]
fn a_cancelled_consumer_hands_nothing_on() {
    run(async |server| {
        let (channel, queue) = filled(server, 6).await;
        qos(&channel, 2, false).await;
        let mut one = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut one, 2).await, ["0", "1"]);
        channel.basic_cancel(one.tag(), Default::default()).await.expect("cancel");
        let mut two = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut two, 2).await, ["2", "3"]);
        assert_no_delivery(&channel, &mut two).await;
        // The first two are still its unacknowledged ones; closing the channel gives all back.
        ack_up_to(&channel, 2).await;
        assert_no_delivery(&channel, &mut two).await;
    });
}

#[test]
fn a_prefetch_size_is_not_implemented() {
    let server = server();
    let mut raw = server.channel();
    let arguments = Bytes::new().long(7).short(1).octet(0);
    raw.method(1, id::BASIC_QOS, arguments);
    raw.expect_connection_close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (7)", id::BASIC_QOS);
}

async fn qos(channel: &Channel, count: u16, global: bool) {
    channel.basic_qos(count, BasicQosOptions { global }).await.expect("basic.qos");
}

async fn ack_up_to(channel: &Channel, tag: u64) {
    let options = lapin::options::BasicAckOptions { multiple: true };
    channel.basic_ack(tag, options).await.expect("basic.ack");
}

/// A channel and a queue that holds `count` messages.
async fn filled(server: &Server, count: usize) -> (Channel, String) {
    let channel = confirming(server).await;
    let queue = queue(&channel, QueueDeclareOptions::default()).await;
    for number in numbers(count) {
        send(&channel, "", &queue, &number).await;
    }
    (channel, queue)
}

/// The next body either of them gets.
async fn merged(one: &mut Consumer, two: &mut Consumer) -> String {
    tokio::select! {
        delivery = next(one) => body(&delivery),
        delivery = next(two) => body(&delivery),
    }
}
