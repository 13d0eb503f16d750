//! What is told of each queue, exchange, connection and channel, or of all of them together.

use std::sync::Arc;

use super::families::{
    CHANNEL_GROUPS, COARSE, CONNECTION_GROUPS, CONSUMER_COUNT, ChannelFigures, ConnectionFigures, Group, QUEUE,
    QUEUE_GROUPS, QueueFigures,
};
use super::scrape::Selection;
use super::text::{Kind, Page};
use crate::broker::{Broker, ConnectionInfo};
use crate::model::counters::Counted;
use crate::model::queue_kind::QueueKind;
use crate::model::statistics::{KINDS, exchange, messages};
use crate::queue::Queue;
use crate::vhost::Exchange;

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
    let bindings: (_, _, fn(&Exchange) -> u64) =
        ("exchange_bindings", "Number of bindings for an exchange. This value is cluster-wide.", |exchange| {
            exchange.bindings().len() as u64
        });
    let names: (_, _, fn(&Exchange) -> u64) = (
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
