//! Arguments as JSON and back.

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use serde_json::{Map, Number, Value};

use crate::model::arguments::Arguments;

/// Arguments as an object.
pub(super) fn from_arguments(arguments: &Arguments) -> Value {
    from_table(arguments.table())
}

/// Objects as arguments. JSON that was parsed has at most 128 levels, so this may recurse; names of more than 255 octets are
/// left out.
pub(super) fn to_arguments(object: &Map<String, Value>) -> Arguments {
    Arguments::from(to_table(object))
}

pub(super) fn from_table(table: &FieldTable) -> Value {
    Value::Object(table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), from_value(value))).collect())
}

fn from_value(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Timestamp(value) => Value::from(*value),
        AMQPValue::Float(value) => number(f64::from(*value)),
        AMQPValue::Double(value) => number(*value),
        AMQPValue::DecimalValue(value) => number(f64::from(value.value) / 10f64.powi(i32::from(value.scale))),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => Value::from(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => Value::from(String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(from_value).collect(),
        AMQPValue::FieldTable(table) => from_table(table),
        AMQPValue::Void => Value::Null,
    }
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn to_table(object: &Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in object {
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, to_value(value));
        }
    }
    table
}

fn to_value(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => AMQPValue::LongLongInt(integer),
            None => AMQPValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => AMQPValue::LongString(LongString::from(text.as_str())),
        Value::Array(items) => {
            let mut array = FieldArray::default();
            for item in items {
                array.push(to_value(item));
            }
            AMQPValue::FieldArray(array)
        }
        Value::Object(object) => AMQPValue::FieldTable(to_table(object)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_come_back_as_they_were() {
        let given = json!({"a": 1, "b": "text", "c": true, "d": [1, {"e": null}], "f": 1.5, "g": -7});
        let Value::Object(object) = &given else { panic!("not an object") };
        assert_eq!(from_arguments(&to_arguments(object)), given);
    }
}
