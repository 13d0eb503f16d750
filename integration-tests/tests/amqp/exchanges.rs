//! Declaring, deleting and binding exchanges: what is allowed and what is said when it is not.

use crate::support::*;
use integration_tests::id::{self, Id};
use integration_tests::raw::Raw;
use integration_tests::server::Server;
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES, Reader};

const PASSIVE: u8 = 1;
const DURABLE: u8 = 2;
const AUTO_DELETE: u8 = 4;
const INTERNAL: u8 = 8;

#[test]
fn the_predeclared_exchanges_are_there() {
    let server = server();
    let mut raw = server.channel();
    for (name, kind) in [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ] {
        raw.exchange(1, name, kind, PASSIVE);
        // Redeclaring one as what it is, is no use of the reserved prefix.
        raw.exchange(1, name, kind, DURABLE);
    }
    raw.exchange(1, "amq.rabbitmq.trace", "topic", DURABLE | INTERNAL);
}

#[test]
fn a_passive_declare_only_asks_for_existence() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("exchange");
    raw.exchange(1, &name, "fanout", DURABLE);
    raw.exchange(1, &name, "direct", PASSIVE | INTERNAL);
    let missing = unique("missing");
    raw.send_exchange(1, &missing, "direct", PASSIVE, &[]);
    let text = not_found(&server, &missing);
    raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn redeclaring_differently_names_the_field() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("exchange");
    raw.exchange(1, &name, "direct", DURABLE);
    raw.exchange(1, &name, "direct", DURABLE);
    let cases = [
        ("fanout", 0, "type", "'fanout' but current is 'direct'"),
        ("direct", 0, "durable", "'false' but current is 'true'"),
        ("direct", DURABLE | AUTO_DELETE | INTERNAL, "auto_delete", "'true' but current is 'false'"),
        ("direct", DURABLE | INTERNAL, "internal", "'true' but current is 'false'"),
    ];
    for (kind, bits, field, received) in cases {
        raw.send_exchange(1, &name, kind, bits, &[]);
        let text = inequivalent(&server, &name, field, received);
        raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    }
}

#[test]
fn redeclaring_with_another_alternate_names_both() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("exchange");
    let alternate = |value: &str| Bytes::new().field("alternate-exchange", b'S').longstr(value).done();
    let mut declare = |bits, arguments: &[u8]| {
        raw.send_exchange(1, &name, "direct", bits, arguments);
        let frame = raw.read();
        if frame.id() == Some(id::EXCHANGE_DECLARE_OK) {
            return None;
        }
        let mut reader = Reader::new(frame.arguments());
        let close = (reader.short(), reader.shortstr());
        raw.method(1, id::CHANNEL_CLOSE_OK, []);
        raw.open_channel(1);
        Some(close)
    };
    let field = "alternate-exchange";
    let refused = |received: &str| Some((406, inequivalent(&server, &name, field, received)));

    assert_eq!(declare(0, &alternate("one")), None);
    assert_eq!(declare(0, &alternate("one")), None);
    assert_eq!(declare(0, &alternate("two")), refused("'two' but current is 'one'"));
    assert_eq!(declare(0, &[]), refused("none but current is the value 'one' of type 'longstr'"));
    // What nobody knows makes no difference.
    let unknown = Bytes::new().raw(alternate("one")).field("x-nonsense", b't').octet(1);
    assert_eq!(declare(0, unknown.as_ref()), None);
}

#[test]
fn an_alternate_exchange_is_a_string() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("exchange");
    let arguments = Bytes::new().field("alternate-exchange", b'I').long(1);
    raw.send_exchange(1, &name, "direct", 0, arguments.as_ref());
    let text = format!(
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange '{name}' in vhost '{}'",
        server.vhost()
    );
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn arguments_of_every_type_are_taken_and_not_compared() {
    let server = server();
    let mut raw = server.channel();
    let name = unique("exchange");
    let numbers = Bytes::new()
        .field("byte", b'b')
        .octet(255)
        .field("short", b's')
        .short(1)
        .field("int", b'I')
        .long(1)
        .field("long", b'l')
        .longlong(1)
        .field("float", b'f')
        .long(0x3f80_0000)
        .field("double", b'd')
        .longlong(0x3ff0_0000_0000_0000)
        .field("decimal", b'D')
        .octet(2)
        .long(314)
        .field("timestamp", b'T')
        .longlong(1_700_000_000);
    let others = Bytes::new()
        .field("string", b'S')
        .longstr("text")
        .field("bytes", b'x')
        .longstr("octets")
        .field("bool", b't')
        .octet(1)
        .field("void", b'V')
        .field("array", b'A')
        .longstr("V")
        .field("table", b'F')
        .table(Bytes::new().field("inner", b'V'));
    for arguments in [numbers.as_ref(), others.as_ref(), numbers.as_ref(), &[]] {
        raw.send_exchange(1, &name, "direct", 0, arguments);
        raw.expect(1, id::EXCHANGE_DECLARE_OK);
    }
}

#[test]
fn an_unknown_type_is_refused() {
    let server = server();
    let mut raw = server.channel();
    let kind = unique("no-such-type");
    raw.send_exchange(1, &unique("exchange"), &kind, 0, &[]);
    // RabbitMQ says "unknown" instead of "invalid" when no code of its own has the word in it.
    let word = if server.is_peer() { "unknown" } else { "invalid" };
    let text = format!("PRECONDITION_FAILED - {word} exchange type '{kind}'");
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn the_reserved_prefix_is_refused() {
    let server = server();
    let mut raw = server.channel();
    let name = format!("amq.{}", unique("exchange"));
    raw.send_exchange(1, &name, "direct", 0, &[]);
    let text = format!("ACCESS_REFUSED - exchange name '{name}' contains reserved prefix 'amq.*'");
    raw.expect_channel_close(1, 403, &text, id::EXCHANGE_DECLARE);
    raw.open_channel(1);
    raw.send_exchange(1, &name, "direct", PASSIVE, &[]);
    let text = not_found(&server, &name);
    raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
    for name in [name.as_str(), "amq.direct"] {
        raw.open_channel(1);
        raw.method(1, id::EXCHANGE_DELETE, delete_arguments(name, 0));
        let text =
            format!("ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '{}' not allowed", server.vhost());
        raw.expect_channel_close(1, 403, &text, id::EXCHANGE_DELETE);
    }
}

#[test]
fn the_default_exchange_cannot_be_changed() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let bind_exchange = |destination: &str, source: &str| {
        Bytes::new().short(0).shortstr(destination).shortstr(source).shortstr("").octet(0).table([]).done()
    };
    let declare = |bits: u8| Bytes::new().short(0).shortstr("").shortstr("direct").octet(bits).table([]).done();
    let unbind_queue = Bytes::new().short(0).shortstr(&queue).shortstr("").shortstr("").table([]);
    let bind_queue = bind_exchange(&queue, "");
    let attempts: [(Id, Vec<u8>); 9] = [
        (id::EXCHANGE_DECLARE, declare(0)),
        (id::EXCHANGE_DECLARE, declare(PASSIVE)),
        (id::EXCHANGE_DELETE, delete_arguments("", 0)),
        (id::QUEUE_BIND, bind_queue),
        (id::QUEUE_UNBIND, unbind_queue.done()),
        (id::EXCHANGE_BIND, bind_exchange("", "amq.direct")),
        (id::EXCHANGE_BIND, bind_exchange("amq.direct", "")),
        (id::EXCHANGE_UNBIND, bind_exchange("", "amq.direct")),
        (id::EXCHANGE_UNBIND, bind_exchange("amq.direct", "")),
    ];
    for (id, arguments) in attempts {
        raw.method(1, id, arguments);
        raw.expect_channel_close(1, 403, "ACCESS_REFUSED - operation not permitted on the default exchange", id);
        raw.open_channel(1);
    }
}

#[test]
fn an_internal_exchange_takes_no_publishes() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let (outer, inner) = (unique("outer"), unique("inner"));
    raw.exchange(1, &outer, "fanout", 0);
    raw.exchange(1, &inner, "fanout", INTERNAL);
    raw.bind(1, &queue, &inner, "", &[]);
    bind_exchange(&mut raw, &inner, &outer, "");
    raw.publish(1, (&outer, ""), 0, NO_PROPERTIES, b"through");
    assert_eq!(raw.get(1, &queue, true).expect("routed").text(), "through");
    raw.publish(1, (&inner, ""), 0, NO_PROPERTIES, b"refused");
    let text = format!("ACCESS_REFUSED - cannot publish to internal exchange '{inner}' in vhost '{}'", server.vhost());
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
}

#[test]
fn deleting_an_exchange_takes_its_bindings_along() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let name = unique("exchange");
    delete(&mut raw, &name);
    raw.exchange(1, &name, "fanout", 0);
    raw.bind(1, &queue, &name, "", &[]);
    raw.method(1, id::EXCHANGE_DELETE, delete_arguments(&name, 1));
    let text = format!("PRECONDITION_FAILED - exchange '{name}' in vhost '{}' in use", server.vhost());
    raw.expect_channel_close(1, 406, &text, id::EXCHANGE_DELETE);
    raw.open_channel(1);
    delete(&mut raw, &name);
    raw.exchange(1, &name, "fanout", 0);
    raw.publish(1, (&name, ""), 0, NO_PROPERTIES, b"nowhere");
    assert!(raw.get(1, &queue, true).is_none());
    // Being a destination is no use.
    bind_exchange(&mut raw, &name, "amq.fanout", "");
    raw.call(1, id::EXCHANGE_DELETE, delete_arguments(&name, 1), id::EXCHANGE_DELETE_OK);
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let (first, second, third) = (unique("first"), unique("second"), unique("third"));
    for name in [&first, &second, &third] {
        raw.exchange(1, name, "fanout", AUTO_DELETE);
    }
    // first -> second -> third -> queue; the end of the chain takes the rest along.
    bind_exchange(&mut raw, &second, &first, "");
    bind_exchange(&mut raw, &third, &second, "");
    raw.bind(1, &queue, &third, "", &[]);
    raw.bind(1, &queue, &third, "other", &[]);
    unbind(&mut raw, &queue, &third, "other");
    for name in [&first, &second, &third] {
        raw.exchange(1, name, "fanout", PASSIVE);
    }
    unbind(&mut raw, &queue, &third, "");
    for name in [&third, &second, &first] {
        raw.send_exchange(1, name, "fanout", PASSIVE, &[]);
        let text = not_found(&server, name);
        raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    }
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_queue() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let never_bound = unique("never-bound");
    let name = unique("exchange");
    raw.exchange(1, &never_bound, "topic", AUTO_DELETE);
    raw.exchange(1, &name, "topic", AUTO_DELETE);
    raw.bind(1, &queue, &name, "#", &[]);
    let arguments = Bytes::new().short(0).shortstr(&queue).octet(0);
    raw.call(1, id::QUEUE_DELETE, arguments, id::QUEUE_DELETE_OK);
    raw.exchange(1, &never_bound, "topic", PASSIVE);
    raw.send_exchange(1, &name, "topic", PASSIVE, &[]);
    let text = not_found(&server, &name);
    raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn binding_what_is_missing_names_it() {
    let server = server();
    let mut raw = server.channel();
    let vhost = server.vhost();
    let queue = raw.exclusive_queue(1);
    let missing = unique("missing");
    let no_queue = format!("NOT_FOUND - no queue '{missing}' in vhost '{vhost}'");
    let no_exchange = not_found(&server, &missing);
    for (queue, exchange, text) in [
        (queue.as_str(), missing.as_str(), &no_exchange),
        (&missing, &missing, &no_exchange),
        (&missing, "amq.direct", &no_queue),
    ] {
        raw.send_bind(1, queue, exchange, "", &[]);
        raw.expect_channel_close(1, 404, text, id::QUEUE_BIND);
        raw.open_channel(1);
    }
    for (destination, source) in [(missing.as_str(), "amq.direct"), ("amq.direct", &missing)] {
        let arguments = exchange_bind_arguments(destination, source, "");
        raw.method(1, id::EXCHANGE_BIND, arguments);
        raw.expect_channel_close(1, 404, &no_exchange, id::EXCHANGE_BIND);
        raw.open_channel(1);
    }
    // Undoing what was never done is fine.
    unbind(&mut raw, &queue, &missing, "");
    unbind(&mut raw, &missing, "amq.direct", "");
    unbind(&mut raw, &queue, "amq.direct", "never");
    for (destination, source) in [(missing.as_str(), "amq.direct"), ("amq.direct", &missing)] {
        let arguments = exchange_bind_arguments(destination, source, "");
        raw.call(1, id::EXCHANGE_UNBIND, arguments, id::EXCHANGE_UNBIND_OK);
    }
}

#[test]
fn line_ends_are_cut_out_of_names() {
    let server = server();
    let mut raw = server.channel();
    let (exchange, queue) = (unique("exchange"), unique("queue"));
    raw.exchange(1, &format!("{exchange}\r\n"), "fanout", 0);
    raw.exchange(1, &exchange, "fanout", PASSIVE);
    let (name, _, _) = raw.declare(1, &format!("\r{queue}\n"), 0);
    assert_eq!(name, queue);
    raw.bind(1, &format!("{queue}\n"), &format!("\n{exchange}"), "", &[]);
    raw.publish(1, (&exchange, ""), 0, NO_PROPERTIES, b"bound");
    assert_eq!(raw.get(1, &queue, true).expect("bound").text(), "bound");
    unbind(&mut raw, &format!("{queue}\r"), &format!("{exchange}\r"), "");
    raw.publish(1, (&exchange, ""), 0, NO_PROPERTIES, b"unbound");
    assert!(raw.get(1, &queue, true).is_none());
    delete(&mut raw, &format!("{exchange}\r\n"));
    raw.send_exchange(1, &exchange, "fanout", PASSIVE, &[]);
    let text = not_found(&server, &exchange);
    raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
}

#[test]
fn nowait_is_not_answered() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    let name = unique("exchange");
    raw.send_exchange(1, &name, "fanout", 16, &[]);
    let bind = Bytes::new().short(0).shortstr(&queue).shortstr(&name).shortstr("").octet(1).table([]);
    raw.method(1, id::QUEUE_BIND, bind);
    raw.fence(1);
    raw.publish(1, (&name, ""), 0, NO_PROPERTIES, b"x");
    raw.get(1, &queue, true).expect("bound");
    raw.method(1, id::EXCHANGE_DELETE, delete_arguments(&name, 2));
    raw.send_exchange(1, &name, "fanout", PASSIVE | 16, &[]);
    let text = not_found(&server, &name);
    raw.expect_channel_close(1, 404, &text, id::EXCHANGE_DECLARE);
}

fn not_found(server: &Server, exchange: &str) -> String {
    let vhost = server.vhost();
    format!("NOT_FOUND - no exchange '{exchange}' in vhost '{vhost}'")
}

fn inequivalent(server: &Server, name: &str, field: &str, received: &str) -> String {
    format!(
        "PRECONDITION_FAILED - inequivalent arg '{field}' for exchange '{name}' in vhost '{}': received {received}",
        server.vhost()
    )
}

/// `bits`: if-unused 1, nowait 2.
fn delete_arguments(name: &str, bits: u8) -> Vec<u8> {
    Bytes::new().short(0).shortstr(name).octet(bits).done()
}

fn delete(raw: &mut Raw, name: &str) {
    let arguments = delete_arguments(name, 0);
    raw.call(1, id::EXCHANGE_DELETE, arguments, id::EXCHANGE_DELETE_OK);
}

fn exchange_bind_arguments(destination: &str, source: &str, key: &str) -> Vec<u8> {
    Bytes::new().short(0).shortstr(destination).shortstr(source).shortstr(key).octet(0).table([]).done()
}

fn bind_exchange(raw: &mut Raw, destination: &str, source: &str, key: &str) {
    let arguments = exchange_bind_arguments(destination, source, key);
    raw.call(1, id::EXCHANGE_BIND, arguments, id::EXCHANGE_BIND_OK);
}

fn unbind(raw: &mut Raw, queue: &str, exchange: &str, key: &str) {
    let arguments = Bytes::new().short(0).shortstr(queue).shortstr(exchange).shortstr(key).table([]);
    raw.call(1, id::QUEUE_UNBIND, arguments, id::QUEUE_UNBIND_OK);
}
