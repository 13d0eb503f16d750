//! Direct reply-to: answers that go straight to the channel that asked, without a queue.

use crate::support::*;
use integration_tests::id::{self, Id};
use integration_tests::raw::Raw;
use integration_tests::wire::{Bytes, NO_PROPERTIES, Reader};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const NO_ACK: u8 = 2;
const MANDATORY: u8 = 1;
const PASSIVE: u8 = 1;
/// The flag of the property.
const REPLY_TO_FLAG: u16 = 0x0200;

fn asks_for_reply() -> Vec<u8> {
    Bytes::new().short(REPLY_TO_FLAG).shortstr(REPLY_TO).done()
}

/// Sends a question to a queue of its own and returns the address for its answer, as the one who is asked sees it.
#[track_caller]
fn ask(raw: &mut Raw, channel: u16) -> String {
    let queue = raw.exclusive_queue(channel);
    raw.publish(channel, ("", &queue), 0, &asks_for_reply(), b"question");
    let question = raw.get(channel, &queue, true).expect("the question");
    assert_eq!(question.text(), "question");
    let mut reader = Reader::new(&question.content.properties);
    assert_eq!(reader.short(), REPLY_TO_FLAG);
    reader.shortstr()
}

fn confirm_select(raw: &mut Raw, channel: u16) {
    raw.call(channel, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
}

#[track_caller]
fn expect_ack(raw: &mut Raw, channel: u16) {
    raw.expect(channel, id::BASIC_ACK);
}

#[track_caller]
fn cancel(raw: &mut Raw, channel: u16, tag: &str) {
    raw.call(channel, id::BASIC_CANCEL, Bytes::new().shortstr(tag).octet(0), id::BASIC_CANCEL_OK);
}

#[track_caller]
fn open_channel(raw: &mut Raw, channel: u16) {
    raw.call(channel, id::CHANNEL_OPEN, [0], id::CHANNEL_OPEN_OK);
}

#[test]
fn an_answer_comes_over_another_connection() {
    let server = server();
    let (mut client, mut service) = (server.channel(), server.channel());
    assert_eq!(client.consume(1, REPLY_TO, "replies", NO_ACK), "replies");
    let address = ask(&mut client, 1);
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    // The get was delivery 1.
    confirm_select(&mut service, 1);
    for (tag, answer) in [(2, "one"), (3, "two")] {
        service.publish(1, ("", &address), MANDATORY, NO_PROPERTIES, answer.as_bytes());
        expect_ack(&mut service, 1);
        let reply = client.delivery(1);
        assert_eq!(reply.text(), answer);
        let seen = (reply.consumer.as_str(), reply.tag, reply.redelivered, reply.exchange.as_str());
        assert_eq!(seen, ("replies", tag, false, ""));
        assert_eq!(reply.routing_key, address);
        assert_eq!(reply.content.properties, NO_PROPERTIES);
    }
    assert_eq!(ask(&mut client, 1), address, "the address stays");
}

#[test]
fn each_channel_has_an_address_of_its_own() {
    let server = server();
    let mut raw = server.channel();
    open_channel(&mut raw, 2);
    let mut addresses = Vec::new();
    for channel in [1, 2] {
        raw.consume(channel, REPLY_TO, "same tag", NO_ACK);
        addresses.push(ask(&mut raw, channel));
    }
    assert_ne!(addresses[0], addresses[1]);
    raw.publish(1, ("", &addresses[1]), 0, NO_PROPERTIES, b"for the second");
    assert_eq!(raw.delivery(2).text(), "for the second");
    raw.publish(2, ("", &addresses[0]), 0, NO_PROPERTIES, b"for the first");
    assert_eq!(raw.delivery(1).text(), "for the first");
}

#[test]
fn replies_need_no_credit() {
    let server = server();
    let mut raw = server.channel();
    raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(1).octet(0), id::BASIC_QOS_OK);
    raw.consume(1, REPLY_TO, "", NO_ACK);
    let address = ask(&mut raw, 1);
    for n in 0..20u8 {
        raw.publish(1, ("", &address), 0, NO_PROPERTIES, &[n]);
    }
    for n in 0..20 {
        assert_eq!(raw.delivery(1).content.body, [n]);
    }
}

#[test]
fn what_is_refused() {
    const CONSUME: Id = id::BASIC_CONSUME;
    let server = server();
    let mut raw = server.channel();
    let consume = |raw: &mut Raw, tag: &str, bits: u8| {
        let arguments = Bytes::new().short(0).shortstr(REPLY_TO).shortstr(tag).octet(bits).table([]);
        raw.method(1, CONSUME, arguments);
    };
    consume(&mut raw, "", 0);
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", CONSUME);

    open_channel(&mut raw, 1);
    raw.consume(1, REPLY_TO, "first", NO_ACK);
    consume(&mut raw, "first", NO_ACK);
    raw.expect_channel_close(1, 406, "PRECONDITION_FAILED - reply consumer already set", CONSUME);

    open_channel(&mut raw, 1);
    raw.publish(1, ("", "nobody"), 0, &asks_for_reply(), b"question");
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    raw.expect_channel_close(1, 406, text, id::BASIC_PUBLISH);

    open_channel(&mut raw, 1);
    raw.consume(1, REPLY_TO, "", NO_ACK);
    let address = ask(&mut raw, 1);
    raw.send_bind(1, &address, "amq.direct", "key", &[]);
    let text = "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue";
    raw.expect_channel_close(1, 403, text, id::QUEUE_BIND);
}

#[test]
fn an_answer_that_comes_too_late_is_dropped() {
    let server = server();
    let (mut client, mut service) = (server.channel(), server.channel());
    confirm_select(&mut service, 1);
    client.consume(1, REPLY_TO, "replies", NO_ACK);
    let address = ask(&mut client, 1);
    cancel(&mut client, 1, "replies");
    // Routed as far as the sender is concerned, although nobody gets it.
    service.publish(1, ("", &address), MANDATORY, NO_PROPERTIES, b"too late");
    expect_ack(&mut service, 1);
    client.fence(1);
    // It can be consumed again, under another address.
    client.consume(1, REPLY_TO, "replies", NO_ACK);
    let again = ask(&mut client, 1);
    assert_ne!(again, address);
    drop(client);
    // However the connection ended: the answer is as good as delivered, once the name is known to be gone.
    service.publish(1, ("", &again), MANDATORY, NO_PROPERTIES, b"nobody there");
    expect_ack(&mut service, 1);
}

#[test]
fn a_name_that_is_no_address_leads_nowhere() {
    let server = server();
    let mut raw = server.channel();
    raw.consume(1, REPLY_TO, "", NO_ACK);
    for key in [REPLY_TO, "amq.rabbitmq.reply-to.nobody"] {
        raw.publish(1, ("", key), MANDATORY, NO_PROPERTIES, b"lost");
        let returned = raw.expect(1, id::BASIC_RETURN);
        assert_eq!(Reader::new(&returned).short(), 312, "{key}");
        raw.read_content(1);
    }
}

#[test]
fn the_name_can_be_asked_for() {
    let server = server();
    let (mut client, mut other) = (server.channel(), server.channel());
    client.consume(1, REPLY_TO, "replies", NO_ACK);
    let address = ask(&mut client, 1);
    for bits in [0, PASSIVE] {
        assert_eq!(other.declare(1, &address, bits), (address.clone(), 0, 1));
        assert_eq!(other.declare(1, REPLY_TO, bits), (REPLY_TO.to_owned(), 0, 1));
    }
    // Deleting it does nothing.
    let deleted =
        other.call(1, id::QUEUE_DELETE, Bytes::new().short(0).shortstr(&address).octet(0), id::QUEUE_DELETE_OK);
    assert_eq!(Reader::new(&deleted).long(), 0);
    assert_eq!(other.declare(1, &address, 0), (address.clone(), 0, 1));
    cancel(&mut client, 1, "replies");
    other.send_declare(1, &address, 0, &[]);
    let text = format!("NOT_FOUND - no queue '{address}' in vhost '{}'", server.vhost());
    other.expect_channel_close(1, 404, &text, id::QUEUE_DECLARE);
}

#[test]
fn an_answer_in_a_transaction_waits_for_the_commit() {
    let server = server();
    let (mut client, mut service) = (server.channel(), server.channel());
    client.consume(1, REPLY_TO, "replies", NO_ACK);
    let address = ask(&mut client, 1);
    service.call(1, id::TX_SELECT, [], id::TX_SELECT_OK);
    service.publish(1, ("", &address), 0, NO_PROPERTIES, b"taken back");
    service.call(1, id::TX_ROLLBACK, [], id::TX_ROLLBACK_OK);
    service.publish(1, ("", &address), 0, NO_PROPERTIES, b"answer");
    service.fence(1);
    client.fence(1);
    service.call(1, id::TX_COMMIT, [], id::TX_COMMIT_OK);
    assert_eq!(client.delivery(1).text(), "answer");
}

#[test]
fn a_tag_that_another_consumer_has_is_refused() {
    let server = server();
    let mut raw = server.channel();
    let queue = raw.exclusive_queue(1);
    raw.consume(1, &queue, "tag", NO_ACK);
    let arguments = Bytes::new().short(0).shortstr(REPLY_TO).shortstr("tag").octet(NO_ACK).table([]);
    raw.method(1, id::BASIC_CONSUME, arguments);
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 'tag'";
    raw.expect_connection_close(530, text, id::BASIC_CONSUME);
}
