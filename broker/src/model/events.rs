//! Events: what happens to connections, queues, users and so on, as messages for whoever listens. Those who cause them name
//! them here and do not know who publishes them.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use amq_protocol::types::{AMQPValue, FieldArray, LongString};
use parking_lot::RwLock;

use super::arguments::Arguments;
use super::limits::Limit;

/// Who acts when the broker does something by itself.
pub const INTERNAL_USER: &str = "rmq-internal";
/// Who acts when an operator asks for something without saying who it is.
pub const OPERATOR: &str = "rmq-cli";

thread_local! {
    /// Whose request this thread is working on.
    static ACTING: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Does what this user asked for. What it changes, on this thread, is told as the user's doing, however deep inside it
/// happens; otherwise it is [`OPERATOR`]'s.
pub fn acting_as<T>(user: &str, work: impl FnOnce() -> T) -> T {
    /// Puts back who acted before, also when the work panics.
    struct Restore(Option<Arc<str>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTING.set(self.0.take());
        }
    }
    let _restore = Restore(ACTING.replace(Some(user.into())));
    work()
}

/// The operator who acts now.
pub fn operator() -> Arc<str> {
    ACTING.with_borrow(|acting| acting.clone()).unwrap_or_else(|| OPERATOR.into())
}

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

    /// What the operator who acts now has done.
    pub fn by_operator() -> Self {
        Self::by(&operator())
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

    /// Adds those limits that are set.
    #[must_use]
    pub fn limits(self, limits: &[(&str, Limit)]) -> Self {
        let set = limits.iter().filter_map(|(name, limit)| Some((name, (*limit)?)));
        set.fold(self, |fields, (name, limit)| fields.number(name, limit))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_acts_is_who_asked() {
        assert_eq!(*operator(), *OPERATOR);
        let seen = acting_as("ann", || {
            assert_eq!(acting_as("bob", operator).as_ref(), "bob");
            operator()
        });
        assert_eq!(&*seen, "ann");
        let panicked = std::panic::catch_unwind(|| acting_as("ann", || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(*operator(), *OPERATOR, "nobody acts any more");
    }
}
