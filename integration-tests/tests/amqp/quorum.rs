//! Quorum queues: what they can be, what they count, and what becomes of messages that come back too often.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Delivery as RawDelivery, Raw};
use integration_tests::unique;
use integration_tests::wire::Bytes;
use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicQosOptions, BasicRecoverOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};

const TYPE: &str = "x-queue-type";
const LIMIT: &str = "x-delivery-limit";
const DURABLE: u8 = 2;

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

fn quorum() -> AMQPValue {
    text("quorum")
}

async fn quorum_queue<const N: usize>(channel: &Channel, more: [(&str, AMQPValue); N]) -> String {
    let mut arguments = table(TYPE, quorum());
    for (name, value) in more {
        arguments.insert(name.into(), value);
    }
    queue_with(channel, durable(), arguments).await
}

fn limit(limit: i32) -> (&'static str, AMQPValue) {
    (LIMIT, AMQPValue::LongInt(limit))
}

/// Gets a message once there is one: what a quorum queue of RabbitMQ has done with the last command shows a little later.
async fn got(channel: &Channel, queue: &str) -> Delivery {
    loop {
        if let Some(message) = get(channel, queue).await {
            return message.delivery;
        }
    }
}

async fn reject(delivery: &Delivery) {
    assert!(delivery.reject(BasicRejectOptions { requeue: true }).await.expect("basic.reject"));
}

async fn nack(delivery: &Delivery) {
    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    assert!(delivery.nack(options).await.expect("basic.nack"));
}

/// The redelivered flag, x-acquired-count and x-delivery-count.
fn counted(delivery: &Delivery) -> (bool, Option<i64>, Option<i64>) {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let count = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongLongInt(count)) => Some(*count),
        Some(other) => panic!("{name} is {other:?}"),
        None => None,
    };
    (delivery.redelivered, count("x-acquired-count"), count("x-delivery-count"))
}

const NEW: (bool, Option<i64>, Option<i64>) = (false, None, None);

fn back(acquired: i64, failed: i64) -> (bool, Option<i64>, Option<i64>) {
    (true, Some(acquired), (failed > 0).then_some(failed))
}

/// Declares a queue and asserts channel.close 406.
#[track_caller]
fn refused(raw: &mut Raw, name: &str, bits: u8, arguments: &[u8], text: &str) {
    raw.send_declare(1, name, bits, arguments);
    raw.expect_channel_close(1, 406, &format!("PRECONDITION_FAILED - {text}"), id::QUEUE_DECLARE);
    raw.open_channel(1);
}

fn raw_quorum() -> Bytes {
    Bytes::new().field(TYPE, b'S').longstr("quorum")
}

#[test]
fn they_are_durable_shared_and_have_a_name() {
    let server = server();
    let mut raw = server.channel();
    let (name, vhost) = (unique("queue"), server.vhost());
    let arguments = raw_quorum().done();
    // The bits: durable 2, exclusive 4, auto-delete 8.
    for (bits, property) in [
        (DURABLE | 4, "exclusive-owner"),
        (DURABLE | 8, "auto-delete"),
        (0, "non-durable"),
        (4 | 8, "auto-delete"),
        (8, "auto-delete"),
        (4, "exclusive-owner"),
    ] {
        let text = format!("invalid property '{property}' for queue '{name}' in vhost '{vhost}'");
        refused(&mut raw, &name, bits, &arguments, &text);
    }
    let text = "Cannot declare a server-named queue for type rabbit_quorum_queue";
    refused(&mut raw, "", DURABLE, &arguments, text);
    let stream = Bytes::new().field(TYPE, b'S').longstr("stream").done();
    refused(&mut raw, "", DURABLE, &stream, "Cannot declare a server-named queue for type rabbit_stream_queue");
    raw.send_declare(1, &name, DURABLE, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.send_declare(1, &name, DURABLE, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
}

#[test]
fn each_kind_has_arguments_of_its_own() {
    let server = server();
    let mut raw = server.channel();
    let (name, vhost) = (unique("queue"), server.vhost());
    let integer = |argument: &str, value: i32| Bytes::new().field(argument, b'I').long(value as u32);
    let string = |argument: &str, value: &str| Bytes::new().field(argument, b'S').longstr(value);
    let quorum = |argument: Bytes| raw_quorum().raw(argument.done()).done();
    let module = |argument: &str, module: &str| {
        format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}' of queue type {module}")
    };
    for argument in [
        "x-max-priority",
        "x-queue-version",
        "x-stream-max-segment-size-bytes",
        "x-stream-filter-size-bytes",
        "x-initial-cluster-size",
    ] {
        let text = module(argument, "rabbit_quorum_queue");
        refused(&mut raw, &name, DURABLE, &quorum(integer(argument, 2)), &text);
    }
    for argument in ["x-queue-mode", "x-max-age", "x-queue-master-locator"] {
        let text = module(argument, "rabbit_quorum_queue");
        refused(&mut raw, &name, DURABLE, &quorum(string(argument, "1D")), &text);
    }
    for argument in [
        LIMIT,
        "x-quorum-initial-group-size",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-consumer-disconnected-timeout",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
        "x-stream-max-segment-size-bytes",
        "x-stream-filter-size-bytes",
        "x-initial-cluster-size",
    ] {
        let text = module(argument, "rabbit_classic_queue");
        refused(&mut raw, &name, DURABLE, integer(argument, 20).as_ref(), &text);
    }
    for argument in ["x-delayed-retry-type", "x-max-age", "x-dead-letter-strategy"] {
        let text = module(argument, "rabbit_classic_queue");
        refused(&mut raw, &name, DURABLE, string(argument, "at-least-once").as_ref(), &text);
    }
    let invalid = |argument: &str, reason: &str| {
        format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}': {reason}")
    };
    for (argument, value, reason) in [
        ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
        ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
        ("x-max-in-memory-length", -1, "{value_negative,-1}"),
        ("x-max-in-memory-bytes", -1, "{value_negative,-1}"),
        ("x-consumer-timeout", -1, "{value_negative,-1}"),
        ("x-consumer-disconnected-timeout", -1, "{value_negative,-1}"),
    ] {
        refused(&mut raw, &name, DURABLE, &quorum(integer(argument, value)), &invalid(argument, reason));
        let text = invalid(argument, "\"expected integer, got longstr\"");
        refused(&mut raw, &name, DURABLE, &quorum(string(argument, "1")), &text);
    }
    let text = invalid("x-dead-letter-strategy", "invalid_dlx_strategy");
    refused(&mut raw, &name, DURABLE, &quorum(string("x-dead-letter-strategy", "foo")), &text);
    for argument in [
        integer(LIMIT, 5),
        integer(LIMIT, -5),
        integer(LIMIT, 0),
        integer("x-quorum-initial-group-size", 3),
        integer("x-quorum-target-group-size", 0),
        integer("x-max-in-memory-length", 0),
        integer("x-max-in-memory-bytes", 5),
        integer("x-consumer-disconnected-timeout", 0),
        string("x-member-placement-tag", "x"),
        string("x-queue-leader-locator", "balanced"),
        string("x-dead-letter-strategy", "at-least-once"),
    ] {
        raw.send_declare(1, &unique("queue"), DURABLE, &quorum(argument));
        raw.expect(1, id::QUEUE_DECLARE_OK);
    }
}

#[test]
fn a_limit_is_a_number() {
    if peer_is_set("RabbitMQ takes any value for the limit, and has none then") {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let arguments = raw_quorum().field(LIMIT, b'S').longstr("5").done();
    let (name, vhost) = (unique("queue"), server.vhost());
    let reason = "\"expected integer, got longstr\"";
    let text = format!("invalid arg '{LIMIT}' for queue '{name}' in vhost '{vhost}': {reason}");
    refused(&mut raw, &name, DURABLE, &arguments, &text);
}

#[test]
fn redeclaring_compares_what_the_kind_has() {
    run(async |server| {
        let channel = channel(server).await;
        let name = quorum_queue(&channel, [limit(3)]).await;
        let vhost = server.vhost();
        let with = |more: &[(&str, AMQPValue)]| {
            let mut arguments = tables([(TYPE, quorum()), limit(3)]);
            for (name, value) in more {
                arguments.insert((*name).into(), value.clone());
            }
            arguments
        };
        for (options, arguments, what) in [
            (
                durable(),
                table(TYPE, quorum()),
                "arg 'x-delivery-limit' …: received none but current is the value '3' of type 'signedint'",
            ),
            (durable(), with(&[limit(4)]), "arg 'x-delivery-limit' …: received '4' but current is '3'"),
            (
                durable(),
                with(&[("x-quorum-initial-group-size", AMQPValue::LongInt(3))]),
                "arg 'x-quorum-initial-group-size' …: received the value '3' of type 'signedint' but current is none",
            ),
            (
                durable(),
                with(&[(TYPE, text("classic"))]),
                "arg 'x-queue-type' …: received 'classic' but current is 'quorum'",
            ),
            (durable(), tables([limit(3)]), "arg 'x-queue-type' …: received 'classic' but current is 'quorum'"),
            (QueueDeclareOptions::default(), with(&[]), "arg 'durable' …: received 'false' but current is 'true'"),
        ] {
            let what = what.replace('…', &format!("for queue '{name}' in vhost '{vhost}'"));
            let channel = crate::support::channel(server).await;
            let declared = declare(&channel, &name, options, arguments).await;
            assert_fails(declared, 406, &format!("PRECONDITION_FAILED - inequivalent {what}"));
        }
        // No argument of quorum queues, so nothing to compare.
        let other = with(&[("x-max-priority", AMQPValue::LongInt(3))]);
        declare(&channel, &name, durable(), other).await.expect("queue.declare");
        let classic = queue_with(&channel, durable(), FieldTable::default()).await;
        let declared = declare(&channel, &classic, durable(), table(TYPE, quorum())).await;
        let place = format!("for queue '{classic}' in vhost '{vhost}'");
        let text = format!("inequivalent arg 'x-queue-type' {place}: received 'quorum' but current is 'classic'");
        assert_fails(declared, 406, &format!("PRECONDITION_FAILED - {text}"));
    });
}

#[test]
fn what_they_do_not_have_ends_the_connection() {
    let server = server();
    let vhost = server.vhost();
    let declare = |arguments: Bytes| {
        let mut raw = server.channel();
        let name = unique("queue");
        raw.send_declare(1, &name, DURABLE, arguments.as_ref());
        raw.expect(1, id::QUEUE_DECLARE_OK);
        (raw, name)
    };
    // The bits: if-unused 1, if-empty 2.
    for (bits, flag) in [(1, "if-unused"), (2, "if-empty"), (3, "if-unused")] {
        let (mut raw, name) = declare(raw_quorum());
        raw.method(1, id::QUEUE_DELETE, Bytes::new().short(0).shortstr(&name).octet(bits));
        let text = format!(
            "NOT_IMPLEMENTED - cannot delete queue '{name}' in vhost '{vhost}'. queue.delete operations with {flag} \
             flag set are not supported by quorum queues"
        );
        raw.expect_connection_close(540, &text, id::QUEUE_DELETE);
    }
    let (mut raw, name) = declare(raw_quorum());
    raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(5).octet(1), id::BASIC_QOS_OK);
    raw.publish(1, ("", &name), 0, &[0, 0], b"x");
    raw_got(&mut raw, &name);
    raw.method(1, id::BASIC_CONSUME, Bytes::new().short(0).shortstr(&name).shortstr("").octet(0).table([]));
    let text = format!("NOT_IMPLEMENTED - queue '{name}' in vhost '{vhost}' does not support global qos");
    raw.expect_connection_close(540, &text, id::BASIC_CONSUME);

    let (mut raw, name) = declare(raw_quorum().field("x-single-active-consumer", b't').octet(1));
    raw.method(1, id::BASIC_GET, Bytes::new().short(0).shortstr(&name).octet(0));
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain access to locked queue '{name}' in vhost '{vhost}'. basic.get operations are \
         not supported by <<\"quorum\">> queues with single active consumer"
    );
    raw.expect_channel_close(1, 405, &text, id::BASIC_GET);
}

fn raw_got(raw: &mut Raw, queue: &str) -> RawDelivery {
    loop {
        if let Some(message) = raw.get(1, queue, false) {
            return message;
        }
    }
}

#[test]
fn consumer_arguments_name_the_kind() {
    run(async |server| {
        let channel = channel(server).await;
        let queue = quorum_queue(&channel, []).await;
        let vhost = server.vhost();
        let arguments = table("x-stream-offset", AMQPValue::LongInt(1));
        let consumed = channel.basic_consume(queue.as_str().into(), "".into(), Default::default(), arguments).await;
        let text = format!(
            "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{queue}' in vhost '{vhost}' of queue type \
             rabbit_quorum_queue"
        );
        let (code, found) = consumed.err().map(|error| failure::<()>(Err(error))).expect("it must fail");
        assert_eq!((code, found), (406, text));
    });
}

#[test]
fn giving_back_is_counted_and_rejecting_limited() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = quorum_queue(&channel, [limit(3)]).await;
        send(&channel, "", &queue, "x").await;
        let mut failed = 0;
        for acquired in 0..8 {
            let message = got(&channel, &queue).await;
            assert_eq!(counted(&message), if acquired == 0 { NEW } else { back(acquired, failed) });
            if acquired % 2 == 1 {
                failed += 1;
                reject(&message).await;
            } else {
                nack(&message).await;
            }
        }
        // The fourth rejection was one too many.
        assert!(get(&channel, &queue).await.is_none());
        assert_eq!(counts(&channel, &queue).await, (0, 0));
    });
}

#[test]
fn ends_of_channels_and_connections_are_in_vain_and_recover_is_not() {
    run(async |server| {
        let control = confirming(server).await;
        let queue = quorum_queue(&control, [limit(2)]).await;
        send(&control, "", &queue, "x").await;
        let channel = channel_of(&connect(server).await).await;
        assert_eq!(counted(&got(&channel, &queue).await), NEW);
        channel.basic_recover(BasicRecoverOptions { requeue: true }).await.expect("basic.recover");
        assert_eq!(counted(&got(&channel, &queue).await), back(1, 0));
        channel.close(200, "".into()).await.expect("channel.close");
        let connection = connect(server).await;
        let channel = channel_of(&connection).await;
        assert_eq!(counted(&got(&channel, &queue).await), back(2, 1));
        connection.close(200, "".into()).await.expect("connection.close");
        // To a consumer as well.
        let connection = connect(server).await;
        let channel = channel_of(&connection).await;
        let mut consumer = consume(&channel, &queue, Default::default()).await;
        assert_eq!(counted(&next(&mut consumer).await), back(3, 2));
        connection.close(200, "".into()).await.expect("connection.close");
        let kept = channel_of(&connect(server).await).await;
        let answer = kept.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.expect("basic.get");
        assert!(answer.is_none(), "{answer:?}");
    });
}

#[test]
fn the_limit_is_20_unless_something_else_is_said() {
    run(async |server| {
        let channel = confirming(server).await;
        for (arguments, deliveries) in [(vec![], 21), (vec![limit(0)], 1), (vec![limit(-1)], 40)] {
            let mut table = table(TYPE, quorum());
            for (name, value) in arguments {
                table.insert(name.into(), value);
            }
            let queue = queue_with(&channel, durable(), table).await;
            send(&channel, "", &queue, "x").await;
            for failed in 0..deliveries {
                let message = got(&channel, &queue).await;
                assert_eq!(counted(&message), if failed == 0 { NEW } else { back(failed, failed) });
                reject(&message).await;
            }
            let left = get(&channel, &queue).await.map(|message| counted(&message.delivery));
            assert_eq!(left, (deliveries == 40).then_some(back(40, 40)));
        }
    });
}

#[test]
fn what_comes_back_too_often_is_dead_lettered() {
    run(async |server| {
        let channel = confirming(server).await;
        let target = queue(&channel, durable()).await;
        let to = [limit(1), ("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&target))];
        let source = quorum_queue(&channel, to).await;
        let properties = BasicProperties::default().with_headers(table("h", AMQPValue::LongInt(1)));
        send_with(&channel, "", &source, "x", properties).await;
        for _ in 0..2 {
            reject(&got(&channel, &source).await).await;
        }
        let dead = got(&channel, &target).await;
        let headers = dead.properties.headers().clone().unwrap_or_default();
        let mut names: Vec<&str> = headers.inner().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        let expected = [
            "h",
            "x-death",
            "x-first-death-exchange",
            "x-first-death-queue",
            "x-first-death-reason",
            "x-last-death-exchange",
            "x-last-death-queue",
            "x-last-death-reason",
        ];
        assert_eq!(names, expected, "a classic queue shows no counts");
        let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("no x-death") };
        let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
        let field = |name: &str| death.inner().get(name).cloned();
        assert_eq!(field("reason"), Some(text("delivery_limit")));
        assert_eq!(field("count"), Some(AMQPValue::LongLongInt(1)));
        assert_eq!((field("queue"), field("exchange")), (Some(text(&source)), Some(text(""))));
        assert_eq!(headers.inner().get("x-last-death-reason"), Some(&text("delivery_limit")));
        assert_eq!(counts(&channel, &source).await.0, 0);
    });
}

#[test]
fn headers_of_a_client_with_these_names_are_replaced() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = quorum_queue(&channel, []).await;
        let headers = tables([
            ("a", AMQPValue::LongInt(2)),
            ("x-acquired-count", AMQPValue::LongLongInt(88)),
            ("x-delivery-count", AMQPValue::LongLongInt(77)),
        ]);
        send_with(&channel, "", &queue, "x", BasicProperties::default().with_headers(headers)).await;
        let message = got(&channel, &queue).await;
        assert_eq!(counted(&message), (false, Some(88), Some(77)), "nothing was counted yet");
        reject(&message).await;
        let message = got(&channel, &queue).await;
        assert_eq!(counted(&message), back(1, 1));
        let headers = message.properties.headers().clone().unwrap_or_default();
        assert_eq!(headers.inner().get("a"), Some(&AMQPValue::LongInt(2)));
    });
}

#[test]
fn a_transaction_counts_at_its_commit() {
    run(async |server| {
        let control = confirming(server).await;
        let queue = quorum_queue(&control, []).await;
        send(&control, "", &queue, "x").await;
        let channel = channel_of(&connect(server).await).await;
        channel.tx_select().await.expect("tx.select");
        let message = got(&channel, &queue).await;
        reject(&message).await;
        channel.tx_commit().await.expect("tx.commit");
        let message = got(&channel, &queue).await;
        assert_eq!(counted(&message), back(1, 1));
        nack(&message).await;
        channel.tx_commit().await.expect("tx.commit");
        assert_eq!(counted(&got(&channel, &queue).await), back(2, 1));
    });
}

#[test]
fn there_are_32_priorities_and_most_messages_have_the_fifth() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = quorum_queue(&channel, []).await;
        let given = [None, Some(0), Some(1), Some(4), Some(5), Some(31), Some(32), Some(255), Some(9), Some(3), None];
        for (number, priority) in given.into_iter().enumerate() {
            let properties = BasicProperties::default();
            let properties = match priority {
                Some(priority) => properties.with_priority(priority),
                None => properties,
            };
            send_with(&channel, "", &queue, &number.to_string(), properties).await;
        }
        let mut order = Vec::new();
        for _ in given {
            order.push(body(&got(&channel, &queue).await));
        }
        assert_eq!(order, ["5", "6", "7", "8", "4", "0", "3", "10", "9", "2", "1"]);
    });
}

#[test]
fn what_comes_back_together_keeps_its_order() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = quorum_queue(&channel, []).await;
        for number in numbers(5) {
            send(&channel, "", &queue, &number).await;
        }
        let channel = channel_of(&connect(server).await).await;
        channel.basic_qos(4, BasicQosOptions::default()).await.expect("qos");
        let mut consumer = consume(&channel, &queue, Default::default()).await;
        let first = next_bodies(&mut consumer, 4).await;
        channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await.expect("nack");
        assert_eq!(next_bodies(&mut consumer, 4).await, first);
    });
}

#[test]
fn messages_without_acknowledgement_are_gone() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = quorum_queue(&channel, []).await;
        send(&channel, "", &queue, "x").await;
        let message = got(&channel, &queue).await;
        nack(&message).await;
        let mut consumer = consume(&channel, &queue, no_ack()).await;
        assert_eq!(counted(&next(&mut consumer).await), back(1, 0));
        assert_eq!(counts(&channel, &queue).await, (0, 1));
    });
}
