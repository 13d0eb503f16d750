//! The firehose: copies of all that is published and delivered in a virtual host.

use crate::support::*;
use integration_tests::peer::Peer;
use integration_tests::server::Server;
use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Turns the firehose of the server's virtual host on or off.
fn set_tracing(server: &Server, tracing: bool) {
    let Some(broker) = server.broker() else {
        return Peer::from_env().expect("a peer").set_tracing(server.vhost(), tracing);
    };
    let socket = broker.launch().home().join("data").join("control.sock");
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let method = if tracing { "PUT" } else { "DELETE" };
    let vhost = server.vhost().replace('/', "%2F");
    let request = format!("{method} /api/warren/tracing/{vhost} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// A queue that gets all of the firehose, and its consumer, on a connection that is not looked at.
async fn listen(server: &Server) -> (Channel, lapin::Consumer) {
    let channel = channel(server).await;
    let queue = queue(&channel, QueueDeclareOptions { exclusive: true, ..Default::default() }).await;
    bind(&channel, &queue, "amq.rabbitmq.trace", "#").await;
    let consumer = consume(&channel, &queue, no_ack()).await;
    (channel, consumer)
}

fn headers(delivery: &Delivery) -> FieldTable {
    delivery.properties.headers().clone().expect("headers")
}

fn strings(values: &[&str]) -> AMQPValue {
    let mut array = FieldArray::default();
    for value in values {
        array.push(text(value));
    }
    AMQPValue::FieldArray(array)
}

/// Node and connection are the broker's to choose: takes them out, once they look right.
fn without_names(mut delivery: Delivery) -> FieldTable {
    let mut table = FieldTable::default();
    let headers = headers(&delivery);
    for (name, value) in headers.inner() {
        match (name.as_str(), value) {
            ("node", AMQPValue::LongString(node)) => assert!(node.to_string().contains('@'), "{node}"),
            ("connection", AMQPValue::LongString(connection)) => {
                let connection = connection.to_string();
                let (peer, local) = connection.split_once(" -> ").expect("two addresses");
                for address in [peer, local] {
                    let _: std::net::SocketAddr = address.parse().expect("an address");
                }
            }
            (name, value) => {
                table.insert(name.into(), value.clone());
            }
        }
    }
    // Nothing else is said in the properties.
    delivery.properties = delivery.properties.with_headers(FieldTable::default());
    assert_eq!(delivery.properties, BasicProperties::default().with_headers(FieldTable::default()));
    table
}

#[test]
fn publishes_and_deliveries_are_copied() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = exchange(&channel, ExchangeKind::Topic).await;
        let (one, two) = two_queues(&channel).await;
        bind(&channel, &one, &exchange, "a.b").await;
        let (_listening, mut firehose) = listen(server).await;
        send(&channel, &exchange, "a.b", "before it was on").await;
        set_tracing(server, true);
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_timestamp(1_700_000_000)
            .with_type("kind".into())
            .with_headers(tables([("n", AMQPValue::LongInt(5)), ("CC", strings(&["a.c"]))]));
        bind(&channel, &two, &exchange, "a.c").await;
        send_with(&channel, &exchange, "a.b", "body", properties).await;
        let published = next(&mut firehose).await;
        assert_eq!(published.exchange.as_str(), "amq.rabbitmq.trace");
        assert_eq!(published.routing_key.as_str(), format!("publish.{exchange}"));
        assert_eq!(body(&published), "body");
        let mut routed = headers(&published).inner()["routed_queues"].clone();
        if let AMQPValue::FieldArray(names) = &mut routed {
            let mut names: Vec<_> = names.as_slice().iter().map(|name| format!("{name:?}")).collect();
            names.sort();
            let mut expected = [&one, &two].map(|name| format!("{:?}", text(name)));
            expected.sort();
            assert_eq!(names, expected);
        }
        let shown = tables([
            ("content_type", text("text/plain")),
            ("delivery_mode", AMQPValue::LongInt(2)),
            ("priority", AMQPValue::LongInt(3)),
            ("timestamp", AMQPValue::LongInt(1_700_000_000)),
            ("type", text("kind")),
            ("headers", AMQPValue::FieldTable(tables([("n", AMQPValue::LongInt(5)), ("CC", strings(&["a.c"]))]))),
        ]);
        let expected = tables([
            ("channel", AMQPValue::LongInt(channel.id().into())),
            ("exchange_name", text(&exchange)),
            ("properties", AMQPValue::FieldTable(shown.clone())),
            ("routed_queues", routed),
            ("routing_keys", strings(&["a.b", "a.c"])),
            ("user", text("guest")),
            ("vhost", text(server.vhost())),
        ]);
        assert_eq!(without_names(published), expected);

        // The first message was there before, and is delivered under the eyes of the firehose.
        assert_eq!(drain(&channel, &one).await, ["before it was on", "body"]);
        assert_eq!(body(&next(&mut firehose).await), "before it was on");
        let delivered = next(&mut firehose).await;
        assert_eq!(delivered.routing_key.as_str(), format!("deliver.{one}"));
        assert_eq!(body(&delivered), "body");
        let expected = tables([
            ("channel", AMQPValue::LongInt(channel.id().into())),
            ("exchange_name", text(&exchange)),
            ("properties", AMQPValue::FieldTable(shown)),
            ("redelivered", AMQPValue::LongInt(0)),
            ("routing_keys", strings(&["a.b", "a.c"])),
            ("user", text("guest")),
            ("vhost", text(server.vhost())),
        ]);
        assert_eq!(without_names(delivered), expected);
    });
}

#[test]
fn the_default_exchange_returns_and_redeliveries() {
    run(async |server| {
        let channel = confirming(server).await;
        let (_listening, mut firehose) = listen(server).await;
        set_tracing(server, true);
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        send(&channel, "", &queue, "body").await;
        let published = next(&mut firehose).await;
        assert_eq!(published.routing_key.as_str(), "publish.");
        assert_eq!(headers(&published).inner()["routed_queues"], strings(&[&queue]));
        assert_eq!(headers(&published).inner()["exchange_name"], text(""));
        // A name is where it goes, also if nobody has it.
        send(&channel, "", "nobody", "lost").await;
        assert_eq!(headers(&next(&mut firehose).await).inner()["routed_queues"], strings(&["nobody"]));
        for redelivered in [0, 1] {
            let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.expect("get");
            let delivered = next(&mut firehose).await;
            assert_eq!(delivered.routing_key.as_str(), format!("deliver.{queue}"));
            assert_eq!(headers(&delivered).inner()["redelivered"], AMQPValue::LongInt(redelivered));
            got.expect("a message")
                .nack(lapin::options::BasicNackOptions { requeue: true, multiple: false })
                .await
                .expect("nack");
        }
    });
}

#[test]
fn it_can_be_turned_off_again() {
    run(async |server| {
        let channel = confirming(server).await;
        let (_listening, mut firehose) = listen(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for (tracing, text) in [(false, "0"), (true, "1"), (false, "2"), (true, "3")] {
            set_tracing(server, tracing);
            // A new channel: RabbitMQ's channels learn of it by and by.
            let channel = confirming(server).await;
            send(&channel, "", &queue, text).await;
        }
        assert_eq!(next_bodies(&mut firehose, 2).await, ["1", "3"]);
    });
}

#[test]
fn what_the_broker_moves_by_itself_is_not_copied() {
    run(async |server| {
        let channel = confirming(server).await;
        let target = queue(&channel, QueueDeclareOptions::default()).await;
        let arguments = tables([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&target))]);
        let dying = queue_with(&channel, QueueDeclareOptions::default(), arguments).await;
        let (_listening, mut firehose) = listen(server).await;
        set_tracing(server, true);
        // A new channel: RabbitMQ's channels learn of it by and by.
        let channel = confirming(server).await;
        send(&channel, "", &dying, "body").await;
        let got = channel.basic_get(dying.as_str().into(), BasicGetOptions::default()).await.expect("get");
        let nack = lapin::options::BasicNackOptions { requeue: false, multiple: false };
        got.expect("a message").nack(nack).await.expect("nack");
        let mut moved = consume(&channel, &target, no_ack()).await;
        assert_eq!(body(&next(&mut moved).await), "body");
        for key in ["publish.".to_owned(), format!("deliver.{dying}"), format!("deliver.{target}")] {
            assert_eq!(next(&mut firehose).await.routing_key.as_str(), key);
        }
    });
}

#[test]
fn hidden_keys_are_shown_there() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        let (_listening, mut firehose) = listen(server).await;
        set_tracing(server, true);
        let channel = confirming(server).await;
        let headers = tables([("CC", strings(&["copy"])), ("BCC", strings(&["blind"]))]);
        send_with(&channel, "", &queue, "body", BasicProperties::default().with_headers(headers)).await;
        assert_eq!(drain(&channel, &queue).await, ["body"]);
        for _ in ["published", "delivered"] {
            let copy = next(&mut firehose).await;
            assert_eq!(routing_keys(&copy), strings(&[&queue, "copy", "blind"]));
        }
    });
}

fn routing_keys(copy: &Delivery) -> AMQPValue {
    headers(copy).inner()["routing_keys"].clone()
}
