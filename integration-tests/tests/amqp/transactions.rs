//! tx: what a commit makes visible, what a rollback undoes.

use crate::support::*;
use futures_util::StreamExt;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES, PERSISTENT, Reader};
use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions};

#[test]
fn publishes_are_visible_at_commit() {
    run(async |server| {
        let connection = connect(server).await;
        let tx = transactional(&channel_of(&connection).await).await;
        let other = channel_of(&connection).await;
        let queue = queue(&other, QueueDeclareOptions::default()).await;
        let mut consumer = consume(&other, &queue, no_ack()).await;
        for number in numbers(3) {
            publish(&tx, "", &queue, &number).await;
        }
        // The answer on the transactional channel shows that its publishes were handled.
        assert_eq!(counts(&tx, &queue).await, (0, 1));
        assert_no_delivery(&other, &mut consumer).await;
        tx.tx_commit().await.expect("commit");
        assert_eq!(next_bodies(&mut consumer, 3).await, numbers(3));
        tx.tx_commit().await.expect("an empty commit");
    });
}

#[test]
fn a_rollback_forgets_the_publishes() {
    run(async |server| {
        let tx = transactional(&channel(server).await).await;
        let queue = queue(&tx, QueueDeclareOptions::default()).await;
        publish(&tx, "", &queue, "never").await;
        tx.tx_rollback().await.expect("rollback");
        publish(&tx, "", &queue, "once").await;
        tx.tx_commit().await.expect("commit");
        tx.tx_commit().await.expect("commit");
        assert_eq!(drain(&tx, &queue).await, ["once"]);
    });
}

#[test]
fn closing_the_channel_rolls_back() {
    run(async |server| {
        let connection = connect(server).await;
        let other = channel_of(&connection).await;
        let queue = queue(&other, QueueDeclareOptions::default()).await;
        publish(&other, "", &queue, "before").await;
        let tx = transactional(&channel_of(&connection).await).await;
        let message = loop {
            // The publish was on another channel; get it as soon as it is there.
            if let Some(message) = get(&tx, &queue).await {
                break message;
            }
        };
        ack(&message.delivery).await;
        publish(&tx, "", &queue, "never").await;
        tx.close(200, "bye".into()).await.expect("channel.close");
        let again = get(&other, &queue).await.expect("back again");
        assert_eq!(body(&again.delivery), "before");
        assert!(again.redelivered);
        assert!(get(&other, &queue).await.is_none());
    });
}

#[test]
fn acks_take_effect_at_commit() {
    run(async |server| {
        let connection = connect(server).await;
        let tx = transactional(&channel_of(&connection).await).await;
        let queue = queue(&tx, QueueDeclareOptions::default()).await;
        for number in numbers(4) {
            publish(&tx, "", &queue, &number).await;
        }
        tx.tx_commit().await.expect("commit");
        let mut messages = Vec::new();
        for _ in 0..4 {
            messages.push(get(&tx, &queue).await.expect("a message"));
        }
        ack(&messages[0].delivery).await;
        ack(&messages[1].delivery).await;
        tx.tx_commit().await.expect("commit");
        ack(&messages[2].delivery).await;
        // Not committed, so it comes back with the other one.
        tx.close(200, "bye".into()).await.expect("channel.close");
        let other = channel_of(&connection).await;
        assert_eq!(drain(&other, &queue).await, ["2", "3"]);
    });
}

#[test]
fn a_rollback_makes_the_tags_valid_again() {
    run(async |server| {
        let channel = transactional(&channel(server).await).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for number in numbers(3) {
            publish(&channel, "", &queue, &number).await;
        }
        channel.tx_commit().await.expect("commit");
        let qos = BasicQosOptions { global: false };
        channel.basic_qos(1, qos).await.expect("qos");
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let first = next(&mut consumer).await;
        let options = Default::default();
        channel.basic_ack(first.delivery_tag, options).await.expect("ack");
        channel.tx_rollback().await.expect("rollback");
        // Not redelivered, and still counted against the prefetch.
        assert_no_delivery(&channel, &mut consumer).await;
        channel.basic_ack(first.delivery_tag, options).await.expect("ack");
        channel.tx_commit().await.expect("commit");
        assert_eq!(body(&next(&mut consumer).await), "1");
    });
}

#[test]
fn nacks_take_effect_at_commit() {
    run(async |server| {
        let channel = transactional(&channel(server).await).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        publish(&channel, "", &queue, "0").await;
        channel.tx_commit().await.expect("commit");
        let mut consumer = consume(&channel, &queue, BasicConsumeOptions::default()).await;
        let first = next(&mut consumer).await;
        let nack = BasicNackOptions { multiple: false, requeue: true };
        first.nack(nack).await.expect("nack");
        assert_no_delivery(&channel, &mut consumer).await;
        channel.tx_commit().await.expect("commit");
        let again = consumer.next().await.expect("open").expect("a delivery");
        assert_eq!((body(&again), again.redelivered), ("0".to_owned(), true));
    });
}

#[test]
fn an_unknown_tag_fails_at_once() {
    let server = server();
    let mut raw = selected(&server);
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    call(&mut raw, id::TX_COMMIT, id::TX_COMMIT_OK);
    raw.get(1, &queue, false).expect("a message");
    let ack = Bytes::new().longlong(1).octet(0);
    raw.method(1, id::BASIC_ACK, &ack);
    raw.method(1, id::BASIC_ACK, &ack);
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - unknown delivery tag 1", id::BASIC_ACK);
}

#[test]
fn publishes_are_checked_when_they_come() {
    let server = server();
    let mut raw = selected(&server);
    let queue = raw.declare(1, &unique("queue"), 0).0;
    let exchange = unique("missing");
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"rolled back with the channel");
    raw.publish(1, (&exchange, ""), 0, NO_PROPERTIES, b"x");
    let text = format!("NOT_FOUND - no exchange '{exchange}' in vhost '{}'", server.vhost());
    raw.expect_channel_close(1, 404, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    assert_eq!(raw.declare(1, &queue, 1).1, 0);
}

#[test]
fn returns_come_at_commit_before_commit_ok() {
    let server = server();
    let mut raw = selected(&server);
    let key = unique("nowhere");
    raw.publish(1, ("", &key), 1, PERSISTENT, b"first");
    raw.publish(1, ("", &key), 1, NO_PROPERTIES, b"second");
    raw.fence(1);
    raw.method(1, id::TX_COMMIT, []);
    for expected in [&b"first"[..], b"second"] {
        let arguments = raw.expect(1, id::BASIC_RETURN);
        let mut reader = Reader::new(&arguments);
        assert_eq!(reader.short(), 312);
        assert_eq!(reader.shortstr(), "NO_ROUTE");
        assert_eq!(raw.read_content(1).body, expected);
    }
    raw.expect(1, id::TX_COMMIT_OK);
    // A rollback returns nothing.
    raw.publish(1, ("", &key), 1, NO_PROPERTIES, b"third");
    call(&mut raw, id::TX_ROLLBACK, id::TX_ROLLBACK_OK);
}

#[test]
fn commit_and_rollback_need_a_transactional_channel() {
    let server = server();
    let mut raw = server.channel();
    for id in [id::TX_COMMIT, id::TX_ROLLBACK] {
        raw.method(1, id, []);
        raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - channel is not transactional", id);
        raw.open_channel(1);
    }
}

#[test]
fn routing_is_decided_when_the_publish_comes() {
    let server = server();
    let mut raw = selected(&server);
    let queue = raw.exclusive_queue(1);
    let exchange = unique("exchange");
    raw.exchange(1, &exchange, "fanout", 0);
    raw.publish(1, (&exchange, ""), 0, NO_PROPERTIES, b"before the binding");
    raw.bind(1, &queue, &exchange, "", &[]);
    raw.publish(1, (&exchange, ""), 0, NO_PROPERTIES, b"after it");
    call(&mut raw, id::TX_COMMIT, id::TX_COMMIT_OK);
    let message = raw.get(1, &queue, true).expect("a message");
    assert_eq!(message.text(), "after it");
    assert!(raw.get(1, &queue, true).is_none());
}

#[test]
fn a_committed_transaction_survives_kill_9() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let broker = launch().start();
    let queues = ["one", "two"];
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    for queue in queues {
        raw.declare(1, queue, 2);
    }
    call(&mut raw, id::TX_SELECT, id::TX_SELECT_OK);
    for number in numbers(10) {
        for queue in queues {
            raw.publish(1, ("", queue), 0, PERSISTENT, number.as_bytes());
        }
    }
    call(&mut raw, id::TX_COMMIT, id::TX_COMMIT_OK);
    let message = raw.get(1, "one", false).expect("a message");
    let ack = Bytes::new().longlong(message.tag).octet(0);
    raw.method(1, id::BASIC_ACK, ack);
    call(&mut raw, id::TX_COMMIT, id::TX_COMMIT_OK);
    raw.publish(1, ("", "two"), 0, PERSISTENT, b"not committed");
    raw.fence(1);

    let server = Server::own(broker.kill9());
    let mut raw = server.channel();
    let bodies = |raw: &mut Raw, queue| {
        let mut bodies = Vec::new();
        while let Some(message) = raw.get(1, queue, true) {
            bodies.push(message.text().to_owned());
        }
        bodies
    };
    assert_eq!(bodies(&mut raw, "one"), numbers(10)[1..]);
    assert_eq!(bodies(&mut raw, "two"), numbers(10));
}

async fn transactional(channel: &lapin::Channel) -> lapin::Channel {
    channel.tx_select().await.expect("tx.select");
    channel.clone()
}

fn selected(server: &Server) -> Raw {
    let mut raw = server.channel();
    call(&mut raw, id::TX_SELECT, id::TX_SELECT_OK);
    raw
}

#[track_caller]
fn call(raw: &mut Raw, id: id::Id, answer: id::Id) {
    raw.call(1, id, [], answer);
}
