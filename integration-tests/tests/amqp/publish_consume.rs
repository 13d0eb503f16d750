//! From a publish to a delivery: content, order, tags, consumers coming and going.

use crate::support::*;
use futures_util::StreamExt;
use integration_tests::raw::Close;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use integration_tests::{id, unique};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

#[test]
fn a_delivery_says_where_its_message_came_from() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        bind(&channel, &queue, "amq.topic", "some.key").await;
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        publish(&channel, "amq.topic", "some.key", "hello").await;
        publish(&channel, "", &queue, "again").await;

        let first = next(&mut consumer).await;
        assert_eq!(first.exchange.as_str(), "amq.topic");
        assert_eq!(first.routing_key.as_str(), "some.key");
        assert_eq!((first.delivery_tag, first.redelivered), (1, false));
        assert_eq!(body(&first), "hello");
        let second = next(&mut consumer).await;
        assert_eq!(second.exchange.as_str(), "");
        assert_eq!(second.routing_key.as_str(), queue);
        assert_eq!((second.delivery_tag, second.redelivered), (2, false));
    });
}

#[test]
fn messages_of_one_publisher_keep_their_order() {
    run(async |server| {
        let publisher = channel(server).await;
        let receiver = channel(server).await;
        let queue = queue(&receiver, QueueDeclareOptions::default()).await;
        let mut consumer = consume(&receiver, &queue, no_ack()).await;
        let sent = numbers(2_000);
        for number in &sent {
            publish(&publisher, "", &queue, number).await;
        }
        assert_eq!(next_bodies(&mut consumer, sent.len()).await, sent);
    });
}

#[test]
fn a_new_consumer_gets_what_was_waiting() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for number in numbers(300) {
            send(&channel, "", &queue, &number).await;
        }
        assert_eq!(counts(&channel, &queue).await, (300, 0));
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        assert_eq!(next_bodies(&mut consumer, 300).await, numbers(300));
        assert_eq!(counts(&channel, &queue).await, (0, 1));
    });
}

#[test]
fn an_empty_body_is_a_message() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        publish(&channel, "", &queue, "").await;
        publish(&channel, "", &queue, "x").await;
        assert_eq!(next_bodies(&mut consumer, 2).await, ["", "x"]);
    });
}

#[test]
fn get_tells_how_many_are_left() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        assert!(get(&channel, &queue).await.is_none());
        for number in numbers(3) {
            send(&channel, "", &queue, &number).await;
        }
        for left in [2, 1, 0] {
            let message = get(&channel, &queue).await.expect("a message");
            assert_eq!(message.message_count, left);
            assert_eq!(message.delivery_tag, 3 - u64::from(left));
            assert!(!message.redelivered);
            assert_eq!(message.exchange.as_str(), "");
            assert_eq!(message.routing_key.as_str(), queue);
        }
        assert!(get(&channel, &queue).await.is_none());
    });
}

#[test]
fn delivery_tags_count_everything_the_channel_was_sent() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for number in numbers(4) {
            send(&channel, "", &queue, &number).await;
        }
        let without_ack = BasicGetOptions { no_ack: true };
        let first = channel.basic_get(queue.as_str().into(), without_ack).await;
        assert_eq!(first.expect("get").expect("message").delivery_tag, 1);
        let second = get(&channel, &queue).await.expect("a message");
        assert_eq!(second.delivery_tag, 2);
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        assert_eq!(next(&mut consumer).await.delivery_tag, 3);
        assert_eq!(next(&mut consumer).await.delivery_tag, 4);
    });
}

#[test]
fn server_named_consumers_have_recognisable_tags() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let first = consume(&channel, &queue, no_ack()).await.tag();
        let second = consume(&channel, &queue, no_ack()).await.tag();
        assert_ne!(first, second);
        for tag in [first, second] {
            let random = tag.as_str().strip_prefix("amq.ctag-").expect("the prefix");
            assert_eq!(random.len(), 22, "{tag}");
            assert!(random.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'), "{tag}");
        }
    });
}

#[test]
fn nothing_is_delivered_after_cancel_ok() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mut consumer = consume_as(&channel, &queue, "tag", Default::default()).await;
        send(&channel, "", &queue, "before").await;
        let before = next(&mut consumer).await;
        let cancel = async |tag: &str| {
            let options = BasicCancelOptions::default();
            channel.basic_cancel(tag.into(), options).await
        };
        cancel("tag").await.expect("cancel");
        send(&channel, "", &queue, "after").await;
        assert_eq!(counts(&channel, &queue).await, (1, 0));
        // What it had been sent stays unacknowledged, is not requeued, and can still be acknowledged.
        ack(&before).await;
        cancel("tag").await.expect("an unknown tag is no error");
        assert_eq!(drain(&channel, &queue).await, ["after"]);
        assert!(consumer.next().await.is_none());
    });
}

#[test]
fn a_consumer_tag_belongs_to_its_channel() {
    run(async |server| {
        let connection = connect(server).await;
        let one = channel_of(&connection).await;
        let two = channel_of(&connection).await;
        let queue = queue(&one, QueueDeclareOptions::default()).await;
        let mut first = consume_as(&one, &queue, "same", no_ack()).await;
        let mut second = consume_as(&two, &queue, "same", no_ack()).await;
        publish(&one, "", &queue, "0").await;
        publish(&one, "", &queue, "1").await;
        assert_eq!(body(&next(&mut first).await), "0");
        assert_eq!(body(&next(&mut second).await), "1");
    });
}

#[test]
fn a_consumer_tag_cannot_be_used_twice() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.consume(1, &queue, "same", 0);
    let arguments = consume_arguments(&queue, "same", 0);
    raw.method(1, id::BASIC_CONSUME, arguments);
    raw.expect_connection_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'same'", id::BASIC_CONSUME);
}

#[test]
fn missing_queues_and_exchanges_close_the_channel() {
    let server = server();
    let mut raw = server.channel();
    let vhost = server.vhost();
    let name = unique("missing");
    let no_queue = format!("NOT_FOUND - no queue '{name}' in vhost '{vhost}'");
    let no_exchange = format!("NOT_FOUND - no exchange '{name}' in vhost '{vhost}'");

    raw.method(1, id::BASIC_CONSUME, consume_arguments(&name, "", 0));
    raw.expect_channel_close(1, 404, &no_queue, id::BASIC_CONSUME);
    raw.open_channel(1);
    let get = Bytes::new().short(0).shortstr(&name).octet(0);
    raw.method(1, id::BASIC_GET, get);
    raw.expect_channel_close(1, 404, &no_queue, id::BASIC_GET);
    raw.open_channel(1);
    raw.publish(1, (&name, "key"), 0, NO_PROPERTIES, b"lost");
    raw.expect_channel_close(1, 404, &no_exchange, id::BASIC_PUBLISH);
    raw.open_channel(1);
    // The default exchange drops what no queue is named for.
    raw.publish(1, ("", &name), 0, NO_PROPERTIES, b"lost");
    raw.fence(1);
    assert_works(&mut raw, 1);
}

#[test]
fn immediate_is_not_implemented() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 2, NO_PROPERTIES, b"now");
    raw.expect_connection_close(540, "NOT_IMPLEMENTED - immediate=true", id::BASIC_PUBLISH);
}

#[test]
fn an_exclusive_consumer_is_alone() {
    run(async |server| {
        let connection = connect(server).await;
        let channel = channel_of(&connection).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let exclusive = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let refused = format!("ACCESS_REFUSED - queue '{queue}' in vhost '{}' in exclusive use", server.vhost());
        let try_to = async |options| {
            let other = channel_of(&connection).await;
            other.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await
        };
        // lapin cancels a consumer that is dropped.
        let _alone = consume_as(&channel, &queue, "alone", exclusive).await;
        assert_fails(try_to(no_ack()).await, 403, &refused);
        assert_fails(try_to(exclusive).await, 403, &refused);
        let options = BasicCancelOptions::default();
        channel.basic_cancel("alone".into(), options).await.expect("cancel");
        let _other = try_to(no_ack()).await.expect("free again");
        assert_fails(try_to(exclusive).await, 403, &refused);
    });
}

#[test]
fn what_was_not_acknowledged_comes_back_in_order() {
    run(async |server| {
        let connection = connect(server).await;
        let publisher = confirming(server).await;
        let queue = queue(&publisher, QueueDeclareOptions::default()).await;
        for number in numbers(6) {
            send(&publisher, "", &queue, &number).await;
        }
        let taker = channel_of(&connection).await;
        let mut consumer = consume(&taker, &queue, BasicConsumeOptions::default()).await;
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.push(next(&mut consumer).await);
        }
        ack(&taken[2]).await;
        taker.close(200, "bye".into()).await.expect("channel.close");

        let mut again = Vec::new();
        while let Some(message) = get(&publisher, &queue).await {
            assert!(message.redelivered);
            again.push(body(&message.delivery));
        }
        assert_eq!(again, ["0", "1", "3", "4", "5"]);
    });
}

#[test]
fn a_lost_connection_gives_its_messages_back() {
    let server = server();
    let mut keeper = server.channel();
    let queue = keeper.declare(1, &unique("queue"), 0).0;
    let mut taker = server.channel();
    keeper.consume(1, &queue, "keeper", 0);
    taker.consume(1, &queue, "taker", 0);
    for body in [b"0", b"1"] {
        keeper.publish(1, ("", &queue), 0, NO_PROPERTIES, body);
    }
    assert_eq!(keeper.delivery(1).text(), "0");
    assert_eq!(taker.delivery(1).text(), "1");
    taker.abort();
    let back = keeper.delivery(1);
    assert_eq!((back.text(), back.redelivered), ("1", true));
}

#[test]
fn a_message_without_acknowledgement_is_settled_when_it_is_sent() {
    run(async |server| {
        let connection = connect(server).await;
        let publisher = confirming(server).await;
        let queue = queue(&publisher, QueueDeclareOptions::default()).await;
        let taker = channel_of(&connection).await;
        let mut consumer = consume(&taker, &queue, no_ack()).await;
        send(&publisher, "", &queue, "gone").await;
        assert_eq!(body(&next(&mut consumer).await), "gone");
        taker.close(200, "bye".into()).await.expect("channel.close");
        assert_eq!(counts(&publisher, &queue).await, (0, 0));
    });
}

#[test]
fn a_stray_cancel_ok_is_an_error() {
    let server = server();
    let mut raw = server.channel();
    let tag = Bytes::new().shortstr("nobody");
    raw.method(1, id::BASIC_CANCEL_OK, tag);
    if server.is_peer() {
        // RabbitMQ's channel process crashes here.
        raw.expect_connection_close(541, "INTERNAL_ERROR", (0, 0));
    } else {
        let close = Close::new(503, "COMMAND_INVALID - unimplemented method", id::BASIC_CANCEL_OK);
        assert_eq!(raw.connection_close(), close);
    }
}

fn consume_arguments(queue: &str, tag: &str, bits: u8) -> Vec<u8> {
    Bytes::new().short(0).shortstr(queue).shortstr(tag).octet(bits).table([]).done()
}
