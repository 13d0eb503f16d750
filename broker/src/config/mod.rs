//! Settings: embedded defaults, then a TOML file, then the environment, then flags, each stronger than the one before.
//!
//! # Layout
//! - `keys`: every key, its type, limits and default
//! - `layer`: one source's values, checked against the keys; `file`, `environment` and `flags` each make one
//! - `merged`: the layers put together by the `config` crate
//! - `topology`, `entry`, `arguments`: what the file declares to exist
//! - `tls`: certificates; `listen`, `network`: addresses
//! - `rules`: what a virtual host allows its clients, from several of these
//!
//! Every mistake is one line that names the key, the place it was set and the value; an unknown key is a mistake.

mod arguments;
pub mod control;
mod entry;
mod environment;
mod error;
mod file;
mod flags;
mod keys;
mod layer;
mod listen;
mod merged;
mod network;
mod rules;
mod secret;
#[cfg(test)]
mod shipped_files;
#[cfg(test)]
mod tests;
mod tls;
mod topology;
mod units;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use error::ConfigError;
pub use flags::Flags;
pub use listen::ListenAddress;
pub use network::Network;
pub use rules::{Redeclare, RuleChanges, VhostRules};
pub use secret::Secret;
pub use tls::{LoginFrom, SanType, Tls, TlsVersion};
pub use topology::{
    BindingEntry, DestinationType, ExchangeEntry, PermissionEntry, QueueEntry, Topology, UserEntry, UserSecret,
    VhostEntry,
};

use layer::Layer;
use merged::Merged;

/// All settings of one broker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[node]`: what the broker calls itself, if not by the machine's name.
    pub node_name: Option<String>,
    /// `[listeners]`
    pub listeners: Listeners,
    /// `[log]`
    pub log: Log,
    /// `[storage]`
    pub storage: Storage,
    /// `[memory]`
    pub memory: Memory,
    /// `[limits]`
    pub limits: Limits,
    /// `[tls]`
    pub tls: Tls,
    /// `[management]`
    pub management: Management,
    /// `[prometheus]`
    pub prometheus: Prometheus,
    /// `[auth]`
    pub auth: Auth,
    /// `[default_user]`
    pub default_user: DefaultUser,
    /// `[definitions]`
    pub definitions: Definitions,
    /// `[compatibility]`
    pub compatibility: Compatibility,
    /// `[[vhost]]`, `[[exchange]]` and the other declarations.
    pub topology: Topology,
    descriptions: BTreeMap<&'static str, String>,
}

/// `[listeners]`
#[derive(Debug, Clone)]
pub struct Listeners {
    /// Addresses for AMQP without TLS.
    pub amqp: Vec<ListenAddress>,
    /// Addresses for AMQP over TLS.
    pub tls: Vec<ListenAddress>,
    /// A Unix socket for AMQP.
    pub unix: Option<PathBuf>,
    /// Who may open it.
    pub unix_mode: u32,
    /// Proxies: connections from there begin with a PROXY protocol header.
    pub proxies: Vec<Network>,
    /// How long a client may take from accept to `connection.open-ok`.
    pub handshake_timeout: Duration,
}

/// `[management]`
#[derive(Debug, Clone)]
pub struct Management {
    /// Address of the management API; `None`: it is on the control socket only.
    pub listen: Option<ListenAddress>,
    /// The same over TLS.
    pub tls_listen: Option<ListenAddress>,
    /// Connections at one time.
    pub connections: usize,
    /// How long the head of a request may take, and how long a connection may idle.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
}

/// `[definitions]`
#[derive(Debug, Clone)]
pub struct Definitions {
    /// A file that is imported at each start.
    pub file: Option<PathBuf>,
    /// Not when it is the one that was imported last.
    pub skip_if_unchanged: bool,
    /// Entries for features that there are not are left out.
    pub skip_unsupported: bool,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A level or a filter of `tracing-subscriber`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// What takes this long is worth a warning; zero for never.
    pub slow: Duration,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object each.
    Json,
}

impl LogFormat {
    pub(crate) const NAMES: &[&str] = &["text", "json"];
}

/// `[prometheus]`
#[derive(Debug, Clone)]
pub struct Prometheus {
    /// Address of the endpoint; `None`: there is none.
    pub listen: Option<ListenAddress>,
}

/// `[storage]`
#[derive(Debug, Clone)]
pub struct Storage {
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// Size of one log segment.
    pub segment_bytes: u64,
    /// Segments kept ready for reuse.
    pub pool_segments: usize,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Log written between two snapshots of the index.
    pub snapshot_bytes: u64,
    /// Cache of the database that holds the index.
    pub sled_cache_bytes: u64,
    /// Memory for the part of the index that was needed lately.
    pub index_cache_bytes: u64,
    /// Free bytes of the file system below which publishers are blocked.
    pub disk_free_limit: u64,
    /// Segments set aside for what must go on when the disk is full.
    pub reserve_segments: usize,
}

/// `[memory]`
#[derive(Debug, Clone)]
pub struct Memory {
    /// Memory in use from which on publishers are blocked.
    pub high_watermark: Watermark,
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Watermark {
    /// A share of the memory that the process may use, 0 to 1.
    Fraction(f64),
    /// Bytes.
    Bytes(u64),
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    /// Channels of a connection; 0 = no limit.
    pub channel_max: u16,
    /// Largest frame; 0 = no limit.
    pub frame_max: u32,
    /// Heartbeat offered to clients; 0 = off.
    pub heartbeat_s: u16,
    /// Largest message body.
    pub max_message_bytes: u64,
    /// Bytes accepted and not yet on disk past which publishers are held.
    pub uncommitted_bytes: u64,
    /// Bytes waiting to be written to one connection past which its deliveries wait in the queues.
    pub outbox_bytes: usize,
}

/// `[auth]`
#[derive(Debug, Clone)]
pub struct Auth {
    /// Users who may connect from this machine only.
    pub loopback_users: Vec<String>,
    /// Who the ANONYMOUS mechanism logs in as; `None`: nobody.
    pub anonymous_user: Option<String>,
}

/// `[default_user]`: created when the broker starts without any stored user.
#[derive(Debug, Clone)]
pub struct DefaultUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Secret,
    /// The vhost it gets every permission in; created with it.
    pub vhost: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// `[compatibility]`: where brokers differ. What a `[[vhost]]` can say otherwise is asked by [`Settings::rules_of`].
#[derive(Debug, Clone)]
pub struct Compatibility {
    /// The `product` server property. Client libraries branch on it.
    pub product: String,
    /// The `version` server property; likewise.
    pub version: String,
    /// The smallest frame size that a client may ask for.
    pub frame_max_min: u32,
    /// Queues that are neither durable nor exclusive can be declared.
    pub transient_nonexclusive_queues: bool,
    /// A prefetch can be one of the whole channel.
    pub global_qos: bool,
    /// How declarations are compared with what exists.
    pub redeclare: Redeclare,
}

impl Settings {
    /// Merges all sources. The environment is passed in: `std::env::vars_os()` in the binary.
    pub fn load(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = vec![Layer::defaults()];
        let mut topology = Topology::default();
        if let Some(path) = &flags.config {
            let file = file::read(path)?;
            layers.push(file.layer);
            topology = file.topology;
        }
        layers.extend(environment::layers(environment)?);
        layers.push(flags.layer()?);
        Self::from_merged(&Merged::new(layers)?, topology)
    }

    /// The embedded defaults alone.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::from_merged(&Merged::new([Layer::defaults()])?, Topology::default())
    }

    /// A key with its value and where that came from, for errors found later: a port in use, a directory that can't be
    /// written. Example: `storage.data_dir = "/x" (flag --data-dir)`.
    pub fn describe<'a>(&'a self, key: &'a str) -> &'a str {
        self.descriptions.get(key).map_or(key, String::as_str)
    }

    /// The keys whose value is another one in `new`, wherever it comes from. Secrets do not count.
    pub fn changed_keys(&self, new: &Self) -> Vec<&'static str> {
        let is_changed = |key: &&str| self.value_of(key) != new.value_of(key);
        keys::KEYS.iter().map(|key| key.name).filter(is_changed).collect()
    }

    /// A key with its value.
    fn value_of(&self, key: &str) -> Option<&str> {
        Some(self.descriptions.get(key)?.rsplit_once(" (")?.0)
    }

    /// Every key that has a value, as [`Settings::describe`] has it. Secrets are hidden.
    pub fn descriptions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.descriptions.iter().map(|(key, text)| (*key, text.as_str()))
    }

    fn from_merged(merged: &Merged, topology: Topology) -> Result<Self, ConfigError> {
        let max_message_bytes = merged.number("limits.max_message_bytes")?;
        topology.check_message_sizes(max_message_bytes)?;
        Ok(Self {
            node_name: node_name(merged)?,
            listeners: Listeners {
                amqp: listen_addresses(merged, "listeners.amqp")?,
                tls: addresses(merged, "listeners.tls")?,
                unix: Some(merged.text("listeners.unix")?).filter(|path| !path.is_empty()).map(PathBuf::from),
                unix_mode: unix_mode(merged, "listeners.unix_mode")?,
                proxies: networks(merged, "listeners.proxy_protocol")?,
                handshake_timeout: merged.milliseconds("listeners.handshake_timeout_ms")?,
            },
            management: Management {
                listen: optional_address(merged, "management.listen")?,
                tls_listen: optional_address(merged, "management.tls_listen")?,
                connections: merged.number("management.connections")?,
                header_timeout: merged.milliseconds("management.header_timeout_ms")?,
                body_timeout: merged.milliseconds("management.body_timeout_ms")?,
            },
            tls: Tls::from_merged(merged)?,
            prometheus: Prometheus { listen: optional_address(merged, "prometheus.listen")? },
            log: Log {
                level: log_filter(merged, "log.level")?,
                format: if merged.text("log.format")? == "json" { LogFormat::Json } else { LogFormat::Text },
                slow: merged.milliseconds("log.slow_ms")?,
            },
            storage: Storage {
                data_dir: merged.text("storage.data_dir")?.into(),
                segment_bytes: merged.number("storage.segment_bytes")?,
                pool_segments: merged.number("storage.pool_segments")?,
                checkpoint_interval: merged.milliseconds("storage.checkpoint_interval_ms")?,
                snapshot_bytes: merged.number("storage.snapshot_bytes")?,
                sled_cache_bytes: merged.number("storage.sled_cache_bytes")?,
                index_cache_bytes: merged.number("storage.index_cache_bytes")?,
                disk_free_limit: merged.number("storage.disk_free_limit")?,
                reserve_segments: merged.number("storage.reserve_segments")?,
            },
            memory: Memory { high_watermark: merged.watermark("memory.high_watermark")? },
            limits: Limits {
                channel_max: merged.number("limits.channel_max")?,
                frame_max: frame_max(merged, "limits.frame_max")?,
                heartbeat_s: merged.number("limits.heartbeat_s")?,
                max_message_bytes,
                uncommitted_bytes: merged.number("limits.uncommitted_bytes")?,
                outbox_bytes: merged.number("limits.outbox_bytes")?,
            },
            auth: Auth {
                loopback_users: merged.list("auth.loopback_users")?,
                anonymous_user: Some(merged.text("auth.anonymous_user")?).filter(|name| !name.is_empty()),
            },
            default_user: default_user(merged)?,
            definitions: Definitions {
                file: Some(merged.text("definitions.file")?).filter(|path| !path.is_empty()).map(PathBuf::from),
                skip_if_unchanged: merged.boolean("definitions.skip_if_unchanged")?,
                skip_unsupported: merged.boolean("definitions.skip_unsupported")?,
            },
            compatibility: Compatibility {
                product: merged.text("compatibility.product")?,
                version: merged.text("compatibility.version")?,
                frame_max_min: merged.number("compatibility.frame_max_min")?,
                transient_nonexclusive_queues: merged.boolean("compatibility.transient_nonexclusive_queues")?,
                global_qos: merged.boolean("compatibility.global_qos")?,
                redeclare: Redeclare::from_name(&merged.text("compatibility.redeclare")?).unwrap_or_default(),
            },
            topology,
            descriptions: merged.descriptions(),
        })
    }
}

/// Nothing listens there when it is empty.
fn optional_address(merged: &Merged, key: &str) -> Result<Option<ListenAddress>, ConfigError> {
    let address = merged.text(key)?;
    if address.is_empty() {
        return Ok(None);
    }
    ListenAddress::parse(&address, false).map(Some).map_err(|problem| merged.problem(key, problem))
}

fn listen_addresses(merged: &Merged, key: &str) -> Result<Vec<ListenAddress>, ConfigError> {
    let elsewhere = !merged.list("listeners.tls")?.is_empty() || !merged.text("listeners.unix")?.is_empty();
    if merged.list(key)?.is_empty() && !elsewhere {
        return Err(merged.problem(key, "at least one address is needed"));
    }
    addresses(merged, key)
}

fn networks(merged: &Merged, key: &str) -> Result<Vec<Network>, ConfigError> {
    let network = |text: &String| {
        Network::parse(text).map_err(|problem| merged.problem(key, &format!("{} {problem}", error::quoted(text))))
    };
    merged.list(key)?.iter().map(network).collect()
}

fn unix_mode(merged: &Merged, key: &str) -> Result<u32, ConfigError> {
    let text = merged.text(key)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| merged.problem(key, "must be an octal mode such as 660"))
}

fn addresses(merged: &Merged, key: &str) -> Result<Vec<ListenAddress>, ConfigError> {
    merged
        .list(key)?
        .iter()
        .map(|text| {
            ListenAddress::parse(text, merged.is_default(key))
                .map_err(|problem| merged.problem(key, &format!("{} {problem}", error::quoted(text))))
        })
        .collect()
}

fn log_filter(merged: &Merged, key: &str) -> Result<String, ConfigError> {
    let text = merged.text(key)?;
    check_log_filter(&text).map_err(|problem| merged.problem(key, &problem))?;
    Ok(text)
}

/// Checks a filter for the log.
///
/// # Errors
///
/// What is wrong with it. A filter accepts any bare word as the name of a module, so a misspelt level would silently turn
/// everything else off: that is an error too.
pub fn check_log_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let is_level = LEVELS.contains(&directive.to_ascii_lowercase().as_str());
        if !is_level && !directive.contains('=') {
            return Err(format!(
                "{} is neither a level ({}) nor a filter such as broker::session=debug",
                error::quoted(directive),
                LEVELS.join(", ")
            ));
        }
    }
    let parsed: Result<tracing_subscriber::filter::Targets, _> = text.parse();
    parsed.map(|_| ()).map_err(|problem| problem.to_string())
}

fn node_name(merged: &Merged) -> Result<Option<String>, ConfigError> {
    const BYTES_MAX: usize = 255;
    let name = merged.text("node.name")?;
    if name.len() > BYTES_MAX || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(merged.problem("node.name", "one word of at most 255 bytes, such as rabbit@orders"));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn frame_max(merged: &Merged, key: &str) -> Result<u32, ConfigError> {
    let least: u32 = merged.number("compatibility.frame_max_min")?;
    let limit: u32 = merged.number(key)?;
    if limit != 0 && limit < least {
        return Err(merged.problem(key, &format!("{limit} must be 0 (no limit) or at least {least}")));
    }
    Ok(limit)
}

fn default_user(merged: &Merged) -> Result<DefaultUser, ConfigError> {
    const NAME_BYTES_MAX: usize = 255;
    for key in ["default_user.name", "default_user.vhost"] {
        if merged.text(key)?.len() > NAME_BYTES_MAX {
            return Err(merged.problem(key, "longer than 255 bytes"));
        }
    }
    let password = merged.text("default_user.password")?;
    if password.is_empty() {
        return Err(merged.problem("default_user.password", "may not be empty"));
    }
    Ok(DefaultUser {
        name: merged.text("default_user.name")?,
        password: Secret::new(password),
        vhost: merged.text("default_user.vhost")?,
        tags: merged.list("default_user.tags")?,
    })
}
