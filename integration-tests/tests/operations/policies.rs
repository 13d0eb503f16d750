//! Policies that change while clients are connected, and parameters.

use broker::policy::{PolicyKind, PolicyRequest};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Value, json};

use crate::node::{Node, map};

fn set(node: &Node, name: &str, pattern: &str, settings: Value) {
    let settings = map(settings);
    let request = PolicyRequest { name, pattern, definition: &settings, priority: None, apply_to: None };
    node.broker.set_policy("/", PolicyKind::Policy, &request).unwrap();
}

async fn publish(channel: &Channel, exchange: &str) -> Confirmation {
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel
        .basic_publish(exchange.into(), "key".into(), mandatory, b"x", BasicProperties::default())
        .await
        .expect("a publish")
        .await
        .expect("a confirm")
}

fn was_returned(confirmation: Confirmation) -> bool {
    match confirmation {
        Confirmation::Ack(returned) => returned.is_some(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_alternate_exchange_comes_and_goes_with_its_policy() {
    let node = Node::start();
    node.block_on(async {
        let connection =
            Connection::connect(&node.uri("/"), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
        let options = ExchangeDeclareOptions::default();
        for (name, kind) in [("source", ExchangeKind::Direct), ("unrouted", ExchangeKind::Fanout)] {
            channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.expect("an exchange");
        }
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("q".into(), exclusive, FieldTable::default()).await.expect("a queue");
        channel
            .queue_bind("q".into(), "unrouted".into(), "".into(), Default::default(), FieldTable::default())
            .await
            .expect("a binding");
        assert!(was_returned(publish(&channel, "source").await));
        set(&node, "AE", "^sour", json!({"alternate-exchange": "unrouted"}));
        for _ in 0..2 {
            assert!(!was_returned(publish(&channel, "source").await));
        }
        let got = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.expect("basic.get");
        assert_eq!(got.expect("the message").exchange.as_str(), "source");
        node.broker.clear_policy("/", PolicyKind::Policy, "AE").unwrap();
        assert!(was_returned(publish(&channel, "source").await));
    });
}

#[test]
fn refusals_have_rabbitmqs_words() {
    let node = Node::start();
    let settings = map(json!({"foo": 1}));
    let request = PolicyRequest { name: "p", pattern: "", definition: &settings, priority: None, apply_to: None };
    let error = node.broker.set_policy("/", PolicyKind::Policy, &request).unwrap_err();
    assert_eq!(error.to_string(), "Validation failed\n\n[{<<\"foo\">>,1}] are not recognised policy settings\n");
    let error = node.broker.set_policy("nov", PolicyKind::Policy, &request).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("Virtual host 'nov' does not exist", 65));
    for vhost in ["/", "nov"] {
        let error = node.broker.clear_policy(vhost, PolicyKind::Policy, "p").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("Parameter does not exist", 69));
    }
}

#[test]
fn parameters_of_known_components_are_what_they_name() {
    let node = Node::start();
    let broker = &node.broker;
    let value = json!({"pattern": "^q", "definition": {"max-length": 5}, "priority": 2, "apply-to": "queues"});
    broker.set_parameter("/", "policy", "p", &value).unwrap();
    broker.set_parameter("/", "operator_policy", "p", &value).unwrap();
    broker.set_parameter("/", "vhost-limits", "limits", &json!({"max-queues": 3})).unwrap();
    let vhost = broker.vhost("/").unwrap();
    assert_eq!(vhost.limits().max_queues, Some(3));
    assert_eq!(vhost.policies().get(PolicyKind::Policy, "p").unwrap().pattern(), "^q");
    broker.clear_parameter("/", "operator_policy", "p").unwrap();
    broker.clear_parameter("/", "vhost-limits", "limits").unwrap();
    assert!(broker.clear_parameter("/", "vhost-limits", "limits").is_err());
    let error = broker.set_parameter("/", "nope", "x", &json!(1)).unwrap_err();
    assert_eq!(error.to_string(), "Validation failed\n\ncomponent nope not found\n");
    assert!(broker.set_parameter("/", "policy", "x", &json!({"pattern": ""})).is_err());
}

#[test]
fn global_parameters_survive_a_restart() {
    let node = Node::start();
    let broker = &node.broker;
    broker.set_global_parameter("cluster_name", &json!("warren")).unwrap();
    broker.set_global_parameter("gone", &json!([1, 2])).unwrap();
    broker.clear_global_parameter("gone").unwrap();
    let error = broker.clear_global_parameter("gone").unwrap_err();
    assert_eq!(error.to_string(), "Parameter does not exist");
    let node = node.restart();
    let globals = node.broker.global_parameters();
    let all: Vec<_> = globals.iter().map(|(name, value)| (name, (**value).clone())).collect();
    assert_eq!(all, [("cluster_name", json!("warren"))]);
    assert!(node.broker.clear_parameter("/", "federation-upstream", "u").is_err());
}

#[test]
fn a_policy_makes_expired_messages_wait_for_the_head_also_on_disk() {
    let node = Node::start();
    node.block_on(async {
        let connection =
            Connection::connect(&node.uri("/"), ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("deep".into(), durable, FieldTable::default()).await.expect("a queue");
        set(&node, "head", "^deep", json!({"message-expiry": "head"}));
        // More than a queue keeps in memory.
        const OTHERS: u32 = 250;
        let body = vec![b'x'; 100_000];
        let send = |properties: BasicProperties, body: Vec<u8>| {
            let channel = channel.clone();
            async move {
                let options = BasicPublishOptions::default();
                let properties = properties.with_delivery_mode(2);
                let sent = channel.basic_publish("".into(), "deep".into(), options, &body, properties).await;
                sent.expect("a publish").await.expect("a confirm");
            }
        };
        send(BasicProperties::default(), b"first".to_vec()).await;
        for _ in 0..OTHERS {
            send(BasicProperties::default().with_expiration("1".into()), body.clone()).await;
        }
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let count = || async {
            channel
                .queue_declare("deep".into(), passive, FieldTable::default())
                .await
                .expect("it is there")
                .message_count()
        };
        assert_eq!(count().await, OTHERS + 1, "the first has no end, and all others wait for it");
        let got = channel.basic_get("deep".into(), BasicGetOptions { no_ack: true }).await.expect("basic.get");
        assert_eq!(got.expect("the first").data, b"first");
        // Every answer is an event of the queue; those on disk go when they have been read.
        while count().await > 0 {
            tokio::task::yield_now().await;
        }
    });
}
