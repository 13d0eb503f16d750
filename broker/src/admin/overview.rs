//! `/api/overview`, `/api/nodes` and what else is about the broker as a whole.

use axum::http::Method;
use rustix::process::Resource;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::connections::visible;
use super::request::{Ask, need_keys};
use super::{list, statistics, users};
use crate::broker::{Alarm, CLUSTER_NAME};
use crate::model::counters::Counted;
use crate::model::memory::Owner;

const EXCHANGE_TYPES: [&str; 8] =
    ["direct", "fanout", "headers", "topic", "x-consistent-hash", "x-local-random", "x-modulus-hash", "x-random"];

pub(super) fn answer(ask: &Ask, first: &str, rest: &[&str]) -> Answer {
    match (first, rest, &ask.method) {
        ("overview", [], &Method::GET) => list::one(ask, overview(ask)),
        ("nodes", [], &Method::GET) => {
            ask.need_monitoring()?;
            list::answer(ask, vec![node(ask)])
        }
        ("nodes", [name], &Method::GET) => {
            ask.need_monitoring()?;
            known_node(ask, name)?;
            list::one(ask, node(ask))
        }
        ("whoami", [], &Method::GET) => users::whoami(ask),
        ("version", [], &Method::GET) => Ok(Reply::Value(ask.broker().settings.compatibility.version.clone().into())),
        ("cluster-name", [], &Method::GET) => Ok(Reply::Value(json!({"name": ask.broker().cluster_name()}))),
        ("cluster-name", [], &Method::PUT) => {
            ask.need_administrator()?;
            let body = ask.object()?;
            need_keys(&body, &["name"])?;
            ask.done(ask.broker().set_global_parameter(CLUSTER_NAME, &body["name"])?)
        }
        ("nodes", [name, "memory"], &Method::GET) => {
            ask.need_monitoring()?;
            known_node(ask, name)?;
            list::one(ask, json!({"memory": memory(ask)}))
        }
        ("extensions", [], &Method::GET) => Ok(Reply::Value(json!([]))),
        ("overview" | "nodes" | "whoami" | "version" | "cluster-name" | "extensions", [], _) => {
            Err(Refusal::method_not_allowed())
        }
        _ => Err(Refusal::not_found()),
    }
}

fn known_node(ask: &Ask, name: &str) -> Result<(), Refusal> {
    if name == ask.broker().node_name { Ok(()) } else { Err(Refusal::not_found()) }
}

/// Every queue is where it belongs: there is one node.
pub(super) fn rebalance(ask: &Ask) -> Answer {
    if ask.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    ask.need_administrator()?;
    Ok(Reply::Done)
}

/// Who holds how much, in octets.
fn memory(ask: &Ask) -> Value {
    let used = ask.broker().memory_use();
    let held = |owner: Owner| used.owners.iter().find(|(known, _)| *known == owner).map_or(0, |(_, bytes)| *bytes);
    let index = ask.broker().store.stats().index_bytes;
    let known = used.owners.iter().map(|(_, bytes)| bytes).sum::<usize>() + used.uncommitted + used.spilling + index;
    let mut object = json!({
        "allocated_unused": 0,
        "reserved_unallocated": 0,
        "connection_readers": held(Owner::Partial) + held(Owner::Parked),
        "connection_writers": held(Owner::Outboxes),
        "connection_channels": held(Owner::Transactions),
        "queue_procs": held(Owner::Queues),
        "binary": used.uncommitted + used.spilling,
        "msg_index": index,
        "other_system": used.resident.saturating_sub(known),
        "total": {"rss": used.resident, "allocated": used.counted(), "erlang": known},
        "strategy": "rss",
    });
    // What RabbitMQ's runtime has besides: tools add all of them up.
    for absent in ABSENT_MEMORY {
        object[absent] = 0.into();
    }
    object
}

const ABSENT_MEMORY: [&str; 17] = [
    "connection_other",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "metadata_store_ets",
    "other_proc",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "other_ets",
    "code",
    "atom",
];

fn exchange_types() -> Value {
    EXCHANGE_TYPES.iter().map(|name| json!({"name": name, "description": "", "enabled": true})).collect()
}

/// What tools look for that expect an Erlang runtime.
const NO_ERLANG: &str = "none";

/// Descriptors of the process: open ones, and how many there may be.
fn descriptors() -> (u64, u64) {
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    (used, limit_of(Resource::Nofile))
}

/// At most what tools take for such a number.
fn limit_of(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX).min(u64::from(u32::MAX))
}

fn overview(ask: &Ask) -> Value {
    let broker = ask.broker();
    let (mut queues, mut exchanges, mut consumers) = (0_usize, 0_usize, 0_u64);
    let mut depth = statistics::Depth::default();
    for vhost in ask.known_vhosts() {
        exchanges += vhost.exchanges().len();
        for queue in vhost.queues() {
            queues += 1;
            consumers += u64::from(queue.consumer_count());
            depth.add(&queue.statistics());
        }
    }
    let compatibility = &broker.settings.compatibility;
    let connections = visible(ask);
    let (mut totals, mut churn) = (Map::new(), Map::new());
    depth.put_into(&mut totals);
    statistics::put_churn(&mut churn, &broker.churn());
    // Of all, or of the virtual hosts that who asks may know about.
    let message_stats = if ask.sees_all() {
        statistics::of_clients(&broker.message_statistics(None))
    } else {
        let mut sum = Counted::default();
        for vhost in ask.known_vhosts() {
            sum.add(&broker.message_statistics(Some(vhost.name())));
        }
        statistics::of_clients(&sum)
    };
    let mut object = json!({
        "management_version": compatibility.version,
        "erlang_version": NO_ERLANG,
        "erlang_full_version": NO_ERLANG,
        "crypto_lib_version": "",
        "require_definition_json_extension": false,
        "contexts": contexts(ask),
        "rates_mode": "basic",
        "exchange_types": exchange_types(),
        "product_version": compatibility.version,
        "product_name": compatibility.product,
        "rabbitmq_version": compatibility.version,
        "warren_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": broker.cluster_name(),
        "cluster_tags": {},
        "node_tags": {},
        "default_queue_type": "classic",
        "disable_stats": false,
        "enable_queue_totals": false,
        "is_op_policy_updating_enabled": true,
        "message_stats": message_stats,
        "churn_rates": churn,
        "queue_totals": totals,
        "object_totals": {
            "connections": connections.len(),
            "channels": connections.iter().map(|info| info.open.channel_count()).sum::<usize>(),
            "exchanges": exchanges,
            "queues": queues,
            "consumers": consumers,
        },
        "statistics_db_event_queue": 0,
        "node": broker.node_name,
    });
    // Where a broker listens is not for everybody.
    if ask.sees_all() {
        let shown = broker.application.listeners().into_iter().map(|(protocol, address)| {
            json!({
                "node": broker.node_name,
                "protocol": protocol,
                "ip_address": address.ip().to_string(),
                "port": address.port(),
                "socket_opts": {"nodelay": true},
                "tls": protocol.ends_with("ssl") || protocol == "https",
            })
        });
        object["listeners"] = shown.collect();
    }
    object
}

/// Where HTTP is spoken.
fn contexts(ask: &Ask) -> Value {
    let listeners = ask.broker().application.listeners().into_iter();
    let http = listeners.filter(|(protocol, _)| protocol.starts_with("http"));
    let shown = http.map(|(protocol, address)| {
        json!({
            "description": if protocol == "http/prometheus" { "Prometheus" } else { "Management" },
            "ip": address.ip().to_string(),
            "node": ask.broker().node_name,
            "path": "/",
            "port": address.port().to_string(),
            "ssl_opts": [],
        })
    });
    shown.collect()
}

fn node(ask: &Ask) -> Value {
    let broker = ask.broker();
    let (fd_used, fd_total) = descriptors();
    let processes = limit_of(Resource::Nproc);
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count() as u64);
    let compatibility = &broker.settings.compatibility;
    let stats = broker.store.stats();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (free, limit) = broker.store.disk_free();
    let alarms = broker.alarms();
    let external = broker.settings.tls.verify_peer.then_some("EXTERNAL");
    let mechanisms = ["PLAIN", "AMQPLAIN", "ANONYMOUS"].into_iter().chain(external);
    let auth_mechanisms: Value =
        mechanisms.map(|name| json!({"name": name, "description": "", "enabled": true})).collect();
    let mut object = json!({
        "name": broker.node_name,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "os_pid": std::process::id().to_string(),
        "mem_used": broker.memory_use().counted(),
        "mem_limit": broker.memory.limit(),
        "mem_alarm": alarms.has(Alarm::Memory),
        "disk_free": free,
        "disk_free_limit": limit,
        "disk_free_alarm": alarms.has(Alarm::Disk),
        "uptime": u64::try_from(ask.context.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "rates_mode": "basic",
        "exchange_types": exchange_types(),
        "auth_mechanisms": auth_mechanisms,
        // Tools read the version of RabbitMQ that this is compatible with from the first one.
        "applications": [
            {"name": "rabbit", "description": compatibility.product, "version": compatibility.version},
            {"name": "warren", "description": "Warren", "version": env!("CARGO_PKG_VERSION")},
        ],
        "rabbitmq_version": compatibility.version,
        "erlang_version": NO_ERLANG,
        "erlang_full_version": NO_ERLANG,
        "crypto_lib_version": "",
        "enabled_plugins": ["rabbitmq_management"],
        "contexts": contexts(ask),
        "cluster_links": [],
        "config_files": [],
        "db_dir": broker.settings.storage.data_dir.display().to_string(),
        "log_files": ["<stderr>"],
        "mem_calculation_strategy": "rss",
        "net_ticktime": 0,
        "fd_used": fd_used,
        "fd_total": fd_total,
        "sockets_used": broker.connection_count(),
        "sockets_total": fd_total,
        "proc_used": threads,
        "proc_total": processes,
        // Of the whole machine: runnable threads, as the fourth field of the kernel's load average says.
        "run_queue": load.split([' ', '/']).nth(3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default(),
        "io_sync_count": stats.fdatasyncs,
        "io_sync_avg_time": stats.sync_micros.sum.checked_div(stats.sync_micros.count()).unwrap_or_default() as f64 / 1e3,
        "io_write_count": stats.groups,
        "io_write_bytes": stats.log_bytes,
    });
    if let Value::Object(object) = &mut object {
        statistics::put_churn(object, &broker.churn());
    }
    object
}
