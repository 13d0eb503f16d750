//! `GET /api/warren/status`: how the broker is, what its start found, and what the store counts.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use storage::Histogram;

use super::Context;
use crate::broker::Recovery;

/// Names have their units last; absent figures are those the system did not tell.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    node: String,
    pid: u32,
    uptime_s: u64,
    data_dir: PathBuf,
    connections: usize,
    vhosts: usize,
    queues: usize,
    /// Why publishers are blocked, in RabbitMQ's words; empty when they are not.
    alarms: &'static str,
    recovery: Recovery,
    disk: Option<Disk>,
    store: Store,
}

#[derive(Serialize)]
struct Disk {
    free_bytes: u64,
    total_bytes: u64,
}

/// Counted since the start.
#[derive(Serialize)]
struct Store {
    segments: usize,
    free_segments: usize,
    pending_bytes: usize,
    log_bytes: u64,
    fdatasyncs: u64,
    large_bytes: u64,
    sled_bytes: u64,
    checkpoints: u64,
    snapshots: u64,
    snapshot_bytes: u64,
    sync_us: Quantiles,
    group_entries: Quantiles,
}

/// Upper bounds, by powers of two.
#[derive(Serialize)]
struct Quantiles {
    p50: u64,
    p99: u64,
    p999: u64,
}

impl From<&Histogram> for Quantiles {
    fn from(histogram: &Histogram) -> Self {
        let at = |q| if histogram.count() == 0 { 0 } else { histogram.quantile(q) };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

pub(super) async fn get(State(Context { broker, started }): State<Context>) -> Json<Status> {
    let vhosts = broker.vhosts();
    let stats = broker.store.stats();
    let data_dir = broker.settings.storage.data_dir.clone();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        node: broker.node_name.clone(),
        pid: std::process::id(),
        uptime_s: started.elapsed().as_secs(),
        connections: broker.connection_count(),
        vhosts: vhosts.len(),
        queues: vhosts.iter().map(|vhost| vhost.queue_count()).sum(),
        alarms: broker.alarms().reason(),
        recovery: broker.recovery.clone(),
        disk: disk(&data_dir),
        // As it is known to whoever looks from outside.
        data_dir: std::path::absolute(&data_dir).unwrap_or(data_dir),
        store: Store {
            segments: stats.segments,
            free_segments: stats.free_segments,
            pending_bytes: stats.pending_bytes,
            log_bytes: stats.log_bytes,
            fdatasyncs: stats.fdatasyncs,
            large_bytes: stats.large_bytes,
            sled_bytes: stats.sled_bytes,
            checkpoints: stats.checkpoints,
            snapshots: stats.snapshots,
            snapshot_bytes: stats.snapshot_bytes,
            sync_us: Quantiles::from(&stats.sync_micros),
            group_entries: Quantiles::from(&stats.group_entries),
        },
    })
}

fn disk(data_dir: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(data_dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
}
