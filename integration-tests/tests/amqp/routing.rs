//! Where each type of exchange sends a message.

use crate::support::*;
use integration_tests::id;
use integration_tests::wire::Bytes;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

#[test]
fn direct_compares_the_whole_key() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = exchange(&channel, ExchangeKind::Direct).await;
        let (one, two) = two_queues(&channel).await;
        bind(&channel, &one, &exchange, "a").await;
        bind(&channel, &one, &exchange, "b").await;
        bind(&channel, &two, &exchange, "b").await;
        // A second identical binding changes nothing.
        bind(&channel, &two, &exchange, "b").await;
        bind(&channel, &two, &exchange, "").await;
        for key in ["a", "b", "c", "A", ""] {
            send(&channel, &exchange, key, key).await;
        }
        assert_eq!(drain(&channel, &one).await, ["a", "b"]);
        assert_eq!(drain(&channel, &two).await, ["b", ""]);
    });
}

#[test]
fn fanout_ignores_the_key() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = exchange(&channel, ExchangeKind::Fanout).await;
        let (one, two) = two_queues(&channel).await;
        bind(&channel, &one, &exchange, "a").await;
        bind(&channel, &one, &exchange, "b").await;
        bind(&channel, &two, &exchange, "").await;
        send(&channel, &exchange, "c", "x").await;
        assert_eq!(drain(&channel, &one).await, ["x"]);
        assert_eq!(drain(&channel, &two).await, ["x"]);
        channel
            .queue_unbind(one.as_str().into(), exchange.as_str().into(), "a".into(), FieldTable::default())
            .await
            .expect("unbind");
        send(&channel, &exchange, "", "y").await;
        assert_eq!(drain(&channel, &one).await, ["y"]);
    });
}

#[test]
fn topic_patterns_match_words() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = exchange(&channel, ExchangeKind::Topic).await;
        let keys = ["", "a", "b", "a.b", "a.", ".", "a..b", "a.x.b", "a.x.y.b", "quick.orange.fox", "*", "#", "a.*"];
        let cases: [(&str, &[&str]); 13] = [
            ("#", &keys),
            ("#.#", &keys),
            ("", &[""]),
            ("*", &["a", "b", "*", "#"]),
            ("a", &["a"]),
            ("a.*", &["a.b", "a.", "a.*"]),
            ("a.#", &["a", "a.b", "a.", "a..b", "a.x.b", "a.x.y.b", "a.*"]),
            ("#.b", &["b", "a.b", "a..b", "a.x.b", "a.x.y.b"]),
            ("a.*.b", &["a..b", "a.x.b"]),
            ("a.#.b", &["a.b", "a..b", "a.x.b", "a.x.y.b"]),
            ("*.orange.*", &["quick.orange.fox"]),
            ("**", &[]),
            ("a.**.b", &[]),
        ];
        for (pattern, expected) in cases {
            let queue = queue(&channel, QueueDeclareOptions::exclusive()).await;
            bind(&channel, &queue, &exchange, pattern).await;
            for key in keys {
                send(&channel, &exchange, key, key).await;
            }
            assert_eq!(drain(&channel, &queue).await, expected, "{pattern}");
            unbind(&channel, &queue, &exchange, pattern).await;
        }
    });
}

#[test]
fn a_message_goes_once_to_a_queue_however_many_patterns_match() {
    run(async |server| {
        let channel = confirming(server).await;
        let (one, two) = two_queues(&channel).await;
        for pattern in ["#", "a.*", "a.b", "*.b", "a.#.b"] {
            bind(&channel, &one, "amq.topic", pattern).await;
        }
        bind(&channel, &two, "amq.topic", "a.*").await;
        send(&channel, "amq.topic", "a.b", "x").await;
        assert_eq!(drain(&channel, &one).await, ["x"]);
        assert_eq!(drain(&channel, &two).await, ["x"]);
        unbind(&channel, &one, "amq.topic", "#").await;
        unbind(&channel, &one, "amq.topic", "a.b").await;
        send(&channel, "amq.topic", "a.c", "y").await;
        send(&channel, "amq.topic", "z", "z").await;
        assert_eq!(drain(&channel, &one).await, ["y"]);
        assert_eq!(drain(&channel, &two).await, ["y"]);
    });
}

#[test]
fn headers_match_by_four_modes() {
    run(async |server| {
        let channel = confirming(server).await;
        let exchange = exchange(&channel, ExchangeKind::Headers).await;
        let messages = [
            ("none", None),
            ("a", Some(tables([("a", text("1"))]))),
            ("ab", Some(tables([("a", text("1")), ("b", 2i32.into())]))),
            ("b", Some(tables([("b", 2i64.into())]))),
            ("abx", Some(tables([("a", text("1")), ("b", 2i16.into()), ("x-c", text("3"))]))),
            ("x", Some(tables([("x-c", text("3"))]))),
            ("wrong", Some(tables([("a", text("2")), ("b", 3i32.into())]))),
        ];
        let want = |mode: Option<&str>, with_x: bool| {
            let mut table = tables([("a", text("1")), ("b", 2i32.into())]);
            if with_x {
                table.insert("x-c".into(), text("3"));
            }
            if let Some(mode) = mode {
                table.insert("x-match".into(), text(mode));
            }
            table
        };
        let cases = [
            (want(None, false), vec!["ab", "abx"]),
            (want(Some("all"), true), vec!["ab", "abx"]),
            (want(Some("any"), true), vec!["a", "ab", "b", "abx"]),
            (want(Some("all-with-x"), true), vec!["abx"]),
            (want(Some("any-with-x"), true), vec!["a", "ab", "b", "abx", "x"]),
            // A value without a type asks for presence only.
            (table("a", AMQPValue::Void), vec!["a", "ab", "abx", "wrong"]),
            (FieldTable::default(), messages.iter().map(|(name, _)| *name).collect()),
            (table("x-match", text("any")), vec![]),
            // An integer is never equal to a float or a string.
            (table("b", 2.0f64), vec![]),
            (table("b", text("2")), vec![]),
            (table("b", AMQPValue::ShortShortUInt(2)), vec!["ab", "b", "abx"]),
        ];
        for (arguments, expected) in cases {
            let queue = queue(&channel, QueueDeclareOptions::exclusive()).await;
            let description = format!("{arguments:?}");
            bind_with(&channel, &queue, &exchange, "ignored", arguments).await;
            for (name, headers) in &messages {
                let mut properties = BasicProperties::default();
                if let Some(headers) = headers {
                    properties = properties.with_headers(headers.clone());
                }
                send_with(&channel, &exchange, "", name, properties).await;
            }
            assert_eq!(drain(&channel, &queue).await, expected, "{description}");
        }
    });
}

#[test]
fn a_bad_x_match_is_refused() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let wrong_value = Bytes::new().field("x-match", b'S').longstr("foo");
    let wrong_type = Bytes::new().field("x-match", b'b').octet(1);
    for (arguments, text) in [
        (
            wrong_value,
            "PRECONDITION_FAILED - Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
        ),
        (wrong_type, "PRECONDITION_FAILED - Invalid x-match field type byte (value 1); expected longstr"),
    ] {
        raw.send_bind(1, &queue, "amq.headers", "", arguments.as_ref());
        raw.expect_channel_close(1, 406, text, id::QUEUE_BIND);
        raw.open_channel(1);
    }
}

#[test]
fn bindings_with_other_arguments_are_other_bindings() {
    run(async |server| {
        let channel = confirming(server).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        bind_with(&channel, &queue, "amq.headers", "", table("a", text("1"))).await;
        bind_with(&channel, &queue, "amq.headers", "", table("a", text("2"))).await;
        let with = |value| BasicProperties::default().with_headers(table("a", text(value)));
        let unbind = async |value| {
            channel
                .queue_unbind(queue.as_str().into(), "amq.headers".into(), "".into(), table("a", text(value)))
                .await
                .expect("unbind");
        };
        unbind("3").await;
        send_with(&channel, "amq.headers", "", "first", with("1")).await;
        unbind("1").await;
        send_with(&channel, "amq.headers", "", "second", with("1")).await;
        send_with(&channel, "amq.headers", "", "third", with("2")).await;
        assert_eq!(drain(&channel, &queue).await, ["first", "third"]);
    });
}

async fn unbind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await.expect("queue.unbind");
}
