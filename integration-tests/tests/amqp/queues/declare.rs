//! Declaring and purging queues: names, counts, and what is said when something does not fit.

use super::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES, Reader};
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};

#[test]
fn declare_ok_counts_what_is_ready() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("queue");
    assert_eq!(raw.declare(1, &name, DURABLE), (name.clone(), 0, 0));
    for _ in 0..3 {
        raw.publish(1, ("", &name), 0, NO_PROPERTIES, b"x");
    }
    raw.get(1, &name, false).expect("a message");
    assert_eq!(raw.declare(1, &name, DURABLE), (name.clone(), 2, 0));
    raw.open_channel(2);
    raw.call(2, id::BASIC_QOS, Bytes::new().long(0).short(1).octet(0), id::BASIC_QOS_OK);
    raw.consume(2, &name, "tag", 0);
    raw.delivery(2);
    assert_eq!(raw.declare(1, &name, PASSIVE), (name, 1, 1));
}

#[test]
fn an_empty_name_asks_for_a_fresh_one() {
    let server = server();
    let mut raw = server.channel();
    let (first, _, _) = raw.declare(1, "", EXCLUSIVE);
    let (second, _, _) = raw.declare(1, "", 0);
    assert_ne!(first, second);
    for name in [&first, &second] {
        let random = name.strip_prefix("amq.gen-").expect("the prefix");
        assert_eq!(random.len(), 22, "{name}");
    }
    // Not even its owner may declare it again by name.
    raw.send_declare(1, &second, 0, &[]);
    let text = format!("ACCESS_REFUSED - queue name '{second}' contains reserved prefix 'amq.*'");
    raw.expect_channel_close(1, 403, &text, id::QUEUE_DECLARE);
    raw.open_channel(1);
    raw.declare(1, &second, PASSIVE);
}

#[test]
fn an_empty_name_elsewhere_is_the_last_declared_queue() {
    let server = server();
    let mut raw = server.channel();
    let (name, _, _) = raw.declare(1, "", EXCLUSIVE);
    raw.bind(1, "", "amq.direct", "", &[]);
    raw.bind(1, "", "amq.direct", "key", &[]);
    for key in [name.as_str(), "key"] {
        raw.publish(1, ("amq.direct", key), 0, NO_PROPERTIES, key.as_bytes());
    }
    // With an empty queue and an empty key, the key is the queue's name as well.
    assert_eq!(raw.get(1, "", true).expect("a message").text(), name);
    assert_eq!(raw.get(1, "", true).expect("a message").text(), "key");
    raw.publish(1, ("", &name), 0, NO_PROPERTIES, b"x");
    let purged = raw.call(1, id::QUEUE_PURGE, just_queue("", 0), id::QUEUE_PURGE_OK);
    assert_eq!(Reader::new(&purged).long(), 1);
    raw.consume(1, "", "tag", 0);
    let arguments = Bytes::new().short(0).shortstr("").shortstr("amq.direct").shortstr("key").table([]);
    raw.call(1, id::QUEUE_UNBIND, arguments, id::QUEUE_UNBIND_OK);
    raw.publish(1, ("amq.direct", "key"), 0, NO_PROPERTIES, b"unbound");
    // A passive declare counts as a declaration.
    let other = raw.exclusive_queue(1);
    raw.declare(1, &name, PASSIVE);
    raw.call(1, id::QUEUE_DELETE, just_queue("", 0), id::QUEUE_DELETE_OK);
    raw.expect(1, id::BASIC_CANCEL);
    raw.declare(1, &other, PASSIVE);
    raw.send_declare(1, &name, PASSIVE, &[]);
    let text = not_found(&server, &name);
    raw.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
}

#[test]
fn without_a_declaration_an_empty_name_is_an_error() {
    let server = server();
    let mut raw = server.channel();
    let text = "NOT_FOUND - no previously declared queue";
    let consume = Bytes::new().short(0).shortstr("").shortstr("").octet(0).table([]);
    let bind = Bytes::new().short(0).shortstr("").shortstr("amq.direct").shortstr("").octet(0).table([]);
    for (id, arguments) in [
        (id::BASIC_GET, just_queue("", 0)),
        (id::BASIC_CONSUME, consume.done()),
        (id::QUEUE_PURGE, just_queue("", 0)),
        (id::QUEUE_DELETE, just_queue("", 0)),
        (id::QUEUE_BIND, bind.done()),
    ] {
        raw.method(1, id, arguments);
        raw.expect_channel_close(1, 404, text, id);
        raw.open_channel(1);
    }
    raw.send_declare(1, "", PASSIVE, &[]);
    let text = not_found(&server, "");
    raw.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
}

#[test]
fn the_reserved_prefix_is_refused() {
    let server = server();
    let mut raw = server.channel();
    raw.send_declare(1, "amq.mine", 0, &[]);
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    raw.expect_channel_close(1, 403, text, id::QUEUE_DECLARE);
    raw.open_channel(1);
    raw.send_declare(1, "amq.mine", PASSIVE, &[]);
    let text = not_found(&server, "amq.mine");
    raw.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
}

#[test]
fn redeclaring_differently_names_the_field() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("queue");
    raw.declare(1, &name, DURABLE);
    for (bits, field, received) in [
        (0, "durable", "'false' but current is 'true'"),
        (AUTO_DELETE, "durable", "'false' but current is 'true'"),
        (DURABLE | AUTO_DELETE, "auto_delete", "'true' but current is 'false'"),
    ] {
        raw.send_declare(1, &name, bits, &[]);
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{field}' for queue '{name}' in vhost '{}': received {received}",
            server.vhost()
        );
        raw.expect_channel_close(1, 406, &text, id::QUEUE_DECLARE);
        raw.open_channel(1);
    }
    // Unknown arguments make no difference, and the default type may be named.
    let arguments = Bytes::new().field("x-nonsense", b'S').longstr("!").field("x-queue-type", b'S').longstr("classic");
    raw.send_declare(1, &name, DURABLE, arguments.as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
}

#[test]
fn purge_takes_what_is_ready() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::durable()).await;
        for number in numbers(5) {
            send_with(&channel, "", &queue, &number, persistent()).await;
        }
        let held = get(&channel, &queue).await.expect("a message");
        let name = queue.as_str();
        let purge = async || {
            let options = QueuePurgeOptions::default();
            channel.queue_purge(name.into(), options).await
        };
        assert_eq!(purge().await.expect("purge"), 4);
        assert_eq!(purge().await.expect("purge"), 0);
        let options = lapin::options::BasicRejectOptions { requeue: true };
        held.reject(options).await.expect("reject");
        send(&channel, "", &queue, "new").await;
        assert_eq!(drain(&channel, &queue).await, ["0", "new"]);
        assert_fails(
            channel.queue_purge("nothing-here".into(), QueuePurgeOptions::default()).await,
            404,
            &not_found(server, "nothing-here"),
        );
    });
}

#[test]
fn nowait_is_not_answered() {
    let server = server();
    let mut raw = server.channel();
    let queue = unique("queue");
    raw.send_declare(1, &queue, EXCLUSIVE | 16, &[]);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    raw.method(1, id::QUEUE_PURGE, just_queue(&queue, 1));
    raw.fence(1);
    assert_eq!(raw.declare(1, &queue, EXCLUSIVE).1, 0);
    let consume = Bytes::new().short(0).shortstr(&queue).shortstr("tag").octet(2 | 8).table([]);
    raw.method(1, id::BASIC_CONSUME, consume);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"y");
    assert_eq!(raw.delivery(1).text(), "y");
    raw.method(1, id::BASIC_CANCEL, Bytes::new().shortstr("tag").octet(1));
    raw.method(1, id::QUEUE_DELETE, just_queue(&queue, 4));
    raw.fence(1);
    raw.send_declare(1, &queue, PASSIVE | 16, &[]);
    let text = not_found(&server, &queue);
    raw.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
}

#[test]
fn a_queue_name_can_have_255_octets() {
    let server = server();
    let mut raw = server.channel();
    let mut name = unique("ä€😀 '\"<>&%");
    while name.len() < 255 {
        name.push('x');
    }
    assert_eq!(raw.declare(1, &name, EXCLUSIVE).0, name);
    raw.bind(1, &name, "amq.direct", &name, &[]);
    raw.publish(1, ("amq.direct", &name), 0, NO_PROPERTIES, b"x");
    let message = raw.get(1, &name, true).expect("the message");
    assert_eq!(message.routing_key, name);
}
