//! How topology is written down: keys, and JSON values with a version.
//!
//! Values hold everything, names included; keys only have to be unique. Argument tables are the
//! base64 of their wire form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use storage::{QueueId, TopologyChange};

use super::exchange::{Destination, Exchange};
use super::settings::{Metadata, Settings};
use crate::model::arguments::Arguments;
use crate::model::limits::VhostLimits;
use crate::queue::Queue;
use crate::routing::binding::BindingKey;

const VERSION: u32 = 1;

pub(super) const VHOST_PREFIX: &[u8] = b"vhost/";
pub(super) const EXCHANGE_PREFIX: &[u8] = b"exchange/";
pub(super) const QUEUE_PREFIX: &[u8] = b"queue/";
pub(super) const BINDING_PREFIX: &[u8] = b"binding/";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VhostRecord {
    v: u32,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) metadata: Metadata,
    #[serde(default, skip_serializing_if = "VhostLimits::is_empty")]
    pub(super) limits: VhostLimits,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ExchangeRecord {
    v: u32,
    pub(super) vhost: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) arguments: String,
    /// What its delayed messages are stored under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delayed: Option<QueueId>,
    /// What its last messages are stored under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<QueueId>,
    /// What its deduplication window is stored under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<QueueId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QueueRecord {
    v: u32,
    pub(super) vhost: String,
    pub(super) name: String,
    pub(super) id: QueueId,
    pub(super) auto_delete: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) arguments: String,
    /// What its deduplication window is stored under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<QueueId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BindingRecord {
    v: u32,
    pub(super) vhost: String,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) destination_type: DestinationType,
    pub(super) routing_key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) arguments: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DestinationType {
    Queue,
    Exchange,
}

pub(super) fn put_vhost(name: &str, settings: &Settings) -> TopologyChange {
    let Settings { metadata, limits } = settings.clone();
    put(vhost_key(name), &VhostRecord { v: VERSION, name: name.to_owned(), metadata, limits })
}

pub(super) fn delete_vhost(name: &str) -> TopologyChange {
    TopologyChange::Delete { key: vhost_key(name) }
}

fn vhost_key(name: &str) -> Vec<u8> {
    [VHOST_PREFIX, name.as_bytes()].concat()
}

pub(super) fn put_exchange(vhost: &str, exchange: &Exchange) -> TopologyChange {
    let spec = exchange.spec();
    put(
        named_key(EXCHANGE_PREFIX, vhost, &spec.name),
        &ExchangeRecord {
            v: VERSION,
            vhost: vhost.to_owned(),
            name: spec.name.to_string(),
            kind: spec.type_name().to_owned(),
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: STANDARD.encode(spec.arguments.to_wire()),
            delayed: exchange.delay().and_then(|delay| delay.id()),
            history: exchange.history().and_then(|history| history.id()),
            window: exchange.window().and_then(|window| window.id()),
        },
    )
}

pub(super) fn delete_exchange(vhost: &str, exchange: &Exchange) -> impl Iterator<Item = TopologyChange> {
    let record = TopologyChange::Delete { key: named_key(EXCHANGE_PREFIX, vhost, exchange.name()) };
    let delayed = exchange.delay().and_then(|delay| delay.id());
    let history = exchange.history().and_then(|history| history.id());
    let window = exchange.window().and_then(|window| window.id());
    [record].into_iter().chain(delayed.into_iter().chain(history).chain(window).map(TopologyChange::DropQueue))
}

pub(super) fn put_queue(queue: &Queue) -> TopologyChange {
    let spec = queue.spec();
    put(
        named_key(QUEUE_PREFIX, &spec.vhost, &spec.name),
        &QueueRecord {
            v: VERSION,
            vhost: spec.vhost.to_string(),
            name: spec.name.to_string(),
            id: queue.id(),
            auto_delete: spec.auto_delete,
            arguments: STANDARD.encode(spec.arguments.to_wire()),
            window: queue.window().and_then(|window| window.id()),
        },
    )
}

/// The queue must be closed: what it held goes with it.
pub(super) fn delete_queue(queue: &Queue) -> impl Iterator<Item = TopologyChange> {
    let spec = queue.spec();
    let record = TopologyChange::Delete { key: named_key(QUEUE_PREFIX, &spec.vhost, &spec.name) };
    let window = queue.window().and_then(|window| window.id());
    std::iter::once(record).chain(queue.store_ids().into_iter().chain(window).map(TopologyChange::DropQueue))
}

pub(super) fn put_binding(
    vhost: &str,
    source: &Exchange,
    destination: &Destination,
    binding: &BindingKey,
) -> TopologyChange {
    put(
        binding_key(vhost, source, destination, binding),
        &BindingRecord {
            v: VERSION,
            vhost: vhost.to_owned(),
            source: source.name().to_string(),
            destination: destination.name().to_owned(),
            destination_type: destination_type(destination),
            routing_key: binding.key.to_string(),
            arguments: STANDARD.encode(&binding.arguments),
        },
    )
}

pub(super) fn delete_binding(
    vhost: &str,
    source: &Exchange,
    destination: &Destination,
    binding: &BindingKey,
) -> TopologyChange {
    TopologyChange::Delete { key: binding_key(vhost, source, destination, binding) }
}

/// Reads a value back.
pub(super) fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let versioned: Versioned = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    if versioned.v != VERSION {
        return Err(format!("version {} is not known to this broker", versioned.v));
    }
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

/// Reads an argument table of a record.
pub(super) fn parse_arguments(encoded: &str) -> Result<Arguments, String> {
    let wire = STANDARD.decode(encoded).map_err(|e| e.to_string())?;
    Arguments::from_wire(&wire).map_err(|e| e.to_string())
}

fn destination_type(destination: &Destination) -> DestinationType {
    match destination {
        Destination::Queue(_) => DestinationType::Queue,
        Destination::Exchange(_) => DestinationType::Exchange,
    }
}

fn put(key: Vec<u8>, record: &impl Serialize) -> TopologyChange {
    // Records are strings, numbers and booleans: writing them to memory does not fail.
    let value = serde_json::to_vec(record).unwrap_or_default();
    TopologyChange::Put { key, value }
}

fn named_key(prefix: &[u8], vhost: &str, name: &str) -> Vec<u8> {
    [prefix, vhost.as_bytes(), b"\0", name.as_bytes()].concat()
}

/// After the vhost, each part has its length in front, since names may contain any character; the
/// arguments are represented by a digest, since they can be long.
fn binding_key(vhost: &str, source: &Exchange, destination: &Destination, binding: &BindingKey) -> Vec<u8> {
    let mut key = [BINDING_PREFIX, vhost.as_bytes(), b"\0"].concat();
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        key.extend_from_slice(bytes);
    };
    part(source.name().as_bytes());
    part(match destination_type(destination) {
        DestinationType::Queue => b"q",
        DestinationType::Exchange => b"e",
    });
    part(destination.name().as_bytes());
    part(binding.key.as_bytes());
    if !binding.arguments.is_empty() {
        part(&Sha256::digest(&binding.arguments));
    }
    key
}
