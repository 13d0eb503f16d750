//! The topology a configuration file declares: created at start when it is not there yet.

use amq_protocol::types::FieldTable;
use toml::Spanned;
use toml::de::DeValue;

use super::entry::{Entry, SECTIONS};
use super::error::ConfigError;
use super::file::Places;
use super::rules::RuleChanges;
use super::secret::Secret;

/// Everything the file declares, in its order.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    /// `[[vhost]]`
    pub vhosts: Vec<VhostEntry>,
    /// `[[exchange]]`
    pub exchanges: Vec<ExchangeEntry>,
    /// `[[queue]]`
    pub queues: Vec<QueueEntry>,
    /// `[[binding]]`
    pub bindings: Vec<BindingEntry>,
    /// `[[user]]`
    pub users: Vec<UserEntry>,
    /// `[[permission]]`
    pub permissions: Vec<PermissionEntry>,
}

/// One `[[vhost]]`.
#[derive(Debug, Clone)]
pub struct VhostEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// Its name.
    pub name: String,
    /// What its clients may do, as far as it differs.
    pub rules: RuleChanges,
}

/// One `[[exchange]]`.
#[derive(Debug, Clone)]
pub struct ExchangeEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// Its vhost, `/` by default.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// The exchange type.
    pub kind: String,
    /// Survives a restart; true by default.
    pub durable: bool,
    /// Deleted with its last binding.
    pub auto_delete: bool,
    /// Closed to publishers.
    pub internal: bool,
    /// Its arguments.
    pub arguments: FieldTable,
}

/// One `[[queue]]`.
#[derive(Debug, Clone)]
pub struct QueueEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// Its vhost, `/` by default.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Survives a restart; true by default.
    pub durable: bool,
    /// Deleted with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: FieldTable,
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationType {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// One `[[binding]]`.
#[derive(Debug, Clone)]
pub struct BindingEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// Its vhost, `/` by default.
    pub vhost: String,
    /// The exchange it starts from.
    pub source: String,
    /// The name of what it leads to.
    pub destination: String,
    /// What it leads to; a queue by default.
    pub destination_type: DestinationType,
    /// Its routing key, empty by default.
    pub routing_key: String,
    /// Its arguments.
    pub arguments: FieldTable,
}

/// How a `[[user]]` logs in.
#[derive(Debug, Clone)]
pub enum UserSecret {
    /// The password itself.
    Password(Secret),
    /// Base64 of salt and SHA-256 hash, as RabbitMQ exports it.
    Hash(Secret),
}

/// One `[[user]]`.
#[derive(Debug, Clone)]
pub struct UserEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// The user's name.
    pub name: String,
    /// Exactly one of `password` and `password_hash`.
    pub secret: UserSecret,
    /// Tags, such as `administrator`.
    pub tags: Vec<String>,
}

/// One `[[permission]]`.
#[derive(Debug, Clone)]
pub struct PermissionEntry {
    /// Which entry this is, for errors.
    pub context: String,
    /// Whose it is.
    pub user: String,
    /// In which vhost, `/` by default.
    pub vhost: String,
    /// Pattern of what may be configured.
    pub configure: String,
    /// Pattern of what may be written to.
    pub write: String,
    /// Pattern of what may be read from.
    pub read: String,
}

/// Whether that is the name of a section of the topology.
pub(crate) fn is_topology_section(name: &str) -> bool {
    SECTIONS.iter().any(|section| section.name == name)
}

impl Topology {
    /// Adds the entries of one section.
    pub(super) fn add(&mut self, name: &str, value: &Spanned<DeValue<'_>>, places: &Places) -> Result<(), ConfigError> {
        let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
            return Ok(());
        };
        let place = places.at(&value.span());
        let not_entries =
            || ConfigError::new(format_args!("{name} ({place}): must be a list of entries, each written [[{name}]]"));
        let DeValue::Array(items) = value.get_ref() else {
            return Err(not_entries());
        };
        for (i, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                return Err(not_entries());
            };
            let entry = Entry::new(section, table, i + 1, &places.at(&item.span()));
            entry.check_fields(section)?;
            self.add_entry(section.name, &entry)?;
        }
        Ok(())
    }

    /// A virtual host takes no larger message than the broker does.
    pub(super) fn check_message_sizes(&self, max: u64) -> Result<(), ConfigError> {
        let larger = |entry: &&VhostEntry| entry.rules.max_message_bytes.is_some_and(|bytes| bytes > max);
        match self.vhosts.iter().find(larger) {
            Some(entry) => Err(ConfigError::new(format_args!(
                "{}: max_message_bytes must be between 1 and limits.max_message_bytes, which is {max}",
                entry.context
            ))),
            None => Ok(()),
        }
    }

    fn add_entry(&mut self, section: &str, entry: &Entry<'_>) -> Result<(), ConfigError> {
        let context = entry.context.clone();
        match section {
            "vhost" => self.vhosts.push(VhostEntry { context, name: entry.name("name")?, rules: entry.rules()? }),
            "exchange" => self.exchanges.push(ExchangeEntry {
                context,
                vhost: entry.vhost()?,
                name: entry.name("name")?,
                kind: entry.name("type")?,
                durable: entry.boolean("durable", true)?,
                auto_delete: entry.boolean("auto_delete", false)?,
                internal: entry.boolean("internal", false)?,
                arguments: entry.arguments()?,
            }),
            "queue" => self.queues.push(QueueEntry {
                context,
                vhost: entry.vhost()?,
                name: entry.name("name")?,
                durable: entry.boolean("durable", true)?,
                auto_delete: entry.boolean("auto_delete", false)?,
                arguments: entry.arguments()?,
            }),
            "binding" => self.bindings.push(BindingEntry {
                context,
                vhost: entry.vhost()?,
                source: entry.name("source")?,
                destination: entry.name("destination")?,
                destination_type: entry.destination_type()?,
                routing_key: entry.short_text("routing_key")?.unwrap_or_default(),
                arguments: entry.arguments()?,
            }),
            "user" => self.users.push(UserEntry {
                context,
                name: entry.name("name")?,
                secret: entry.user_secret()?,
                tags: entry.texts("tags")?,
            }),
            _ => self.permissions.push(PermissionEntry {
                context,
                user: entry.name("user")?,
                vhost: entry.vhost()?,
                configure: entry.required("configure")?,
                write: entry.required("write")?,
                read: entry.required("read")?,
            }),
        }
        Ok(())
    }
}
