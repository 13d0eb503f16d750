//! Events: what happens to connections, queues, users and so on, as messages for whoever listens. Those who cause them name
//! them here and do not know who publishes them.

use std::sync::{Arc, Weak};

use amq_protocol::types::{AMQPValue, FieldArray, LongString};
use parking_lot::RwLock;

use super::arguments::Arguments;

/// Who acts when the broker does something by itself.
pub const INTERNAL_USER: &str = "rmq-internal";
/// Who acts when an operator asks for something.
pub const OPERATOR: &str = "rmq-cli";

/// Publishes events.
pub trait EventSink: Send + Sync {
    /// Whether anybody listens.
    fn is_listened_to(&self) -> bool;

    /// Publishes one. It must take no lock above that of a queue.
    fn publish(&self, key: &str, fields: Arguments);
}

/// The way to the sink of a broker, once there is one.
#[derive(Default)]
pub struct Events(RwLock<Option<Weak<dyn EventSink>>>);

impl Events {
    /// Events go there from now on.
    pub fn set_sink(&self, sink: Weak<dyn EventSink>) {
        *self.0.write() = Some(sink);
    }

    /// Something has happened. The fields are asked for only when somebody listens.
    pub fn emit(&self, key: &str, fields: impl FnOnce() -> Fields) {
        let sink: Option<Arc<dyn EventSink>> = self.0.read().as_ref().and_then(Weak::upgrade);
        if let Some(sink) = sink.filter(|sink| sink.is_listened_to()) {
            sink.publish(key, fields().0);
        }
    }
}

/// What an event says.
#[derive(Default)]
pub struct Fields(Arguments);

impl Fields {
    /// What this user has done.
    pub fn by(user: &str) -> Self {
        Self::default().text("user_who_performed_action", user)
    }

    /// Adds a value.
    #[must_use]
    pub fn value(mut self, name: &str, value: AMQPValue) -> Self {
        self.0.insert(name, value);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.value(name, text(value))
    }

    /// Adds a yes or no.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.value(name, AMQPValue::Boolean(value))
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &str, value: i64) -> Self {
        self.value(name, AMQPValue::LongLongInt(value))
    }

    /// Adds a list of texts.
    #[must_use]
    pub fn list(self, name: &str, values: &[String]) -> Self {
        let mut list = FieldArray::default();
        for value in values {
            list.push(text(value));
        }
        self.value(name, AMQPValue::FieldArray(list))
    }

    /// Adds arguments. Without any it is an empty list, as RabbitMQ has it.
    #[must_use]
    pub fn arguments(self, name: &str, arguments: &Arguments) -> Self {
        if arguments.is_empty() {
            return self.list(name, &[]);
        }
        self.value(name, AMQPValue::FieldTable(arguments.table().clone()))
    }
}

fn text(value: impl AsRef<[u8]>) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value.as_ref().to_vec()))
}
