//! Who owns a queue, when it goes, and who is told.

use super::*;
use crate::support::*;
use futures_util::StreamExt;
use integration_tests::id::{self, Id};
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES, Reader};
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

#[test]
fn an_exclusive_queue_is_locked_for_others() {
    let server = server();
    let mut owner = server.channel();
    let mut other = server.channel();
    let queue = owner.exclusive_queue(1);
    let text = locked(&server, &queue);
    let declare = |bits: u8| Bytes::new().short(0).shortstr(&queue).octet(bits).table([]).done();
    let consume = Bytes::new().short(0).shortstr(&queue).shortstr("").octet(0).table([]);
    let bind = Bytes::new().short(0).shortstr(&queue).shortstr("amq.direct").shortstr("").octet(0).table([]);
    let attempts: [(Id, Vec<u8>); 8] = [
        (id::QUEUE_DECLARE, declare(EXCLUSIVE)),
        (id::QUEUE_DECLARE, declare(0)),
        (id::QUEUE_DECLARE, declare(PASSIVE)),
        (id::BASIC_GET, just_queue(&queue, 0)),
        (id::BASIC_CONSUME, consume.done()),
        (id::QUEUE_PURGE, just_queue(&queue, 0)),
        (id::QUEUE_DELETE, just_queue(&queue, 0)),
        (id::QUEUE_BIND, bind.done()),
    ];
    for (id, arguments) in attempts {
        other.method(1, id, arguments);
        other.expect_channel_close(1, 405, &text, id);
        other.open_channel(1);
    }
    // Anybody may publish to it.
    other.publish(1, ("", &queue), 0, NO_PROPERTIES, b"welcome");
    other.fence(1);
    other.close();
    let message = owner.get(1, &queue, true).expect("the message");
    assert_eq!(message.text(), "welcome");
    // Its owner may not take the lock off, and may use it on another channel.
    owner.send_declare(1, &queue, 0, &[]);
    owner.expect_channel_close(1, 405, &text, id::QUEUE_DECLARE);
    owner.open_channel(2);
    owner.declare(2, &queue, EXCLUSIVE);
}

#[test]
fn nobody_can_lock_a_queue_that_is_shared() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 0).0;
    raw.send_declare(1, &queue, EXCLUSIVE, &[]);
    raw.expect_channel_close(1, 405, &locked(&server, &queue), id::QUEUE_DECLARE);
}

#[test]
fn exclusive_queues_go_with_their_connection() {
    let server = server();
    let mut owner = server.channel();
    let queue = owner.exclusive_queue(1);
    // Closing the channel does not matter.
    let arguments = Bytes::new().short(200).shortstr("").long(0);
    owner.call(1, id::CHANNEL_CLOSE, arguments, id::CHANNEL_CLOSE_OK);
    owner.open_channel(1);
    owner.declare(1, &queue, EXCLUSIVE);
    owner.close();
    // They are gone when close-ok is there, so that the name is free at once.
    let mut next = server.channel();
    loop {
        next.send_declare(1, &queue, EXCLUSIVE, &[]);
        if next.read().id() == Some(id::QUEUE_DECLARE_OK) {
            break;
        }
        // Now and then RabbitMQ is not quite done.
        assert!(server.is_peer(), "the queue of a closed connection is still there");
        next.method(1, id::CHANNEL_CLOSE_OK, []);
        next.open_channel(1);
    }
    // And it was a new one, with no more of the old one than its name.
    next.declare(1, &queue, EXCLUSIVE);
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let server = server();
    let mut raw = server.channel();
    let missing = |raw: &mut Raw, queue: &str| {
        raw.send_declare(1, queue, PASSIVE, &[]);
        let text = not_found(&server, queue);
        raw.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
        raw.open_channel(1);
    };
    // By cancel: gone when cancel-ok is there.
    let queue = raw.declare(1, &unique("queue"), AUTO_DELETE).0;
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    raw.get(1, &queue, true).expect("get is no consumer");
    raw.declare(1, &queue, AUTO_DELETE);
    raw.consume(1, &queue, "one", 0);
    raw.consume(1, &queue, "two", 0);
    cancel(&mut raw, "one");
    raw.declare(1, &queue, PASSIVE);
    cancel(&mut raw, "two");
    missing(&mut raw, &queue);
    // By the end of the channel.
    let queue = raw.declare(1, &unique("queue"), AUTO_DELETE).0;
    raw.open_channel(2);
    raw.consume(2, &queue, "one", 0);
    let arguments = Bytes::new().short(200).shortstr("").long(0);
    raw.call(2, id::CHANNEL_CLOSE, arguments, id::CHANNEL_CLOSE_OK);
    missing(&mut raw, &queue);
    // By the end of the connection.
    let queue = raw.declare(1, &unique("queue"), AUTO_DELETE).0;
    let mut other = server.channel();
    other.consume(1, &queue, "one", 0);
    other.close();
    missing(&mut raw, &queue);
}

#[test]
fn consumers_are_told_when_their_queue_is_deleted() {
    run(async |server| {
        let connection = connect(server).await;
        let deleter = channel_of(&connection).await;
        let other = channel_of(&connection).await;
        let queue = queue(&deleter, QueueDeclareOptions::default()).await;
        let mut own = consume(&deleter, &queue, BasicConsumeOptions::default()).await;
        let mut others = consume(&other, &queue, BasicConsumeOptions::default()).await;
        let name = queue.as_str().into();
        let options = QueueDeleteOptions::default();
        assert_eq!(deleter.queue_delete(name, options).await.expect("delete"), 0);
        assert!(own.next().await.is_none());
        assert!(others.next().await.is_none());
    });
}

#[test]
fn delete_ok_comes_before_the_deleters_own_cancel() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.declare(1, &unique("queue"), 0).0;
    raw.consume(1, &queue, "mine", 0);
    raw.call(1, id::QUEUE_DELETE, just_queue(&queue, 0), id::QUEUE_DELETE_OK);
    let arguments = raw.expect(1, id::BASIC_CANCEL);
    let mut reader = Reader::new(&arguments);
    assert_eq!((reader.shortstr().as_str(), reader.octet()), ("mine", 1));
    // The tag is free again.
    let queue = raw.exclusive_queue(1);
    raw.consume(1, &queue, "mine", 0);
}

#[test]
fn only_clients_that_asked_are_told() {
    let server = server();
    let mut raw = server.connect();
    let mut handshake = integration_tests::raw::Handshake::plain("guest", "guest");
    handshake.properties.clear();
    raw.handshake(&handshake);
    raw.open(server.vhost());
    raw.open_channel(1);
    let queue = raw.declare(1, &unique("queue"), 0).0;
    raw.consume(1, &queue, "mine", 0);
    raw.call(1, id::QUEUE_DELETE, just_queue(&queue, 0), id::QUEUE_DELETE_OK);
    raw.fence(1);
    raw.fence(1);
}

#[test]
fn a_conditional_delete_says_why_not() {
    let server = server();
    let mut raw = server.channel();
    let (if_unused, if_empty) = (1, 2);
    let queue = raw.declare(1, &unique("queue"), 0).0;
    let refused = |raw: &mut Raw, bits, reason| {
        raw.method(1, id::QUEUE_DELETE, just_queue(&queue, bits));
        let text = format!("PRECONDITION_FAILED - queue '{queue}' in vhost '{}' {reason}", server.vhost());
        raw.expect_channel_close(1, 406, &text, id::QUEUE_DELETE);
        raw.open_channel(1);
    };
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"0");
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"1");
    raw.fence(1);
    refused(&mut raw, if_empty, "not empty");
    let mut user = server.channel();
    let qos = Bytes::new().long(0).short(1).octet(0);
    user.call(1, id::BASIC_QOS, qos, id::BASIC_QOS_OK);
    user.consume(1, &queue, "tag", 0);
    user.delivery(1);
    refused(&mut raw, if_unused, "in use");
    refused(&mut raw, if_unused | if_empty, "not empty");
    raw.get(1, &queue, true).expect("the second");
    // What is left is not acknowledged yet, and that counts as empty.
    let deleted = raw.call(1, id::QUEUE_DELETE, just_queue(&queue, if_empty), id::QUEUE_DELETE_OK);
    assert_eq!(Reader::new(&deleted).long(), 0);
    user.expect(1, id::BASIC_CANCEL);
    // Deleting what is missing is fine.
    raw.call(1, id::QUEUE_DELETE, just_queue(&queue, 3), id::QUEUE_DELETE_OK);
}

#[test]
fn delete_counts_what_was_ready() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        bind(&channel, &queue, "amq.fanout", "").await;
        for number in numbers(5) {
            send(&channel, "", &queue, &number).await;
        }
        let _held = get(&channel, &queue).await.expect("a message");
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(queue.as_str().into(), options).await;
        assert_eq!(deleted.expect("delete"), 4);
        // A queue of the same name starts from nothing: no messages, no bindings.
        let options = QueueDeclareOptions::default();
        let again = declare(&channel, &queue, options, FieldTable::default()).await;
        assert_eq!(again.expect("declare").message_count(), 0);
        send(&channel, "amq.fanout", "", "x").await;
        assert!(drain(&channel, &queue).await.is_empty());
    });
}

fn cancel(raw: &mut Raw, tag: &str) {
    let arguments = Bytes::new().shortstr(tag).octet(0);
    raw.call(1, id::BASIC_CANCEL, arguments, id::BASIC_CANCEL_OK);
}
