//! Virtual hosts that come and go under their clients.

use broker::model::operation::OperationError;
use broker::policy::{PolicyKind, PolicyRequest};
use broker::vhost::Metadata;
use futures_util::StreamExt;
use integration_tests::id;
use integration_tests::wire::PERSISTENT;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::json;

use crate::node::{Node, map};

fn add(node: &Node, name: &str) {
    let metadata = Metadata { description: "a".to_owned(), tags: vec!["t".to_owned()], ..Metadata::default() };
    assert!(node.broker.add_vhost(name, metadata).unwrap().0);
    node.broker.set_permissions("guest", name, [".*", ".*", ".*"]).unwrap();
}

#[test]
fn adding_is_idempotent_and_putting_replaces() {
    let node = Node::start();
    add(&node, "v");
    assert!(!node.broker.add_vhost("v", Metadata::default()).unwrap().0);
    assert_eq!(node.broker.vhost("v").unwrap().metadata().description, "a");
    let quorum = Metadata { default_queue_type: Some("quorum".to_owned()), ..Metadata::default() };
    assert!(!node.broker.put_vhost("v", quorum.clone()).unwrap().0);
    let nonsense = Metadata { default_queue_type: Some("nope".to_owned()), ..Metadata::default() };
    let error = node.broker.put_vhost("w", nonsense).unwrap_err();
    assert_eq!(error.to_string(), "nope is not a valid queue type");
    assert!(node.broker.vhost("w").is_none());
    assert!(matches!(node.broker.add_vhost("", Metadata::default()), Err(OperationError::BadArgument(_))));
    let node = node.restart();
    assert_eq!(node.broker.vhost("v").unwrap().metadata(), quorum);
    assert_eq!(node.broker.vhost("/").unwrap().metadata().description, "Default virtual host");
}

#[test]
fn deleting_closes_its_connections_and_no_others() {
    let node = Node::start();
    add(&node, "v");
    let mut elsewhere = node.channel("guest", "/");
    let mut raw = node.channel("guest", "v");
    raw.declare(1, "q", 2);
    raw.publish(1, ("", "q"), 0, PERSISTENT, b"x");
    raw.fence(1);
    let lsn = node.broker.delete_vhost("v").unwrap();
    raw.expect_connection_close(320, "CONNECTION_FORCED - vhost 'v' is deleted", (0, 0));
    node.wait(lsn);
    elsewhere.fence(1);
    let text = "NOT_ALLOWED - vhost v not found";
    node.knock("guest", "v").expect_connection_close(530, text, id::CONNECTION_OPEN);
    assert_eq!(node.broker.connections_in("v"), 0);
    let error = node.broker.delete_vhost("v").unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("Virtual host 'v' does not exist", 65));
}

#[test]
fn nothing_of_it_comes_back() {
    let node = Node::start();
    add(&node, "v");
    let mut raw = node.channel("guest", "v");
    raw.declare(1, "q", 2);
    raw.exchange(1, "x", "topic", 2);
    raw.bind(1, "q", "x", "k", &[]);
    raw.publish(1, ("", "q"), 0, PERSISTENT, b"x");
    raw.fence(1);
    let settings = map(json!({"max-length": 5}));
    let request = PolicyRequest { name: "p", pattern: "", definition: &settings, priority: None, apply_to: None };
    node.broker.set_policy("v", PolicyKind::Policy, &request).unwrap();
    node.broker.set_policy("v", PolicyKind::OperatorPolicy, &request).unwrap();
    node.broker.set_topic_permissions("guest", "v", "x", ["", ""]).unwrap();
    node.wait(node.broker.delete_vhost("v").unwrap());
    // Another one of the same name is another one.
    assert!(node.broker.add_vhost("v", Metadata::default()).unwrap().0);
    let text = "NOT_ALLOWED - access to vhost 'v' refused for user 'guest'";
    node.knock("guest", "v").expect_connection_close(530, text, id::CONNECTION_OPEN);
    let node = node.restart();
    let vhost = node.broker.vhost("v").unwrap();
    assert_eq!((vhost.queue_count(), vhost.exchange("x").is_some()), (0, false));
    assert_eq!(vhost.policies().list(PolicyKind::Policy).count(), 0);
    assert_eq!(vhost.policies().list(PolicyKind::OperatorPolicy).count(), 0);
    assert_eq!(vhost.parameters().iter().count(), 0);
    assert_eq!(vhost.metadata(), Metadata::default());
    assert!(!node.broker.auth.vhost_access("guest", "v"));
    assert!(node.broker.auth.topic_permissions(None).is_empty());
}

#[test]
fn a_protected_one_stays() {
    let node = Node::start();
    add(&node, "v");
    let vhost = node.broker.vhost("v").unwrap();
    vhost.set_metadata(Metadata { protected_from_deletion: true, ..Metadata::default() }).unwrap();
    let error = node.broker.delete_vhost("v").unwrap_err();
    assert_eq!(error.http_status(), 412);
    assert_eq!(error.to_string(), "Refusing to delete virtual host 'v' because it is protected from deletion");
    node.channel("guest", "v").exclusive_queue(1);
}

#[test]
fn an_operator_closes_one_connection() {
    let node = Node::start();
    // Numbers are given in order; the broker's own first is 1.
    let mut raw = node.channel("guest", "/");
    let other = node.open("guest", "/");
    assert!(node.broker.close_connection(broker::model::ConnectionId(1), "Closed via rabbitmqctl"));
    raw.expect_connection_close(320, "CONNECTION_FORCED - Closed via rabbitmqctl", (0, 0));
    assert!(!node.broker.close_connection(broker::model::ConnectionId(99), "nobody"));
    other.close();
}

#[test]
fn lapin_sees_its_consumers_end() {
    let node = Node::start();
    add(&node, "v");
    node.block_on(async {
        let connection =
            Connection::connect(&node.uri("v"), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("q".into(), durable, FieldTable::default()).await.expect("a queue");
        let mut consumer = channel
            .basic_consume("q".into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .expect("a consumer");
        node.broker.delete_vhost("v").unwrap();
        while let Some(Ok(_)) = consumer.next().await {}
        assert!(channel.queue_declare("q".into(), durable, FieldTable::default()).await.is_err());
    });
}
