//! Arguments that ask for what Warren does not do yet are refused by name, never accepted and ignored.

use crate::support::*;
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::unique;
use integration_tests::wire::Bytes;

/// Asserts connection.close 540 that names the argument.
#[track_caller]
fn assert_not_implemented(mut raw: Raw, name: &str, method: id::Id) {
    let close = raw.connection_close();
    assert_eq!((close.code, close.id), (540, method), "{name}: {close:?}");
    assert!(close.text.starts_with("NOT_IMPLEMENTED - "), "{close:?}");
    assert!(close.text.contains(name), "{close:?} does not name {name}");
    raw.expect_end();
}

#[test]
fn known_arguments_without_their_feature_are_refused() {
    if peer_is_set("RabbitMQ has these features") {
        return;
    }
    let server = server();
    let string = |name: &str, value: &str| Bytes::new().field(name, b'S').longstr(value);
    let cases =
        [("x-queue-type", string("x-queue-type", "quorum")), ("x-queue-type", string("x-queue-type", "stream"))];
    let mut bystander = server.channel();
    for (name, arguments) in cases {
        let mut raw = server.channel();
        let queue = unique("queue");
        raw.send_declare(1, &queue, 2, arguments.as_ref());
        assert_not_implemented(raw, name, id::QUEUE_DECLARE);
        // Nothing was created.
        bystander.send_declare(1, &queue, 1, &[]);
        let close = bystander.channel_close(1);
        assert_eq!(close.code, 404, "{name}: {close:?}");
        bystander.open_channel(1);
    }
}

#[test]
fn what_changes_nothing_is_accepted() {
    let server = server();
    let mut raw = server.channel();
    let string = |name: &str, value: &str| Bytes::new().field(name, b'S').longstr(value);
    for arguments in [
        string("x-queue-type", "classic"),
        string("x-queue-mode", "lazy"),
        Bytes::new().field("x-queue-version", b'I').long(2),
        string("x-foo", "bar"),
        string("not-even-x", "bar"),
        Bytes::new().field("x-cancel-on-ha-failover", b't').octet(1),
    ] {
        raw.send_declare(1, &unique("queue"), 4, arguments.as_ref());
        raw.expect(1, id::QUEUE_DECLARE_OK);
    }
    let queue = raw.exclusive_queue(1);
    let arguments = Bytes::new().short(0).shortstr(&queue).shortstr("").octet(0).table(string("x-foo", "bar"));
    raw.call(1, id::BASIC_CONSUME, arguments, id::BASIC_CONSUME_OK);
    raw.send_exchange(1, &unique("exchange"), "direct", 0, string("x-foo", "bar").as_ref());
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    assert_works(&mut raw, 1);
}
