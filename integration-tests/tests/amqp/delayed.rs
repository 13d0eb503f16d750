//! Exchanges that keep messages back: x-delayed-message, and x-delayed-exchange on exchanges of other types.

use std::collections::BTreeSet;

use crate::support::*;
use integration_tests::id;
use integration_tests::process::Broker;
use integration_tests::raw::{Delivery, Raw};
use integration_tests::unique;
use integration_tests::wire::{Bytes, PERSISTENT, Reader};

const DURABLE: u8 = 2;
const MANDATORY: u8 = 1;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
/// Far enough away not to come while a test runs.
const LONG_MS: u32 = 3_600_000;
/// Long enough for a test to stop the broker first, short enough to wait for.
const SHORT_MS: u32 = 400;

fn inner(kind: &str) -> Vec<u8> {
    Bytes::new().field("x-delayed-type", b'S').longstr(kind).done()
}

fn delayed_exchange() -> Vec<u8> {
    Bytes::new().field("x-delayed-exchange", b't').octet(1).done()
}

fn delay(ms: u32) -> Vec<u8> {
    Bytes::new().field("x-delay", b'I').long(ms).done()
}

/// Persistent, with these headers.
fn with_headers(headers: impl AsRef<[u8]>) -> Vec<u8> {
    Bytes::new().short(HEADERS | DELIVERY_MODE).table(headers).octet(2).done()
}

/// Not persistent, with these headers.
fn transient(headers: impl AsRef<[u8]>) -> Vec<u8> {
    Bytes::new().short(HEADERS).table(headers).done()
}

#[track_caller]
fn declare_exchange(raw: &mut Raw, kind: &str, bits: u8, arguments: &[u8]) -> String {
    let name = unique("exchange");
    raw.send_exchange(1, &name, kind, bits, arguments);
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    name
}

/// A durable delaying exchange with a durable queue that gets everything, on a channel that confirms.
#[track_caller]
fn topology(raw: &mut Raw) -> (String, String) {
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let exchange = declare_exchange(raw, "x-delayed-message", DURABLE, &inner("fanout"));
    let queue = raw.declare(1, &unique("queue"), DURABLE).0;
    raw.bind(1, &queue, &exchange, "", &[]);
    (exchange, queue)
}

#[track_caller]
fn publish(raw: &mut Raw, exchange: &str, properties: &[u8], body: &str) {
    raw.publish(1, (exchange, "key"), MANDATORY, properties, body.as_bytes());
    raw.expect(1, id::BASIC_ACK);
}

#[track_caller]
fn texts(raw: &mut Raw, count: usize) -> Vec<String> {
    (0..count).map(|_| raw.delivery(1).text().to_owned()).collect()
}

/// The headers of a message that has no other property but perhaps a delivery mode.
fn headers_of(message: &Delivery) -> Vec<u8> {
    let mut reader = Reader::new(&message.content.properties);
    reader.short();
    reader.longstr().to_vec()
}

fn open(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw.open_channel(1);
    raw
}

/// A consumer of each queue, on a connection of its own: what comes to one does not come before the answer to the next.
fn consumers(broker: &Broker, queues: &[String]) -> Vec<Raw> {
    let consume = |queue: &String| {
        let mut raw = open(broker);
        raw.consume(1, queue, queue, 2);
        raw
    };
    queues.iter().map(consume).collect()
}

fn skipped() -> bool {
    peer_is_set("RabbitMQ 4.3 has no delayed messages")
}

#[test]
fn messages_come_in_the_order_of_their_times() {
    if skipped() {
        return;
    }
    let server = server();
    for arguments in [inner("fanout"), delayed_exchange()] {
        for (bits, persistent) in [(DURABLE, true), (DURABLE, false), (0, true), (0, false)] {
            let mut raw = server.channel();
            raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
            let kind = if arguments == delayed_exchange() { "fanout" } else { "x-delayed-message" };
            let exchange = declare_exchange(&mut raw, kind, bits, &arguments);
            let queue = raw.declare(1, &unique("queue"), DURABLE).0;
            raw.bind(1, &queue, &exchange, "", &[]);
            raw.consume(1, &queue, "", 2);
            for (body, ms) in [("c", 350), ("a", 150), ("b", 250), ("now", 0)] {
                let headers = delay(ms);
                let properties = if persistent { with_headers(&headers) } else { transient(&headers) };
                // Whatever is delivered meanwhile comes before the confirm: read both.
                raw.publish(1, (exchange.as_str(), "key"), 0, &properties, body.as_bytes());
            }
            let mut bodies = Vec::new();
            let mut confirmed = 0;
            while bodies.len() < 4 || confirmed < 4 {
                let frame = raw.read();
                match frame.id() {
                    Some(id::BASIC_ACK) => confirmed = Reader::new(frame.arguments()).longlong(),
                    Some(id::BASIC_DELIVER) => bodies.push(String::from_utf8(raw.read_content(1).body).expect("text")),
                    _ => panic!("unexpected: {frame:?}"),
                }
            }
            assert_eq!(bodies, ["now", "a", "b", "c"], "{kind} {bits} {persistent}");
        }
    }
}

#[test]
fn a_delayed_message_says_so() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let (exchange, queue) = topology(&mut raw);
    let headers = |value: Bytes| [&Bytes::new().field("a", b'V').done()[..], &value.done(), b"\x01bV"].concat();
    let delay = || Bytes::new().field("x-delay", b'S').longstr("20");
    publish(&mut raw, &exchange, &with_headers(headers(delay())), "delayed");
    raw.consume(1, &queue, "", 2);
    let message = raw.delivery(1);
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), (exchange.as_str(), "key"));
    assert!(!message.redelivered);
    let negative = Bytes::new().field("x-delay", b'I').long(20u32.wrapping_neg());
    assert_eq!(message.content.properties, with_headers(headers(negative)));
}

#[test]
fn what_is_no_delay_goes_on_at_once() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let (exchange, queue) = topology(&mut raw);
    let field = |tag: u8| Bytes::new().field("x-delay", tag);
    for headers in [
        delay(0),
        delay(5_000u32.wrapping_neg()),
        field(b'S').longstr("soon").done(),
        field(b't').octet(1).done(),
        field(b'V').done(),
        Bytes::new().field("other", b'I').long(LONG_MS).done(),
    ] {
        publish(&mut raw, &exchange, &with_headers(&headers), "at once");
        let message = raw.get(1, &queue, true).expect("it does not wait");
        assert_eq!(headers_of(&message), headers);
    }
    publish(&mut raw, &exchange, PERSISTENT, "no headers");
    assert!(raw.get(1, &queue, true).is_some());
    // An exchange that was not asked to delay does not.
    let plain = declare_exchange(&mut raw, "fanout", 0, &[]);
    raw.bind(1, &queue, &plain, "", &[]);
    publish(&mut raw, &plain, &with_headers(delay(LONG_MS)), "plain");
    assert_eq!(headers_of(&raw.get(1, &queue, true).expect("a message")), delay(LONG_MS));
}

#[test]
fn it_routes_when_the_time_has_come() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    let exchange = declare_exchange(&mut raw, "x-delayed-message", 0, &inner("topic"));
    // Nothing is bound yet, and the message is not returned: nobody knows yet where it will go.
    raw.publish(1, (exchange.as_str(), "a.b"), MANDATORY, &with_headers(delay(SHORT_MS)), b"later");
    raw.expect(1, id::BASIC_ACK);
    let queues = [raw.exclusive_queue(1), raw.exclusive_queue(1)];
    raw.bind(1, &queues[0], &exchange, "a.*", &[]);
    raw.bind(1, &queues[1], &exchange, "b.*", &[]);
    raw.consume(1, &queues[0], "first", 2);
    raw.consume(1, &queues[1], "second", 2);
    assert_eq!(raw.delivery(1).consumer, "first");
    raw.fence(1);
}

#[test]
fn further_keys_and_the_expiration_wait_as_well() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let exchange = declare_exchange(&mut raw, "x-delayed-message", DURABLE, &inner("direct"));
    let queues = [1, 2, 3].map(|_| raw.declare(1, &unique("queue"), DURABLE).0);
    for (queue, key) in queues.iter().zip(["key", "copy", "blind"]) {
        raw.bind(1, queue, &exchange, key, &[]);
    }
    let list = |key: &str| Bytes::new().longstr(Bytes::new().octet(b'S').longstr(key).done());
    let headers = [
        delay(50),
        Bytes::new().field("CC", b'A').raw(list("copy").done()).done(),
        Bytes::new().field("BCC", b'A').raw(list("blind").done()).done(),
    ];
    // The expiration is shorter than the delay, and runs from the end of it.
    let flags = HEADERS | DELIVERY_MODE | (1 << 8);
    let properties = Bytes::new().short(flags).table(headers.concat()).octet(2).shortstr("30").done();
    for queue in &queues {
        raw.consume(1, queue, "", 2);
    }
    raw.publish(1, (exchange.as_str(), "key"), 0, &properties, b"to all three");
    for _ in &queues {
        let message = raw.delivery(1);
        assert_eq!((message.text(), message.routing_key.as_str()), ("to all three", "key"));
        let mut reader = Reader::new(&message.content.properties);
        assert_eq!(reader.short(), flags);
        let expected = [Bytes::new().field("x-delay", b'I').long(50u32.wrapping_neg()).done(), headers[1].clone()];
        assert_eq!(reader.longstr(), expected.concat());
    }
}

#[test]
fn other_exchanges_lead_to_one_that_delays() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let (exchange, queue) = topology(&mut raw);
    let source = declare_exchange(&mut raw, "direct", 0, &[]);
    let arguments = Bytes::new().short(0).shortstr(&exchange).shortstr(&source).shortstr("key").octet(0).table([]);
    raw.call(1, id::EXCHANGE_BIND, arguments, id::EXCHANGE_BIND_OK);
    let alternate = Bytes::new().field("alternate-exchange", b'S').longstr(&exchange).done();
    let with_alternate = declare_exchange(&mut raw, "direct", 0, &alternate);
    for from in [&source, &with_alternate] {
        publish(&mut raw, from, &with_headers(delay(LONG_MS)), "much later");
        assert!(raw.get(1, &queue, true).is_none());
    }
    for (from, body) in [(&source, "bound"), (&with_alternate, "alternate")] {
        publish(&mut raw, from, &with_headers(delay(20)), body);
    }
    raw.consume(1, &queue, "", 2);
    let mut bodies = texts(&mut raw, 2);
    bodies.sort();
    assert_eq!(bodies, ["alternate", "bound"]);
}

#[test]
fn a_transaction_delays_from_its_commit_on() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    for bits in [0, DURABLE] {
        let exchange = declare_exchange(&mut raw, "x-delayed-message", bits, &inner("fanout"));
        let queue = raw.exclusive_queue(1);
        raw.bind(1, &queue, &exchange, "", &[]);
        raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
        raw.publish(1, (exchange.as_str(), ""), 0, &with_headers(delay(1)), b"taken back");
        raw.call(1, id::TX_ROLLBACK, [], id::TX_ROLLBACK_OK);
        raw.publish(1, (exchange.as_str(), ""), 0, &with_headers(delay(300)), b"second");
        raw.publish(1, (exchange.as_str(), ""), 0, &with_headers(delay(1)), b"first");
        raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
        raw.consume(1, &queue, "", 2);
        assert_eq!(texts(&mut raw, 2), ["first", "second"]);
    }
}

#[test]
fn what_is_refused() {
    if skipped() {
        return;
    }
    let server = server();
    let mut raw = server.channel();
    let missing = "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type";
    let itself = "PRECONDITION_FAILED - Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'";
    let number = Bytes::new().field("x-delayed-type", b'I').long(1).done();
    for (arguments, text) in [
        (Vec::new(), missing.to_owned()),
        (number, missing.to_owned()),
        (inner("x-delayed-message"), itself.to_owned()),
        (inner("nonsense"), "PRECONDITION_FAILED - invalid exchange type 'nonsense'".to_owned()),
    ] {
        raw.send_exchange(1, "refused", "x-delayed-message", 0, &arguments);
        raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    }
    let name = declare_exchange(&mut raw, "x-delayed-message", 0, &inner("fanout"));
    let resource = format!("exchange '{name}' in vhost '{}'", server.vhost());
    raw.send_exchange(1, &name, "x-delayed-message", 0, &inner("direct"));
    let differs = "received 'direct' but current is 'fanout'";
    let text = format!("PRECONDITION_FAILED - inequivalent arg 'x-delayed-type' for {resource}: {differs}");
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
    raw.open_channel(1);
    raw.send_exchange(1, &name, "fanout", 0, &[]);
    let differs = "received 'fanout' but current is ''x-delayed-message''";
    let text = format!("PRECONDITION_FAILED - inequivalent arg 'type' for {resource}: {differs}");
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
    raw.open_channel(1);
    raw.send_exchange(1, &name, "x-delayed-message", 0, &inner("fanout"));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
}

#[test]
fn deleting_the_exchange_drops_what_it_keeps() {
    if skipped() {
        return;
    }
    let broker = launch().start();
    let mut raw = open(&broker);
    let (exchange, queue) = topology(&mut raw);
    publish(&mut raw, &exchange, &with_headers(delay(SHORT_MS)), "dropped");
    raw.call(1, id::EXCHANGE_DELETE, Bytes::new().short(0).shortstr(&exchange).octet(0), id::EXCHANGE_DELETE_OK);
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    // One of the same name starts empty.
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    raw.send_exchange(1, &exchange, "x-delayed-message", DURABLE, &inner("fanout"));
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    raw.bind(1, &queue, &exchange, "", &[]);
    raw.publish(1, (exchange.as_str(), ""), 0, &with_headers(delay(2 * SHORT_MS)), b"kept");
    raw.expect(1, id::BASIC_ACK);
    raw.consume(1, &queue, "", 2);
    assert_eq!(raw.delivery(1).text(), "kept");
    raw.fence(1);
}

#[test]
fn delayed_messages_survive_a_crash() {
    if skipped() {
        return;
    }
    let mut broker = launch().start();
    let mut raw = open(&broker);
    let (exchange, queue) = topology(&mut raw);
    let forever = Bytes::new().field("x-delay", b'l').longlong(1 << 40).done();
    // Published at once: a confirm in between may take longer than what lies between the delays.
    let messages = [
        (with_headers(&forever), "in 34 years"),
        (with_headers(delay(3 * SHORT_MS)), "third"),
        (with_headers(delay(SHORT_MS)), "first"),
        (transient(delay(2 * SHORT_MS)), "second"),
    ];
    for (properties, body) in &messages {
        raw.publish(1, (exchange.as_str(), "key"), MANDATORY, properties, body.as_bytes());
    }
    let mut confirmed = BTreeSet::new();
    while confirmed.len() < messages.len() {
        let arguments = raw.expect(1, id::BASIC_ACK);
        let mut ack = Reader::new(&arguments);
        let (tag, multiple) = (ack.longlong(), ack.octet() != 0);
        confirmed.extend(if multiple { 1 } else { tag }..=tag);
    }
    for restart in 0..2 {
        broker = if restart == 0 { broker.kill9().start() } else { broker.restart() };
    }
    let mut raw = open(&broker);
    raw.consume(1, &queue, "", 0);
    for expected in ["first", "second", "third"] {
        let message = raw.delivery(1);
        assert_eq!((message.text(), message.redelivered), (expected, false));
        raw.method(1, id::BASIC_ACK, Bytes::new().longlong(message.tag).octet(0));
    }
    // Nobody waits for acknowledgements, but what is durable behind them is so after them.
    raw.declare(1, &unique("queue"), DURABLE);
    // What has gone on is not kept back as well: a crash does not bring it again.
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
    publish(&mut raw, &exchange, &with_headers(delay(1)), "after the crash");
    raw.consume(1, &queue, "", 2);
    assert_eq!(raw.delivery(1).text(), "after the crash");
}

#[test]
fn each_of_many_survives_a_crash() {
    if skipped() {
        return;
    }
    let count = 3_000u32;
    let broker = launch().start();
    let mut raw = open(&broker);
    let (exchange, queue) = topology(&mut raw);
    let second = raw.declare(1, &unique("queue"), DURABLE).0;
    raw.bind(1, &second, &exchange, "", &[]);
    for n in 0..count {
        // Each later one is due earlier than those before it.
        let properties = with_headers(delay(1_000 + (count - n)));
        raw.publish(1, (exchange.as_str(), ""), 0, &properties, n.to_string().as_bytes());
    }
    while Reader::new(&raw.expect(1, id::BASIC_ACK)).longlong() < u64::from(count) {}
    let broker = broker.kill9().start();
    for mut consumer in consumers(&broker, &[queue, second]) {
        let mut bodies: Vec<_> = (0..count).map(|_| consumer.delivery(1).text().to_owned()).collect();
        bodies.sort_by_key(|body| body.parse::<u32>().expect("a number"));
        assert_eq!(bodies, numbers(count as usize), "each of them once");
    }
}

/// A queue whose dead letters go to this exchange.
#[track_caller]
fn dying_queue(raw: &mut Raw, exchange: &str) -> String {
    let arguments = Bytes::new().field("x-dead-letter-exchange", b'S').longstr(exchange).done();
    let name = unique("dying");
    raw.send_declare(1, &name, DURABLE, &arguments);
    raw.expect(1, id::QUEUE_DECLARE_OK);
    name
}

/// Gets a message and rejects it.
#[track_caller]
fn reject(raw: &mut Raw, queue: &str) {
    let message = raw.get(1, queue, false).expect("a message");
    raw.method(1, id::BASIC_REJECT, Bytes::new().longlong(message.tag).octet(0));
}

#[test]
fn dead_letters_are_delayed_as_well() {
    if skipped() {
        return;
    }
    let broker = launch().start();
    let mut raw = open(&broker);
    let (exchange, queue) = topology(&mut raw);
    let second = raw.declare(1, &unique("queue"), DURABLE).0;
    raw.bind(1, &second, &exchange, "", &[]);
    let dying = dying_queue(&mut raw, &exchange);
    for (body, properties) in [
        ("much later", with_headers(delay(LONG_MS))),
        ("later", with_headers(delay(6 * SHORT_MS))),
        ("soon", transient(delay(5 * SHORT_MS))),
        ("at once", PERSISTENT.to_vec()),
    ] {
        publish_to(&mut raw, &dying, &properties, body);
        reject(&mut raw, &dying);
    }
    let queues = [queue, second];
    for mut consumer in consumers(&broker, &queues) {
        assert_eq!(consumer.delivery(1).text(), "at once");
    }
    // So did those before it. The transient one is in the store of the exchange from then on, and survives.
    assert!(raw.get(1, &dying, true).is_none());
    raw.declare(1, &unique("queue"), DURABLE);
    let broker = broker.kill9().start();
    let mut raw = open(&broker);
    let mut consumers = consumers(&broker, &queues);
    for body in ["soon", "later"] {
        for consumer in &mut consumers {
            let message = consumer.delivery(1);
            assert_eq!((message.text(), message.redelivered), (body, false));
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), (exchange.as_str(), dying.as_str()));
            let headers = headers_of(&message);
            let died = Bytes::new().field("x-last-death-queue", b'S').longstr(&dying).done();
            assert!(headers.windows(died.len()).any(|window| window == died), "{headers:?}");
        }
    }
    consumers.iter_mut().for_each(|consumer| consumer.fence(1));
    // It has been delayed already: not once more.
    raw.bind(1, &dying, &exchange, "", &[]);
    // Without confirms: one could come on either side of the deliveries.
    raw.publish(1, (exchange.as_str(), "key"), 0, &with_headers(delay(1)), b"once");
    for consumer in &mut consumers {
        assert_eq!(consumer.delivery(1).text(), "once");
    }
    reject(&mut raw, &dying);
    for consumer in &mut consumers {
        assert_eq!(consumer.delivery(1).text(), "once");
    }
}

#[track_caller]
fn publish_to(raw: &mut Raw, queue: &str, properties: &[u8], body: &str) {
    raw.publish(1, ("", queue), 0, properties, body.as_bytes());
    raw.expect(1, id::BASIC_ACK);
}

#[test]
fn a_transaction_delays_dead_letters() {
    if skipped() {
        return;
    }
    let server = server();
    for bits in [0, DURABLE] {
        let mut raw = server.channel();
        let exchange = declare_exchange(&mut raw, "x-delayed-message", bits, &inner("fanout"));
        let queue = raw.exclusive_queue(1);
        raw.bind(1, &queue, &exchange, "", &[]);
        let dying = dying_queue(&mut raw, &exchange);
        raw.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
        for (body, ms) in [("second", 300), ("first", 1)] {
            raw.publish(1, ("", dying.as_str()), 0, &with_headers(delay(ms)), body.as_bytes());
        }
        raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
        reject(&mut raw, &dying);
        reject(&mut raw, &dying);
        raw.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
        raw.consume(1, &queue, "", 2);
        assert_eq!(texts(&mut raw, 2), ["first", "second"]);
        assert!(raw.get(1, &dying, true).is_none());
    }
}
