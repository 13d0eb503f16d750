//! Limits of users, virtual hosts and the node.

use broker::model::limits::NodeLimits;
use integration_tests::id;
use integration_tests::wire::Bytes;
use serde_json::json;

use crate::node::{Node, map};

#[test]
fn connections_of_a_user() {
    let node = Node::start();
    node.add_user("ann");
    node.broker.auth.set_limits("ann", &map(json!({"max-connections": 1}))).unwrap();
    let first = node.open("ann", "/");
    let text = "NOT_ALLOWED - connection refused for user 'ann': user connection limit (1) is reached";
    node.knock("ann", "/").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.open("guest", "/");
    // The place is free as soon as the client knows that it has closed.
    first.close();
    let second = node.open("ann", "/");
    node.broker.auth.set_limits("ann", &map(json!({"max-connections": 0}))).unwrap();
    second.close();
    let text = "NOT_ALLOWED - connection refused for user 'ann': user connection limit (0) is reached";
    node.knock("ann", "/").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.broker.auth.set_limits("ann", &map(json!({"max-connections": -1}))).unwrap();
    let open: Vec<_> = (0..3).map(|_| node.open("ann", "/")).collect();
    assert_eq!(node.broker.usage_of("ann"), (open.len(), 0));
}

#[test]
fn connections_of_a_virtual_host_come_before_those_of_the_user_and_before_access() {
    let node = Node::start();
    node.add_user("ann");
    node.broker.auth.set_limits("ann", &map(json!({"max-connections": 0}))).unwrap();
    node.broker.add_vhost("v", Default::default()).unwrap();
    node.broker.vhost("v").unwrap().set_limits(&map(json!({"max-connections": 0}))).unwrap();
    let text = "NOT_ALLOWED - access to vhost 'v' refused for user 'ann': connection limit (0) is reached";
    node.knock("ann", "v").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.broker.vhost("v").unwrap().set_limits(&map(json!({"max-connections": 1}))).unwrap();
    let text = "NOT_ALLOWED - connection refused for user 'ann': user connection limit (0) is reached";
    node.knock("ann", "v").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.broker.auth.clear_limits("ann", None).unwrap();
    // Nobody who was refused has taken the one place.
    for _ in 0..2 {
        let text = "NOT_ALLOWED - access to vhost 'v' refused for user 'ann'";
        node.knock("ann", "v").expect_connection_close(530, text, id::CONNECTION_OPEN);
    }
    node.broker.set_permissions("ann", "v", ["", "", ""]).unwrap();
    let _open = node.open("ann", "v");
    assert_eq!(node.broker.connections_in("v"), 1);
}

#[test]
fn connections_of_the_node_come_first() {
    let node = Node::start();
    let limits = NodeLimits { max_connections: Some(1), ..NodeLimits::default() };
    node.broker.set_node_limits(limits);
    let first = node.open("guest", "/");
    let text = "NOT_ALLOWED - connection refused: node connection limit (1) is reached";
    node.knock("guest", "/").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.knock("guest", "missing").expect_connection_close(530, text, id::CONNECTION_OPEN);
    first.close();
    let text = "NOT_ALLOWED - vhost missing not found";
    node.knock("guest", "missing").expect_connection_close(530, text, id::CONNECTION_OPEN);
    node.open("guest", "/").close();
}

#[test]
fn channels_of_a_user_count_over_all_connections() {
    let node = Node::start();
    node.add_user("ann");
    node.broker.auth.set_limits("ann", &map(json!({"max-channels": 2}))).unwrap();
    let (mut first, mut second) = (node.channel("ann", "/"), node.channel("ann", "/"));
    assert_eq!(node.broker.usage_of("ann"), (2, 2));
    // One that is closed makes room, also one that the broker has closed.
    first.method(1, id::CHANNEL_CLOSE, Bytes::new().short(200).shortstr("").long(0));
    first.expect(1, id::CHANNEL_CLOSE_OK);
    first.open_channel(7);
    first.send_declare(7, "missing", 1, &[]);
    first.unanswered_channel_close(7);
    second.open_channel(2);
    first.method(7, id::CHANNEL_CLOSE_OK, []);
    let text = "NOT_ALLOWED - number of channels opened for user 'ann' has reached the maximum allowed user limit of 2";
    first.method(3, id::CHANNEL_OPEN, [0]);
    first.expect_connection_close(530, text, (0, 0));
    // A connection that ends gives back all it had.
    second.close();
    let mut third = node.channel("ann", "/");
    third.open_channel(2);
    assert_eq!(node.broker.usage_of("ann"), (1, 2));
}

#[test]
fn channels_and_queues_of_the_node() {
    let node = Node::start();
    let limits = NodeLimits { max_channels: Some(1), max_queues: Some(1), ..NodeLimits::default() };
    node.broker.set_node_limits(limits);
    let mut raw = node.channel("guest", "/");
    raw.exclusive_queue(1);
    raw.send_declare(1, "another", 0, &[]);
    let text = "PRECONDITION_FAILED - cannot declare queue 'another': queue limit in cluster (1) is reached";
    raw.expect_channel_close(1, 406, text, id::QUEUE_DECLARE);
    raw.open_channel(1);
    let mut other = node.open("guest", "/");
    other.method(1, id::CHANNEL_OPEN, [0]);
    let text = format!(
        "NOT_ALLOWED - number of channels opened on node '{}' has reached the maximum allowed limit of 1",
        node.broker.node_name
    );
    other.expect_connection_close(530, &text, (0, 0));
    node.broker.set_node_limits(NodeLimits::default());
    node.channel("guest", "/").declare(1, "another", 4);
}

#[test]
fn queues_of_a_virtual_host() {
    let node = Node::start();
    node.broker.vhost("/").unwrap().set_limits(&map(json!({"max-queues": 1}))).unwrap();
    let mut raw = node.channel("guest", "/");
    let queue = raw.exclusive_queue(1);
    raw.declare(1, &queue, 4);
    raw.send_declare(1, "another", 2, &[]);
    let text = "PRECONDITION_FAILED - cannot declare queue 'another': queue limit in vhost '/' (1) is reached";
    raw.expect_channel_close(1, 406, text, id::QUEUE_DECLARE);
    let node = node.restart();
    assert_eq!(node.broker.vhost("/").unwrap().limits().max_queues, Some(1));
}
