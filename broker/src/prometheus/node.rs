//! What is told of the node as a whole, with RabbitMQ's names.

use std::time::Instant;

use super::objects::{Sums, kind_name};
use super::scrape::Selection;
use super::text::{Kind, Number, Page};
use crate::broker::{Alarm, Broker};
use crate::model::counters::Counted;
use crate::model::queue_kind::QueueKind;
use crate::model::received::SIZES;
use crate::model::statistics::{churn, messages};

/// The protocol that all clients here speak.
const PROTOCOL: (&str, &str) = ("protocol", "amqp091");

/// Which broker this is, and which of its pages: dashboards join everything else with these two.
pub(super) fn put_identity(page: &mut Page<'_>, broker: &Broker, endpoint: &str) {
    page.family("build_info", Kind::Untyped, "RabbitMQ & Erlang/OTP version info");
    let version = &*broker.settings.compatibility.version;
    let labels = [
        ("rabbitmq_version", version),
        ("prometheus_plugin_version", version),
        ("prometheus_client_version", "none"),
        ("erlang_version", "none"),
        ("product_name", "Warren"),
        ("product_version", env!("CARGO_PKG_VERSION")),
    ];
    page.sample(&labels, 1_u64);
    page.family("identity_info", Kind::Untyped, "RabbitMQ node & cluster identity info");
    let node = &*broker.node_name;
    let labels = [
        ("rabbitmq_node", node),
        ("rabbitmq_cluster", node),
        ("rabbitmq_cluster_permanent_id", node),
        ("rabbitmq_endpoint", endpoint),
    ];
    page.sample(&labels, 1_u64);
}

/// The groups about the node.
pub(super) fn put_node(page: &mut Page<'_>, broker: &Broker, started: Instant, selection: &Selection) {
    if selection.wants("connection_churn_metrics") {
        put_churn(page, &broker.churn());
    }
    if selection.wants("auth_attempt_metrics") {
        put_attempts(page, broker);
    }
    if selection.wants("node_coarse_metrics") {
        if let Some(open) = open_descriptors() {
            page.single("process_open_fds", Kind::Gauge, "Open file descriptors", open);
        }
        let used = broker.memory_use().counted();
        page.single("process_resident_memory_bytes", Kind::Gauge, "Memory used in bytes", used);
        let (free, _) = broker.store.disk_free();
        page.single("disk_space_available_bytes", Kind::Gauge, "Disk space available in bytes", free);
    }
    if selection.wants("node_metrics") {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        page.single("process_max_fds", Kind::Gauge, "Open file descriptors limit", most.unwrap_or(u64::MAX));
        let limit = broker.memory.limit();
        page.single("resident_memory_limit_bytes", Kind::Gauge, "Memory high watermark in bytes", limit);
        let (_, least) = broker.store.disk_free();
        page.single("disk_space_available_limit_bytes", Kind::Gauge, "Free disk space low watermark in bytes", least);
        page.single("erlang_uptime_seconds", Kind::Gauge, "Node uptime", started.elapsed().as_secs_f64());
    }
    if selection.wants("node_persister_metrics") {
        let stats = broker.store.stats();
        let help = "Total number of I/O write operations";
        page.single("io_write_ops_total", Kind::Counter, help, stats.groups);
        page.single("io_write_bytes_total", Kind::Counter, "Total number of I/O bytes written", stats.log_bytes);
        page.single("io_sync_ops_total", Kind::Counter, "Total number of I/O sync operations", stats.fdatasyncs);
        let (sync, both) = (stats.fdatasync_micros.sum, stats.sync_micros.sum);
        let write = Number::Real(both.saturating_sub(sync) as f64 / 1e6);
        page.single("io_write_time_seconds_total", Kind::Counter, "Total I/O write time", write);
        page.single("io_sync_time_seconds_total", Kind::Counter, "Total I/O sync time", sync as f64 / 1e6);
    }
}

/// Logins by protocol.
fn put_attempts(page: &mut Page<'_>, broker: &Broker) {
    let all = &broker.services.statistics.attempts;
    let counts = [("amqp091", all.amqp.counts()), ("http", all.http.counts())];
    type Value = fn((u64, u64)) -> u64;
    let families: [(&'static str, &str, Value); 3] = [
        ("auth_attempts_total", "Total number of authentication attempts", |(good, bad)| good + bad),
        ("auth_attempts_succeeded_total", "Total number of successful authentication attempts", |(good, _)| good),
        ("auth_attempts_failed_total", "Total number of failed authentication attempts", |(_, bad)| bad),
    ];
    for (name, help, value) in families {
        page.family(name, Kind::Counter, help);
        for (protocol, counts) in counts {
            page.sample(&[("protocol", protocol)], value(counts));
        }
    }
}

fn put_churn(page: &mut Page<'_>, counted: &Counted<{ churn::LEN }>) {
    for (name, help, which) in [
        ("connections_opened_total", "Total number of connections opened", churn::CONNECTION_CREATED),
        ("connections_closed_total", "Total number of connections closed or terminated", churn::CONNECTION_CLOSED),
        ("channels_opened_total", "Total number of channels opened", churn::CHANNEL_CREATED),
        ("channels_closed_total", "Total number of channels closed", churn::CHANNEL_CLOSED),
        ("queues_declared_total", "Total number of queues declared", churn::QUEUE_DECLARED),
        ("queues_created_total", "Total number of queues created", churn::QUEUE_CREATED),
        ("queues_deleted_total", "Total number of queues deleted", churn::QUEUE_DELETED),
    ] {
        page.single(name, Kind::Counter, help, counted.totals[which]);
    }
}

/// Descriptors of this process; `None` where the kernel does not say.
fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// How many there are of everything.
pub(super) fn put_totals(page: &mut Page<'_>, sums: &Sums, connections: usize) {
    page.single("connections", Kind::Gauge, "Connections currently open", connections);
    page.single("channels", Kind::Gauge, "Channels currently open", sums.channels);
    page.single("consumers", Kind::Gauge, "Consumers currently connected", sums.consumers);
    page.single("queues", Kind::Gauge, "Queues available", sums.queues);
}

/// The counters that never go back, by protocol and by type of queue.
pub(super) fn put_global(page: &mut Page<'_>, broker: &Broker, sums: &Sums, clients: &Counted<{ messages::LEN }>) {
    let received = broker.services.statistics.received.read();
    let totals = &clients.totals;
    for (name, kind, help, value) in [
        ("global_publishers", Kind::Gauge, "Current number of publishers", sums.publishers),
        ("global_consumers", Kind::Gauge, "Current number of consumers", sums.consumers),
        (
            "global_messages_received_total",
            Kind::Counter,
            "Total number of messages received from publishers",
            totals[messages::PUBLISH],
        ),
        (
            "global_messages_received_confirm_total",
            Kind::Counter,
            "Total number of messages received from publishers expecting confirmations",
            received.to_confirm,
        ),
        (
            "global_messages_confirmed_total",
            Kind::Counter,
            "Total number of messages confirmed to publishers",
            totals[messages::CONFIRM],
        ),
        (
            "global_messages_routed_total",
            Kind::Counter,
            "Total number of messages routed to queues or streams",
            received.routed,
        ),
        (
            "global_messages_unroutable_dropped_total",
            Kind::Counter,
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
            totals[messages::DROP_UNROUTABLE],
        ),
        (
            "global_messages_unroutable_returned_total",
            Kind::Counter,
            "Total number of messages published as mandatory into an exchange and returned to the publisher as \
             unroutable",
            totals[messages::RETURN_UNROUTABLE],
        ),
    ] {
        page.family(name, kind, help);
        page.sample(&[PROTOCOL], value);
    }
    put_by_kind(page, sums);
    put_sizes(page, &received.sizes, received.octets);
}

fn put_by_kind(page: &mut Page<'_>, sums: &Sums) {
    let handed_out = |totals: &[u64; messages::LEN]| {
        [messages::DELIVER, messages::DELIVER_NO_ACK, messages::GET, messages::GET_NO_ACK]
            .iter()
            .map(|which| totals[*which])
            .sum()
    };
    type Value<'a> = &'a dyn Fn(&[u64; messages::LEN]) -> u64;
    let families: [(&'static str, &str, Value<'_>); 8] = [
        ("global_messages_delivered_total", "Total number of messages delivered to consumers", &handed_out),
        (
            "global_messages_delivered_consume_manual_ack_total",
            "Total number of messages delivered to consumers using basic.consume with manual acknowledgment",
            &|totals| totals[messages::DELIVER],
        ),
        (
            "global_messages_delivered_consume_auto_ack_total",
            "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment",
            &|totals| totals[messages::DELIVER_NO_ACK],
        ),
        (
            "global_messages_delivered_get_manual_ack_total",
            "Total number of messages delivered to consumers using basic.get with manual acknowledgment",
            &|totals| totals[messages::GET],
        ),
        (
            "global_messages_delivered_get_auto_ack_total",
            "Total number of messages delivered to consumers using basic.get with automatic acknowledgment",
            &|totals| totals[messages::GET_NO_ACK],
        ),
        (
            "global_messages_get_empty_total",
            "Total number of times basic.get operations fetched no message",
            &|totals| totals[messages::GET_EMPTY],
        ),
        ("global_messages_redelivered_total", "Total number of messages redelivered to consumers", &|totals| {
            totals[messages::REDELIVER]
        }),
        ("global_messages_acknowledged_total", "Total number of messages acknowledged by consumers", &|totals| {
            totals[messages::ACK]
        }),
    ];
    for (name, help, value) in families {
        page.family(name, Kind::Counter, help);
        for kind in [QueueKind::Classic, QueueKind::Quorum] {
            let totals = sums.by_kind.get(kind as usize).copied().unwrap_or_default();
            page.sample(&[PROTOCOL, ("queue_type", kind_name(kind))], value(&totals));
        }
    }
}

fn put_sizes(page: &mut Page<'_>, counts: &[u64], octets: u64) {
    page.family("message_size_bytes", Kind::Histogram, "Size of messages received from publishers");
    let mut seen = 0;
    for (bound, count) in SIZES.iter().zip(counts) {
        seen += count;
        page.suffixed("_bucket", &[PROTOCOL, ("le", &bound.to_string())], seen.into());
    }
    let all: u64 = counts.iter().sum();
    page.suffixed("_bucket", &[PROTOCOL, ("le", "+Inf")], all.into());
    page.suffixed("_sum", &[PROTOCOL], octets.into());
    page.suffixed("_count", &[PROTOCOL], all.into());
}

/// Alarms, and the peers of a cluster: of those there are none.
pub(super) fn put_alarms(page: &mut Page<'_>, broker: &Broker) {
    let alarms = broker.alarms();
    let help = "is 1 if free disk space watermark alarm is in effect";
    page.single("alarms_free_disk_space_watermark", Kind::Untyped, help, alarms.has(Alarm::Disk));
    let help = "is 1 if VM memory watermark alarm is in effect";
    page.single("alarms_memory_used_watermark", Kind::Untyped, help, alarms.has(Alarm::Memory));
    let help = "Number of peers in the cluster the current node cannot reach.";
    page.single("unreachable_cluster_peers_count", Kind::Untyped, help, 0_u64);
}
