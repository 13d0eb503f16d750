//! One entry of the topology while its fields are read.

use amq_protocol::types::FieldTable;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml::de::{DeTable, DeValue};

use super::arguments;
use super::error::{ConfigError, quoted};
use super::keys;
use super::rules::{Redeclare, RuleChanges};
use super::secret::Secret;
use super::topology::{DestinationType, UserSecret};

/// A section of the topology and its fields; the first one names an entry in errors.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    fields: &'static [&'static str],
}

#[cfg(test)]
impl Section {
    pub(crate) fn fields(&self) -> &'static [&'static str] {
        self.fields
    }
}

/// All sections of the topology.
pub(crate) const SECTIONS: &[Section] = &[
    Section {
        name: "vhost",
        fields: &["name", "max_message_bytes", "transient_nonexclusive_queues", "global_qos", "redeclare"],
    },
    Section { name: "exchange", fields: &["name", "vhost", "type", "durable", "auto_delete", "internal", "arguments"] },
    Section { name: "queue", fields: &["name", "vhost", "durable", "auto_delete", "arguments"] },
    Section {
        name: "binding",
        fields: &["source", "vhost", "destination", "destination_type", "routing_key", "arguments"],
    },
    Section { name: "user", fields: &["name", "password", "password_hash", "tags"] },
    Section { name: "permission", fields: &["user", "vhost", "configure", "write", "read"] },
];

/// Names on the wire are short strings.
const NAME_BYTES_MAX: usize = 255;
const DEFAULT_VHOST: &str = "/";
/// 4 bytes of salt and 32 of SHA-256.
const PASSWORD_HASH_BYTES: usize = 36;

/// One entry while its fields are read.
pub(super) struct Entry<'a> {
    pub(super) context: String,
    table: &'a DeTable<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(section: &Section, table: &'a DeTable<'a>, number: usize, place: &str) -> Self {
        let mut entry = Self { context: String::new(), table };
        let label = section
            .fields
            .first()
            .and_then(|field| Some((field, entry.field(field)?.as_str()?)))
            .map(|(field, name)| format!(" ({field} {})", quoted(name)))
            .unwrap_or_default();
        entry.context = format!("[[{}]] number {number}{label}, {place}", section.name);
        entry
    }

    fn field(&self, name: &str) -> Option<&DeValue<'a>> {
        self.table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value.get_ref())
    }

    fn error(&self, problem: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(format_args!("{}: {problem}", self.context))
    }

    pub(super) fn check_fields(&self, section: &Section) -> Result<(), ConfigError> {
        for key in self.table.keys() {
            let field = key.get_ref().as_ref();
            if !section.fields.contains(&field) {
                let nearest = keys::nearest(field, section.fields.iter().copied()).unwrap_or_default();
                return Err(self.error(format_args!("unknown key {}; did you mean {nearest}?", quoted(field))));
            }
        }
        Ok(())
    }

    fn text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.field(field) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.clone().into_owned())),
            Some(other) => Err(self.error(format_args!("{field} must be text in quotes, not {}", with_article(other)))),
        }
    }

    pub(super) fn short_text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        let text = self.text(field)?;
        match &text {
            Some(long) if long.len() > NAME_BYTES_MAX => {
                Err(self.error(format_args!("{field} = {} is longer than {NAME_BYTES_MAX} bytes", quoted(long))))
            }
            _ => Ok(text),
        }
    }

    pub(super) fn required(&self, field: &str) -> Result<String, ConfigError> {
        self.text(field)?.ok_or_else(|| self.error(format_args!("{field} is missing")))
    }

    pub(super) fn name(&self, field: &str) -> Result<String, ConfigError> {
        match self.short_text(field)? {
            Some(name) if name.is_empty() => Err(self.error(format_args!("{field} may not be empty"))),
            Some(name) => Ok(name),
            None => Err(self.error(format_args!("{field} is missing"))),
        }
    }

    pub(super) fn vhost(&self) -> Result<String, ConfigError> {
        match self.field("vhost") {
            Some(_) => self.name("vhost"),
            None => Ok(DEFAULT_VHOST.to_owned()),
        }
    }

    pub(super) fn boolean(&self, field: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.optional_boolean(field)?.unwrap_or(default))
    }

    fn optional_boolean(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.field(field) {
            None => Ok(None),
            Some(DeValue::Boolean(value)) => Ok(Some(*value)),
            Some(DeValue::String(text)) => {
                Err(self.error(format_args!("{field} = {} must be true or false, without quotes", quoted(text))))
            }
            Some(other) => Err(self.error(format_args!("{field} must be true or false, not {}", with_article(other)))),
        }
    }

    pub(super) fn rules(&self) -> Result<RuleChanges, ConfigError> {
        let redeclare = match self.text("redeclare")? {
            None => None,
            Some(word) => Some(Redeclare::from_name(&word).ok_or_else(|| {
                let words: Vec<String> = Redeclare::NAMES.iter().map(|word| quoted(word)).collect();
                self.error(format_args!("redeclare = {} must be {}", quoted(&word), words.join(" or ")))
            })?),
        };
        Ok(RuleChanges {
            transient_nonexclusive_queues: self.optional_boolean("transient_nonexclusive_queues")?,
            global_qos: self.optional_boolean("global_qos")?,
            redeclare,
            max_message_bytes: self.bytes("max_message_bytes")?,
        })
    }

    /// A number of bytes that is not 0.
    fn bytes(&self, field: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.field(field) else {
            return Ok(None);
        };
        let number = match value {
            DeValue::Integer(digits) => arguments::integer(digits).ok().and_then(|number| u64::try_from(number).ok()),
            _ => None,
        };
        match number {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(self.error(format_args!("{field} must be a number of bytes, at least 1"))),
        }
    }

    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, ConfigError> {
        let Some(value) = self.field(field) else {
            return Ok(Vec::new());
        };
        value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect())
            .ok_or_else(|| self.error(format_args!("{field} must be a list of texts, such as [\"a\", \"b\"]")))
    }

    pub(super) fn arguments(&self) -> Result<FieldTable, ConfigError> {
        match self.field("arguments") {
            None => Ok(FieldTable::default()),
            Some(DeValue::Table(table)) => arguments::table(table).map_err(|text| self.error(text)),
            Some(other) => Err(self.error(format_args!(
                "arguments must be a table, such as {{ x-max-length = 10 }}, not {}",
                with_article(other)
            ))),
        }
    }

    pub(super) fn destination_type(&self) -> Result<DestinationType, ConfigError> {
        match self.text("destination_type")?.as_deref() {
            None | Some("queue") => Ok(DestinationType::Queue),
            Some("exchange") => Ok(DestinationType::Exchange),
            Some(other) => {
                Err(self.error(format_args!("destination_type = {} must be \"queue\" or \"exchange\"", quoted(other))))
            }
        }
    }

    pub(super) fn user_secret(&self) -> Result<UserSecret, ConfigError> {
        match (self.text("password")?, self.text("password_hash")?) {
            (Some(password), None) if password.is_empty() => Err(self.error("password may not be empty")),
            (Some(password), None) => Ok(UserSecret::Password(Secret::new(password))),
            (None, Some(hash)) => match STANDARD.decode(&hash) {
                Ok(bytes) if bytes.len() == PASSWORD_HASH_BYTES => Ok(UserSecret::Hash(Secret::new(hash))),
                _ => Err(self.error("password_hash must be the base64 of a 4-byte salt and a SHA-256 hash")),
            },
            (None, None) => Err(self.error("password or password_hash is missing")),
            (Some(_), Some(_)) => Err(self.error("only one of password and password_hash may be given")),
        }
    }
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
