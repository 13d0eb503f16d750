//! `[compatibility]` and what a `[[vhost]]` can say otherwise: where brokers differ, and operators choose.

use crate::configuration::assert_refused;
use crate::handshake::table_of_strings;
use crate::support::*;
use integration_tests::id;
use integration_tests::raw::{Handshake, Raw};
use integration_tests::server::Server;
use integration_tests::wire::{Bytes, NO_PROPERTIES, Reader};
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};

const WARREN_ONLY: &str = "it is about Warren's own configuration";
const DURABLE: u8 = 2;
const EXCLUSIVE: u8 = 4;
const AUTO_DELETE: u8 = 8;

/// A broker of the test's own, with a second virtual host `other` that guest may use.
fn with_other(other: &str, rest: &str) -> Server {
    Server::own(launch().config(&format!(
        "{rest}\n[[vhost]]\nname = 'other'\n{other}\n\
         [[permission]]\nuser = 'guest'\nvhost = 'other'\nconfigure = '.*'\nwrite = '.*'\nread = '.*'\n"
    )))
}

fn channel_in(server: &Server, vhost: &str) -> Raw {
    let mut raw = server.connect();
    raw.login("guest", "guest");
    raw.open(vhost);
    raw.open_channel(1);
    raw
}

#[test]
fn product_and_version_are_what_they_are_set_to() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for (config, product, version) in
        [("", "RabbitMQ", "4.3.6"), ("[compatibility]\nproduct = 'Warren'\nversion = '3.13.7'\n", "Warren", "3.13.7")]
    {
        let server = Server::own(launch().config(config));
        let arguments = server.connect().start();
        let mut reader = Reader::new(&arguments);
        assert_eq!((reader.octet(), reader.octet()), (0, 9));
        let properties = table_of_strings(reader.longstr());
        assert_eq!(properties["product"], product.as_bytes());
        assert_eq!(properties["version"], version.as_bytes());
        let information = String::from_utf8_lossy(&properties["information"]).into_owned();
        assert!(information.starts_with("Warren "), "{information}");
    }
}

#[test]
fn the_smallest_frame_size_can_be_raised() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = Server::own(launch().config("[compatibility]\nframe_max_min = 8192\n"));
    let tuned = |frame_max| {
        let mut raw = server.connect();
        raw.start();
        raw.method(0, id::CONNECTION_START_OK, Handshake::plain("guest", "guest").start_ok());
        raw.tune();
        raw.tune_ok(2047, frame_max, 0);
        raw.send_open("/");
        raw
    };
    tuned(8191).expect_connection_close(
        530,
        "NOT_ALLOWED - negotiated frame_max = 8191 is lower than the minimum allowed value (8192)",
        id::CONNECTION_TUNE_OK,
    );
    tuned(8192).expect(0, id::CONNECTION_OPEN_OK);
}

#[test]
fn the_largest_message_is_set_per_vhost_too() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = with_other("max_message_bytes = 10", "[limits]\nmax_message_bytes = 20\n");
    for (vhost, limit) in [("/", 20), ("other", 10)] {
        let mut raw = channel_in(&server, vhost);
        let queue = raw.exclusive_queue(1);
        raw.publish(1, ("", &queue), 0, NO_PROPERTIES, &vec![b'x'; limit]);
        raw.get(1, &queue, true).expect("just small enough");
        raw.publish(1, ("", &queue), 0, NO_PROPERTIES, &vec![b'x'; limit + 1]);
        let text =
            format!("PRECONDITION_FAILED - message size {} is larger than configured max size {limit}", limit + 1);
        raw.expect_channel_close(1, 406, &text, id::BASIC_PUBLISH);
    }
}

#[test]
fn transient_queues_that_are_not_exclusive_can_be_refused() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server =
        with_other("transient_nonexclusive_queues = true", "[compatibility]\ntransient_nonexclusive_queues = false\n");
    let mut raw = server.channel();
    raw.declare(1, "durable", DURABLE);
    raw.declare(1, "durable auto-delete", DURABLE | AUTO_DELETE);
    raw.exclusive_queue(1);
    for (name, bits) in [("transient", 0), ("transient auto-delete", AUTO_DELETE), ("", 0)] {
        let mut raw = server.channel();
        raw.send_declare(1, name, bits, &[]);
        // RabbitMQ's notice, as far as a reply text goes.
        raw.expect_connection_close(
            541,
            "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.\n\
             By default, this feature is not permitted anymore.\n\
             The feature will be removed from a future major RabbitMQ version, regardless of the configuration; \
             actual version to be determined.\nTo...",
            id::QUEUE_DECLARE,
        );
    }
    let mut other = channel_in(&server, "other");
    other.declare(1, "transient", 0);
    assert_works(&mut other, 1);
}

#[test]
fn transient_queues_are_allowed_by_default() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = with_other("transient_nonexclusive_queues = false", "");
    server.channel().declare(1, "transient", 0);
    let mut other = channel_in(&server, "other");
    other.send_declare(1, "transient", 0, &[]);
    let close = other.connection_close();
    assert_eq!(close.code, 541, "{close:?}");
}

#[test]
fn a_global_prefetch_can_be_taken_for_one_of_each_consumer() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for (config, second_gets) in [("", false), ("[compatibility]\nglobal_qos = false\n", true)] {
        let server = Server::own(launch().config(config));
        block_on(async {
            let channel = confirming(&server).await;
            let queue = queue(&channel, QueueDeclareOptions::default()).await;
            channel.basic_qos(1, BasicQosOptions { global: true }).await.expect("basic.qos");
            let mut one = consume(&channel, &queue, BasicConsumeOptions::default()).await;
            let mut two = consume(&channel, &queue, BasicConsumeOptions::default()).await;
            send(&channel, "", &queue, "0").await;
            send(&channel, "", &queue, "1").await;
            assert_eq!(body(&next(&mut one).await), "0");
            if second_gets {
                assert_eq!(body(&next(&mut two).await), "1");
            } else {
                assert_no_delivery(&channel, &mut two).await;
            }
            assert_no_delivery(&channel, &mut one).await;
        });
    }
}

#[test]
fn redeclaring_can_be_relaxed() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = with_other("redeclare = 'relaxed'", "");
    let ttl = Bytes::new().field("x-max-priority", b'I').long(5).done();
    let changes = [(0, &[][..]), (DURABLE | AUTO_DELETE, &[]), (DURABLE, &ttl)];
    for (bits, arguments) in changes {
        let mut strict = server.channel();
        strict.declare(1, "queue", DURABLE);
        strict.send_declare(1, "queue", bits, arguments);
        assert_eq!(strict.channel_close(1).code, 406);
    }
    let mut raw = channel_in(&server, "other");
    raw.declare(1, "queue", DURABLE);
    raw.publish(1, ("", "queue"), 0, NO_PROPERTIES, b"kept");
    for (bits, arguments) in changes {
        raw.send_declare(1, "queue", bits, arguments);
        let answer = raw.expect(1, id::QUEUE_DECLARE_OK);
        let mut reader = Reader::new(&answer);
        assert_eq!((reader.shortstr(), reader.long()), ("queue".to_owned(), 1));
    }
    raw.exchange(1, "exchange", "topic", DURABLE);
    let alternate = Bytes::new().field("alternate-exchange", b'S').longstr("amq.fanout").done();
    raw.exchange(1, "exchange", "topic", 0);
    raw.send_exchange(1, "exchange", "topic", DURABLE | AUTO_DELETE, &alternate);
    raw.expect(1, id::EXCHANGE_DECLARE_OK);
    // It has not become an auto-delete queue by being declared as one.
    let tag = raw.consume(1, "queue", "", 0);
    assert_eq!(raw.delivery(1).text(), "kept");
    raw.call(1, id::BASIC_CANCEL, Bytes::new().shortstr(&tag).octet(0).done(), id::BASIC_CANCEL_OK);
    raw.send_declare(1, "queue", 1, &[]);
    raw.expect(1, id::QUEUE_DECLARE_OK);
}

#[test]
fn relaxed_has_limits() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let server = Server::own(launch().config("[compatibility]\nredeclare = 'relaxed'\n"));
    let mut raw = server.channel();
    raw.exchange(1, "exchange", "topic", 0);
    raw.send_exchange(1, "exchange", "direct", 0, &[]);
    raw.expect_channel_close(
        1,
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'exchange' in vhost '/': received 'direct' but \
         current is 'topic'",
        id::EXCHANGE_DECLARE,
    );
    raw.open_channel(1);
    raw.declare(1, "mine", EXCLUSIVE);
    raw.send_declare(1, "mine", 0, &[]);
    assert_eq!(raw.channel_close(1).code, 405);
    let mut stranger = server.channel();
    stranger.send_declare(1, "mine", EXCLUSIVE, &[]);
    assert_eq!(stranger.channel_close(1).code, 405);
}

#[test]
fn wrong_values_stop_the_start() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for (config, wanted) in [
        ("[compatibility]\nproduct = ''\n", &["compatibility.product", "may not be empty"][..]),
        ("[compatibility]\nversion = 4\n", &["compatibility.version", "4", "text in quotes"]),
        ("[compatibility]\nframe_max_min = 100\n", &["compatibility.frame_max_min", "100", "4096"]),
        ("[limits]\nframe_max = 4096\n[compatibility]\nframe_max_min = 8192\n", &["limits.frame_max", "4096", "8192"]),
        ("[limits]\nmax_message_bytes = 0\n", &["limits.max_message_bytes", "0"]),
        (
            "[compatibility]\ntransient_nonexclusive_queues = 'no'\n",
            &["compatibility.transient_nonexclusive_queues", "true or false"],
        ),
        ("[compatibility]\nglobal_qos = 0\n", &["compatibility.global_qos", "true or false"]),
        ("[compatibility]\nredeclare = 'lax'\n", &["compatibility.redeclare", "\"lax\"", "\"strict\" or \"relaxed\""]),
        ("[[vhost]]\nname = 'v'\nredeclare = 'lax'\n", &["[[vhost]] number 1", "redeclare", "\"lax\""]),
        ("[[vhost]]\nname = 'v'\nglobal_qos = 'no'\n", &["[[vhost]] number 1", "global_qos", "true or false"]),
        ("[[vhost]]\nname = 'v'\nmax_message_bytes = 0\n", &["[[vhost]] number 1", "max_message_bytes"]),
        (
            "[[vhost]]\nname = 'v'\nmax_message_bytes = 200_000_000\n",
            &["[[vhost]] number 1", "limits.max_message_bytes"],
        ),
        ("[[vhost]]\nname = 'v'\nproduct = 'x'\n", &["[[vhost]] number 1", "unknown key \"product\""]),
    ] {
        assert_refused(&launch().config(config).run(), wanted);
    }
    let finished = launch().env("WARREN__COMPATIBILITY__GLOBAL_QOS", "maybe").run();
    assert_refused(&finished, &["compatibility.global_qos", "maybe", "WARREN__COMPATIBILITY__GLOBAL_QOS"]);
}
