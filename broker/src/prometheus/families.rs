//! The families about queues, connections and channels: names, types and texts are RabbitMQ's, and so are the names of the groups:
//! `/metrics/detailed?family=` chooses among them.

use super::text::{Kind, Number};
use crate::broker::ChannelInfo;
use crate::model::counters::Counted;
use crate::model::statistics::{messages, traffic};
use crate::queue::Queue;

/// One family about things that have `T`.
pub(super) struct Family<T: 'static> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) value: fn(&T) -> Number,
}

/// Families that come together, and RabbitMQ's name for them.
pub(super) struct Group<T: 'static> {
    pub(super) name: &'static str,
    pub(super) families: &'static [Family<T>],
}

const fn family<T>(name: &'static str, kind: Kind, help: &'static str, value: fn(&T) -> Number) -> Family<T> {
    Family { name, kind, help, value }
}

/// Of one queue, or of several.
#[derive(Clone, Copy, Default)]
pub(super) struct QueueFigures {
    pub(super) totals: [u64; messages::LEN],
    pub(super) consumers: u64,
    capacity: f64,
    memory_bytes: u64,
    ready_bytes: u64,
}

impl QueueFigures {
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            totals: queue.statistics().totals,
            consumers: queue.consumer_count().into(),
            capacity: f64::from(u8::from(queue.has_ready_consumer())),
            memory_bytes: queue.memory_bytes() as u64,
            ready_bytes: queue.body_bytes(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.totals.iter_mut().zip(other.totals) {
            *sum = sum.wrapping_add(more);
        }
        self.consumers += other.consumers;
        self.capacity += other.capacity;
        self.memory_bytes += other.memory_bytes;
        self.ready_bytes += other.ready_bytes;
    }
}

pub(super) const COARSE: &str = "queue_coarse_metrics";
pub(super) const CONSUMER_COUNT: &str = "queue_consumer_count";
pub(super) const QUEUE: &str = "queue_metrics";

pub(super) const QUEUE_GROUPS: &[Group<QueueFigures>] = &[
    Group {
        name: COARSE,
        families: &[
            family("queue_messages_ready", Kind::Gauge, "Messages ready to be delivered to consumers", |q| {
                q.totals[messages::READY].into()
            }),
            family(
                "queue_messages_unacked",
                Kind::Gauge,
                "Messages delivered to consumers but not yet acknowledged",
                |q| q.totals[messages::UNACKED].into(),
            ),
            family(
                "queue_messages",
                Kind::Gauge,
                "Sum of ready and unacknowledged messages - total queue depth",
                |q| (q.totals[messages::READY] + q.totals[messages::UNACKED]).into(),
            ),
        ],
    },
    Group {
        name: CONSUMER_COUNT,
        families: &[family("queue_consumers", Kind::Gauge, "Consumers on a queue", |q| q.consumers.into())],
    },
    Group {
        name: QUEUE,
        families: &[
            family("queue_consumers", Kind::Gauge, "Consumers on a queue", |q| q.consumers.into()),
            family("queue_consumer_capacity", Kind::Gauge, "Consumer capacity", |q| q.capacity.into()),
            family("queue_consumer_utilisation", Kind::Gauge, "Same as consumer capacity", |q| q.capacity.into()),
            family(
                "queue_process_memory_bytes",
                Kind::Gauge,
                "Memory in bytes that the messages of the queue take",
                |q| q.memory_bytes.into(),
            ),
            family("queue_messages_ready_bytes", Kind::Gauge, "Size in bytes of ready messages", |q| {
                q.ready_bytes.into()
            }),
        ],
    },
    Group {
        name: "channel_queue_exchange_metrics",
        families: &[family(
            "queue_messages_published_total",
            Kind::Counter,
            "Total number of messages published into a queue through an exchange on a channel",
            |q| q.totals[messages::PUBLISH].into(),
        )],
    },
    Group {
        name: "queue_delivery_metrics",
        families: &[
            family(
                "queue_get_ack_total",
                Kind::Counter,
                "Total number of messages fetched from a queue with basic.get in manual acknowledgement mode",
                |q| q.totals[messages::GET].into(),
            ),
            family(
                "queue_get_total",
                Kind::Counter,
                "Total number of messages fetched from a queue with basic.get in automatic acknowledgement mode",
                |q| q.totals[messages::GET_NO_ACK].into(),
            ),
            family(
                "queue_messages_delivered_ack_total",
                Kind::Counter,
                "Total number of messages delivered from a queue to consumers in manual acknowledgement mode",
                |q| q.totals[messages::DELIVER].into(),
            ),
            family(
                "queue_messages_delivered_total",
                Kind::Counter,
                "Total number of messages delivered from a queue to consumers in automatic acknowledgement mode",
                |q| q.totals[messages::DELIVER_NO_ACK].into(),
            ),
            family(
                "queue_messages_redelivered_total",
                Kind::Counter,
                "Total number of messages redelivered from a queue to consumers",
                |q| q.totals[messages::REDELIVER].into(),
            ),
            family(
                "queue_messages_acked_total",
                Kind::Counter,
                "Total number of messages acknowledged by consumers on a queue",
                |q| q.totals[messages::ACK].into(),
            ),
            family(
                "queue_get_empty_total",
                Kind::Counter,
                "Total number of times basic.get operations fetched no message on a queue",
                |q| q.totals[messages::GET_EMPTY].into(),
            ),
        ],
    },
];

/// What a connection, or several, have read, written and opened.
#[derive(Default)]
pub(super) struct ConnectionFigures {
    pub(super) traffic: Counted<{ traffic::LEN }>,
    pub(super) channels: u64,
}

pub(super) const CONNECTION_GROUPS: &[Group<ConnectionFigures>] = &[
    Group {
        name: "connection_coarse_metrics",
        families: &[
            family(
                "connection_incoming_bytes_total",
                Kind::Counter,
                "Total number of bytes received on a connection",
                |c| c.traffic.totals[traffic::RECEIVED_OCTETS].into(),
            ),
            family(
                "connection_outgoing_bytes_total",
                Kind::Counter,
                "Total number of bytes sent on a connection",
                |c| c.traffic.totals[traffic::SENT_OCTETS].into(),
            ),
        ],
    },
    Group {
        name: "connection_metrics",
        families: &[
            family(
                "connection_incoming_packets_total",
                Kind::Counter,
                "Total number of packets received on a connection",
                |c| c.traffic.totals[traffic::RECEIVED].into(),
            ),
            family(
                "connection_outgoing_packets_total",
                Kind::Counter,
                "Total number of packets sent on a connection",
                |c| c.traffic.totals[traffic::SENT].into(),
            ),
            family("connection_channels", Kind::Gauge, "Channels on a connection", |c| c.channels.into()),
        ],
    },
];

/// Of a channel, or of several.
#[derive(Default)]
pub(super) struct ChannelFigures {
    counted: Counted<{ messages::LEN }>,
    consumers: u64,
    unacked: u64,
    unconfirmed: u64,
    uncommitted: u64,
    uncommitted_acks: u64,
    prefetch: u64,
    global_prefetch: u64,
}

impl ChannelFigures {
    pub(super) fn add(&mut self, channel: &ChannelInfo) {
        self.counted.add(&channel.counted);
        self.consumers += channel.state.consumers.len() as u64;
        self.unacked += channel.unacked as u64;
        self.unconfirmed += channel.state.unconfirmed;
        self.uncommitted += channel.state.uncommitted;
        self.uncommitted_acks += channel.state.uncommitted_acks;
        self.prefetch += u64::from(channel.state.prefetch);
        self.global_prefetch += u64::from(channel.global_prefetch);
    }
}

pub(super) const CHANNEL_GROUPS: &[Group<ChannelFigures>] = &[
    Group {
        name: "channel_metrics",
        families: &[
            family("channel_consumers", Kind::Gauge, "Consumers on a channel", |c| c.consumers.into()),
            family("channel_messages_unacked", Kind::Gauge, "Delivered but not yet acknowledged messages", |c| {
                c.unacked.into()
            }),
            family("channel_messages_unconfirmed", Kind::Gauge, "Published but not yet confirmed messages", |c| {
                c.unconfirmed.into()
            }),
            family(
                "channel_messages_uncommitted",
                Kind::Gauge,
                "Messages received in a transaction but not yet committed",
                |c| c.uncommitted.into(),
            ),
            family(
                "channel_acks_uncommitted",
                Kind::Gauge,
                "Message acknowledgements in a transaction not yet committed",
                |c| c.uncommitted_acks.into(),
            ),
            family("consumer_prefetch", Kind::Gauge, "Limit of unacknowledged messages for each consumer", |c| {
                c.prefetch.into()
            }),
            family(
                "channel_prefetch",
                Kind::Gauge,
                "Limit of unacknowledged messages for all consumers of a channel",
                |c| c.global_prefetch.into(),
            ),
        ],
    },
    Group {
        name: "channel_exchange_metrics",
        families: &[
            family(
                "channel_messages_published_total",
                Kind::Counter,
                "Total number of messages published into an exchange on a channel",
                |c| c.counted.totals[messages::PUBLISH].into(),
            ),
            family(
                "channel_messages_confirmed_total",
                Kind::Counter,
                "Total number of messages published into an exchange and confirmed on the channel",
                |c| c.counted.totals[messages::CONFIRM].into(),
            ),
            family(
                "channel_messages_unroutable_returned_total",
                Kind::Counter,
                "Total number of messages published as mandatory into an exchange and returned to the publisher as \
                 unroutable",
                |c| c.counted.totals[messages::RETURN_UNROUTABLE].into(),
            ),
            family(
                "channel_messages_unroutable_dropped_total",
                Kind::Counter,
                "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
                |c| c.counted.totals[messages::DROP_UNROUTABLE].into(),
            ),
        ],
    },
    Group {
        name: "channel_queue_metrics",
        families: &[
            family(
                "channel_get_ack_total",
                Kind::Counter,
                "Total number of messages fetched with basic.get in manual acknowledgement mode",
                |c| c.counted.totals[messages::GET].into(),
            ),
            family(
                "channel_get_total",
                Kind::Counter,
                "Total number of messages fetched with basic.get in automatic acknowledgement mode",
                |c| c.counted.totals[messages::GET_NO_ACK].into(),
            ),
            family(
                "channel_messages_delivered_ack_total",
                Kind::Counter,
                "Total number of messages delivered to consumers in manual acknowledgement mode",
                |c| c.counted.totals[messages::DELIVER].into(),
            ),
            family(
                "channel_messages_delivered_total",
                Kind::Counter,
                "Total number of messages delivered to consumers in automatic acknowledgement mode",
                |c| c.counted.totals[messages::DELIVER_NO_ACK].into(),
            ),
            family(
                "channel_messages_redelivered_total",
                Kind::Counter,
                "Total number of messages redelivered to consumers",
                |c| c.counted.totals[messages::REDELIVER].into(),
            ),
            family(
                "channel_messages_acked_total",
                Kind::Counter,
                "Total number of messages acknowledged by consumers",
                |c| c.counted.totals[messages::ACK].into(),
            ),
            family(
                "channel_get_empty_total",
                Kind::Counter,
                "Total number of times basic.get operations fetched no message",
                |c| c.counted.totals[messages::GET_EMPTY].into(),
            ),
        ],
    },
];
