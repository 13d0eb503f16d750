//! What the areas share: starting the server a test speaks to, and short forms of lapin's calls.

use futures_util::{FutureExt, StreamExt};
use integration_tests::process::Launch;
use integration_tests::raw::Raw;
use integration_tests::server::{Server, User};
use integration_tests::{DEADLINE, unique};
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind,
    PublisherConfirm,
};
use std::fmt::Debug;
use std::future::Future;

/// How to start the broker under test.
pub(crate) fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_warren-under-test"))
}

/// A server for one test, with the defaults.
#[track_caller]
pub(crate) fn server() -> Server {
    Server::start(launch())
}

/// Says that a test needs Warren itself, and whether it must be left out.
pub(crate) fn peer_is_set(why: &str) -> bool {
    let set = integration_tests::peer::Peer::from_env().is_some();
    if set {
        println!("skipped on the peer: {why}");
    }
    set
}

/// Runs an asynchronous test against a fresh server. No await in it can take longer than the deadline allows.
#[track_caller]
pub(crate) fn run(test: impl AsyncFnOnce(&Server)) {
    let server = server();
    block_on(test(&server));
}

/// Runs a future to its end, within the deadline.
#[track_caller]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("no runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("something did not happen in time") })
}

/// A new connection as guest.
pub(crate) async fn connect(server: &Server) -> Connection {
    Connection::connect(&server.uri(), ConnectionProperties::default()).await.expect("cannot connect")
}

/// A channel on a new connection, which lives as long as the channel does.
pub(crate) async fn channel(server: &Server) -> Channel {
    channel_of(&connect(server).await).await
}

/// A channel on a connection.
pub(crate) async fn channel_of(connection: &Connection) -> Channel {
    connection.create_channel().await.expect("cannot open a channel")
}

/// A channel in confirm mode on a new connection.
pub(crate) async fn confirming(server: &Server) -> Channel {
    let channel = channel(server).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
    channel
}

/// A user with a name of its own, a password and these permissions.
pub(crate) fn user(tags: &'static str, permission: Option<[&str; 3]>) -> User {
    User {
        name: unique("user"),
        password: "secret".to_owned(),
        tags,
        permission: permission.map(|patterns| patterns.map(str::to_owned)),
    }
}

/// The code and the text the server closed with.
#[track_caller]
pub(crate) fn failure<T: Debug>(result: lapin::Result<T>) -> (u16, String) {
    let error = result.expect_err("it must fail");
    match error.kind() {
        ErrorKind::ProtocolError(error) => (error.get_id(), error.get_message().to_string()),
        other => panic!("not an error of the server: {other:?}"),
    }
}

/// Asserts the code and the text the server closed with.
#[track_caller]
pub(crate) fn assert_fails<T: Debug>(result: lapin::Result<T>, code: u16, text: &str) {
    assert_eq!(failure(result), (code, text.to_owned()));
}

/// Declares a queue with a name of its own and returns the name.
pub(crate) async fn queue(channel: &Channel, options: QueueDeclareOptions) -> String {
    queue_with(channel, options, FieldTable::default()).await
}

/// Two transient queues.
pub(crate) async fn two_queues(channel: &Channel) -> (String, String) {
    let options = QueueDeclareOptions::default();
    (queue(channel, options).await, queue(channel, options).await)
}

/// As [`queue`], with arguments.
pub(crate) async fn queue_with(channel: &Channel, options: QueueDeclareOptions, arguments: FieldTable) -> String {
    let name = unique("queue");
    declare(channel, &name, options, arguments).await.expect("queue.declare");
    name
}

/// queue.declare.
pub(crate) async fn declare(
    channel: &Channel,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> lapin::Result<lapin::Queue> {
    channel.queue_declare(name.into(), options, arguments).await
}

/// Messages ready and consumers of a queue, by a passive declare.
pub(crate) async fn counts(channel: &Channel, queue: &str) -> (u32, u32) {
    let options = QueueDeclareOptions::default().passive();
    let queue = declare(channel, queue, options, FieldTable::default()).await.expect("passive queue.declare");
    (queue.message_count(), queue.consumer_count())
}

/// Declares an exchange with a name of its own and returns the name.
pub(crate) async fn exchange(channel: &Channel, kind: ExchangeKind) -> String {
    exchange_with(channel, kind, ExchangeDeclareOptions::default(), FieldTable::default()).await
}

/// As [`exchange`], with options and arguments.
pub(crate) async fn exchange_with(
    channel: &Channel,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
    arguments: FieldTable,
) -> String {
    let name = unique("exchange");
    channel.exchange_declare(name.as_str().into(), kind, options, arguments).await.expect("exchange.declare");
    name
}

/// queue.bind without arguments.
pub(crate) async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    bind_with(channel, queue, exchange, key, FieldTable::default()).await;
}

/// queue.bind.
pub(crate) async fn bind_with(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), arguments)
        .await
        .expect("queue.bind");
}

/// A publish without waiting for anything.
pub(crate) async fn publish(channel: &Channel, exchange: &str, key: &str, body: &str) -> PublisherConfirm {
    publish_with(channel, exchange, key, body, BasicProperties::default()).await
}

/// A publish with properties.
pub(crate) async fn publish_with(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &str,
    properties: BasicProperties,
) -> PublisherConfirm {
    channel
        .basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body.as_bytes(), properties)
        .await
        .expect("basic.publish")
}

/// Publishes on a channel in confirm mode and waits for the confirm.
pub(crate) async fn send(channel: &Channel, exchange: &str, key: &str, body: &str) {
    send_with(channel, exchange, key, body, BasicProperties::default()).await;
}

/// As [`send`], with properties.
pub(crate) async fn send_with(channel: &Channel, exchange: &str, key: &str, body: &str, properties: BasicProperties) {
    let confirm = publish_with(channel, exchange, key, body, properties).await;
    let confirm = confirm.await.expect("a confirm");
    assert_eq!(confirm, Confirmation::Ack(None));
}

/// Properties of a persistent message.
pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// basic.consume with a tag from the server.
pub(crate) async fn consume(channel: &Channel, queue: &str, options: BasicConsumeOptions) -> Consumer {
    consume_as(channel, queue, "", options).await
}

/// basic.consume.
pub(crate) async fn consume_as(channel: &Channel, queue: &str, tag: &str, options: BasicConsumeOptions) -> Consumer {
    channel.basic_consume(queue.into(), tag.into(), options, FieldTable::default()).await.expect("basic.consume")
}

/// basic.consume with a tag from the server, and arguments.
pub(crate) async fn consume_with(
    channel: &Channel,
    queue: &str,
    options: BasicConsumeOptions,
    arguments: FieldTable,
) -> Consumer {
    channel.basic_consume(queue.into(), "".into(), options, arguments).await.expect("basic.consume")
}

/// Options of a consumer whose messages need no acknowledgement.
pub(crate) fn no_ack() -> BasicConsumeOptions {
    BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() }
}

/// The next delivery of a consumer.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("the consumer was cancelled").expect("the consumer failed")
}

/// The bodies of the next deliveries of a consumer.
pub(crate) async fn next_bodies(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        bodies.push(body(&next(consumer).await));
    }
    bodies
}

/// Asserts that nothing else was delivered before the answer to a question on the consumer's own channel.
///
/// The question goes to the queue itself and is asked twice: the first answer may overtake a delivery inside a server
/// that handles queues and channels in different places, the second cannot.
pub(crate) async fn assert_no_delivery(channel: &Channel, consumer: &mut Consumer) {
    let queue = consumer.queue();
    for _ in 0..2 {
        counts(channel, queue.as_str()).await;
    }
    if let Some(delivery) = consumer.next().now_or_never() {
        panic!("unexpected: {delivery:?}");
    }
}

/// basic.get.
pub(crate) async fn get(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("basic.get")
}

/// Gets every ready message without acknowledgement: the bodies in order.
pub(crate) async fn drain(channel: &Channel, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let message = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("basic.get");
        match message {
            Some(message) => bodies.push(body(&message.delivery)),
            None => return bodies,
        }
    }
}

/// The body as text.
pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.data).into_owned()
}

/// Acknowledges one delivery.
pub(crate) async fn ack(delivery: &Delivery) {
    let known = delivery.ack(BasicAckOptions::default()).await.expect("basic.ack");
    assert!(known, "lapin did not send the ack");
}

/// A table of one entry.
pub(crate) fn table(name: &str, value: impl Into<AMQPValue>) -> FieldTable {
    tables([(name, value.into())])
}

/// A table.
pub(crate) fn tables<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

/// A string as tables carry it.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Bodies `0` to `count - 1`.
pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Asserts that a connection still works, and how: a message through a queue of its own.
#[track_caller]
pub(crate) fn assert_works(raw: &mut Raw, channel: u16) {
    let queue = raw.exclusive_queue(channel);
    raw.publish(channel, ("", &queue), 0, &[0, 0], b"still here");
    let message = raw.get(channel, &queue, true).expect("the message");
    assert_eq!(message.text(), "still here");
}
