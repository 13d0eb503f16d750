//! Permissions and topic permissions that change while clients are connected.

use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, NO_PROPERTIES};

use crate::node::Node;

const PUBLISH: (u16, u16) = id::BASIC_PUBLISH;

fn refused(access: &str, key: &str) -> String {
    format!(
        "ACCESS_REFUSED - {access} access to topic '{key}' in exchange 'topics' in vhost '/' refused for user 'ann'"
    )
}

#[track_caller]
fn publish(raw: &mut Raw, key: &str) {
    raw.publish(1, ("topics", key), 0, NO_PROPERTIES, b"x");
}

#[track_caller]
fn expect_refusal(raw: &mut Raw, access: &str, key: &str, id: (u16, u16)) {
    raw.expect_channel_close(1, 403, &refused(access, key), id);
    raw.open_channel(1);
}

#[test]
fn a_topic_permission_limits_the_keys_that_are_published() {
    let node = Node::start();
    node.add_user("ann");
    let mut raw = node.channel("ann", "/");
    raw.exchange(1, "topics", "topic", 0);
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, "topics", "#", &[]);
    // Twice: the second one finds its route remembered.
    for _ in 0..2 {
        publish(&mut raw, "other.x");
        raw.get(1, &queue, true).expect("the message");
    }
    node.broker.set_topic_permissions("ann", "/", "topics", ["^{username}\\.", "^{vhost}"]).unwrap();
    publish(&mut raw, "other.x");
    expect_refusal(&mut raw, "write", "other.x", PUBLISH);
    for _ in 0..2 {
        publish(&mut raw, "ann.x");
        raw.get(1, &queue, true).expect("the message");
    }
    // Other exchanges and other users are not concerned.
    raw.publish(1, ("amq.topic", "other.x"), 0, NO_PROPERTIES, b"x");
    raw.publish(1, ("amq.direct", "other.x"), 0, NO_PROPERTIES, b"x");
    raw.fence(1);
    let mut guest = node.channel("guest", "/");
    publish(&mut guest, "other.x");
    guest.fence(1);
    raw.get(1, &queue, true).expect("guest's message");
    // Keys of CC count as well.
    let cc = Bytes::new().field("CC", b'A').longstr(Bytes::new().octet(b'S').longstr("other.y").done()).done();
    let properties = Bytes::new().short(1 << 13).table(cc).done();
    raw.publish(1, ("topics", "ann.x"), 0, &properties, b"x");
    expect_refusal(&mut raw, "write", "other.y", PUBLISH);
    // And come before a wrong user-id, as in RabbitMQ.
    let cc = Bytes::new().field("CC", b'A').longstr(Bytes::new().octet(b'S').longstr("other.z").done()).done();
    let properties = Bytes::new().short(1 << 13 | 1 << 4).table(cc).shortstr("somebody").done();
    raw.publish(1, ("topics", "ann.x"), 0, &properties, b"x");
    expect_refusal(&mut raw, "write", "other.z", PUBLISH);
    // Without the permission everything is allowed again.
    node.broker.auth.delete_topic_permission("ann", "/", Some("topics")).unwrap();
    publish(&mut raw, "other.x");
    raw.get(1, &queue, true).expect("the message");
}

#[test]
fn a_topic_permission_limits_the_keys_that_are_bound() {
    let node = Node::start();
    node.add_user("ann");
    let mut raw = node.channel("ann", "/");
    raw.exchange(1, "topics", "topic", 0);
    let queue = raw.exclusive_queue(1);
    raw.bind(1, &queue, "topics", "other", &[]);
    node.broker.set_topic_permissions("ann", "/", "topics", ["", "^ann"]).unwrap();
    raw.bind(1, &queue, "topics", "ann.#", &[]);
    raw.send_bind(1, &queue, "topics", "other", &[]);
    expect_refusal(&mut raw, "read", "other", id::QUEUE_BIND);
    let unbind = Bytes::new().short(0).shortstr(&queue).shortstr("topics").shortstr("other").table([]).done();
    raw.method(1, id::QUEUE_UNBIND, unbind);
    expect_refusal(&mut raw, "read", "other", id::QUEUE_UNBIND);
    let bind =
        Bytes::new().short(0).shortstr("amq.fanout").shortstr("topics").shortstr("other").octet(0).table([]).done();
    raw.method(1, id::EXCHANGE_BIND, bind);
    expect_refusal(&mut raw, "read", "other", id::EXCHANGE_BIND);
}

#[test]
fn operations_name_what_is_missing() {
    let node = Node::start();
    let broker = &node.broker;
    let error = broker.set_permissions("guest", "nov", ["", "", ""]).unwrap_err();
    assert_eq!(error.to_string(), "Virtual host 'nov' does not exist");
    let error = broker.set_permissions("nobody", "/", ["", "", ""]).unwrap_err();
    assert_eq!(error.to_string(), "User \"nobody\" does not exist");
    let error = broker.set_permissions("guest", "/", ["(", "", ""]).unwrap_err();
    assert!(error.to_string().starts_with("invalid regular expression \"(\": configure: "), "{error}");
    let error = broker.set_topic_permissions("guest", "/", "nox", ["", ""]).unwrap_err();
    assert_eq!(error.to_string(), "Exchange nox does not exist");
    let error = broker.set_topic_permissions("guest", "/", "amq.topic", ["", "("]).unwrap_err();
    assert!(error.to_string().starts_with("invalid regular expression \"(\": read: "), "{error}");
    // Nothing of that was stored.
    assert!(broker.auth.topic_permissions(None).is_empty());
    assert_eq!(broker.auth.permissions(None).len(), 1);
}

#[test]
fn a_deleted_user_keeps_the_connection_and_loses_every_right() {
    let node = Node::start();
    node.add_user("ann");
    let mut raw = node.channel("ann", "/");
    let queue = raw.exclusive_queue(1);
    node.wait(node.broker.auth.delete_user("ann").unwrap());
    let text = format!("ACCESS_REFUSED - read access to queue '{queue}' in vhost '/' refused for user 'ann'");
    raw.method(1, id::BASIC_GET, Bytes::new().short(0).shortstr(&queue).octet(0));
    raw.expect_channel_close(1, 403, &text, id::BASIC_GET);
    raw.close();
}

#[test]
fn all_of_it_survives_a_restart() {
    let node = Node::start();
    node.add_user("ann");
    node.broker.set_topic_permissions("ann", "/", "amq.topic", ["^a", "^b"]).unwrap();
    node.broker.auth.set_limits("ann", &crate::node::map(serde_json::json!({"max-channels": 1}))).unwrap();
    let node = node.restart();
    let [topic] = node.broker.auth.topic_permissions(None).try_into().unwrap_or_else(|all| panic!("{all:?}"));
    assert_eq!((topic.user.as_str(), topic.vhost.as_str(), topic.exchange.as_str()), ("ann", "/", "amq.topic"));
    let mut raw = node.channel("ann", "/");
    raw.publish(1, ("amq.topic", "b"), 0, NO_PROPERTIES, b"x");
    let text = refused("write", "b").replace("'topics'", "'amq.topic'");
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
    assert_eq!(node.broker.auth.limits("ann").unwrap().max_channels, Some(1));
}
