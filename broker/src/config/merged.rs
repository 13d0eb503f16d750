//! The merged settings: each value with the place it came from.

use std::collections::BTreeMap;
use std::time::Duration;

use ::config::{Config, Value, ValueKind};

use super::Watermark;
use super::error::{ConfigError, quoted};
use super::keys::{self, Kind};
use super::layer::{DEFAULT_ORIGIN, Layer};

/// All layers on top of each other.
pub(super) struct Merged {
    config: Config,
}

impl Merged {
    /// Merges layers, the weakest first.
    pub(super) fn new(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let mut builder = Config::builder();
        for layer in layers {
            builder = builder.add_source(layer);
        }
        let config = builder.build().map_err(ConfigError::new)?;
        Ok(Self { config })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        let (section, key) = name.split_once('.')?;
        let ValueKind::Table(sections) = &self.config.cache.kind else {
            return None;
        };
        let ValueKind::Table(keys) = &sections.get(section)?.kind else {
            return None;
        };
        keys.get(key)
    }

    fn get(&self, name: &str) -> Result<Value, ConfigError> {
        self.value(name).cloned().ok_or_else(|| ConfigError::new(format_args!("{name} has no value")))
    }

    pub(super) fn is_default(&self, name: &str) -> bool {
        self.value(name).and_then(Value::origin) == Some(DEFAULT_ORIGIN)
    }

    pub(super) fn text(&self, name: &str) -> Result<String, ConfigError> {
        self.get(name)?.into_string().map_err(ConfigError::new)
    }

    /// A number; its limits were checked when it was set, so the conversion fails for none that a key allows.
    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, ConfigError> {
        let value = self.get(name)?.into_int().map_err(ConfigError::new)?;
        T::try_from(value).map_err(|_| self.problem(name, "is out of range"))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        self.get(name)?.into_bool().map_err(ConfigError::new)
    }

    pub(super) fn milliseconds(&self, name: &str) -> Result<Duration, ConfigError> {
        self.number(name).map(Duration::from_millis)
    }

    /// A share of the memory, or bytes; its limits were checked when it was set.
    pub(super) fn watermark(&self, name: &str) -> Result<Watermark, ConfigError> {
        match self.get(name)?.kind {
            ValueKind::Float(fraction) => Ok(Watermark::Fraction(fraction)),
            _ => self.number(name).map(Watermark::Bytes),
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let items = self.get(name)?.into_array().map_err(ConfigError::new)?;
        items.into_iter().map(|item| item.into_string().map_err(ConfigError::new)).collect()
    }

    /// An error about a key's merged value.
    pub(super) fn problem(&self, name: &str, problem: &str) -> ConfigError {
        ConfigError::new(format_args!("{}: {problem}", self.describe(name)))
    }

    /// `key = value (origin)`; secrets stay hidden.
    fn describe(&self, name: &str) -> String {
        let is_secret = keys::find(name).is_some_and(|key| key.kind == Kind::Secret);
        let Some(value) = self.value(name) else {
            return name.to_owned();
        };
        let shown = match &value.kind {
            _ if is_secret => "<hidden>".to_owned(),
            ValueKind::String(text) => quoted(text),
            ValueKind::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
                format!("[{}]", items.join(", "))
            }
            other => other.to_string(),
        };
        let origin = value.origin().unwrap_or(DEFAULT_ORIGIN);
        format!("{name} = {shown} ({origin})")
    }

    /// The description of every key that has a value.
    pub(super) fn descriptions(&self) -> BTreeMap<&'static str, String> {
        keys::KEYS
            .iter()
            .filter(|key| self.value(key.name).is_some())
            .map(|key| (key.name, self.describe(key.name)))
            .collect()
    }
}
