//! Publisher confirms and returns.

use crate::support::*;
use integration_tests::raw::Raw;
use integration_tests::wire::{NO_PROPERTIES, PERSISTENT, Reader};
use integration_tests::{id, unique};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use std::collections::BTreeSet;

#[test]
fn every_publish_is_confirmed() {
    run(async |server| {
        let channel = confirming(server).await;
        let durable = queue(&channel, QueueDeclareOptions::durable()).await;
        let transient = queue(&channel, QueueDeclareOptions::default()).await;
        for queue in [&durable, &transient] {
            bind(&channel, queue, "amq.fanout", "").await;
        }
        for exchange in ["", "amq.fanout"] {
            for properties in [BasicProperties::default(), persistent()] {
                for key in [&durable, &transient] {
                    send_with(&channel, exchange, key, "x", properties.clone()).await;
                }
            }
        }
        assert_eq!(counts(&channel, &durable).await, (6, 0));
        assert_eq!(counts(&channel, &transient).await, (6, 0));
    });
}

#[test]
fn confirms_count_from_the_first_select() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"before");
    select(&mut raw);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"first");
    assert_eq!(confirmed(&mut raw, 1), [1].into());
    select(&mut raw);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"second");
    assert_eq!(confirmed(&mut raw, 2), [2].into());
    // nowait: the next frame is the confirm.
    raw.method(1, id::CONFIRM_SELECT, [1]);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"third");
    assert_eq!(confirmed(&mut raw, 3), [3].into());
}

#[test]
fn pipelined_publishes_are_each_confirmed_once() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    select(&mut raw);
    for _ in 0..500 {
        raw.publish(1, ("", &queue), 0, PERSISTENT, b"x");
    }
    let mut open: BTreeSet<u64> = (1..=500).collect();
    while !open.is_empty() {
        let arguments = raw.expect(1, id::BASIC_ACK);
        let (tag, multiple) = read_ack(&arguments);
        if multiple {
            assert!(open.contains(&tag), "{tag} was confirmed already");
            open.retain(|other| *other > tag);
        } else {
            assert!(open.remove(&tag), "{tag} was confirmed already");
        }
    }
    raw.fence(1);
    assert_eq!(raw.declare(1, &queue, 2).1, 500);
}

#[test]
fn a_return_comes_before_its_confirm() {
    let server = server();
    let mut raw = server.channel();
    select(&mut raw);
    let key = unique("nowhere");
    raw.publish(1, ("", &key), 1, PERSISTENT, b"come back");
    let arguments = raw.expect(1, id::BASIC_RETURN);
    let mut reader = Reader::new(&arguments);
    assert_eq!(reader.short(), 312);
    assert_eq!(reader.shortstr(), "NO_ROUTE");
    assert_eq!(reader.shortstr(), "");
    assert_eq!(reader.shortstr(), key);
    let content = raw.read_content(1);
    assert_eq!(content.properties, PERSISTENT);
    assert_eq!(content.body, b"come back");
    assert_eq!(confirmed(&mut raw, 1), [1].into());
    // Without mandatory there is only the confirm.
    raw.publish(1, ("amq.topic", &key), 0, NO_PROPERTIES, b"lost");
    assert_eq!(confirmed(&mut raw, 2), [2].into());
}

#[test]
fn a_returned_message_is_handed_out_with_its_confirm() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let mandatory = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = BasicProperties::default().with_message_id("m1".into()).with_headers(table("k", text("v")));
        let publish = async |key: &str| {
            channel
                .basic_publish("amq.direct".into(), key.into(), mandatory, b"body", properties.clone())
                .await
                .expect("publish")
                .await
                .expect("confirm")
        };
        let Confirmation::Ack(Some(returned)) = publish("nobody").await else {
            panic!("it must come back");
        };
        assert_eq!(returned.reply_code, 312);
        assert_eq!(returned.reply_text.as_str(), "NO_ROUTE");
        assert_eq!(returned.exchange.as_str(), "amq.direct");
        assert_eq!(returned.routing_key.as_str(), "nobody");
        assert_eq!(returned.properties, properties);
        assert_eq!(body(&returned.delivery), "body");
        bind(&channel, &queue, "amq.direct", "somebody").await;
        assert_eq!(publish("somebody").await, Confirmation::Ack(None));
    });
}

#[test]
fn a_channel_confirms_or_is_transactional_never_both() {
    run(async |server| {
        let channel = confirming(server).await;
        assert_fails(channel.tx_select().await, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
        let channel = crate::support::channel(server).await;
        channel.tx_select().await.expect("tx.select");
        channel.tx_select().await.expect("tx.select again");
        assert_fails(
            channel.confirm_select(ConfirmSelectOptions::default()).await,
            406,
            "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
        );
    });
}

#[test]
fn publishes_before_a_failing_one_count() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    let exchange = unique("missing");
    for _ in 0..3 {
        raw.publish(1, ("", &queue), 0, PERSISTENT, b"before");
    }
    raw.publish(1, (&exchange, &queue), 0, PERSISTENT, b"bad");
    // Between the error and close-ok the channel ignores everything.
    raw.publish(1, ("", &queue), 0, PERSISTENT, b"after");
    let text = format!("NOT_FOUND - no exchange '{exchange}' in vhost '{}'", server.vhost());
    raw.expect_channel_close(1, 404, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    let mut bodies = Vec::new();
    while let Some(message) = raw.get(1, &queue, true) {
        bodies.push(message.text().to_owned());
    }
    assert_eq!(bodies, ["before"; 3]);
}

#[test]
fn a_publish_to_a_deleted_queue_is_confirmed() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::durable()).await;
        send_with(&channel, "", &queue, "kept", persistent()).await;
        let name = ShortString::from(queue.as_str());
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(name, options).await;
        assert_eq!(deleted.expect("delete"), 1);
        send_with(&channel, "", &queue, "dropped", persistent()).await;
    });
}

#[test]
fn confirms_do_not_wait_for_other_input() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    select(&mut raw);
    for tag in 1..=20 {
        raw.publish(1, ("", &queue), 0, PERSISTENT, b"x");
        assert_eq!(confirmed(&mut raw, tag), [tag].into());
    }
}

#[test]
fn a_consumer_can_have_the_message_before_its_publisher_has_the_confirm() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 2).0;
    raw.open_channel(2);
    raw.consume(2, &queue, "taker", 0);
    select(&mut raw);
    raw.publish(1, ("", &queue), 0, PERSISTENT, b"both");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = raw.read();
        if frame.id() == Some(id::BASIC_DELIVER) {
            raw.read_content(2);
        }
        seen.push((frame.channel, frame.id()));
    }
    seen.sort();
    assert_eq!(seen, [(1, Some(id::BASIC_ACK)), (2, Some(id::BASIC_DELIVER))]);
    raw.fence(1);
    raw.fence(2);
}

fn select(raw: &mut Raw) {
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
}

/// The tags one basic.ack confirms, when everything below `expected` is confirmed already.
#[track_caller]
fn confirmed(raw: &mut Raw, expected: u64) -> BTreeSet<u64> {
    let arguments = raw.expect(1, id::BASIC_ACK);
    let (tag, multiple) = read_ack(&arguments);
    let first = if multiple { expected } else { tag };
    (first..=tag).collect()
}

fn read_ack(arguments: &[u8]) -> (u64, bool) {
    let mut reader = Reader::new(arguments);
    (reader.longlong(), reader.octet() != 0)
}
