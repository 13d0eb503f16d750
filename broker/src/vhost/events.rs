//! The event exchange, and the events of what a virtual host consists of.

use amq_protocol::types::AMQPValue;
use protocol::names::short_cut;
use protocol::{amqp::BasicProperties, encode_properties};

use super::Vhost;
use super::exchange::{Destination, Exchange};
use crate::model::arguments::Arguments;
use crate::model::events::{EventSink, Fields, operator};
use crate::model::limits::{MAX_CONNECTIONS, MAX_QUEUES, VhostLimits};
use crate::model::statistics::churn;
use crate::policy::PolicyKind;
use crate::queue::Queue;
use crate::queue::signal::WakeList;
use crate::routing::binding::BindingKey;

/// The topic exchange that events are published to.
pub const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";

/// The virtual host that has it.
pub(super) const EVENT_VHOST: &str = "/";

impl EventSink for Vhost {
    fn is_listened_to(&self) -> bool {
        self.exchange(EVENT_EXCHANGE).is_some_and(|exchange| !exchange.table().read().is_empty())
    }

    fn publish(&self, key: &str, mut fields: Arguments) {
        let Some(exchange) = self.exchange(EVENT_EXCHANGE) else {
            return;
        };
        let now_ms = self.services.timers.clock().now_ms();
        fields.insert("timestamp_in_ms", AMQPValue::LongLongInt(now_ms as i64));
        let properties = BasicProperties::default()
            .with_headers(fields.table().clone())
            .with_delivery_mode(2)
            .with_timestamp(now_ms / 1000);
        self.publish_own(&exchange, key, &encode_properties(&properties), b"", &mut WakeList::default());
    }
}

impl Vhost {
    pub(super) fn queue_created(&self, queue: &Queue, user: &str) {
        self.services.statistics.count_churn(churn::QUEUE_CREATED);
        self.services.events.emit("queue.created", || {
            let spec = queue.spec();
            let owner = spec.exclusive.map(|owner| owner.0.to_string()).unwrap_or_default();
            self.about(&spec.name, user)
                .text("type", "rabbit_classic_queue")
                .flag("durable", spec.durable)
                .flag("auto_delete", spec.auto_delete)
                .flag("exclusive", spec.exclusive.is_some())
                .text("owner_pid", owner)
                .arguments("arguments", &spec.arguments)
        });
    }

    pub(super) fn queue_deleted(&self, queue: &Queue, user: &str) {
        self.services.statistics.count_churn(churn::QUEUE_DELETED);
        self.services.statistics.retire_queue(queue.kind() as usize, &queue.statistics().totals);
        self.services
            .events
            .emit("queue.deleted", || self.about(&queue.spec().name, user).text("type", "rabbit_classic_queue"));
    }

    pub(super) fn exchange_created(&self, exchange: &Exchange, user: &str) {
        self.services.events.emit("exchange.created", || {
            let spec = exchange.spec();
            self.about(&spec.name, user)
                .text("type", spec.type_name())
                .flag("durable", spec.durable)
                .flag("auto_delete", spec.auto_delete)
                .flag("internal", spec.internal)
                .arguments("arguments", &spec.arguments)
        });
    }

    pub(super) fn exchange_deleted(&self, exchange: &Exchange, user: &str) {
        self.services.events.emit("exchange.deleted", || self.about(exchange.name(), user));
    }

    /// `key` is `binding.created` or `binding.deleted`.
    pub(super) fn binding_changed(
        &self,
        key: &str,
        source: &Exchange,
        destination: &Destination,
        binding: &BindingKey,
        user: &str,
    ) {
        self.services.events.emit(key, || {
            let kind = match destination {
                Destination::Queue(_) => "queue",
                Destination::Exchange(_) => "exchange",
            };
            let arguments = Arguments::from_wire(&binding.arguments).unwrap_or_default();
            Fields::by(user)
                .text("source_name", &**source.name())
                .text("source_kind", "exchange")
                .text("destination_name", destination.name())
                .text("destination_kind", kind)
                .text("routing_key", short_cut(&binding.key).as_str())
                .arguments("arguments", &arguments)
                .text("vhost", &*self.name)
        });
    }

    pub(super) fn policy_event(&self, kind: PolicyKind, what: &str, name: &str) {
        let prefix = match kind {
            PolicyKind::Policy => "policy",
            PolicyKind::OperatorPolicy => "operator.policy",
        };
        self.services.events.emit(&format!("{prefix}.{what}"), || self.about(name, &operator()));
    }

    pub(super) fn parameter_event(&self, key: &str, component: &str, name: &str) {
        self.services.events.emit(key, || self.about(name, &operator()).text("component", component));
    }

    /// Limits are a parameter as well. `limits`: all that there are now; `None` when they are gone.
    pub(super) fn limits_event(&self, limits: Option<VhostLimits>) {
        let what = if limits.is_some() { "set" } else { "cleared" };
        self.parameter_event(&format!("parameter.{what}"), "vhost-limits", "limits");
        self.services.events.emit(&format!("vhost.limits.{what}"), || {
            let fields = Fields::by_operator().text("name", "limits");
            let VhostLimits { max_connections, max_queues } = limits.unwrap_or_default();
            fields.limits(&[(MAX_CONNECTIONS, max_connections), (MAX_QUEUES, max_queues)])
        });
    }

    /// What an event about something with a name in here begins with.
    fn about(&self, name: &str, user: &str) -> Fields {
        Fields::by(user).text("name", name).text("vhost", &*self.name)
    }
}
