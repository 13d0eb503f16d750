//! Ack, nack, reject, recover: which tags are known, and where a message returns to.

use crate::support::*;
use futures_util::StreamExt;
use integration_tests::id::{self, Id};
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::options::{
    BasicConsumeOptions, BasicNackOptions, BasicRecoverOptions, BasicRejectOptions, QueueDeclareOptions,
};

#[test]
fn unknown_delivery_tags_close_the_channel() {
    let server = server();
    let mut raw = server.channel();
    let cases: [(Id, Vec<u8>, u64); 7] = [
        (id::BASIC_ACK, ack(7, 0), 7),
        (id::BASIC_ACK, ack(7, 1), 7),
        (id::BASIC_ACK, ack(0, 0), 0),
        (id::BASIC_REJECT, ack(8, 1), 8),
        (id::BASIC_NACK, ack(9, 0), 9),
        (id::BASIC_NACK, ack(9, 1), 9),
        (id::BASIC_ACK, ack(u64::MAX, 0), u64::MAX),
    ];
    for (id, arguments, tag) in cases {
        raw.method(1, id, arguments);
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
        raw.expect_channel_close(1, 406, &text, id);
        raw.open_channel(1);
    }
    // Tag 0 with multiple is everything that is outstanding, and nothing is fine.
    raw.method(1, id::BASIC_ACK, ack(0, 1));
    raw.method(1, id::BASIC_NACK, ack(0, 1));
    raw.fence(1);
}

#[test]
fn a_tag_is_settled_once_and_on_its_own_channel() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 5);
    raw.open_channel(2);
    for _ in 0..5 {
        raw.get(1, &queue, false).expect("a message");
    }
    raw.method(2, id::BASIC_ACK, ack(1, 0));
    raw.expect_channel_close(2, 406, "PRECONDITION_FAILED - unknown delivery tag 1", id::BASIC_ACK);
    raw.method(1, id::BASIC_ACK, ack(2, 1));
    raw.fence(1);
    raw.method(1, id::BASIC_ACK, ack(4, 0));
    raw.fence(1);
    // 4 itself is settled, so it cannot be the end of a range although 3 is open.
    raw.method(1, id::BASIC_ACK, ack(4, 1));
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - unknown delivery tag 4", id::BASIC_ACK);
    raw.open_channel(1);
    // The channel's end gave back what was open.
    assert_eq!(bodies(&mut raw, &queue), ["2", "4"]);
}

#[test]
fn a_multiple_ack_settles_everything_up_to_its_tag() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 6);
    for _ in 0..6 {
        raw.get(1, &queue, false).expect("a message");
    }
    raw.method(1, id::BASIC_ACK, ack(4, 1));
    raw.method(1, id::BASIC_NACK, ack(0, 0b11));
    raw.fence(1);
    assert_eq!(bodies(&mut raw, &queue), ["4", "5"]);
}

#[test]
fn requeued_messages_return_to_their_places() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 5);
    for _ in 0..4 {
        raw.get(1, &queue, false).expect("a message");
    }
    // nack of the third, then reject of the first: both in front of the last, in their own order.
    raw.method(1, id::BASIC_NACK, ack(3, 0b10));
    raw.fence(1);
    raw.method(1, id::BASIC_REJECT, ack(1, 1));
    raw.fence(1);
    let mut seen = Vec::new();
    while let Some(message) = raw.get(1, &queue, true) {
        seen.push((message.text().to_owned(), message.redelivered));
    }
    let expected = [("0", true), ("2", true), ("4", false)];
    assert_eq!(seen, expected.map(|(body, flag)| (body.to_owned(), flag)));
}

#[test]
fn what_is_rejected_without_requeue_is_gone() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 4);
    for _ in 0..4 {
        raw.get(1, &queue, false).expect("a message");
    }
    raw.method(1, id::BASIC_REJECT, ack(2, 0));
    raw.method(1, id::BASIC_NACK, ack(3, 0));
    raw.method(1, id::BASIC_NACK, ack(4, 0b11));
    raw.fence(1);
    assert_eq!(bodies(&mut raw, &queue), ["0", "3"]);
}

#[test]
fn recover_gives_back_everything_the_channel_holds() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for number in numbers(4) {
            send(&channel, "", &queue, &number).await;
        }
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let first = next(&mut consumer).await;
        assert_eq!(next_bodies(&mut consumer, 3).await, ["1", "2", "3"]);
        crate::support::ack(&first).await;
        let options = BasicRecoverOptions { requeue: true };
        channel.basic_recover(options).await.expect("recover");
        for (number, tag) in [("1", 5), ("2", 6), ("3", 7)] {
            let again = next(&mut consumer).await;
            assert_eq!(body(&again), number);
            assert_eq!((again.delivery_tag, again.redelivered), (tag, true));
        }
    });
}

#[test]
fn recover_async_has_no_answer() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 2);
    raw.get(1, &queue, false).expect("a message");
    raw.method(1, id::BASIC_RECOVER_ASYNC, [1]);
    raw.fence(1);
    assert_eq!(bodies(&mut raw, &queue), ["0", "1"]);
}

#[test]
fn recover_without_requeue_is_not_implemented() {
    let server = server();
    for id in [id::BASIC_RECOVER, id::BASIC_RECOVER_ASYNC] {
        let mut raw = server.channel();
        raw.method(1, id, [0]);
        raw.expect_connection_close(540, "NOT_IMPLEMENTED - requeue=false", id);
    }
}

#[test]
fn an_ack_for_a_message_of_a_deleted_queue_is_accepted() {
    let server = server();
    let mut raw = server.channel();
    let queue = fill(&mut raw, 2);
    let first = raw.get(1, &queue, false).expect("a message");
    raw.get(1, &queue, false).expect("a message");
    let arguments = Bytes::new().short(0).shortstr(&queue).octet(0);
    raw.call(1, id::QUEUE_DELETE, arguments, id::QUEUE_DELETE_OK);
    raw.method(1, id::BASIC_ACK, ack(first.tag, 0));
    raw.method(1, id::BASIC_NACK, ack(0, 0b11));
    raw.fence(1);
}

#[test]
fn a_requeued_message_goes_to_whoever_is_waiting() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        send(&channel, "", &queue, "0").await;
        let message = get(&channel, &queue).await.expect("a message");
        let mut waiting = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let options = BasicRejectOptions { requeue: true };
        message.reject(options).await.expect("reject");
        let again = waiting.next().await.expect("open").expect("a delivery");
        assert_eq!((body(&again), again.redelivered), ("0".to_owned(), true));
        let options = BasicNackOptions { multiple: false, requeue: false };
        again.nack(options).await.expect("nack");
        assert_no_delivery(&channel, &mut waiting).await;
        assert_eq!(counts(&channel, &queue).await, (0, 1));
    });
}

#[test]
fn many_messages_return_in_order() {
    run(async |server| {
        let publisher = confirming(server).await;
        let queue = queue(&publisher, QueueDeclareOptions::default()).await;
        let connection = connect(server).await;
        for number in numbers(1_000) {
            publish(&publisher, "", &queue, &number).await;
        }
        publisher.wait_for_confirms().await.expect("confirms");
        let taker = channel_of(&connection).await;
        let mut consumer = consume(&taker, &queue, BasicConsumeOptions::default()).await;
        let mut deliveries = Vec::new();
        for _ in 0..1_000 {
            deliveries.push(next(&mut consumer).await);
        }
        for delivery in deliveries.iter().filter(|delivery| delivery.delivery_tag % 3 == 0) {
            crate::support::ack(delivery).await;
        }
        connection.close(200, "bye".into()).await.expect("close");
        let expected: Vec<_> =
            (0..1_000).filter(|number| (number + 1) % 3 != 0).map(|number| number.to_string()).collect();
        assert_eq!(drain(&publisher, &queue).await, expected);
    });
}

/// Arguments of ack, nack and reject alike.
fn ack(tag: u64, bits: u8) -> Vec<u8> {
    Bytes::new().longlong(tag).octet(bits).done()
}

/// A queue with the bodies `0` to `count - 1`.
fn fill(raw: &mut Raw, count: usize) -> String {
    let queue = raw.declare(1, &unique("queue"), 0).0;
    for number in numbers(count) {
        raw.publish(1, ("", &queue), 0, NO_PROPERTIES, number.as_bytes());
    }
    queue
}

/// What is ready in the queue, in order.
fn bodies(raw: &mut Raw, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = raw.get(1, queue, true) {
        bodies.push(message.text().to_owned());
    }
    bodies
}
