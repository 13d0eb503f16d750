//! Configure, write and read: which operation asks for which, and what a refusal says.

use crate::support::*;
use integration_tests::id::{self, Id};
use integration_tests::raw::Raw;
use integration_tests::server::{Server, User};
use integration_tests::unique;
use integration_tests::wire::{Bytes, NO_PROPERTIES};

/// A server with one user, and everything with a name that starts with `can-` allowed in one respect.
fn with(permission: [&str; 3]) -> (Server, User) {
    let user = user("", Some(permission));
    let server = Server::with_users(launch(), std::slice::from_ref(&user));
    (server, user)
}

const EXCHANGE: &str = "exchange";
const QUEUE: &str = "queue";

/// What a refusal says.
fn refused(server: &Server, user: &User, access: &str, kind: &str, name: &str) -> String {
    format!(
        "ACCESS_REFUSED - {access} access to {kind} '{name}' in vhost '{}' refused for user '{}'",
        server.vhost(),
        user.name
    )
}

#[test]
fn configure_is_asked_for_declaring_and_deleting() {
    let (server, user) = with(["^can-", ".*", ".*"]);
    let mut raw = server.channel_as(&user);
    let name = unique("not");
    let attempts: [(Id, Vec<u8>, &str); 4] = [
        (id::EXCHANGE_DECLARE, declare_exchange(&name, &[]), EXCHANGE),
        (id::EXCHANGE_DELETE, just_name(&name), EXCHANGE),
        (id::QUEUE_DECLARE, declare_queue(&name, &[]), QUEUE),
        (id::QUEUE_DELETE, just_name(&name), QUEUE),
    ];
    for (id, arguments, kind) in attempts {
        raw.method(1, id, arguments);
        let text = refused(&server, &user, "configure", kind, &name);
        raw.expect_channel_close(1, 403, &text, id);
        raw.open_channel(1);
    }
    let allowed = format!("can-{name}");
    for (id, answer, arguments) in [
        (id::EXCHANGE_DECLARE, id::EXCHANGE_DECLARE_OK, declare_exchange(&allowed, &[])),
        (id::EXCHANGE_DELETE, id::EXCHANGE_DELETE_OK, just_name(&allowed)),
        (id::QUEUE_DECLARE, id::QUEUE_DECLARE_OK, declare_queue(&allowed, &[])),
        (id::QUEUE_DELETE, id::QUEUE_DELETE_OK, just_name(&allowed)),
    ] {
        raw.call(1, id, arguments, answer);
    }
}

#[test]
fn a_server_named_queue_is_checked_by_its_name() {
    let (server, user) = with(["^mine", ".*", ".*"]);
    let mut raw = server.channel_as(&user);
    raw.send_declare(1, "", 4, &[]);
    let close = raw.channel_close(1);
    let start = "ACCESS_REFUSED - configure access to queue 'amq.gen-";
    assert_eq!((close.code, close.id), (403, id::QUEUE_DECLARE));
    assert!(close.text.starts_with(start), "{close:?}");
    drop(server);

    let (server, user) = with(["^amq\\.gen-", ".*", ".*"]);
    let mut raw = server.channel_as(&user);
    raw.declare(1, "", 4);
}

#[test]
fn write_is_asked_for_publishing() {
    let (server, user) = with([".*", "^can-", ".*"]);
    let mut raw = server.channel_as(&user);
    let allowed = format!("can-{}", unique("exchange"));
    raw.exchange(1, &allowed, "fanout", 0);
    raw.publish(1, (&allowed, ""), 0, NO_PROPERTIES, b"x");
    raw.fence(1);
    let text = refused(&server, &user, "write", EXCHANGE, "amq.fanout");
    raw.publish(1, ("amq.fanout", ""), 0, NO_PROPERTIES, b"x");
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    // The default exchange has a name here.
    let text = refused(&server, &user, "write", EXCHANGE, "amq.default");
    raw.publish(1, ("", "anything"), 0, NO_PROPERTIES, b"x");
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    // What is not allowed is not said to be missing, what is allowed is.
    let missing = unique("missing");
    let text = refused(&server, &user, "write", EXCHANGE, &missing);
    raw.publish(1, (&missing, ""), 0, NO_PROPERTIES, b"x");
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
    raw.open_channel(1);
    let text = format!("NOT_FOUND - no exchange 'can-{missing}' in vhost '{}'", server.vhost());
    raw.publish(1, (&format!("can-{missing}"), ""), 0, NO_PROPERTIES, b"x");
    raw.expect_channel_close(1, 404, &text, id::BASIC_PUBLISH);
}

#[test]
fn the_default_exchange_can_be_allowed_by_name() {
    let (server, user) = with([".*", "^amq\\.default$", ".*"]);
    let mut raw = server.channel_as(&user);
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, NO_PROPERTIES, b"x");
    raw.get(1, &queue, true).expect("the message");
}

#[test]
fn binding_a_queue_asks_for_write_on_it_and_read_on_the_exchange() {
    let (server, user) = with([".*", "^can-write", "^can-read"]);
    let mut raw = server.channel_as(&user);
    let writable = format!("can-write-{}", unique("queue"));
    let other = unique("other");
    let readable = format!("can-read-{}", unique("exchange"));
    raw.declare(1, &writable, 4);
    raw.declare(1, &other, 4);
    raw.exchange(1, &readable, "topic", 0);
    raw.bind(1, &writable, &readable, "key", &[]);
    unbind(&mut raw, &writable, &readable);
    let no_write = refused(&server, &user, "write", QUEUE, &other);
    let no_read = refused(&server, &user, "read", EXCHANGE, "amq.topic");
    for (queue, exchange, text) in
        [(&other, readable.as_str(), &no_write), (&other, "amq.topic", &no_write), (&writable, "amq.topic", &no_read)]
    {
        raw.send_bind(1, queue, exchange, "key", &[]);
        raw.expect_channel_close(1, 403, text, id::QUEUE_BIND);
        raw.open_channel(1);
        raw.method(1, id::QUEUE_UNBIND, unbind_arguments(queue, exchange));
        raw.expect_channel_close(1, 403, text, id::QUEUE_UNBIND);
        raw.open_channel(1);
    }
}

#[test]
fn binding_exchanges_asks_for_write_on_the_destination_and_read_on_the_source() {
    let (server, user) = with([".*", "^can-write", "^can-read"]);
    let mut raw = server.channel_as(&user);
    let writable = format!("can-write-{}", unique("exchange"));
    let readable = format!("can-read-{}", unique("exchange"));
    raw.exchange(1, &writable, "fanout", 0);
    raw.exchange(1, &readable, "fanout", 0);
    let methods = [(id::EXCHANGE_BIND, id::EXCHANGE_BIND_OK), (id::EXCHANGE_UNBIND, id::EXCHANGE_UNBIND_OK)];
    for (id, answer) in methods {
        let arguments = bind_exchange(&writable, &readable);
        raw.call(1, id, arguments, answer);
    }
    let no_write = refused(&server, &user, "write", EXCHANGE, "amq.fanout");
    let no_read = refused(&server, &user, "read", EXCHANGE, "amq.fanout");
    for (id, _) in methods {
        raw.method(1, id, bind_exchange("amq.fanout", "amq.fanout"));
        raw.expect_channel_close(1, 403, &no_write, id);
        raw.open_channel(1);
        raw.method(1, id, bind_exchange(&writable, "amq.fanout"));
        raw.expect_channel_close(1, 403, &no_read, id);
        raw.open_channel(1);
    }
}

#[test]
fn read_is_asked_for_consuming_getting_and_purging() {
    let (server, user) = with([".*", ".*", "^can-"]);
    let mut raw = server.channel_as(&user);
    let queue = raw.exclusive_queue(1);
    let consume = |queue: &str| Bytes::new().short(0).shortstr(queue).shortstr("").octet(0).table([]).done();
    let text = refused(&server, &user, "read", QUEUE, &queue);
    for (id, arguments) in
        [(id::BASIC_CONSUME, consume(&queue)), (id::BASIC_GET, just_name(&queue)), (id::QUEUE_PURGE, just_name(&queue))]
    {
        raw.method(1, id, arguments);
        raw.expect_channel_close(1, 403, &text, id);
        raw.open_channel(1);
    }
    let allowed = format!("can-{queue}");
    raw.declare(1, &allowed, 4);
    raw.publish(1, ("", &allowed), 0, NO_PROPERTIES, b"x");
    raw.get(1, &allowed, true).expect("the message");
    raw.call(1, id::QUEUE_PURGE, just_name(&allowed), id::QUEUE_PURGE_OK);
    raw.consume(1, &allowed, "", 0);
}

#[test]
fn an_alternate_exchange_asks_for_both_sides() {
    let (server, user) = with([".*", "^can-write", "^can-read"]);
    let mut raw = server.channel_as(&user);
    let alternate = |name: &str| Bytes::new().field("alternate-exchange", b'S').longstr(name).done();
    let readable = format!("can-read-{}", unique("exchange"));
    let other = unique("exchange");
    let no_read = refused(&server, &user, "read", EXCHANGE, &other);
    let no_write = refused(&server, &user, "write", EXCHANGE, "amq.fanout");
    for (name, to, text) in [(&other, "can-write-it", &no_read), (&readable, "amq.fanout", &no_write)] {
        raw.method(1, id::EXCHANGE_DECLARE, declare_exchange(name, &alternate(to)));
        raw.expect_channel_close(1, 403, text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
    }
    raw.call(1, id::EXCHANGE_DECLARE, declare_exchange(&readable, &alternate("can-write-it")), id::EXCHANGE_DECLARE_OK);
}

#[test]
fn any_permission_is_enough_to_ask_whether_something_exists() {
    for permission in [["^can-", "", ""], ["", "^can-", ""], ["", "", "^can-"]] {
        let (server, user) = with(permission);
        let mut admin = server.channel();
        let mut raw = server.channel_as(&user);
        let allowed = format!("can-{}", unique("x"));
        let other = unique("other");
        for name in [&allowed, &other] {
            admin.exchange(1, name, "direct", 0);
            admin.declare(1, name, 0);
        }
        raw.exchange(1, &allowed, "direct", 1);
        raw.declare(1, &allowed, 1);
        raw.send_exchange(1, &other, "direct", 1, &[]);
        let text = refused(&server, &user, "configure", EXCHANGE, &other);
        raw.expect_channel_close(1, 403, &text, id::EXCHANGE_DECLARE);
        raw.open_channel(1);
        raw.send_declare(1, &other, 1, &[]);
        let text = refused(&server, &user, "configure", QUEUE, &other);
        raw.expect_channel_close(1, 403, &text, id::QUEUE_DECLARE);
    }
}

#[test]
fn an_empty_pattern_allows_nothing_and_others_match_anywhere() {
    let (server, user) = with(["middle", "", ".*"]);
    let mut raw = server.channel_as(&user);
    let name = unique("the-middle-of-it");
    raw.declare(1, &name, 4);
    raw.publish(1, ("", &name), 0, NO_PROPERTIES, b"x");
    let text = refused(&server, &user, "write", EXCHANGE, "amq.default");
    raw.expect_channel_close(1, 403, &text, id::BASIC_PUBLISH);
}

#[test]
fn the_user_id_must_be_ones_own() {
    let impersonator = user("impersonator", Some([".*", ".*", ".*"]));
    let plain = user("", Some([".*", ".*", ".*"]));
    let server = Server::with_users(launch(), &[impersonator.clone(), plain.clone()]);
    let properties = |user: &str| Bytes::new().short(1 << 4).shortstr(user).done();

    let mut raw = server.channel_as(&impersonator);
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, &properties("somebody"), b"x");
    let message = raw.get(1, &queue, true).expect("the message");
    assert_eq!(message.content.properties, properties("somebody"));

    let mut raw = server.channel_as(&plain);
    let queue = raw.exclusive_queue(1);
    raw.publish(1, ("", &queue), 0, &properties(&plain.name), b"x");
    raw.get(1, &queue, true).expect("the message");
    raw.publish(1, ("", &queue), 0, &properties("somebody"), b"x");
    let text =
        format!("PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was '{}'", plain.name);
    raw.expect_channel_close(1, 406, &text, id::BASIC_PUBLISH);
}

fn declare_exchange(name: &str, arguments: &[u8]) -> Vec<u8> {
    Bytes::new().short(0).shortstr(name).shortstr("direct").octet(0).table(arguments).done()
}

fn declare_queue(name: &str, arguments: &[u8]) -> Vec<u8> {
    Bytes::new().short(0).shortstr(name).octet(0).table(arguments).done()
}

/// Arguments of the methods that have one name and bits.
fn just_name(name: &str) -> Vec<u8> {
    Bytes::new().short(0).shortstr(name).octet(0).done()
}

fn bind_exchange(destination: &str, source: &str) -> Vec<u8> {
    Bytes::new().short(0).shortstr(destination).shortstr(source).shortstr("key").octet(0).table([]).done()
}

fn unbind_arguments(queue: &str, exchange: &str) -> Vec<u8> {
    Bytes::new().short(0).shortstr(queue).shortstr(exchange).shortstr("key").table([]).done()
}

fn unbind(raw: &mut Raw, queue: &str, exchange: &str) {
    let arguments = unbind_arguments(queue, exchange);
    raw.call(1, id::QUEUE_UNBIND, arguments, id::QUEUE_UNBIND_OK);
}
