//! Events of connections, channels and consumers.

use protocol::amqp::AMQPValue;

use super::Session;
use super::channel::Channel;
use crate::model::arguments::Arguments;
use crate::model::events::Fields;

impl Session {
    /// What the event exchange calls the connection.
    fn pid(&self) -> String {
        format!("<{}.{}>", self.broker.node_name, self.id.0)
    }

    fn user_name(&self) -> &str {
        self.user.as_ref().map_or("", |user| &user.name)
    }

    /// A user has logged in, or has not.
    pub(super) fn authenticated(&self, user: &str, mechanism: &str, failure: Option<&str>) {
        let key = if failure.is_none() { "user.authentication.success" } else { "user.authentication.failure" };
        self.broker.services.events.emit(key, || {
            let fields = Fields::default()
                .text("name", user)
                .text("connection_type", "network")
                .text("connection_name", self.connection_name())
                .text("auth_mechanism", mechanism)
                .flag("ssl", self.peer.tls.is_some());
            let fields = self.with_peer(fields);
            match failure {
                Some(failure) => fields.text("error", failure),
                None => fields,
            }
        });
    }

    fn with_peer(&self, fields: Fields) -> Fields {
        match self.peer.addresses {
            Some((peer, _)) => fields.text("peer_host", peer.ip().to_string()).number("peer_port", peer.port().into()),
            None => fields,
        }
    }

    /// The connection has opened its virtual host.
    pub(super) fn connection_created(&self) {
        self.broker.services.events.emit("connection.created", || {
            let facts = self.broker.connection_facts(self.id).unwrap_or_default();
            let limits = self.limits;
            let fields = Fields::by(self.user_name())
                .text("type", "network")
                .text("pid", self.pid())
                .text("name", self.connection_name())
                .flag("ssl", self.peer.tls.is_some())
                .text("protocol", "{0,9,1}")
                .text("auth_mechanism", &facts.mechanism)
                .text("user", self.user_name())
                .text("vhost", self.vhost.as_ref().map_or("", |vhost| vhost.name()))
                .number("timeout", limits.heartbeat_s.into())
                .number("frame_max", limits.frame_max.into())
                .number("channel_max", limits.channel_max.into())
                .value("client_properties", AMQPValue::FieldTable(facts.client_properties.table().clone()))
                .number("connected_at", facts.connected_at_ms as i64)
                .text("node", &self.broker.node_name)
                .text("user_provided_name", self.client.name.as_deref().unwrap_or_default());
            let fields = self.with_peer(fields);
            match self.peer.addresses {
                Some((_, local)) => fields.text("host", local.ip().to_string()).number("port", local.port().into()),
                None => fields,
            }
        });
    }

    /// The connection has ended, and everything in it.
    pub(super) fn connection_closed(&self) {
        self.broker.services.events.emit("connection.closed", || {
            Fields::by(self.user_name())
                .text("pid", self.pid())
                .text("name", self.connection_name())
                .text("node", &self.broker.node_name)
        });
    }

    /// `key` is `channel.created` or `channel.closed`.
    pub(super) fn channel_changed(&self, key: &str, number: u16) {
        self.broker.services.events.emit(key, || {
            Fields::by(self.user_name())
                .text("pid", self.channel_pid(number))
                .text("name", format!("{} ({number})", self.connection_name()))
                .text("connection", self.pid())
                .number("number", number.into())
                .text("user", self.user_name())
                .text("vhost", self.vhost.as_ref().map_or("", |vhost| vhost.name()))
        });
    }

    fn channel_pid(&self, number: u16) -> String {
        format!("<{}.{}.{number}>", self.broker.node_name, self.id.0)
    }

    /// A consumer has come.
    pub(super) fn consumer_created(&self, channel: &Channel, consumer: &ConsumerEvent<'_>) {
        self.broker.services.events.emit("consumer.created", || {
            self.consumer(channel.number, consumer.tag, consumer.queue)
                .flag("exclusive", consumer.exclusive)
                .flag("ack_required", consumer.ack_required)
                .number("prefetch_count", channel.prefetch.into())
                .arguments("arguments", consumer.arguments)
        });
    }

    /// A consumer has gone.
    pub(super) fn consumer_deleted(&self, channel: u16, tag: &str, queue: &str) {
        self.broker.services.events.emit("consumer.deleted", || self.consumer(channel, tag, queue));
    }

    fn consumer(&self, channel: u16, tag: &str, queue: &str) -> Fields {
        Fields::by(self.user_name())
            .text("consumer_tag", tag)
            .text("channel", self.channel_pid(channel))
            .text("queue", queue)
            .text("vhost", self.vhost.as_ref().map_or("", |vhost| vhost.name()))
    }
}

/// A new consumer.
pub(super) struct ConsumerEvent<'a> {
    pub tag: &'a str,
    pub queue: &'a str,
    pub exclusive: bool,
    pub ack_required: bool,
    pub arguments: &'a Arguments,
}
