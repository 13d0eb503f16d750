//! What is ours: the store, memory by owner, and what holds clients back. All names begin with `warren_`.

use super::text::{Kind, Page};
use crate::broker::{Broker, ConnectionInfo};
use crate::model::memory::Owner;

const MICROS: f64 = 1e6;

pub(super) fn put(page: &mut Page<'_>, broker: &Broker, connections: &[ConnectionInfo]) {
    page.prefix = "warren_";
    page.family("build_info", Kind::Gauge, "Version of Warren, with the commit");
    page.sample(&[("version", env!("WARREN_VERSION"))], 1_u64);
    put_commits(page, broker);
    put_space(page, broker);
    put_clients(page, broker, connections);
    put_memory(page, broker);
    page.prefix = "rabbitmq_";
}

fn put_commits(page: &mut Page<'_>, broker: &Broker) {
    let stats = broker.store.stats();
    let help = "From the first append of a group to its being durable and told to those who wait";
    page.histogram("commit_latency_seconds", help, &stats.commit_micros, MICROS);
    page.histogram("fdatasync_seconds", "Time of an fdatasync of the log", &stats.fdatasync_micros, MICROS);
    page.histogram("commit_group_entries", "Entries written to the log together", &stats.group_entries, 1.0);
    page.histogram("commit_group_bytes", "Bytes written to the log together", &stats.group_bytes, 1.0);
    for (name, help, value) in [
        ("commit_groups_total", "Groups written to the log", stats.groups),
        ("fdatasyncs_total", "Calls of fdatasync for the log", stats.fdatasyncs),
        ("log_written_bytes_total", "Bytes written to the log", stats.log_bytes),
        ("log_prepared_bytes_total", "Bytes of zeroes written to segments ahead of their use", stats.prepared_bytes),
        ("large_written_bytes_total", "Bytes written to files of large messages", stats.large_bytes),
        ("index_written_bytes_total", "Bytes handed to the database of the index", stats.sled_bytes),
        ("snapshot_written_bytes_total", "Bytes written to snapshots of the index", stats.snapshot_bytes),
        ("checkpoints_total", "Checkpoints of the index", stats.checkpoints),
        ("snapshots_total", "Snapshots of the index", stats.snapshots),
        ("recycled_segments_total", "Segment files put aside for reuse", stats.recycled_segments),
        ("compacted_messages_total", "Messages moved out of segments that were mostly dead", stats.relocated_messages),
        ("compacted_bytes_total", "Bytes of the log entries of those", stats.relocated_bytes),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
}

fn put_space(page: &mut Page<'_>, broker: &Broker) {
    let stats = broker.store.stats();
    for (name, help, value) in [
        ("segments", "Segments of the log in use", stats.segments as u64),
        ("free_segments", "Segment files kept for reuse", stats.free_segments as u64),
        ("reserve_segments", "Segment files kept for a full disk", stats.reserve_segments as u64),
        ("live_messages", "Messages that segments hold", stats.live_messages),
        ("live_bytes", "Bytes of the log entries of those", stats.live_bytes),
        ("large_files", "Files of large messages", stats.large_files as u64),
        ("uncommitted_bytes", "Bytes appended and not yet durable", stats.pending_bytes as u64),
        ("index_bytes", "Memory of the part of the index that may be on disk alone", stats.index_bytes as u64),
        ("index_cold_chunks", "Chunks of about 1,024 messages whose index is on disk alone", stats.cold_chunks as u64),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    let spill = broker.store.spill().stats();
    let help = "Messages that memory had no room for and that need not survive";
    page.single("spilled_messages_total", Kind::Counter, help, broker.store.spill().messages());
    page.single("spill_files", Kind::Gauge, "Files of such messages", spill.files);
    page.single("spill_file_bytes", Kind::Gauge, "Bytes in these files", spill.file_bytes);
    page.single("spill_waiting_bytes", Kind::Gauge, "Bytes of such messages not written yet", spill.waiting_bytes);
}

fn put_clients(page: &mut Page<'_>, broker: &Broker, connections: &[ConnectionInfo]) {
    let statistics = &broker.services.statistics;
    let help = "Times a consumer had to wait because too much was waiting to be written to its connection";
    page.single("outbox_full_total", Kind::Counter, help, statistics.full_outboxes());
    let blocked = connections.iter().filter(|info| info.open.is_blocked()).count();
    page.single("publishers_blocked", Kind::Gauge, "Connections whose publishes wait for an alarm to end", blocked);
    let help = "1 while publishers are held because too much waits for the disk";
    page.single("publishers_held", Kind::Gauge, help, broker.is_disk_behind());
    let help = "How late the last timer of a second was";
    page.single("runtime_lag_seconds", Kind::Gauge, help, statistics.lag().as_secs_f64());
}

fn put_memory(page: &mut Page<'_>, broker: &Broker) {
    let used = broker.memory_use();
    page.family("memory_bytes", Kind::Gauge, "Memory that is accounted for, by what it is held for");
    for (owner, bytes) in used.owners {
        let owner = match owner {
            Owner::Queues => "queues",
            Owner::Outboxes => "outboxes",
            Owner::Partial => "incomplete_messages",
            Owner::Parked => "held_publishers",
            Owner::Transactions => "transactions",
        };
        page.sample(&[("owner", owner)], bytes);
    }
    page.sample(&[("owner", "uncommitted")], used.uncommitted);
    page.sample(&[("owner", "spilling")], used.spilling);
}

/// What RabbitMQ tells of memory in `/metrics/memory-breakdown`, as far as there is the like.
pub(super) fn put_breakdown(page: &mut Page<'_>, broker: &Broker) {
    let used = broker.memory_use();
    let held = |wanted: Owner| used.owners.iter().filter(|(owner, _)| *owner == wanted).map(|(_, bytes)| *bytes).sum();
    let (readers, writers, channels): (usize, usize, usize) =
        (held(Owner::Partial) + held(Owner::Parked), held(Owner::Outboxes), held(Owner::Transactions));
    let queues: usize = held(Owner::Queues);
    let known = readers + writers + channels + queues + used.uncommitted + used.spilling;
    let index = broker.store.stats().index_bytes;
    for (name, help, bytes) in [
        ("memory_client_connection_reader_bytes", "Client connection reader processes footprint in bytes", readers),
        ("memory_client_connection_writer_bytes", "Client connection writer processes footprint in bytes", writers),
        ("memory_client_connection_channel_bytes", "Client connection channel processes footprint in bytes", channels),
        ("memory_classic_queue_erlang_process_bytes", "Classic queue processes footprint in bytes", queues),
        ("memory_message_index_bytes", "Message index footprint in bytes", index),
        ("memory_other_system_bytes", "Other runtime footprint in bytes", used.resident.saturating_sub(known + index)),
    ] {
        page.single(name, Kind::Gauge, help, bytes);
    }
}
