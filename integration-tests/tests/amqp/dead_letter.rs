//! Messages that a queue gives up and another exchange gets: their headers, the keys they go by, and the ways round.

use crate::deaths::*;
use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Delivery as RawDelivery, Raw};
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{Bytes, PERSISTENT, Reader};
use lapin::options::{
    BasicNackOptions, BasicRejectOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

const EXCHANGE: &str = "x-dead-letter-exchange";
const KEY: &str = "x-dead-letter-routing-key";
const STRATEGY: &str = "x-dead-letter-strategy";

/// A queue whose dead letters go to this exchange.
async fn source(channel: &Channel, exchange: &str) -> String {
    queue_with(channel, QueueDeclareOptions::default(), table(EXCHANGE, text(exchange))).await
}

/// A queue whose dead letters go to another one.
async fn source_to(channel: &Channel, target: &str) -> String {
    let arguments = tables([(EXCHANGE, text("")), (KEY, text(target))]);
    queue_with(channel, QueueDeclareOptions::default(), arguments).await
}

fn plain() -> QueueDeclareOptions {
    QueueDeclareOptions::default()
}

async fn reject(channel: &Channel, queue: &str) {
    let message = got(channel, queue).await;
    assert!(message.reject(BasicRejectOptions { requeue: false }).await.expect("basic.reject"));
}

fn expired_from(mut entry: FieldTable, expiration: &str) -> FieldTable {
    entry.insert("original-expiration".into(), text(expiration));
    entry
}

fn raw_get(raw: &mut Raw, queue: &str) -> RawDelivery {
    loop {
        if let Some(message) = raw.get(1, queue, true) {
            return message;
        }
    }
}

fn raw_reject(raw: &mut Raw, queue: &str) {
    let tag = raw.get(1, queue, false).expect("a message").tag;
    raw.method(1, id::BASIC_REJECT, Bytes::new().longlong(tag).octet(0));
}

#[test]
fn every_octet_of_the_headers() {
    let server = server();
    let mut raw = server.channel();
    let target = raw.exclusive_queue(1);
    let source = unique("queue");
    let arguments = Bytes::new().field(EXCHANGE, b'S').longstr("").field(KEY, b'S').longstr(&target);
    raw.send_declare(1, &source, 4, arguments.as_ref());
    raw.expect(1, id::QUEUE_DECLARE_OK);
    // Delivery mode, priority, expiration, message id.
    let before = Bytes::new().short(0x1980).octet(2).octet(3).shortstr("60000").shortstr("m").done();
    raw.publish(1, ("", &source), 0, &before, b"body");
    raw_reject(&mut raw, &source);
    let message = raw_get(&mut raw, &target);
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str(), message.text()), ("", &*target, "body"));

    let text = |bytes: Bytes, name: &str, value: &str| bytes.field(name, b'S').longstr(value);
    let entry = text(Bytes::new(), "original-expiration", "60000").field("count", b'l').longlong(1);
    let entry = text(text(entry, "reason", "rejected"), "queue", &source).field("time", b'T').done();
    let found = &message.content.properties;
    // Flags, length of the headers, name and length of x-death, tag and length of the entry.
    let at = 2 + 4 + (1 + 7 + 1 + 4) + (1 + 4) + entry.len();
    let time = Reader::new(&found[at..]).longlong();
    assert!(time > 1_700_000_000, "{time}");
    let entry = Bytes::new().raw(entry).longlong(time);
    let keys = Bytes::new().octet(b'S').longstr(&source).done();
    let entry = text(entry, "exchange", "").field("routing-keys", b'A').longstr(keys).done();
    let entries = Bytes::new().octet(b'F').longstr(entry).done();
    let mut headers = Bytes::new().field("x-death", b'A').longstr(entries);
    for kind in ["first", "last"] {
        headers = text(headers, &format!("x-{kind}-death-exchange"), "");
        headers = text(headers, &format!("x-{kind}-death-queue"), &source);
        headers = text(headers, &format!("x-{kind}-death-reason"), "rejected");
    }
    let headers = headers.done();
    let after = Bytes::new().short(0x3880).table(&headers).octet(2).octet(3).shortstr("m").done();
    assert_eq!(*found, after);
}

#[test]
fn headers_of_clients_are_no_history() {
    run(async |server| {
        let channel = channel(server).await;
        let target = queue(&channel, plain()).await;
        let source = source_to(&channel, &target).await;
        let mut headers = tables([("x-death", text("mine")), ("x-foo", text("y")), ("a", AMQPValue::LongInt(1))]);
        headers.insert("x-first-death-reason".into(), text("client"));
        headers.insert("x-last-death-queue".into(), text("client"));
        let mut properties = BasicProperties::default().with_headers(headers);
        for _ in 0..2 {
            publish_with(&channel, "", &source, "x", properties).await;
            reject(&channel, &source).await;
            let message = got(&channel, &target).await;
            assert_eq!(deaths(&message), [death(&source, "rejected", 1, "", &[&source])]);
            let rejected = ["rejected", source.as_str(), ""];
            assert_first_and_last(&message, rejected, rejected);
            let kept = headers_of(&message);
            assert_eq!((field(&kept, "x-foo"), field(&kept, "a")), (&text("y"), &AMQPValue::LongInt(1)));
            assert_eq!(kept.inner().len(), 9);
            // Published again, with all headers that it got: the account starts anew.
            properties = message.properties;
        }
    });
}

#[test]
fn deaths_are_counted_by_queue_and_reason_the_latest_first() {
    run(async |server| {
        let channel = channel(server).await;
        let second = unique("queue");
        let first = source_to(&channel, &second).await;
        let arguments = tables([(EXCHANGE, text("")), (KEY, text(&first))]);
        declare(&channel, &second, plain(), arguments).await.expect("queue.declare");
        publish_with(&channel, "", &first, "x", BasicProperties::default().with_expiration("070000".into())).await;
        for _ in 0..2 {
            reject(&channel, &first).await;
            reject(&channel, &second).await;
        }
        reject(&channel, &first).await;
        let message = got(&channel, &second).await;
        let entries = [
            expired_from(death(&first, "rejected", 3, "", &[&first]), "70000"),
            death(&second, "rejected", 2, "", &[&second]),
        ];
        assert_eq!(deaths(&message), entries);
        assert_eq!(message.properties.expiration(), &None);
        assert_first_and_last(&message, ["rejected", &first, ""], ["rejected", &first, ""]);
    });
}

#[test]
fn an_expired_message_expires_once() {
    run(async |server| {
        let channel = channel(server).await;
        let target = queue(&channel, plain()).await;
        let source = source_to(&channel, &target).await;
        for delivery_mode in [1, 2] {
            let properties = BasicProperties::default().with_delivery_mode(delivery_mode);
            publish_with(&channel, "", &source, "x", properties.clone().with_expiration("20".into())).await;
            let message = got(&channel, &target).await;
            assert_eq!(deaths(&message), [expired_from(death(&source, "expired", 1, "", &[&source]), "20")]);
            assert_eq!(message.properties.expiration(), &None);
            assert_eq!(message.properties.delivery_mode(), &Some(delivery_mode));
            assert!(!message.redelivered);
        }
    });
}

#[test]
fn zero_is_too_short_for_nobody() {
    run(async |server| {
        let channel = channel(server).await;
        let target = queue(&channel, plain()).await;
        let source = source_to(&channel, &target).await;
        publish_with(&channel, "", &source, "x", persistent().with_expiration("0".into())).await;
        let message = got(&channel, &target).await;
        assert_eq!(deaths(&message), [expired_from(death(&source, "expired", 1, "", &[&source]), "0")]);
    });
}

#[test]
fn keys_of_cc_and_bcc_go_along() {
    run(async |server| {
        let channel = channel(server).await;
        let (cc, bcc) = two_queues(&channel).await;
        let entry = exchange(&channel, ExchangeKind::Direct).await;
        let middle = exchange(&channel, ExchangeKind::Direct).await;
        let (first, second) = (source(&channel, &middle).await, source(&channel, "").await);
        bind(&channel, &second, &middle, "key").await;
        bind(&channel, &first, &entry, "key").await;
        let headers = tables([("CC", array(&[&cc])), ("BCC", array(&[&bcc]))]);
        publish_with(&channel, &entry, "key", "x", BasicProperties::default().with_headers(headers)).await;
        reject(&channel, &first).await;
        reject(&channel, &second).await;
        for queue in [&cc, &bcc] {
            let message = got(&channel, queue).await;
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("", "key"));
            let entries = [
                death(&second, "rejected", 1, &middle, &["key", &cc]),
                death(&first, "rejected", 1, &entry, &["key", &cc]),
            ];
            assert_eq!(deaths(&message), entries);
            let headers = headers_of(&message);
            assert_eq!(field(&headers, "CC"), &array(&[&cc]));
            assert!(!headers.contains_key("BCC"));
            assert_first_and_last(&message, ["rejected", &first, &entry], ["rejected", &second, &middle]);
        }
    });
}

#[test]
fn another_key_takes_the_place_of_all() {
    run(async |server| {
        let channel = channel(server).await;
        let (cc, last) = two_queues(&channel).await;
        let second = source(&channel, "").await;
        let fanout = exchange(&channel, ExchangeKind::Fanout).await;
        bind(&channel, &second, &fanout, "").await;
        let arguments = tables([(EXCHANGE, text(&fanout)), (KEY, text(&last))]);
        let first = queue_with(&channel, plain(), arguments).await;
        let headers = table("CC", array(&[&cc]));
        publish_with(&channel, "", &first, "x", BasicProperties::default().with_headers(headers)).await;
        assert_eq!(body(&got(&channel, &cc).await), "x");
        reject(&channel, &first).await;
        let message = got(&channel, &second).await;
        assert_eq!(message.routing_key.as_str(), last);
        assert!(message.reject(BasicRejectOptions { requeue: false }).await.expect("basic.reject"));
        let message = got(&channel, &last).await;
        let entries =
            [death(&second, "rejected", 1, &fanout, &[&last]), death(&first, "rejected", 1, "", &[&first, &cc])];
        assert_eq!(deaths(&message), entries);
        assert_eq!(field(&headers_of(&message), "CC"), &array(&[&cc]));
        assert_eq!(counts(&channel, &cc).await, (0, 0), "the keys of CC do not count any more");
    });
}

#[test]
fn rejecting_goes_round_as_often_as_clients_like() {
    run(async |server| {
        let channel = channel(server).await;
        let name = unique("queue");
        let arguments = tables([(EXCHANGE, text("")), (KEY, text(&name))]);
        declare(&channel, &name, plain(), arguments).await.expect("queue.declare");
        publish(&channel, "", &name, "x").await;
        for _ in 0..5 {
            reject(&channel, &name).await;
        }
        assert_eq!(deaths(&got(&channel, &name).await), [death(&name, "rejected", 5, "", &[&name])]);
    });
}

#[test]
fn several_go_in_their_order() {
    run(async |server| {
        let channel = channel(server).await;
        let (first, second) = two_queues(&channel).await;
        let fanout = exchange(&channel, ExchangeKind::Fanout).await;
        bind(&channel, &first, &fanout, "").await;
        bind(&channel, &second, &fanout, "").await;
        let source = source(&channel, &fanout).await;
        for number in numbers(300) {
            publish_with(&channel, "", &source, &number, persistent()).await;
        }
        let mut last = got(&channel, &source).await;
        for _ in 1..300 {
            last = got(&channel, &source).await;
        }
        let all = BasicNackOptions { multiple: true, requeue: false };
        assert!(last.nack(all).await.expect("basic.nack"));
        for queue in [&first, &second] {
            let mut consumer = consume(&channel, queue, no_ack()).await;
            assert_eq!(next_bodies(&mut consumer, 300).await, numbers(300));
        }
    });
}

#[test]
fn nothing_is_left_of_one_that_leads_nowhere() {
    run(async |server| {
        let channel = channel(server).await;
        let missing = unique("exchange");
        let source = source(&channel, &missing).await;
        for queue in [&source, &source_to(&channel, &unique("no such queue")).await] {
            publish_with(&channel, "", queue, "gone", persistent()).await;
            reject(&channel, queue).await;
            assert_eq!(counts(&channel, queue).await, (0, 0));
        }
        // The exchange may come later.
        let options = ExchangeDeclareOptions::default();
        channel
            .exchange_declare(missing.as_str().into(), ExchangeKind::Topic, options, FieldTable::default())
            .await
            .expect("exchange.declare");
        let target = queue(&channel, plain()).await;
        bind(&channel, &target, &missing, "#").await;
        publish(&channel, "", &source, "there").await;
        reject(&channel, &source).await;
        assert_eq!(body(&got(&channel, &target).await), "there");
    });
}

#[test]
fn they_are_routed_as_publishes_are() {
    run(async |server| {
        let channel = channel(server).await;
        // By headers, to an alternate exchange, through another exchange, and by an internal one.
        let alternate = exchange(&channel, ExchangeKind::Fanout).await;
        let arguments = table("alternate-exchange", text(&alternate));
        let options = ExchangeDeclareOptions { internal: true, ..ExchangeDeclareOptions::default() };
        let dlx = exchange_with(&channel, ExchangeKind::Headers, options, arguments).await;
        let (by_header, other) = two_queues(&channel).await;
        let through = queue(&channel, plain()).await;
        bind_with(&channel, &by_header, &dlx, "", tables([("kind", text("a"))])).await;
        bind(&channel, &other, &alternate, "").await;
        let fanout = exchange(&channel, ExchangeKind::Fanout).await;
        channel
            .exchange_bind(
                fanout.as_str().into(),
                dlx.as_str().into(),
                "".into(),
                ExchangeBindOptions::default(),
                table("kind", text("neither")),
            )
            .await
            .expect("exchange.bind");
        bind(&channel, &through, &fanout, "").await;
        let source = source(&channel, &dlx).await;
        for kind in ["a", "b"] {
            let properties = BasicProperties::default().with_headers(table("kind", text(kind)));
            publish_with(&channel, "", &source, kind, properties).await;
            reject(&channel, &source).await;
        }
        assert_eq!(body(&got(&channel, &by_header).await), "a");
        let message = got(&channel, &other).await;
        assert_eq!((body(&message).as_str(), message.exchange.as_str()), ("b", dlx.as_str()));
        assert_eq!(counts(&channel, &through).await, (0, 0));
    });
}

#[test]
fn a_transaction_dead_letters_at_its_commit() {
    run(async |server| {
        let channel = channel(server).await;
        let target = queue(&channel, plain()).await;
        let source = source_to(&channel, &target).await;
        for mode in [1, 2] {
            publish_with(&channel, "", &source, "x", BasicProperties::default().with_delivery_mode(mode)).await;
        }
        channel.tx_select().await.expect("tx.select");
        let messages = [got(&channel, &source).await, got(&channel, &source).await];
        for message in &messages {
            assert!(message.reject(BasicRejectOptions { requeue: false }).await.expect("basic.reject"));
        }
        channel.tx_rollback().await.expect("tx.rollback");
        assert_eq!(counts(&channel, &target).await, (0, 0));
        for message in &messages {
            let acker = lapin::options::BasicRejectOptions { requeue: false };
            channel.basic_reject(message.delivery_tag, acker).await.expect("basic.reject");
        }
        channel.tx_commit().await.expect("tx.commit");
        for _ in 0..2 {
            assert_eq!(deaths(&got(&channel, &target).await), [death(&source, "rejected", 1, "", &[&source])]);
        }
    });
}

#[test]
fn wrong_arguments_are_refused_in_rabbitmqs_words() {
    let server = server();
    let mut raw = server.channel();
    let vhost = server.vhost().to_owned();
    let queue = unique("queue");
    let string = |name: &str, value: &str| Bytes::new().field(name, b'S').longstr(value).done();
    let integer = |name: &str| Bytes::new().field(name, b'I').long(5).done();
    let invalid = |name: &str, reason: &str| {
        format!("PRECONDITION_FAILED - invalid arg '{name}' for queue '{queue}' in vhost '{vhost}'{reason}")
    };
    let typed = |kind: &str| {
        format!(
            "PRECONDITION_FAILED - invalid type '{kind}' for arg '{EXCHANGE}' in queue '{queue}' in vhost '{vhost}'"
        )
    };
    let cases = [
        (integer(EXCHANGE), typed("signedint")),
        (Bytes::new().field(EXCHANGE, b't').octet(1).done(), typed("bool")),
        (string(KEY, "a"), invalid(KEY, ": routing_key_but_no_dlx_defined")),
        (integer(KEY), invalid(KEY, ": {unacceptable_type,signedint}")),
        ([string(EXCHANGE, ""), integer(KEY)].concat(), invalid(KEY, ": {unacceptable_type,signedint}")),
        (
            [string(EXCHANGE, ""), string(STRATEGY, "at-least-once")].concat(),
            invalid(STRATEGY, " of queue type rabbit_classic_queue"),
        ),
        (string(STRATEGY, "foo"), invalid(STRATEGY, " of queue type rabbit_classic_queue")),
    ];
    for (arguments, refusal) in cases {
        raw.send_declare(1, &queue, 4, &arguments);
        raw.expect_channel_close(1, 406, &refusal, id::QUEUE_DECLARE);
        raw.open_channel(1);
    }
    let inequivalent = |name: &str, received: &str, current: &str| {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{name}' for queue '{queue}' in vhost '{vhost}': \
             received {received} but current is {current}"
        )
    };
    let declared = [string(EXCHANGE, "a"), string(KEY, "x")].concat();
    raw.send_declare(1, &queue, 4, &declared);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.send_declare(1, &queue, 4, &declared);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    let cases = [
        (string(KEY, "x"), inequivalent(EXCHANGE, "none", "the value 'a' of type 'longstr'")),
        (string(EXCHANGE, "a"), inequivalent(KEY, "none", "the value 'x' of type 'longstr'")),
        ([string(EXCHANGE, "b"), string(KEY, "x")].concat(), inequivalent(EXCHANGE, "'b'", "'a'")),
        ([integer(EXCHANGE), string(KEY, "x")].concat(), inequivalent(EXCHANGE, "'5'", "'a'")),
        ([string(EXCHANGE, "a"), string(KEY, "y")].concat(), inequivalent(KEY, "'y'", "'x'")),
    ];
    for (arguments, refusal) in cases {
        raw.send_declare(1, &queue, 4, &arguments);
        raw.expect_channel_close(1, 406, &refusal, id::QUEUE_DECLARE);
        raw.open_channel(1);
    }
}

#[test]
fn a_new_queue_must_be_readable_and_its_exchange_writable() {
    let may_all_but_write = user("", Some([".*", "", ".*"]));
    let may_all_but_read = user("", Some([".*", ".*", ""]));
    let server = Server::with_users(launch(), &[may_all_but_write.clone(), may_all_but_read.clone()]);
    let vhost = server.vhost().to_owned();
    let arguments = Bytes::new().field(EXCHANGE, b'S').longstr("the exchange").done();
    let queue = unique("queue");
    for (user, what) in [
        (&may_all_but_write, format!("write access to exchange 'the exchange' in vhost '{vhost}'")),
        (&may_all_but_read, format!("read access to queue '{queue}' in vhost '{vhost}'")),
    ] {
        let mut raw = server.channel_as(user);
        raw.send_declare(1, &queue, 4, &arguments);
        let text = format!("ACCESS_REFUSED - {what} refused for user '{}'", user.name);
        raw.expect_channel_close(1, 403, &text, id::QUEUE_DECLARE);
        raw.open_channel(1);
        // Without dead letters none of these rights is asked for.
        raw.declare(1, &unique("queue"), 4);
        raw.close();
    }
}

#[test]
fn what_has_moved_has_moved_for_good() {
    if peer_is_set("it kills the broker") {
        return;
    }
    let broker = launch().start();
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "target", 2);
    let arguments = Bytes::new().field(EXCHANGE, b'S').longstr("").field(KEY, b'S').longstr("target").done();
    raw.send_declare(1, "source", 2, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    for number in numbers(3) {
        raw.publish(1, ("", "source"), 0, PERSISTENT, number.as_bytes());
        raw.expect(1, id::BASIC_ACK);
    }
    raw_reject(&mut raw, "source");
    let before = raw_get_unacked(&mut raw, "target");
    // What comes later in the log is on disk, and so is all that came before.
    raw.publish(1, ("", "source"), 0, PERSISTENT, b"fence");
    raw.expect(1, id::BASIC_ACK);
    let server = Server::own(broker.kill9());
    let mut raw = server.channel();
    let after = raw.get(1, "target", true).expect("it has moved");
    assert_eq!(after.content, before.content, "with all that was written down about it");
    assert_eq!(after.text(), "0");
    assert!(raw.get(1, "target", true).is_none());
    for body in ["1", "2", "fence"] {
        assert_eq!(raw.get(1, "source", true).expect("a message").text(), body);
    }
    assert!(raw.get(1, "source", true).is_none(), "it is not in both places");
}

fn raw_get_unacked(raw: &mut Raw, queue: &str) -> RawDelivery {
    loop {
        if let Some(message) = raw.get(1, queue, false) {
            return message;
        }
    }
}

#[test]
fn a_deep_backlog_expires_into_another_queue() {
    if peer_is_set("it kills the broker") {
        return;
    }
    const COUNT: usize = 3_000;
    let broker = launch().start();
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw.declare(1, "target", 2);
    let arguments = Bytes::new().field(EXCHANGE, b'S').longstr("").field(KEY, b'S').longstr("target").done();
    raw.send_declare(1, "source", 2, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    // Their time is over before the broker is back, which finds them all on disk only.
    let properties = Bytes::new().short((1 << 12) | (1 << 8)).octet(2).shortstr("2000").done();
    let padding = "x".repeat(1000);
    for number in numbers(COUNT) {
        raw.publish(1, ("", "source"), 0, &properties, format!("{number} {padding}").as_bytes());
    }
    let mut confirmed = 0;
    while confirmed < COUNT as u64 {
        confirmed = Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong();
    }
    let server = Server::own(broker.kill9());
    let mut raw = server.channel();
    raw.consume(1, "target", "consumer", 2);
    for number in numbers(COUNT) {
        let message = raw.delivery(1);
        assert_eq!(message.text().split(' ').next(), Some(number.as_str()));
    }
    assert_eq!(raw.declare(1, "source", 2 | 1).1, 0);
}
