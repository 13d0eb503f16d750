//! What the headers of a dead-lettered message say.

use crate::support::*;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldArray, FieldTable};

/// Gets a message once there is one: dead letters come by themselves, and nobody is told.
pub(crate) async fn got(channel: &Channel, queue: &str) -> Delivery {
    loop {
        if let Some(message) = get(channel, queue).await {
            return message.delivery;
        }
    }
}

pub(crate) fn headers_of(delivery: &Delivery) -> FieldTable {
    delivery.properties.headers().clone().unwrap_or_default()
}

pub(crate) fn array(values: &[&str]) -> AMQPValue {
    AMQPValue::FieldArray(FieldArray::from(values.iter().map(|value| text(value)).collect::<Vec<_>>()))
}

pub(crate) fn field<'a>(table: &'a FieldTable, name: &str) -> &'a AMQPValue {
    table.inner().get(name).unwrap_or_else(|| panic!("no {name} in {table:?}"))
}

/// The entries of x-death without their times, which are checked to be there.
pub(crate) fn deaths(delivery: &Delivery) -> Vec<FieldTable> {
    let headers = headers_of(delivery);
    let AMQPValue::FieldArray(entries) = field(&headers, "x-death") else { panic!("x-death is no array") };
    let entries = entries.as_slice().iter().map(|entry| {
        let AMQPValue::FieldTable(entry) = entry else { panic!("{entry:?} is no table") };
        let mut without_time = FieldTable::default();
        for (name, value) in entry.inner() {
            if name.as_str() == "time" {
                assert!(matches!(value, AMQPValue::Timestamp(1_700_000_000..)), "{value:?}");
            } else {
                without_time.insert(name.clone(), value.clone());
            }
        }
        assert_eq!(without_time.inner().len() + 1, entry.inner().len(), "{entry:?}");
        without_time
    });
    entries.collect()
}

/// An entry of x-death without its time and without an original expiration.
pub(crate) fn death(queue: &str, reason: &str, count: i64, exchange: &str, keys: &[&str]) -> FieldTable {
    tables([
        ("count", AMQPValue::LongLongInt(count)),
        ("reason", text(reason)),
        ("queue", text(queue)),
        ("exchange", text(exchange)),
        ("routing-keys", array(keys)),
    ])
}

/// Asserts who comes first and last in the headers beside x-death: reason, queue, exchange.
pub(crate) fn assert_first_and_last(delivery: &Delivery, first: [&str; 3], last: [&str; 3]) {
    let headers = headers_of(delivery);
    for (kind, values) in [("first", first), ("last", last)] {
        for (what, value) in ["reason", "queue", "exchange"].iter().zip(values) {
            assert_eq!(field(&headers, &format!("x-{kind}-death-{what}")), &text(value), "{kind} {what}");
        }
    }
}
