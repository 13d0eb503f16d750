//! Every key of the configuration outside the topology sections: its type, its limits, its default.
//! `config/warren.toml` documents them; a test keeps the two together.

use super::LogFormat;
use super::rules::Redeclare;
use super::tls::LOGIN_FROM;

/// One key, by its dotted name.
#[derive(Debug)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text that may not be empty.
    Text,
    /// Text that may be empty.
    OptionalText,
    /// Text that is never shown.
    Secret,
    /// A whole number between two limits, both included.
    Integer { min: i64, max: i64 },
    /// A number of bytes between two limits, both included; also as text with a unit, such as "2GiB".
    Bytes { min: i64, max: i64 },
    /// A share of the memory there is, between 0 and 1, or a number of bytes as above.
    Watermark,
    /// true or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts; comma separated in the environment.
    List,
}

/// The value of a key that nobody set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Default {
    Text(&'static str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(&'static [&'static str]),
}

const MIB: i64 = 1024 * 1024;
/// The smallest frame AMQP 0-9-1 lets peers agree on.
const FRAME_MIN_SIZE: i64 = 4096;
/// The largest body a message may be allowed to have: lengths stay well inside 32 bits everywhere.
const MESSAGE_BYTES_MAX: i64 = 2 * 1024 * MIB - 1;

const fn key(name: &'static str, kind: Kind, default: Default) -> Key {
    Key { name, kind, default }
}

const fn integer(name: &'static str, min: i64, max: i64, default: i64) -> Key {
    key(name, Kind::Integer { min, max }, Default::Integer(default))
}

const fn bytes(name: &'static str, min: i64, max: i64, default: i64) -> Key {
    key(name, Kind::Bytes { min, max }, Default::Integer(default))
}

/// All keys, in the order of `config/warren.toml`.
pub(crate) const KEYS: &[Key] = &[
    key("node.name", Kind::OptionalText, Default::Text("")),
    key("listeners.amqp", Kind::List, Default::List(&["0.0.0.0:5672", "[::]:5672"])),
    key("listeners.tls", Kind::List, Default::List(&[])),
    key("listeners.unix", Kind::OptionalText, Default::Text("")),
    key("listeners.unix_mode", Kind::Text, Default::Text("600")),
    key("listeners.proxy_protocol", Kind::List, Default::List(&[])),
    integer("listeners.handshake_timeout_ms", 100, 3_600_000, 10_000),
    key("management.listen", Kind::OptionalText, Default::Text("")),
    key("management.tls_listen", Kind::OptionalText, Default::Text("")),
    integer("management.connections", 1, 65_536, 256),
    integer("management.header_timeout_ms", 100, 3_600_000, 10_000),
    integer("management.body_timeout_ms", 100, 3_600_000, 60_000),
    key("prometheus.listen", Kind::OptionalText, Default::Text("")),
    key("tls.certificate", Kind::OptionalText, Default::Text("")),
    key("tls.key", Kind::OptionalText, Default::Text("")),
    key("tls.more_certificates", Kind::List, Default::List(&[])),
    key("tls.more_keys", Kind::List, Default::List(&[])),
    key("tls.ca", Kind::OptionalText, Default::Text("")),
    key("tls.verify", Kind::Choice(&["none", "peer"]), Default::Text("none")),
    key("tls.fail_if_no_peer_certificate", Kind::Boolean, Default::Boolean(false)),
    key("tls.versions", Kind::List, Default::List(&["1.2", "1.3"])),
    key("tls.login_from", Kind::Choice(LOGIN_FROM), Default::Text("distinguished_name")),
    key("tls.login_san_type", Kind::Choice(&["dns", "ip", "email", "uri"]), Default::Text("dns")),
    integer("tls.login_san_index", 0, 100, 0),
    key("log.level", Kind::Text, Default::Text("info")),
    key("log.format", Kind::Choice(LogFormat::NAMES), Default::Text("text")),
    integer("log.slow_ms", 0, 3_600_000, 1000),
    key("storage.data_dir", Kind::Text, Default::Text("./warren-data")),
    integer("storage.segment_bytes", 64 * 1024, 1024 * MIB, 64 * MIB),
    integer("storage.pool_segments", 0, 1024, 6),
    integer("storage.checkpoint_interval_ms", 50, 60_000, 500),
    integer("storage.snapshot_bytes", MIB, 1024 * 1024 * MIB, 256 * MIB),
    integer("storage.sled_cache_bytes", MIB, 64 * 1024 * MIB, 2 * MIB),
    integer("storage.index_cache_bytes", 0, 64 * 1024 * MIB, 4 * MIB),
    bytes("storage.disk_free_limit", 0, i64::MAX, 50_000_000),
    integer("storage.reserve_segments", 0, 1024, 4),
    key("memory.high_watermark", Kind::Watermark, Default::Float(0.6)),
    integer("limits.channel_max", 0, 65_535, 2047),
    integer("limits.frame_max", 0, u32::MAX as i64, 131_072),
    integer("limits.heartbeat_s", 0, 65_535, 60),
    integer("limits.max_message_bytes", 1, MESSAGE_BYTES_MAX, 128 * MIB),
    integer("limits.uncommitted_bytes", MIB, 64 * 1024 * MIB, 64 * MIB),
    integer("limits.outbox_bytes", 4096, 1024 * MIB, MIB),
    key("auth.loopback_users", Kind::List, Default::List(&["guest"])),
    key("auth.anonymous_user", Kind::OptionalText, Default::Text("guest")),
    key("default_user.name", Kind::Text, Default::Text("guest")),
    key("default_user.password", Kind::Secret, Default::Text("guest")),
    key("default_user.vhost", Kind::Text, Default::Text("/")),
    key("default_user.tags", Kind::List, Default::List(&["administrator"])),
    key("definitions.file", Kind::OptionalText, Default::Text("")),
    key("definitions.skip_if_unchanged", Kind::Boolean, Default::Boolean(false)),
    key("definitions.skip_unsupported", Kind::Boolean, Default::Boolean(false)),
    key("compatibility.product", Kind::Text, Default::Text("RabbitMQ")),
    key("compatibility.version", Kind::Text, Default::Text("4.3.6")),
    integer("compatibility.frame_max_min", FRAME_MIN_SIZE, MIB, FRAME_MIN_SIZE),
    key("compatibility.transient_nonexclusive_queues", Kind::Boolean, Default::Boolean(true)),
    key("compatibility.global_qos", Kind::Boolean, Default::Boolean(true)),
    key("compatibility.redeclare", Kind::Choice(Redeclare::NAMES), Default::Text("strict")),
];

/// The key of that dotted name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The section a dotted name is in.
pub(crate) fn section(name: &str) -> &str {
    name.split_once('.').map_or(name, |(section, _)| section)
}

/// Whether any key is in that section.
pub(crate) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| section(key.name) == name)
}

/// The known key most like an unknown one. The same name in another section is the likeliest slip.
pub(crate) fn nearest_key(unknown: &str) -> &'static str {
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let moved = KEYS.iter().map(|key| key.name).filter(|name| last(name) == last(unknown));
    nearest(unknown, moved).or_else(|| nearest(unknown, KEYS.iter().map(|key| key.name))).unwrap_or_default()
}

/// The candidate with the fewest edits to `unknown`.
pub(crate) fn nearest<'a>(unknown: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|name| strsim::damerau_levenshtein(unknown, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_one_section() {
        for (i, key) in KEYS.iter().enumerate() {
            assert_eq!(key.name.matches('.').count(), 1, "{}", key.name);
            assert!(KEYS[i + 1..].iter().all(|other| other.name != key.name));
        }
    }

    #[test]
    fn defaults_have_the_type_and_the_limits_of_their_key() {
        for key in KEYS {
            let fits = match (key.kind, key.default) {
                (Kind::Text | Kind::Secret, Default::Text(text)) => !text.is_empty(),
                (Kind::Integer { min, max } | Kind::Bytes { min, max }, Default::Integer(value)) => {
                    (min..=max).contains(&value)
                }
                (Kind::Watermark, Default::Float(value)) => (0.0..=1.0).contains(&value),
                (Kind::Choice(words), Default::Text(word)) => words.contains(&word),
                (Kind::OptionalText, Default::Text(_))
                | (Kind::Boolean, Default::Boolean(_))
                | (Kind::List, Default::List(_)) => true,
                _ => false,
            };
            assert!(fits, "{}", key.name);
        }
    }

    #[test]
    fn the_nearest_key_is_found_by_spelling_and_by_last_name() {
        assert_eq!(nearest_key("listeners.ampq"), "listeners.amqp");
        assert_eq!(nearest_key("storage.datadir"), "storage.data_dir");
        assert_eq!(nearest_key("storage.heartbeat_s"), "limits.heartbeat_s");
        assert_eq!(nearest_key("managment.listen"), "management.listen");
    }
}
