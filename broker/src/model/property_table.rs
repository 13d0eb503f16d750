//! A message's properties as one table, for people and tools to read.

use amq_protocol::types::{AMQPValue, FieldTable};
use protocol::Properties;
use protocol::names::{long, short_cut};

use super::arguments::Arguments;

/// The properties that are set, each as a value of a table.
pub fn as_table(properties: &Properties<'_>) -> FieldTable {
    let mut table = FieldTable::default();
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let texts = texts.into_iter().filter_map(|(name, value)| Some((name, AMQPValue::LongString(long(value?)))));
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", properties.timestamp()),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, number(value?))));
    let headers = properties.headers().and_then(|headers| Arguments::from_wire(headers).ok());
    let headers = headers.map(|headers| ("headers", AMQPValue::FieldTable(headers.table().clone())));
    for (name, value) in texts.chain(numbers).chain(headers) {
        table.insert(short_cut(name), value);
    }
    table
}

/// As RabbitMQ has it, as long as that fits.
fn number(value: u64) -> AMQPValue {
    i32::try_from(value).map_or(AMQPValue::LongLongInt(value as i64), AMQPValue::LongInt)
}
