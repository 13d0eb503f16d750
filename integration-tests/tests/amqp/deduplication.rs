//! Duplicates that are not taken, by exchanges and by queues.

use crate::support::*;
use integration_tests::id;
use integration_tests::wire::Bytes;
use integration_tests::{DEADLINE, unique};
use lapin::message::{BasicGetMessage, BasicReturnMessage};
use lapin::options::{
    BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

const ABSENT: &str = "RabbitMQ has it as a plugin of others only";
const HEADER: &str = "x-deduplication-header";
const TYPE: &str = "x-message-deduplication";
const HOUR_MS: i32 = 3_600_000;

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// The arguments that ask for it, and others.
fn asking<const N: usize>(others: [(&str, AMQPValue); N]) -> FieldTable {
    let mut arguments = tables(others);
    arguments.insert(TYPE.into(), AMQPValue::Boolean(true));
    arguments
}

/// A queue that remembers so many messages.
async fn window_of(channel: &Channel, size: i32) -> String {
    queue_with(channel, durable(), asking([("x-cache-size", AMQPValue::LongInt(size))])).await
}

/// A persistent message with this header.
fn known_by(header: &str, value: AMQPValue) -> BasicProperties {
    persistent().with_headers(table(header, value))
}

/// A persistent message with an id.
fn with_id(id: &str) -> BasicProperties {
    known_by(HEADER, text(id))
}

/// Publishes and waits for the confirm.
async fn send_id(channel: &Channel, exchange: &str, key: &str, id: &str) {
    send_with(channel, exchange, key, id, with_id(id)).await;
}

/// Publishes with `mandatory`; what came back with the confirm.
async fn send_mandatory(channel: &Channel, exchange: &str, key: &str, id: &str) -> Option<BasicReturnMessage> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, id.as_bytes(), with_id(id)).await;
    match confirm.expect("basic.publish").await.expect("a confirm") {
        Confirmation::Ack(returned) => returned,
        other => panic!("not acknowledged: {other:?}"),
    }
}

#[test]
fn a_queue_takes_a_message_once() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue_with(&channel, durable(), asking([])).await;
        for id in ["a", "b", "a", "c", "b", "a"] {
            send_id(&channel, "", &queue, id).await;
        }
        // Not known by anything.
        send_with(&channel, "", &queue, "plain", persistent()).await;
        send_with(&channel, "", &queue, "plain", persistent()).await;
        send_with(&channel, "", &queue, "void", known_by(HEADER, AMQPValue::Void)).await;
        send_with(&channel, "", &queue, "void", known_by(HEADER, AMQPValue::Void)).await;
        let all = ["a", "b", "c", "plain", "plain", "void", "void"];
        assert_eq!(drain(&channel, &queue).await, all);
        // That it was consumed or purged changes nothing.
        send_id(&channel, "", &queue, "a").await;
        send_id(&channel, "", &queue, "d").await;
        channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.expect("purge");
        send_id(&channel, "", &queue, "d").await;
        assert_eq!(counts(&channel, &queue).await, (0, 0));
    });
}

#[test]
fn transient_messages_and_queues_have_windows_too() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let one = queue_with(&channel, QueueDeclareOptions::default(), asking([])).await;
        let two = queue_with(&channel, durable(), asking([("x-cache-persistence", text("memory"))])).await;
        for queue in [&one, &two] {
            let transient = BasicProperties::default().with_headers(table(HEADER, text("transient")));
            for _ in 0..2 {
                send_id(&channel, "", queue, "persistent").await;
                send_with(&channel, "", queue, "transient", transient.clone()).await;
            }
            assert_eq!(drain(&channel, queue).await, ["persistent", "transient"]);
        }
    });
}

#[test]
fn the_header_can_be_another_and_its_values_anything() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue_with(&channel, durable(), asking([(HEADER, text("order"))])).await;
        for (body, value) in [
            ("1", AMQPValue::LongInt(1)),
            ("again", AMQPValue::LongLongInt(1)),
            ("again", AMQPValue::ShortShortUInt(1)),
            ("text", text("1")),
            ("again", AMQPValue::ByteArray(b"1".to_vec().into())),
            ("true", AMQPValue::Boolean(true)),
            ("time", AMQPValue::Timestamp(1)),
            ("table", AMQPValue::FieldTable(table("a", AMQPValue::LongInt(1)))),
            ("again", AMQPValue::FieldTable(table("a", AMQPValue::LongInt(1)))),
        ] {
            send_with(&channel, "", &queue, body, known_by("order", value)).await;
        }
        // The usual header means nothing here.
        send_id(&channel, "", &queue, "x").await;
        send_id(&channel, "", &queue, "x").await;
        assert_eq!(drain(&channel, &queue).await, ["1", "text", "true", "time", "table", "x", "x"]);
    });
}

#[test]
fn the_oldest_is_forgotten_for_the_newest() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let queue = window_of(&channel, 2).await;
        for id in ["a", "b", "a", "c", "b", "a", "c"] {
            send_id(&channel, "", &queue, id).await;
        }
        // At the second b it is b and c; then a takes the place of b.
        assert_eq!(drain(&channel, &queue).await, ["a", "b", "c", "a"]);
        // Without a size it is 128.
        let queue = queue_with(&channel, durable(), asking([])).await;
        for id in numbers(129) {
            send_id(&channel, "", &queue, &id).await;
        }
        for id in ["1", "128", "0"] {
            send_id(&channel, "", &queue, id).await;
        }
        assert_eq!(counts(&channel, &queue).await, (130, 0));
    });
}

/// Sends the same message until the queue has taken it once more.
async fn send_until_taken(channel: &Channel, exchange: &str, queue: &str, properties: &BasicProperties) {
    let taken = async {
        while drain(channel, queue).await.is_empty() {
            send_with(channel, exchange, queue, "again", properties.clone()).await;
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("it is remembered for too long");
}

#[test]
fn keys_are_remembered_for_a_time() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let ttl = |ttl_ms| asking([("x-cache-ttl", AMQPValue::LongInt(ttl_ms))]);
        let short = queue_with(&channel, durable(), ttl(1)).await;
        send_id(&channel, "", &short, "a").await;
        assert_eq!(drain(&channel, &short).await, ["a"]);
        send_until_taken(&channel, "", &short, &with_id("a")).await;

        let long = queue_with(&channel, durable(), ttl(HOUR_MS)).await;
        let for_ms = |id: &str, ttl_ms| {
            let headers = tables([(HEADER, text(id)), ("x-cache-ttl", AMQPValue::LongInt(ttl_ms))]);
            persistent().with_headers(headers)
        };
        // The message has the last word, unless it makes no sense.
        for (id, ttl_ms) in [("never", 0), ("moment", 1), ("always", HOUR_MS), ("wrong", -1)] {
            send_with(&channel, "", &long, id, for_ms(id, ttl_ms)).await;
        }
        assert_eq!(drain(&channel, &long).await, ["never", "moment", "always", "wrong"]);
        for id in ["never", "always", "wrong"] {
            send_id(&channel, "", &long, id).await;
        }
        assert_eq!(drain(&channel, &long).await, ["never"]);
        send_until_taken(&channel, "", &long, &with_id("moment")).await;
    });
}

#[test]
fn the_exchange_type_is_a_fanout_that_routes_a_message_once() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let kind = ExchangeKind::Custom(TYPE.to_owned());
        // Numbers may be strings here, as the plugin has it.
        let arguments = tables([("x-cache-size", text("10")), ("x-cache-ttl", AMQPValue::LongInt(HOUR_MS))]);
        let exchange = exchange_with(&channel, kind, options, arguments).await;
        let (one, two) = (queue(&channel, durable()).await, queue(&channel, QueueDeclareOptions::default()).await);
        bind(&channel, &one, &exchange, "ignored").await;
        bind(&channel, &two, &exchange, "").await;
        for id in ["a", "b", "a"] {
            assert!(send_mandatory(&channel, &exchange, "key", id).await.is_none(), "a duplicate is not returned");
        }
        send_with(&channel, &exchange, "", "plain", persistent()).await;
        send_with(&channel, &exchange, "", "plain", persistent()).await;
        for queue in [&one, &two] {
            assert_eq!(drain(&channel, queue).await, ["a", "b", "plain", "plain"]);
        }
    });
}

#[test]
fn an_exchange_of_any_type_can_be_asked() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let declare = async |kind| exchange_with(&channel, kind, ExchangeDeclareOptions::default(), asking([])).await;
        let topic = declare(ExchangeKind::Topic).await;
        let queue = queue(&channel, durable()).await;
        bind(&channel, &queue, &topic, "a.*").await;
        // What leads nowhere has not been had by anybody.
        for _ in 0..2 {
            let returned = send_mandatory(&channel, &topic, "b.c", "1").await.expect("it leads nowhere");
            assert_eq!(returned.reply_code, 312);
        }
        for key in ["a.b", "a.c", "b.c"] {
            assert!(send_mandatory(&channel, &topic, key, "1").await.is_none(), "{key}");
        }
        assert_eq!(drain(&channel, &queue).await, ["1"]);

        // One behind another, and an alternate that gets what leads nowhere, but no duplicates.
        let inner = declare(ExchangeKind::Fanout).await;
        let binding = ExchangeBindOptions::default();
        channel
            .exchange_bind(inner.as_str().into(), topic.as_str().into(), "i".into(), binding, FieldTable::default())
            .await
            .expect("exchange.bind");
        bind(&channel, &queue, &inner, "").await;
        send_id(&channel, &inner, "", "2").await;
        // The inner one has had it, the outer one has not: it comes by the other way.
        bind(&channel, &queue, &topic, "i.#").await;
        send_id(&channel, &topic, "i", "2").await;
        send_id(&channel, &topic, "i", "2").await;
        assert_eq!(drain(&channel, &queue).await, ["2", "2"]);
    });
}

#[test]
fn exchange_and_queue_remember_for_themselves() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = exchange_with(&channel, ExchangeKind::Fanout, options, asking([])).await;
        let (plain, window) = (queue(&channel, durable()).await, window_of(&channel, 10).await);
        bind(&channel, &plain, &exchange, "").await;
        bind(&channel, &window, &exchange, "").await;
        send_id(&channel, "", &window, "a").await;
        send_id(&channel, &exchange, "", "a").await;
        send_id(&channel, &exchange, "", "a").await;
        send_id(&channel, &exchange, "", "b").await;
        send_id(&channel, "", &window, "b").await;
        assert_eq!(drain(&channel, &plain).await, ["a", "b"]);
        assert_eq!(drain(&channel, &window).await, ["a", "b"]);
        // Another queue of the same name has had nothing.
        channel.queue_delete(window.as_str().into(), QueueDeleteOptions::default()).await.expect("delete");
        declare(&channel, &window, durable(), asking([])).await.expect("declare");
        send_id(&channel, "", &window, "a").await;
        assert_eq!(drain(&channel, &window).await, ["a"]);
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.expect("delete");
    });
}

#[test]
fn transactions_take_a_message_once() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let connection = connect(server).await;
        let (tx, other) = (channel_of(&connection).await, channel_of(&connection).await);
        other.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = exchange_with(&other, ExchangeKind::Fanout, options, asking([])).await;
        let (plain, window) = (queue(&other, durable()).await, window_of(&other, 10).await);
        bind(&other, &plain, &exchange, "").await;
        tx.tx_select().await.expect("tx.select");
        let publish = async |exchange: &str, key: &str, id: &str| {
            publish_with(&tx, exchange, key, id, with_id(id)).await;
        };
        publish(&exchange, "", "a").await;
        publish("", &window, "a").await;
        tx.tx_rollback().await.expect("rollback");
        // What was rolled back was never had.
        for (exchange, key) in [(exchange.as_str(), ""), ("", window.as_str())] {
            for id in ["a", "b", "a"] {
                publish(exchange, key, id).await;
            }
        }
        // Somebody else comes first with one of them.
        send_id(&other, &exchange, "", "b").await;
        send_id(&other, "", &window, "b").await;
        tx.tx_commit().await.expect("commit");
        for id in ["a", "c"] {
            publish(&exchange, "", id).await;
            publish("", &window, id).await;
        }
        tx.tx_commit().await.expect("commit");
        send_id(&other, &exchange, "", "c").await;
        send_id(&other, "", &window, "c").await;
        assert_eq!(drain(&other, &plain).await, ["b", "a", "c"]);
        assert_eq!(drain(&other, &window).await, ["b", "a", "c"]);
    });
}

/// The next message of a queue, which is on its way there.
async fn moved(channel: &Channel, queue: &str) -> BasicGetMessage {
    loop {
        if let Some(message) = get(channel, queue).await {
            return message;
        }
    }
}

#[test]
fn a_dead_letter_is_no_duplicate() {
    if peer_is_set(ABSENT) {
        return;
    }
    run(async |server| {
        let channel = confirming(server).await;
        let retry = unique("retry");
        let (work, to_retry) = (unique("work"), text(&retry));
        let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", to_retry)];
        declare(&channel, &work, durable(), asking(arguments)).await.expect("declare");
        let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&work))];
        declare(&channel, &retry, durable(), tables(arguments)).await.expect("declare");
        send_id(&channel, "", &work, "job").await;
        for queue in [&work, &retry] {
            let nack = BasicNackOptions { requeue: false, multiple: false };
            moved(&channel, queue).await.delivery.nack(nack).await.expect("nack");
        }
        send_id(&channel, "", &work, "job").await;
        // It comes back to where it was published, and is not taken for its own duplicate.
        let message = moved(&channel, &work).await;
        assert_eq!(body(&message.delivery), "job");
        assert!(get(&channel, &work).await.is_none());
    });
}

#[test]
fn a_restart_forgets_no_message_that_was_confirmed() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let mut broker = launch().start();
    for round in 0..3 {
        let address = format!("amqp://guest:guest@{}/%2f", broker.address());
        block_on(async {
            let connection = lapin::Connection::connect(&address, Default::default()).await.expect("connect");
            let channel = channel_of(&connection).await;
            channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare("once".into(), ExchangeKind::Fanout, options, asking([]))
                .await
                .expect("exchange.declare");
            declare(&channel, "behind", durable(), FieldTable::default()).await.expect("declare");
            declare(&channel, "window", durable(), asking([])).await.expect("declare");
            declare(&channel, "memory", durable(), asking([("x-cache-persistence", text("memory"))]))
                .await
                .expect("declare");
            bind(&channel, "behind", "once", "").await;
            let transient = BasicProperties::default().with_headers(table(HEADER, text("transient")));
            for (exchange, key) in [("once", ""), ("", "window"), ("", "memory")] {
                send_id(&channel, exchange, key, "always").await;
                send_id(&channel, exchange, key, &round.to_string()).await;
                send_with(&channel, exchange, key, "transient", transient.clone()).await;
                send_with(&channel, exchange, key, "transient", transient.clone()).await;
            }
            // A transient message is lost with the broker, and may come again after that.
            let new = match round {
                0 => vec!["always".to_owned(), round.to_string(), "transient".to_owned()],
                _ => vec![round.to_string(), "transient".to_owned()],
            };
            assert_eq!(drain(&channel, "behind").await, new);
            assert_eq!(drain(&channel, "window").await, new);
            let all = vec!["always".to_owned(), round.to_string(), "transient".to_owned()];
            assert_eq!(drain(&channel, "memory").await, all);
        });
        broker = if round == 0 { broker.restart() } else { broker.kill9().start() };
    }
}

#[test]
fn arguments_are_checked_and_compared() {
    if peer_is_set(ABSENT) {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let integer = |name: &str, value: u32| Bytes::new().field(name, b'I').long(value).done();
    let string = |name: &str, value: &str| Bytes::new().field(name, b'S').longstr(value).done();
    let on = Bytes::new().field(TYPE, b't').octet(1).done();
    for (arguments, text) in [
        (string(TYPE, "yes"), "x-message-deduplication' for #: {unacceptable_type,longstr}"),
        (integer("x-cache-size", 0), "x-cache-size' for #: {value_zero,0}"),
        (integer("x-cache-ttl", u32::MAX), "x-cache-ttl' for #: {value_negative,-1}"),
        (integer(HEADER, 1), "x-deduplication-header' for #: {unacceptable_type,signedint}"),
    ] {
        for (what, method) in [("queue", id::QUEUE_DECLARE), ("exchange", id::EXCHANGE_DECLARE)] {
            match what {
                "queue" => raw.send_declare(1, "new", 2, &arguments),
                _ => raw.send_exchange(1, "new", "direct", 2, &arguments),
            }
            let named = text.replace('#', &format!("{what} 'new' in vhost '{}'", server.vhost()));
            raw.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - invalid arg '{named}"), method);
            raw.open_channel(1);
        }
    }
    raw.send_exchange(1, "new", TYPE, 2, &[]);
    let text = "PRECONDITION_FAILED - Missing or invalid argument, 'x-cache-size' must be an integer greater than 0";
    raw.expect_channel_close(1, 406, text, id::EXCHANGE_DECLARE);
    raw.open_channel(1);

    let sized = |size| [on.clone(), integer("x-cache-size", size)].concat();
    raw.send_declare(1, "queue", 2, &sized(5));
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.send_exchange(1, "exchange", "direct", 2, &sized(5));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    for (what, method) in [("queue", id::QUEUE_DECLARE), ("exchange", id::EXCHANGE_DECLARE)] {
        match what {
            "queue" => raw.send_declare(1, "queue", 2, &sized(6)),
            _ => raw.send_exchange(1, "exchange", "direct", 2, &sized(6)),
        }
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg 'x-cache-size' for {what} '{what}' in vhost '{}': received '6' but \
             current is '5'",
            server.vhost()
        );
        raw.expect_channel_close(1, 406, &text, method);
        raw.open_channel(1);
    }
}
