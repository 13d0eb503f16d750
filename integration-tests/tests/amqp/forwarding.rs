//! Beyond the first exchange: bindings between exchanges, alternate exchanges, CC and BCC.

use crate::support::*;
use integration_tests::id;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};
use lapin::options::{
    BasicPublishOptions, ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

#[test]
fn exchanges_can_be_bound_in_a_circle() {
    run(async |server| {
        let channel = confirming(server).await;
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(exchange(&channel, ExchangeKind::Fanout).await);
        }
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (1, 1)] {
            bind_exchange(&channel, &names[to], &names[from], "").await;
        }
        bind(&channel, &queue, &names[1], "").await;
        bind(&channel, &queue, &names[2], "").await;
        for name in &names {
            send(&channel, name, "key", name).await;
        }
        assert_eq!(drain(&channel, &queue).await, names);
    });
}

#[test]
fn exchange_bindings_filter_by_the_type_of_their_source() {
    run(async |server| {
        let channel = confirming(server).await;
        let source = exchange(&channel, ExchangeKind::Topic).await;
        let sink = exchange(&channel, ExchangeKind::Direct).await;
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        bind_exchange(&channel, &sink, &source, "a.*").await;
        bind(&channel, &queue, &sink, "a.b").await;
        for key in ["a.b", "a.c", "b.b"] {
            send(&channel, &source, key, key).await;
        }
        assert_eq!(drain(&channel, &queue).await, ["a.b"]);
        channel
            .exchange_unbind(
                sink.as_str().into(),
                source.as_str().into(),
                "a.*".into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("unbind");
        send(&channel, &source, "a.b", "again").await;
        assert!(drain(&channel, &queue).await.is_empty());
    });
}

#[test]
fn an_alternate_exchange_takes_what_goes_nowhere() {
    run(async |server| {
        let channel = confirming(server).await;
        let last = exchange(&channel, ExchangeKind::Fanout).await;
        let with_alternate = async |kind, alternate: &str| {
            let options = ExchangeDeclareOptions::default();
            let arguments = table("alternate-exchange", text(alternate));
            exchange_with(&channel, kind, options, arguments).await
        };
        // direct, then headers that match nothing, then the fanout at the end.
        let second = with_alternate(ExchangeKind::Headers, &last).await;
        let first = with_alternate(ExchangeKind::Direct, &second).await;
        let (normal, alternate) = two_queues(&channel).await;
        bind(&channel, &normal, &first, "known").await;
        bind(&channel, &alternate, &last, "").await;
        send(&channel, &first, "known", "0").await;
        send(&channel, &first, "unknown", "1").await;
        assert_eq!(drain(&channel, &normal).await, ["0"]);
        let message = get(&channel, &alternate).await.expect("a message");
        assert_eq!(body(&message.delivery), "1");
        // It is still the message that was published to the first one.
        assert_eq!(message.exchange.as_str(), first);
        assert_eq!(message.routing_key.as_str(), "unknown");
    });
}

#[test]
fn alternates_that_lead_nowhere_return_the_message() {
    run(async |server| {
        let channel = confirming(server).await;
        let one = unique("one");
        let two = unique("two");
        for (name, alternate) in [(&one, &two), (&two, &one)] {
            channel
                .exchange_declare(
                    name.as_str().into(),
                    ExchangeKind::Direct,
                    ExchangeDeclareOptions::default(),
                    table("alternate-exchange", text(alternate)),
                )
                .await
                .expect("declare");
        }
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = async |exchange: &str| {
            channel
                .basic_publish(exchange.into(), "key".into(), mandatory, b"x", BasicProperties::default())
                .await
                .expect("publish")
                .await
                .expect("confirm")
        };
        let returned = publish(&one).await.take_message().expect("a return");
        assert_eq!(returned.exchange.as_str(), one);
        assert_eq!(returned.reply_text.as_str(), "NO_ROUTE");
        // A missing alternate is as good as none.
        let options = ExchangeDeclareOptions::default();
        let arguments = table("alternate-exchange", text(&unique("missing")));
        let three = exchange_with(&channel, ExchangeKind::Topic, options, arguments).await;
        let returned = publish(&three).await.take_message().expect("a return");
        assert_eq!(returned.exchange.as_str(), three);
        let queue = queue(&channel, QueueDeclareOptions::default()).await;
        bind(&channel, &queue, &two, "key").await;
        assert_eq!(publish(&one).await, Confirmation::Ack(None));
    });
}

#[test]
fn cc_and_bcc_add_keys() {
    run(async |server| {
        let channel = confirming(server).await;
        let mut queues = Vec::new();
        for _ in 0..3 {
            queues.push(queue(&channel, QueueDeclareOptions::default()).await);
        }
        let list = |names: &[&String]| {
            let mut array = FieldArray::default();
            for name in names {
                array.push(text(name));
            }
            // Anything but a string in the list is skipped.
            array.push(AMQPValue::LongInt(1));
            AMQPValue::FieldArray(array)
        };
        let expected = tables([("CC", list(&[&queues[1], &queues[0]])), ("other", text("kept"))]);
        let mut headers = expected.clone();
        headers.insert("BCC".into(), list(&[&queues[2], &queues[1]]));
        let properties = BasicProperties::default().with_headers(headers);
        send_with(&channel, "", &queues[0], "x", properties).await;
        for queue in &queues {
            let message = get(&channel, queue).await.expect("a message");
            assert_eq!(message.routing_key.as_str(), queues[0]);
            let seen = message.properties.headers().clone().expect("headers");
            assert_eq!(seen, expected);
            assert!(get(&channel, queue).await.is_none());
        }
    });
}

#[test]
fn cc_works_with_every_type() {
    run(async |server| {
        let channel = confirming(server).await;
        let (one, two) = two_queues(&channel).await;
        bind(&channel, &one, "amq.topic", "a.*").await;
        bind(&channel, &two, "amq.topic", "b.*").await;
        let mut array = FieldArray::default();
        array.push(text("b.x"));
        array.push(text("a.y"));
        let properties = BasicProperties::default().with_headers(table("CC", array));
        send_with(&channel, "amq.topic", "a.x", "x", properties).await;
        assert_eq!(drain(&channel, &one).await, ["x"]);
        assert_eq!(drain(&channel, &two).await, ["x"]);
    });
}

#[test]
fn cc_must_be_a_list() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    for name in ["CC", "BCC"] {
        let headers = Bytes::new().field(name, b'S').longstr("queue");
        // The flags say that there are headers and nothing else.
        let properties = Bytes::new().short(1 << 13).table(headers).done();
        raw.publish(1, ("", &queue), 0, &properties, b"x");
        let text = format!("PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,\"{name}\",longstr}}");
        raw.expect_channel_close(1, 406, &text, id::BASIC_PUBLISH);
        raw.open_channel(1);
    }
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    raw.get(1, &queue, true).expect("a message");
}

async fn bind_exchange(channel: &Channel, destination: &str, source: &str, key: &str) {
    channel
        .exchange_bind(
            destination.into(),
            source.into(),
            key.into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("exchange.bind");
}
