//! Exchange types that send a message to one of their bindings: x-consistent-hash, x-modulus-hash, x-random, x-local-random.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::Bytes;
use lapin::options::{
    BasicPublishOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

const DURABLE: u8 = 2;

const TYPES: [&str; 4] = ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"];

/// Queues whose names sort in this order, on any broker.
async fn queues<const N: usize>(channel: &Channel) -> [String; N] {
    let prefix = unique("queue");
    let names = std::array::from_fn(|number| format!("{prefix}-{number}"));
    for name in &names {
        declare(channel, name, QueueDeclareOptions::default(), FieldTable::default()).await.expect("queue.declare");
    }
    names
}

async fn declare_type(channel: &Channel, kind: &str, arguments: FieldTable) -> String {
    let kind = ExchangeKind::Custom(kind.to_owned());
    exchange_with(channel, kind, ExchangeDeclareOptions::default(), arguments).await
}

/// What is in each queue.
async fn contents(channel: &Channel, queues: &[String]) -> Vec<Vec<String>> {
    let mut contents = Vec::new();
    for queue in queues {
        contents.push(drain(channel, queue).await);
    }
    contents
}

fn cc(keys: &[&str]) -> BasicProperties {
    let mut list = FieldArray::default();
    for key in keys {
        list.push(text(key));
    }
    BasicProperties::default().with_headers(table("CC", list))
}

/// The remainders are those of Erlang's hash: keys stay where they are when a topology moves here from RabbitMQ.
#[test]
fn modulus_hash_counts_like_rabbitmq() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = declare_type(&channel, "x-modulus-hash", FieldTable::default()).await;
        let queues: [String; 3] = queues(&channel).await;
        // Not in their order.
        for queue in [&queues[2], &queues[0], &queues[1]] {
            bind(&channel, queue, &exchange, "ignored").await;
        }
        let publish_all = async || {
            for key in ["", "a", "abc", "hello world, this is long", "123456789012", "1234567890123"] {
                send(&channel, &exchange, key, key).await;
            }
            send_with(&channel, &exchange, "a", "a and b", cc(&["b"])).await;
            send_with(&channel, &exchange, "k1", "k1 to k3", cc(&["k2", "k3"])).await;
        };
        publish_all().await;
        assert_eq!(
            contents(&channel, &queues).await,
            [
                vec!["", "a", "abc", "1234567890123"],
                vec!["hello world, this is long", "123456789012", "a and b"],
                vec!["k1 to k3"],
            ]
        );
        // Each binding counts, not each queue.
        bind(&channel, &queues[0], &exchange, "again").await;
        publish_all().await;
        assert_eq!(
            contents(&channel, &queues).await,
            [
                vec!["", "abc", "123456789012"],
                vec!["a", "a and b", "k1 to k3"],
                vec!["hello world, this is long", "1234567890123"],
            ]
        );
    });
}

#[test]
fn chance_uses_every_queue() {
    run(async |server| {
        let channel = confirming(server).await;
        for kind in ["x-random", "x-local-random"] {
            let exchange = declare_type(&channel, kind, FieldTable::default()).await;
            let queues: [String; 3] = queues(&channel).await;
            for queue in &queues[..2] {
                bind(&channel, queue, &exchange, "").await;
            }
            // The same key on the same channel: nothing may remember where the last one went.
            for number in numbers(200) {
                send(&channel, &exchange, "key", &number).await;
            }
            let contents = contents(&channel, &queues).await;
            assert!(!contents[0].is_empty() && !contents[1].is_empty() && contents[2].is_empty(), "{kind}");
            let mut all: Vec<u32> = contents.concat().iter().map(|body| body.parse().expect("a number")).collect();
            all.sort_unstable();
            assert_eq!(all, (0..200).collect::<Vec<u32>>());
        }
    });
}

#[test]
fn a_key_stays_with_its_queue() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = declare_type(&channel, "x-consistent-hash", FieldTable::default()).await;
        let queues: [String; 4] = queues(&channel).await;
        for queue in &queues[..3] {
            bind(&channel, queue, &exchange, "10").await;
        }
        let publish_all = async |channel: &Channel| {
            for number in numbers(100) {
                send(channel, &exchange, &number, &number).await;
            }
        };
        publish_all(&channel).await;
        let before = contents(&channel, &queues).await;
        assert!(before[..3].iter().all(|bodies| !bodies.is_empty()), "{before:?}");
        assert_eq!(before.concat().len(), 100);
        // From another connection, and with keys that have no say.
        publish_all(&confirming(server).await).await;
        assert_eq!(contents(&channel, &queues).await, before);
        for number in numbers(100) {
            send_with(&channel, &exchange, &number, &number, cc(&["0", "1", &number])).await;
        }
        assert_eq!(contents(&channel, &queues).await, before);
        // One more takes its share and nothing else moves.
        bind(&channel, &queues[3], &exchange, "10").await;
        publish_all(&channel).await;
        let more = contents(&channel, &queues).await;
        assert!(!more[3].is_empty(), "{more:?}");
        for (bodies, old) in more.iter().zip(&before).take(3) {
            assert!(bodies.iter().all(|body| old.contains(body)));
        }
        // When the first goes, what it had is shared out; the rest stays. (RabbitMQ moves keys between the others as well.)
        channel.queue_delete(queues[0].as_str().into(), QueueDeleteOptions::default()).await.expect("queue.delete");
        publish_all(&channel).await;
        let less = contents(&channel, &queues[1..]).await;
        assert_eq!(less.concat().len(), 100);
        if !server.is_peer() {
            for (bodies, old) in less.iter().zip(&more[1..]) {
                assert!(old.iter().all(|body| bodies.contains(body)));
            }
        }
    });
}

#[test]
fn a_header_or_a_property_can_be_hashed() {
    run(async |server| {
        let channel = confirming(server).await;
        let properties = BasicProperties::default;
        let message = |argument: &str, value: &str, id: u32| match (argument, value) {
            ("hash-property", "message_id") => properties().with_message_id(id.to_string().into()),
            ("hash-property", "correlation_id") => properties().with_correlation_id(id.to_string().into()),
            ("hash-property", _) => properties().with_timestamp(id.into()),
            (_, header) => properties().with_headers(table(header, text(&id.to_string()))),
        };
        for (argument, value) in [
            ("hash-header", "customer"),
            ("x-hash-on", "customer"),
            ("hash-property", "message_id"),
            ("hash-property", "correlation_id"),
            ("hash-property", "timestamp"),
        ] {
            if argument == "x-hash-on" && server.is_peer() {
                continue;
            }
            let exchange = declare_type(&channel, "x-consistent-hash", table(argument, text(value))).await;
            let queues: [String; 3] = queues(&channel).await;
            for queue in &queues {
                bind(&channel, queue, &exchange, "1").await;
            }
            let mut rounds = Vec::new();
            for key in ["one", "two"] {
                for id in 0..60 {
                    send_with(&channel, &exchange, key, &id.to_string(), message(argument, value, id)).await;
                }
                rounds.push(contents(&channel, &queues).await);
            }
            assert_eq!(rounds[0], rounds[1], "{argument} {value}");
            assert!(rounds[0].iter().all(|bodies| !bodies.is_empty()), "{rounds:?}");
            // What has nothing to hash stays together.
            for number in numbers(20) {
                send(&channel, &exchange, &number, &number).await;
            }
            let contents = contents(&channel, &queues).await;
            assert_eq!(contents.iter().filter(|bodies| !bodies.is_empty()).count(), 1);
        }
    });
}

#[test]
fn without_bindings_a_message_goes_nowhere() {
    run(async |server| {
        let channel = confirming(server).await;
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        for kind in TYPES {
            let publish = async |exchange: &str| {
                channel
                    .basic_publish(exchange.into(), "1".into(), mandatory, b"x", BasicProperties::default())
                    .await
                    .expect("publish")
                    .await
                    .expect("confirm")
            };
            let queue = queue(&channel, QueueDeclareOptions::default()).await;
            let exchange = declare_type(&channel, kind, FieldTable::default()).await;
            let returned = publish(&exchange).await.take_message().expect("a return");
            assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"), "{kind}");
            let alternate = declare_type(&channel, kind, table("alternate-exchange", text("amq.fanout"))).await;
            bind(&channel, &queue, "amq.fanout", "").await;
            assert_eq!(publish(&alternate).await, Confirmation::Ack(None), "{kind}");
            assert_eq!(drain(&channel, &queue).await, ["x"]);
        }
    });
}

#[test]
fn exchanges_can_share_out_to_exchanges() {
    run(async |server| {
        let channel = confirming(server).await;
        for kind in ["x-consistent-hash", "x-modulus-hash", "x-random"] {
            let outer = declare_type(&channel, kind, FieldTable::default()).await;
            let queues: [String; 4] = queues(&channel).await;
            for pair in queues.chunks(2) {
                let inner = exchange(&channel, ExchangeKind::Fanout).await;
                channel
                    .exchange_bind(
                        inner.as_str().into(),
                        outer.as_str().into(),
                        "1".into(),
                        ExchangeBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
                    .expect("exchange.bind");
                for queue in pair {
                    bind(&channel, queue, &inner, "").await;
                }
            }
            for number in numbers(100) {
                send(&channel, &outer, &number, &number).await;
            }
            let contents = contents(&channel, &queues).await;
            assert!(!contents[0].is_empty() && !contents[2].is_empty(), "{kind}");
            assert_eq!((&contents[0], &contents[2]), (&contents[1], &contents[3]), "{kind}");
            assert_eq!(contents[0].len() + contents[2].len(), 100, "{kind}");
        }
    });
}

#[test]
fn declarations_are_checked() {
    let server = server();
    let mut raw = server.channel();
    let string = |name: &str, value: &str| Bytes::new().field(name, b'S').longstr(value).done();
    let name = unique("exchange");
    let mut refused = |arguments: &[u8], text: &str| {
        raw.send_exchange(1, &name, "x-consistent-hash", 0, arguments);
        raw.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - {text}"), id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    };
    refused(&string("hash-property", "app_id"), "Unsupported property: app_id");
    let both = [string("hash-header", "h"), string("hash-property", "app_id")].concat();
    refused(&both, "hash-header and hash-property are mutually exclusive");
    // RabbitMQ fails with 541 at the first of these and does not know the others.
    if !server.is_peer() {
        let named = format!("in exchange '{name}' in vhost '/'");
        let number = Bytes::new().field("hash-header", b'I').long(1).done();
        refused(&number, &format!("invalid type 'signedint' for arg 'hash-header' {named}"));
        let both = [string("hash-header", "h"), string("x-hash-on", "h")].concat();
        refused(&both, "hash-header and x-hash-on are mutually exclusive");
        refused(&string("x-algorithm", "maglev"), "Unsupported x-algorithm: maglev");
    }
    // Redeclaring compares the rest, but not what is hashed.
    raw.send_exchange(1, &name, "x-consistent-hash", 0, &string("hash-header", "h"));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    raw.send_exchange(1, &name, "x-consistent-hash", 0, &string("hash-property", "nonsense"));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    raw.send_exchange(1, &name, "x-random", 0, &[]);
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '{}': received ''x-random'' \
         but current is ''x-consistent-hash''",
        server.vhost()
    );
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn bindings_are_checked() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let (hash, local) = (unique("hash"), unique("local"));
    raw.exchange(1, &hash, "x-consistent-hash", 0);
    raw.exchange(1, &local, "x-local-random", 0);
    let integer = |shown: &str| format!("The binding key must be an integer: {shown}");
    for (exchange, key, text) in [
        (&hash, "", integer("<<>>")),
        (&hash, "much", integer(r#"<<"much">>"#)),
        (&hash, "1.5", integer(r#"<<"1.5">>"#)),
        (&hash, " 1\n", integer(r#"<<" 1\n">>"#)),
        (&hash, "viel \u{fc}", integer("<<\"viel \u{fc}\"/utf8>>")),
        (&hash, "a\x01b", integer("<<97,1,98>>")),
        (&hash, "0", "The binding key must be greater than 0".to_owned()),
        (&hash, "-1", "The binding key must be greater than 0".to_owned()),
        (&hash, "10001", "The binding key must not exceed 10000".to_owned()),
        (&local, "key", "Non empty binding 'key' key not permitted".to_owned()),
    ] {
        raw.send_bind(1, &queue, exchange, key, &[]);
        raw.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - {text}"), id::QUEUE_BIND);
        raw.open_channel(1);
    }
    for (exchange, key) in [(&hash, "+5"), (&hash, "007"), (&hash, "10000"), (&local, "")] {
        raw.bind(1, &queue, exchange, key, &[]);
    }
    bind_exchange(&mut raw, "amq.fanout", &local);
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - Destination not found", id::EXCHANGE_BIND);
    raw.open_channel(1);
    // Undoing what was never done asks for no weight.
    let unbind = Bytes::new().short(0).shortstr(&queue).shortstr(&hash).shortstr("much").table([]);
    raw.call(1, id::QUEUE_UNBIND, unbind, id::QUEUE_UNBIND_OK);
}

fn bind_exchange(raw: &mut Raw, destination: &str, source: &str) {
    let arguments = Bytes::new().short(0).shortstr(destination).shortstr(source).shortstr("").octet(0).table([]);
    raw.method(1, id::EXCHANGE_BIND, arguments);
}

#[test]
fn places_survive_a_restart() {
    let broker = launch().start();
    let server = |address| {
        let mut raw = Raw::connect(address);
        raw.login("guest", "guest");
        raw.open("/");
        raw.open_channel(1);
        raw
    };
    let mut raw = server(broker.address());
    let types = ["x-consistent-hash", "x-modulus-hash"];
    let queues = ["north", "east", "south", "west"];
    for kind in types {
        raw.exchange(1, kind, kind, DURABLE);
    }
    for queue in queues {
        raw.declare(1, queue, DURABLE);
        for kind in types {
            raw.bind(1, queue, kind, "3", &[]);
        }
    }
    let places = |raw: &mut Raw| {
        for kind in types {
            for number in numbers(50) {
                raw.publish(1, (kind, &number), 0, &[0, 0], format!("{kind} {number}").as_bytes());
            }
        }
        queues.map(|queue| {
            let mut bodies = Vec::new();
            while let Some(message) = raw.get(1, queue, true) {
                bodies.push(message.text().to_owned());
            }
            bodies
        })
    };
    let before = places(&mut raw);
    assert!(before.iter().all(|bodies| !bodies.is_empty()));
    assert_eq!(before.concat().len(), 100);
    let broker = broker.restart();
    let mut raw = server(broker.address());
    assert_eq!(places(&mut raw), before);
    let broker = broker.kill9().start();
    let mut raw = server(broker.address());
    assert_eq!(places(&mut raw), before);
}
