//! Queues of which only one consumer at a time gets messages.

use crate::support::*;
use integration_tests::server::Server;
use integration_tests::unique;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

const ARGUMENT: &str = "x-single-active-consumer";

async fn single(channel: &Channel) -> String {
    queue_with(channel, QueueDeclareOptions::default(), table(ARGUMENT, true)).await
}

async fn send_all(channel: &Channel, queue: &str, count: usize) {
    for number in numbers(count) {
        send(channel, "", queue, &number).await;
    }
}

/// A consumer on a connection of its own.
async fn alone(server: &Server, queue: &str, arguments: FieldTable) -> (Channel, Consumer) {
    let channel = channel(server).await;
    let consumer = consume_with(&channel, queue, BasicConsumeOptions::default(), arguments).await;
    (channel, consumer)
}

#[test]
fn the_first_gets_everything_and_the_others_wait_in_order() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        let (first_channel, mut first) = alone(server, &queue, FieldTable::default()).await;
        let (second_channel, mut second) = alone(server, &queue, FieldTable::default()).await;
        let (_third_channel, mut third) = alone(server, &queue, FieldTable::default()).await;
        send_all(&channel, &queue, 6).await;
        assert_eq!(next_bodies(&mut first, 6).await, numbers(6));
        assert_eq!(counts(&channel, &queue).await, (0, 3), "those who wait count");
        assert_no_delivery(&second_channel, &mut second).await;

        // Its channel ends: what it has not settled comes first, to the one who came next.
        first_channel.close(200, "".into()).await.expect("close");
        for number in numbers(6) {
            let delivery = next(&mut second).await;
            assert_eq!((body(&delivery), delivery.redelivered), (number, true));
            ack(&delivery).await;
        }
        send(&channel, "", &queue, "six").await;
        let six = next(&mut second).await;
        assert_eq!(body(&six), "six");
        ack(&six).await;
        let tag = second.tag().as_str().to_owned();
        second_channel.basic_cancel(tag.as_str().into(), BasicCancelOptions::default()).await.expect("cancel");
        send(&channel, "", &queue, "seven").await;
        assert_eq!(body(&next(&mut third).await), "seven");
    });
}

#[test]
fn a_cancel_hands_over_and_keeps_what_is_out() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        let first_channel = crate::support::channel(server).await;
        first_channel.basic_qos(2, BasicQosOptions::default()).await.expect("qos");
        let mut first = consume_as(&first_channel, &queue, "one", BasicConsumeOptions::default()).await;
        send_all(&channel, &queue, 4).await;
        let held = [next(&mut first).await, next(&mut first).await];
        let (_second_channel, mut second) = alone(server, &queue, FieldTable::default()).await;
        assert_eq!(counts(&channel, &queue).await, (2, 2));
        first_channel.basic_cancel("one".into(), BasicCancelOptions::default()).await.expect("cancel");
        assert_eq!(next_bodies(&mut second, 2).await, ["2", "3"]);
        // They are still to be acknowledged by the one who has them.
        ack(&held[0]).await;
        first_channel.close(200, "".into()).await.expect("close");
        let back = next(&mut second).await;
        assert_eq!((body(&back).as_str(), back.redelivered), ("1", true));
    });
}

#[test]
fn a_lost_connection_hands_over_in_order() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        let mut raw = server.channel();
        raw.consume(1, &queue, "one", 0);
        let (_second_channel, mut second) = alone(server, &queue, FieldTable::default()).await;
        send_all(&channel, &queue, 100).await;
        for number in numbers(100) {
            assert_eq!(raw.delivery(1).content.body, number.as_bytes());
        }
        raw.abort();
        for number in numbers(100) {
            let delivery = next(&mut second).await;
            assert_eq!((body(&delivery), delivery.redelivered), (number, true));
        }
    });
}

#[test]
fn the_active_one_stays_active_without_credit() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        let first_channel = crate::support::channel(server).await;
        first_channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut first = consume(&first_channel, &queue, BasicConsumeOptions::default()).await;
        let (second_channel, mut second) = alone(server, &queue, FieldTable::default()).await;
        send_all(&channel, &queue, 3).await;
        for number in numbers(3) {
            let delivery = next(&mut first).await;
            assert_eq!(body(&delivery), number);
            assert_no_delivery(&second_channel, &mut second).await;
            ack(&delivery).await;
        }
    });
}

#[test]
fn the_highest_priority_takes_over_and_nobody_is_pushed_out() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        let priority = |priority: i32| table("x-priority", priority);
        let (first_channel, mut first) = alone(server, &queue, priority(1)).await;
        let (_low_channel, mut low) = alone(server, &queue, FieldTable::default()).await;
        let (high_channel, mut high) = alone(server, &queue, priority(5)).await;
        let (_late_channel, mut late) = alone(server, &queue, priority(5)).await;
        send(&channel, "", &queue, "a").await;
        let delivery = next(&mut first).await;
        assert_eq!(body(&delivery), "a");
        ack(&delivery).await;
        first_channel.close(200, "".into()).await.expect("close");
        // The channel is closed, and its consumer gone, before this is answered.
        send(&channel, "", &queue, "b").await;
        let delivery = next(&mut high).await;
        assert_eq!(body(&delivery), "b");
        ack(&delivery).await;
        high_channel.close(200, "".into()).await.expect("close");
        send(&channel, "", &queue, "c").await;
        assert_eq!(body(&next(&mut late).await), "c");
        drop(late);
        _late_channel.close(200, "".into()).await.expect("close");
        let back = next(&mut low).await;
        assert_eq!((body(&back).as_str(), back.redelivered), ("c", true));
    });
}

#[test]
fn an_exclusive_consumer_is_refused() {
    run(async |server| {
        let declaring = channel(server).await;
        let queue = single(&declaring).await;
        let exclusive = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let text = format!("ACCESS_REFUSED - queue '{queue}' in vhost '{}' in exclusive use", server.vhost());
        for _ in 0..2 {
            let channel = channel(server).await;
            let refused =
                channel.basic_consume(queue.as_str().into(), "".into(), exclusive, FieldTable::default()).await;
            assert_fails(refused.map(drop), 403, &text);
            // With somebody there it is no different.
            consume(&declaring, &queue, BasicConsumeOptions::default()).await;
        }
    });
}

#[test]
fn get_is_allowed_beside_it() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = single(&channel).await;
        send_all(&channel, &queue, 2).await;
        let other = crate::support::channel(server).await;
        other.basic_qos(1, BasicQosOptions::default()).await.expect("qos");
        let mut consumer = consume(&other, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(body(&next(&mut consumer).await), "0");
        assert_eq!(body(&get(&channel, &queue).await.expect("the other message").delivery), "1");
    });
}

#[test]
fn waiting_consumers_keep_an_auto_delete_queue_and_hear_of_its_deletion() {
    run(async |server| {
        let channel = confirming(server).await;
        let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = queue_with(&channel, options, table(ARGUMENT, true)).await;
        let (first_channel, first) = alone(server, &queue, FieldTable::default()).await;
        let mut waiting = server.channel();
        waiting.consume(1, &queue, "two", 0);
        drop(first);
        first_channel.close(200, "".into()).await.expect("close");
        assert_eq!(counts(&channel, &queue).await, (0, 1));
        let mut more = server.channel();
        more.consume(1, &queue, "three", 0);
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("delete");
        for (raw, tag) in [(&mut waiting, "two"), (&mut more, "three")] {
            let cancel = raw.expect(1, integration_tests::id::BASIC_CANCEL);
            assert_eq!(integration_tests::wire::Reader::new(&cancel).shortstr(), tag);
        }
    });
}

#[test]
fn what_the_argument_may_be() {
    run(async |server| {
        let vhost = server.vhost();
        for (value, kind) in [(text("true"), "longstr"), (AMQPValue::LongInt(1), "signedint")] {
            let channel = channel(server).await;
            let name = unique("queue");
            let refused = declare(&channel, &name, QueueDeclareOptions::default(), table(ARGUMENT, value)).await;
            let text = format!(
                "PRECONDITION_FAILED - invalid arg '{ARGUMENT}' for queue '{name}' in vhost '{vhost}': \
                 {{unacceptable_type,{kind}}}"
            );
            assert_fails(refused, 406, &text);
        }
        let declaring = channel(server).await;
        let on = single(&declaring).await;
        let off = queue_with(&declaring, QueueDeclareOptions::default(), table(ARGUMENT, false)).await;
        for (name, arguments, end) in [
            (&on, table(ARGUMENT, false), "received 'false' but current is 'true'"),
            (&on, FieldTable::default(), "received none but current is the value 'true' of type 'bool'"),
            (&off, table(ARGUMENT, true), "received 'true' but current is 'false'"),
        ] {
            let channel = channel(server).await;
            let refused = declare(&channel, name, QueueDeclareOptions::default(), arguments).await;
            let text = format!(
                "PRECONDITION_FAILED - inequivalent arg '{ARGUMENT}' for queue '{name}' in vhost '{vhost}': {end}"
            );
            assert_fails(refused, 406, &text);
        }
        // Switched off, it is an ordinary queue.
        let confirming = confirming(server).await;
        let mut consumers = Vec::new();
        for _ in 0..2 {
            consumers.push(alone(server, &off, FieldTable::default()).await);
        }
        send_all(&confirming, &off, 2).await;
        for (_, consumer) in &mut consumers {
            next(consumer).await;
        }
    });
}
