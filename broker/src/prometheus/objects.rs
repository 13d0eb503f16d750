//! What is told of each queue, exchange, connection and channel, or of all of them together. The groups have RabbitMQ's names:
//! `/metrics/detailed?family=` chooses among them.

use std::sync::Arc;

use super::scrape::Selection;
use super::text::{Kind, Number, Page};
use crate::broker::{Broker, ChannelInfo, ConnectionInfo};
use crate::model::counters::Counted;
use crate::model::queue_kind::QueueKind;
use crate::model::statistics::{KINDS, exchange, messages, traffic};
use crate::queue::Queue;

/// One family about things that have `T`.
struct Family<T: 'static> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&T) -> Number,
}

/// Families that come together, and RabbitMQ's name for them.
struct Group<T: 'static> {
    name: &'static str,
    families: &'static [Family<T>],
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
    fn of(queue: &Queue) -> Self {
        Self {
            totals: queue.statistics().totals,
            consumers: queue.consumer_count().into(),
            capacity: f64::from(u8::from(queue.has_ready_consumer())),
            memory_bytes: queue.memory_bytes() as u64,
            ready_bytes: queue.body_bytes(),
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in self.totals.iter_mut().zip(other.totals) {
            *sum = sum.wrapping_add(more);
        }
        self.consumers += other.consumers;
        self.capacity += other.capacity;
        self.memory_bytes += other.memory_bytes;
        self.ready_bytes += other.ready_bytes;
    }
}

const COARSE: &str = "queue_coarse_metrics";
const CONSUMER_COUNT: &str = "queue_consumer_count";
const QUEUE: &str = "queue_metrics";

const QUEUE_GROUPS: &[Group<QueueFigures>] = &[
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
struct ConnectionFigures {
    traffic: Counted<{ traffic::LEN }>,
    channels: u64,
}

const CONNECTION_GROUPS: &[Group<ConnectionFigures>] = &[
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
struct ChannelFigures {
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
    fn add(&mut self, channel: &ChannelInfo) {
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

const CHANNEL_GROUPS: &[Group<ChannelFigures>] = &[
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

/// What all queues, connections and channels are together.
pub(super) struct Sums {
    pub(super) queues: u64,
    pub(super) consumers: u64,
    pub(super) channels: u64,
    pub(super) publishers: u64,
    /// Messages of queues by kind, those of deleted queues included.
    pub(super) by_kind: [[u64; messages::LEN]; KINDS],
    queue: QueueFigures,
    connection: ConnectionFigures,
    channel: ChannelFigures,
}

impl Sums {
    pub(super) fn of(broker: &Broker, connections: &[ConnectionInfo]) -> Self {
        let (mut queues, mut queue) = (0, QueueFigures::default());
        let mut by_kind = [QueueFigures::default(); KINDS];
        for vhost in broker.vhosts() {
            for object in vhost.queues() {
                let figures = QueueFigures::of(&object);
                queues += 1;
                queue.add(&figures);
                if let Some(sum) = by_kind.get_mut(object.kind() as usize) {
                    sum.add(&figures);
                }
            }
        }
        let (mut connection, mut channel) = (ConnectionFigures::default(), ChannelFigures::default());
        let (mut channels, mut publishers) = (0, 0);
        for info in connections {
            connection.traffic.add(&info.open.traffic());
            for one in info.open.channels() {
                channels += 1;
                publishers += u64::from(one.counted.totals[messages::PUBLISH] > 0);
                channel.add(&one);
            }
        }
        connection.channels = channels;
        let statistics = &broker.services.statistics;
        Self {
            queues,
            consumers: queue.consumers,
            channels,
            publishers,
            by_kind: statistics.queue_totals(&by_kind.map(|figures| figures.totals)),
            queue,
            connection,
            channel,
        }
    }

    /// One number for each family.
    pub(super) fn put(&self, page: &mut Page<'_>, clients: &Counted<{ messages::LEN }>) {
        put_sums(page, QUEUE_GROUPS, &self.queue);
        put_sums(page, CONNECTION_GROUPS, &self.connection);
        put_sums(page, CHANNEL_GROUPS, &self.channel);
        for (name, help, which) in [
            (
                "exchange_messages_published_total",
                "Total number of messages published into an exchange",
                messages::PUBLISH,
            ),
            (
                "exchange_messages_confirmed_total",
                "Total number of messages published into an exchange and confirmed",
                messages::CONFIRM,
            ),
            (
                "exchange_messages_unroutable_returned_total",
                "Total number of messages published as mandatory into an exchange and returned to the publisher as \
                 unroutable",
                messages::RETURN_UNROUTABLE,
            ),
            (
                "exchange_messages_unroutable_dropped_total",
                "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
                messages::DROP_UNROUTABLE,
            ),
        ] {
            page.single(name, Kind::Counter, help, clients.totals[which]);
        }
    }
}

fn put_sums<T>(page: &mut Page<'_>, groups: &[Group<T>], sum: &T) {
    for group in groups.iter().filter(|group| group.name != CONSUMER_COUNT) {
        for family in group.families {
            page.single(family.name, family.kind, family.help, (family.value)(sum));
        }
    }
}

/// Each thing on its own, as far as it is chosen. Everything of a kind is looked at once, and then told family by family, as the
/// format wants it.
pub(super) fn put_each(page: &mut Page<'_>, broker: &Broker, connections: &[ConnectionInfo], selection: &Selection) {
    put_queues(page, broker, selection);
    put_exchanges(page, broker, selection);
    let node = &broker.node_name;
    if selection.wants_any(CONNECTION_GROUPS.iter().map(|group| group.name)) {
        let rows: Vec<(String, ConnectionFigures)> = connections
            .iter()
            .map(|info| {
                let figures =
                    ConnectionFigures { traffic: info.open.traffic(), channels: info.open.channel_count() as u64 };
                (format!("<{node}.{}.0>", info.id.0), figures)
            })
            .collect();
        put_rows(page, CONNECTION_GROUPS, "connection", &rows, selection);
    }
    if selection.wants_any(CHANNEL_GROUPS.iter().map(|group| group.name)) {
        let mut rows = Vec::new();
        for info in connections {
            for channel in info.open.channels() {
                let mut figures = ChannelFigures::default();
                figures.add(&channel);
                rows.push((format!("<{node}.{}.{}>", info.id.0, channel.number), figures));
            }
        }
        put_rows(page, CHANNEL_GROUPS, "channel", &rows, selection);
    }
}

fn put_rows<T>(
    page: &mut Page<'_>,
    groups: &[Group<T>],
    label: &'static str,
    rows: &[(String, T)],
    selection: &Selection,
) {
    for group in groups.iter().filter(|group| selection.wants(group.name)) {
        for family in group.families {
            page.family(family.name, family.kind, family.help);
            for (name, figures) in rows {
                page.sample(&[(label, name)], (family.value)(figures));
            }
        }
    }
}

fn put_queues(page: &mut Page<'_>, broker: &Broker, selection: &Selection) {
    let wants_info = selection.wants_any([COARSE, CONSUMER_COUNT, QUEUE]);
    if !wants_info && !selection.wants_any(QUEUE_GROUPS.iter().map(|group| group.name)) {
        return;
    }
    let chosen = broker.vhosts().into_iter().filter(|vhost| selection.has_vhost(vhost.name()));
    let rows: Vec<(Arc<Queue>, QueueFigures)> = chosen
        .flat_map(|vhost| vhost.queues())
        .filter(|queue| selection.has_queue(&queue.spec().name))
        .map(|queue| {
            let figures = QueueFigures::of(&queue);
            (queue, figures)
        })
        .collect();
    for group in QUEUE_GROUPS.iter().filter(|group| selection.wants(group.name)) {
        // The same is among the others.
        if group.name == CONSUMER_COUNT && selection.wants(QUEUE) {
            continue;
        }
        for family in group.families {
            page.family(family.name, family.kind, family.help);
            for (queue, figures) in &rows {
                let spec = queue.spec();
                page.sample(&[("vhost", &spec.vhost), ("queue", &spec.name)], (family.value)(figures));
            }
            if page.is_gone() {
                return;
            }
        }
    }
    if wants_info {
        let help = "A metric with a constant '1' value and labels that provide some queue details";
        page.family("queue_info", Kind::Gauge, help);
        for (queue, _) in &rows {
            let spec = queue.spec();
            let kind = kind_name(queue.kind());
            let labels =
                [("vhost", &*spec.vhost), ("queue", &*spec.name), ("queue_type", kind), ("membership", "leader")];
            page.sample(&labels, 1_u64);
        }
    }
}

/// As RabbitMQ's metrics name it.
pub(super) fn kind_name(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
    }
}

fn put_exchanges(page: &mut Page<'_>, broker: &Broker, selection: &Selection) {
    if !selection.wants("exchange_metrics") {
        return;
    }
    let help = "Total number of messages published into an exchange";
    page.family("exchange_messages_published_total", Kind::Counter, help);
    let ticks = &broker.services.statistics.ticks;
    for vhost in broker.vhosts().iter().filter(|vhost| selection.has_vhost(vhost.name())) {
        for object in vhost.exchanges() {
            let counted = object.statistics(ticks);
            // As in RabbitMQ, of one that nothing was ever published to there is nothing to tell.
            if counted.totals[exchange::IN] > 0 {
                page.sample(&[("vhost", vhost.name()), ("exchange", object.name())], counted.totals[exchange::IN]);
            }
        }
    }
}

/// What RabbitMQ has for `/metrics/detailed` alone.
pub(super) fn put_cluster(page: &mut Page<'_>, broker: &Broker, selection: &Selection) {
    let vhosts = broker.vhosts();
    if selection.wants("vhost_status") {
        page.family("vhost_status", Kind::Gauge, "Whether a given vhost is running");
        for vhost in &vhosts {
            page.sample(&[("vhost", vhost.name())], 1_u64);
        }
    }
    let bindings: (_, _, fn(&crate::vhost::Exchange) -> u64) =
        ("exchange_bindings", "Number of bindings for an exchange. This value is cluster-wide.", |exchange| {
            exchange.bindings().len() as u64
        });
    let names: (_, _, fn(&crate::vhost::Exchange) -> u64) = (
        "exchange_name",
        "Enumerates exchanges without any additional info. This value is cluster-wide. A cheaper alternative to \
         `exchange_bindings`",
        |_| 1,
    );
    for (group, (name, help, value)) in [("exchange_bindings", bindings), ("exchange_names", names)] {
        if !selection.wants(group) {
            continue;
        }
        page.family(name, Kind::Gauge, help);
        for vhost in &vhosts {
            for exchange in vhost.exchanges().iter().filter(|one| !one.internal() && !one.is_default()) {
                let kind = exchange.spec().type_name();
                let labels = [("vhost", &**vhost.name()), ("exchange", &**exchange.name()), ("type", kind)];
                page.sample(&labels, value(exchange));
            }
        }
    }
}
