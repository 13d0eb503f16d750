//! Values for property tests.

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::amqp::{
    AMQPClass, AMQPValue, BasicProperties, ByteArray, DecimalValue, FieldArray, FieldTable, ShortString, access, basic,
    channel, confirm, connection, exchange, queue, tx,
};
use protocol::names;

/// Texts of up to 255 octets, some of them long and not ASCII.
pub(crate) fn short() -> impl Strategy<Value = ShortString> {
    prop_oneof![
        4 => "[a-z.*#]{0,20}",
        1 => any::<String>(),
        1 => "[ü€😀]{0,200}",
    ]
    .prop_map(|text| names::short_cut(&text))
}

/// Values of every type that `amq-protocol` keeps apart, with tables and arrays a few levels deep.
pub(crate) fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_filter("NaN equals nothing", |f| !f.is_nan()).prop_map(AMQPValue::Float),
        any::<f64>().prop_filter("NaN equals nothing", |f| !f.is_nan()).prop_map(AMQPValue::Double),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        vec(any::<u8>(), 0..40).prop_map(|octets| AMQPValue::LongString(octets.into())),
        vec(any::<u8>(), 0..40).prop_map(|octets| AMQPValue::ByteArray(ByteArray::from(octets))),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            vec((short(), inner), 0..6).prop_map(|fields| AMQPValue::FieldTable(fields_of(fields))),
        ]
    })
}

fn fields_of(fields: Vec<(ShortString, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name, value);
    }
    table
}

pub(crate) fn table() -> impl Strategy<Value = FieldTable> {
    vec((short(), value()), 0..6).prop_map(fields_of)
}

pub(crate) fn properties() -> impl Strategy<Value = BasicProperties> {
    let texts = vec(proptest::option::of(short()), 10);
    let numbers = (
        proptest::option::of(table()),
        proptest::option::of(any::<u8>()),
        proptest::option::of(any::<u8>()),
        proptest::option::of(any::<u64>()),
    );
    (texts, numbers).prop_map(|(texts, (headers, delivery_mode, priority, timestamp))| {
        let with: [fn(BasicProperties, ShortString) -> BasicProperties; 10] = [
            BasicProperties::with_content_type,
            BasicProperties::with_content_encoding,
            BasicProperties::with_correlation_id,
            BasicProperties::with_reply_to,
            BasicProperties::with_expiration,
            BasicProperties::with_message_id,
            BasicProperties::with_type,
            BasicProperties::with_user_id,
            BasicProperties::with_app_id,
            BasicProperties::with_cluster_id,
        ];
        let mut properties = BasicProperties::default();
        for (set, text) in with.into_iter().zip(texts) {
            if let Some(text) = text {
                properties = set(properties, text);
            }
        }
        if let Some(headers) = headers {
            properties = properties.with_headers(headers);
        }
        if let Some(mode) = delivery_mode {
            properties = properties.with_delivery_mode(mode);
        }
        if let Some(priority) = priority {
            properties = properties.with_priority(priority);
        }
        if let Some(timestamp) = timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        properties
    })
}

/// What the arguments of all methods are made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) a: ShortString,
    pub(crate) b: ShortString,
    pub(crate) c: ShortString,
    pub(crate) octets: Vec<u8>,
    pub(crate) long: u32,
    pub(crate) short: u16,
    pub(crate) tag: u64,
    pub(crate) bits: [bool; 5],
    pub(crate) table: FieldTable,
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let texts = (short(), short(), short(), vec(any::<u8>(), 0..60));
    let numbers = (any::<u32>(), any::<u16>(), any::<u64>(), any::<[bool; 5]>(), table());
    (texts, numbers).prop_map(|((a, b, c, octets), (long, short, tag, bits, table))| Parts {
        a,
        b,
        c,
        octets,
        long,
        short,
        tag,
        bits,
        table,
    })
}

/// Every method of the protocol.
pub(crate) fn all_methods(parts: Parts) -> Vec<AMQPClass> {
    let Parts { a, b, c, octets, long, short, tag, bits: [p, q, r, s, t], table } = parts;
    let (a, b, c) = (|| a.clone(), || b.clone(), || c.clone());
    let octets = || octets.clone().into();
    let table = || table.clone();
    use AMQPClass::*;
    use basic::AMQPMethod as B;
    use channel::AMQPMethod as Ch;
    use connection::AMQPMethod as Co;
    use exchange::AMQPMethod as E;
    use queue::AMQPMethod as Q;
    use tx::AMQPMethod as T;
    vec![
        Connection(Co::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: table(),
            mechanisms: octets(),
            locales: octets(),
        })),
        Connection(Co::StartOk(connection::StartOk {
            client_properties: table(),
            mechanism: a(),
            response: octets(),
            locale: b(),
        })),
        Connection(Co::Secure(connection::Secure { challenge: octets() })),
        Connection(Co::SecureOk(connection::SecureOk { response: octets() })),
        Connection(Co::Tune(connection::Tune { channel_max: short, frame_max: long, heartbeat: short })),
        Connection(Co::TuneOk(connection::TuneOk { channel_max: short, frame_max: long, heartbeat: short })),
        Connection(Co::Open(connection::Open { virtual_host: a() })),
        Connection(Co::OpenOk(connection::OpenOk {})),
        Connection(Co::Close(connection::Close {
            reply_code: short,
            reply_text: a(),
            class_id: short,
            method_id: short,
        })),
        Connection(Co::CloseOk(connection::CloseOk {})),
        Connection(Co::Blocked(connection::Blocked { reason: a() })),
        Connection(Co::Unblocked(connection::Unblocked {})),
        Connection(Co::UpdateSecret(connection::UpdateSecret { new_secret: octets(), reason: a() })),
        Connection(Co::UpdateSecretOk(connection::UpdateSecretOk {})),
        Channel(Ch::Open(channel::Open {})),
        Channel(Ch::OpenOk(channel::OpenOk {})),
        Channel(Ch::Flow(channel::Flow { active: p })),
        Channel(Ch::FlowOk(channel::FlowOk { active: p })),
        Channel(Ch::Close(channel::Close { reply_code: short, reply_text: a(), class_id: short, method_id: short })),
        Channel(Ch::CloseOk(channel::CloseOk {})),
        Access(access::AMQPMethod::Request(access::Request {
            realm: a(),
            exclusive: p,
            passive: q,
            active: r,
            write: s,
            read: t,
        })),
        Access(access::AMQPMethod::RequestOk(access::RequestOk {})),
        Exchange(E::Declare(exchange::Declare {
            exchange: a(),
            kind: b(),
            passive: p,
            durable: q,
            auto_delete: r,
            internal: s,
            nowait: t,
            arguments: table(),
        })),
        Exchange(E::DeclareOk(exchange::DeclareOk {})),
        Exchange(E::Delete(exchange::Delete { exchange: a(), if_unused: p, nowait: q })),
        Exchange(E::DeleteOk(exchange::DeleteOk {})),
        Exchange(E::Bind(exchange::Bind {
            destination: a(),
            source: b(),
            routing_key: c(),
            nowait: p,
            arguments: table(),
        })),
        Exchange(E::BindOk(exchange::BindOk {})),
        Exchange(E::Unbind(exchange::Unbind {
            destination: a(),
            source: b(),
            routing_key: c(),
            nowait: p,
            arguments: table(),
        })),
        Exchange(E::UnbindOk(exchange::UnbindOk {})),
        Queue(Q::Declare(queue::Declare {
            queue: a(),
            passive: p,
            durable: q,
            exclusive: r,
            auto_delete: s,
            nowait: t,
            arguments: table(),
        })),
        Queue(Q::DeclareOk(queue::DeclareOk { queue: a(), message_count: long, consumer_count: long })),
        Queue(Q::Bind(queue::Bind { queue: a(), exchange: b(), routing_key: c(), nowait: p, arguments: table() })),
        Queue(Q::BindOk(queue::BindOk {})),
        Queue(Q::Purge(queue::Purge { queue: a(), nowait: p })),
        Queue(Q::PurgeOk(queue::PurgeOk { message_count: long })),
        Queue(Q::Delete(queue::Delete { queue: a(), if_unused: p, if_empty: q, nowait: r })),
        Queue(Q::DeleteOk(queue::DeleteOk { message_count: long })),
        Queue(Q::Unbind(queue::Unbind { queue: a(), exchange: b(), routing_key: c(), arguments: table() })),
        Queue(Q::UnbindOk(queue::UnbindOk {})),
        Basic(B::Qos(basic::Qos { prefetch_count: short, global: p })),
        Basic(B::QosOk(basic::QosOk {})),
        Basic(B::Consume(basic::Consume {
            queue: a(),
            consumer_tag: b(),
            no_local: p,
            no_ack: q,
            exclusive: r,
            nowait: s,
            arguments: table(),
        })),
        Basic(B::ConsumeOk(basic::ConsumeOk { consumer_tag: a() })),
        Basic(B::Cancel(basic::Cancel { consumer_tag: a(), nowait: p })),
        Basic(B::CancelOk(basic::CancelOk { consumer_tag: a() })),
        Basic(B::Publish(basic::Publish { exchange: a(), routing_key: b(), mandatory: p, immediate: q })),
        Basic(B::Return(basic::Return { reply_code: short, reply_text: a(), exchange: b(), routing_key: c() })),
        Basic(B::Deliver(basic::Deliver {
            consumer_tag: a(),
            delivery_tag: tag,
            redelivered: p,
            exchange: b(),
            routing_key: c(),
        })),
        Basic(B::Get(basic::Get { queue: a(), no_ack: p })),
        Basic(B::GetOk(basic::GetOk {
            delivery_tag: tag,
            redelivered: p,
            exchange: a(),
            routing_key: b(),
            message_count: long,
        })),
        Basic(B::GetEmpty(basic::GetEmpty {})),
        Basic(B::Ack(basic::Ack { delivery_tag: tag, multiple: p })),
        Basic(B::Reject(basic::Reject { delivery_tag: tag, requeue: p })),
        Basic(B::RecoverAsync(basic::RecoverAsync { requeue: p })),
        Basic(B::Recover(basic::Recover { requeue: p })),
        Basic(B::RecoverOk(basic::RecoverOk {})),
        Basic(B::Nack(basic::Nack { delivery_tag: tag, multiple: p, requeue: q })),
        Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: p })),
        Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})),
        Tx(T::Select(tx::Select {})),
        Tx(T::SelectOk(tx::SelectOk {})),
        Tx(T::Commit(tx::Commit {})),
        Tx(T::CommitOk(tx::CommitOk {})),
        Tx(T::Rollback(tx::Rollback {})),
        Tx(T::RollbackOk(tx::RollbackOk {})),
    ]
}
