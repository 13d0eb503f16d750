//! The event exchange: what happens to connections, channels, consumers, queues, exchanges and bindings, as messages.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::NO_PROPERTIES;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{Channel, ExchangeKind};

const EVENTS: &str = "amq.rabbitmq.event";

/// A durable queue that gets events with this key, and its consumer.
async fn listen(server: &Server, key: &str) -> (Channel, lapin::Consumer) {
    let channel = channel(server).await;
    let queue = queue(&channel, QueueDeclareOptions { durable: true, ..Default::default() }).await;
    bind(&channel, &queue, EVENTS, key).await;
    let consumer = consume(&channel, &queue, no_ack()).await;
    (channel, consumer)
}

fn skipped() -> bool {
    peer_is_set("RabbitMQ's plugin is off, and it has one event exchange for all tests")
}

fn headers(event: &Delivery) -> FieldTable {
    event.properties.headers().clone().expect("headers")
}

fn string(event: &Delivery, name: &str) -> String {
    match headers(event).inner().get(name) {
        Some(AMQPValue::LongString(value)) => value.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The key, and the headers but for the time, which must agree with the property.
#[track_caller]
fn parts(event: &Delivery) -> (String, FieldTable) {
    assert_eq!((event.exchange.as_str(), event.data.len()), (EVENTS, 0));
    assert_eq!(*event.properties.delivery_mode(), Some(2));
    let mut table = FieldTable::default();
    for (name, value) in headers(event).inner() {
        if name.as_str() == "timestamp_in_ms" {
            let AMQPValue::LongLongInt(ms) = value else { panic!("{value:?}") };
            assert_eq!(*event.properties.timestamp(), Some(*ms as u64 / 1000));
        } else {
            table.insert(name.clone(), value.clone());
        }
    }
    (event.routing_key.to_string(), table)
}

fn nothing() -> AMQPValue {
    AMQPValue::FieldArray(FieldArray::default())
}

/// Something with a name in the virtual host.
fn about(name: &str) -> Vec<(&'static str, AMQPValue)> {
    vec![("name", text(name)), ("vhost", text("/")), ("user_who_performed_action", text("guest"))]
}

fn table_of(entries: Vec<(&'static str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

#[test]
fn queues_exchanges_and_bindings() {
    if skipped() {
        return;
    }
    run(async |server| {
        // Not what is done on a connection of its own.
        let channel = channel(server).await;
        let (_listening, mut queues) = listen(server, "queue.*").await;
        let (_too, mut others) = listen(server, "exchange.*").await;
        let (_also, mut bindings) = listen(server, "binding.*").await;
        // What listening itself did: the queues of the two that came later.
        for _ in 0..2 {
            assert_eq!(next(&mut queues).await.routing_key.as_str(), "queue.created");
        }
        assert_eq!(next(&mut bindings).await.routing_key.as_str(), "binding.created");
        let arguments = table("x-foo", text("bar"));
        let flag = AMQPValue::Boolean;
        let queue = queue_with(&channel, QueueDeclareOptions { durable: true, ..Default::default() }, arguments).await;
        let stored = tables([("x-foo", text("bar")), ("x-queue-type", text("classic"))]);
        let mut expected = about(&queue);
        expected.extend([
            ("type", text("rabbit_classic_queue")),
            ("durable", flag(true)),
            ("auto_delete", flag(false)),
            ("exclusive", flag(false)),
            ("owner_pid", text("")),
            ("arguments", AMQPValue::FieldTable(stored)),
        ]);
        assert_eq!(parts(&next(&mut queues).await), ("queue.created".to_owned(), table_of(expected)));

        let options = ExchangeDeclareOptions { internal: true, ..Default::default() };
        let exchange = exchange_with(&channel, ExchangeKind::Topic, options, FieldTable::default()).await;
        let mut expected = about(&exchange);
        expected.extend([
            ("type", text("topic")),
            ("durable", flag(false)),
            ("auto_delete", flag(false)),
            ("internal", flag(true)),
            ("arguments", nothing()),
        ]);
        assert_eq!(parts(&next(&mut others).await), ("exchange.created".to_owned(), table_of(expected)));

        bind(&channel, &queue, &exchange, "a.#").await;
        let binding = || {
            table_of(vec![
                ("source_name", text(&exchange)),
                ("source_kind", text("exchange")),
                ("destination_name", text(&queue)),
                ("destination_kind", text("queue")),
                ("routing_key", text("a.#")),
                ("arguments", nothing()),
                ("vhost", text("/")),
                ("user_who_performed_action", text("guest")),
            ])
        };
        assert_eq!(parts(&next(&mut bindings).await), ("binding.created".to_owned(), binding()));

        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("delete");
        assert_eq!(parts(&next(&mut bindings).await), ("binding.deleted".to_owned(), binding()));
        let mut expected = about(&queue);
        expected.push(("type", text("rabbit_classic_queue")));
        assert_eq!(parts(&next(&mut queues).await), ("queue.deleted".to_owned(), table_of(expected)));
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.expect("delete");
        assert_eq!(parts(&next(&mut others).await), ("exchange.deleted".to_owned(), table_of(about(&exchange))));
    });
}

#[test]
fn connections_channels_and_consumers() {
    if skipped() {
        return;
    }
    run(async |server| {
        let (listening, mut events) = listen(server, "connection.*").await;
        let (_too, mut channels) = listen(server, "channel.*").await;
        let (_also, mut consumers) = listen(server, "consumer.*").await;
        // Those two connections, and the channel and the consumer of the last.
        for _ in 0..2 {
            assert_eq!(next(&mut events).await.routing_key.as_str(), "connection.created");
        }
        assert_eq!(next(&mut channels).await.routing_key.as_str(), "channel.created");
        assert_eq!(next(&mut consumers).await.routing_key.as_str(), "consumer.created");

        let connection = connect(server).await;
        let created = next(&mut events).await;
        for (name, value) in [
            ("user", "guest"),
            ("vhost", "/"),
            ("type", "network"),
            ("protocol", "{0,9,1}"),
            ("auth_mechanism", "PLAIN"),
        ] {
            assert_eq!(string(&created, name), value);
        }
        let (name, pid) = (string(&created, "name"), string(&created, "pid"));
        assert!(name.ends_with(&format!(" -> {}", server.address())), "{name}");
        let headers = headers(&created);
        assert!(matches!(headers.inner()["client_properties"], AMQPValue::FieldTable(_)));
        assert_eq!(headers.inner()["peer_host"], text("127.0.0.1"));
        assert_eq!(headers.inner()["port"], AMQPValue::LongLongInt(server.address().port().into()));
        assert_eq!(headers.inner()["frame_max"], AMQPValue::LongLongInt(131_072));

        let channel = channel_of(&connection).await;
        let created = next(&mut channels).await;
        assert_eq!(string(&created, "name"), format!("{name} ({})", channel.id()));
        assert_eq!(string(&created, "connection"), pid);
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let consumer = consume_as(&channel, &queue, "tag", no_ack()).await;
        let created = next(&mut consumers).await;
        assert_eq!((string(&created, "consumer_tag"), string(&created, "queue")), ("tag".to_owned(), queue.clone()));
        let headers = created.properties.headers().clone().expect("headers");
        assert_eq!(headers.inner()["ack_required"], AMQPValue::Boolean(false));
        channel.basic_cancel("tag".into(), BasicCancelOptions::default()).await.expect("cancel");
        let deleted = next(&mut consumers).await;
        assert_eq!((deleted.routing_key.as_str(), string(&deleted, "queue")), ("consumer.deleted", queue));
        drop(consumer);
        connection.close(200, "bye".into()).await.expect("close");
        assert_eq!(next(&mut channels).await.routing_key.as_str(), "channel.closed");
        let closed = next(&mut events).await;
        assert_eq!(closed.routing_key.as_str(), "connection.closed");
        assert_eq!((string(&closed, "name"), string(&closed, "pid")), (name, pid));
        drop(listening);
    });
}

#[test]
fn logins() {
    if skipped() {
        return;
    }
    run(async |server| {
        let (_listening, mut events) = listen(server, "user.authentication.*").await;
        let user = unique("nobody");
        let mut raw = Raw::connect(server.address());
        raw.start();
        raw.method(0, id::CONNECTION_START_OK, Handshake::plain(&user, "wrong").start_ok());
        let failure = next(&mut events).await;
        assert_eq!(failure.routing_key.as_str(), "user.authentication.failure");
        assert_eq!((string(&failure, "name"), string(&failure, "auth_mechanism")), (user, "PLAIN".to_owned()));
        let _connection = connect(server).await;
        let success = next(&mut events).await;
        assert_eq!(success.routing_key.as_str(), "user.authentication.success");
        assert_eq!(string(&success, "name"), "guest");
    });
}

#[test]
fn nobody_publishes_there() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    raw.publish(1, (EVENTS, "key"), 0, NO_PROPERTIES, b"body");
    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.event' in vhost '/'";
    raw.expect_channel_close(1, 403, text, id::BASIC_PUBLISH);
}
