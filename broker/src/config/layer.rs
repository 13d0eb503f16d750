//! One source of settings (defaults, file, environment, flags) as the `config` crate merges it.
//! Values are checked against their key here, so that an error can name the source.

use std::fmt;

use ::config::{Map, Source, Value, ValueKind};

use super::error::{ConfigError, quoted};
use super::keys::{self, Key, Kind};
use super::units;

/// A value before it is known whether its key takes it.
#[derive(Clone)]
pub(crate) enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<String>),
    /// Something no key takes: how it reads.
    Other(String),
}

impl Raw {
    fn shown(&self, kind: Kind) -> String {
        match self {
            _ if kind == Kind::Secret => "<hidden>".to_owned(),
            Self::Text(text) => quoted(text),
            Self::Integer(value) => value.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(items) => show_list(items),
            Self::Other(shown) => shown.clone(),
        }
    }
}

fn show_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// The values one source sets, each with its origin.
#[derive(Clone, Default)]
pub(crate) struct Layer {
    values: Map<String, Value>,
}

impl Layer {
    /// The embedded defaults.
    pub(crate) fn defaults() -> Self {
        let origin = DEFAULT_ORIGIN.to_owned();
        let mut layer = Self::default();
        for key in keys::KEYS {
            let value = match key.default {
                keys::Default::Text(text) => Value::new(Some(&origin), text),
                keys::Default::Integer(value) => Value::new(Some(&origin), value),
                keys::Default::Float(value) => Value::new(Some(&origin), value),
                keys::Default::Boolean(value) => Value::new(Some(&origin), value),
                keys::Default::List(items) => Value::new(Some(&origin), items.to_vec()),
            };
            layer.values.insert(key.name.to_owned(), value);
        }
        layer
    }

    /// Sets a key from a typed source. The caller has found the key, so that it can say what an unknown one resembles.
    pub(crate) fn set(&mut self, key: &Key, raw: Raw, origin: &str) -> Result<(), ConfigError> {
        let wrong = |problem: String| ConfigError::value(key.name, raw.shown(key.kind), origin, problem);
        let kind: ValueKind = match (key.kind, &raw) {
            (Kind::Text, Raw::Text(text)) if text.is_empty() => {
                return Err(wrong("the text may not be empty".to_owned()));
            }
            (Kind::Text | Kind::OptionalText | Kind::Secret, Raw::Text(text)) => text.clone().into(),
            (Kind::Text | Kind::OptionalText | Kind::Secret, _) => {
                return Err(wrong("must be text in quotes".to_owned()));
            }
            (Kind::Integer { min, max }, Raw::Integer(value)) => {
                if !(min..=max).contains(value) {
                    return Err(wrong(format!("must be between {min} and {max}")));
                }
                (*value).into()
            }
            (Kind::Integer { .. }, _) => return Err(wrong("must be a whole number".to_owned())),
            (Kind::Bytes { min, max }, raw) => match bytes_of(raw) {
                Some(value) if (min..=max).contains(&value) => value.into(),
                Some(_) => return Err(wrong(format!("must be between {min} and {max}"))),
                None => return Err(wrong(format!("must be {BYTES}"))),
            },
            (Kind::Watermark, raw) => match (fraction_of(raw), bytes_of(raw)) {
                (Some(fraction), _) => fraction.into(),
                (_, Some(value)) if value >= 0 => value.into(),
                _ => return Err(wrong(format!("must be a fraction between 0.0 and 1.0, or {BYTES}"))),
            },
            (Kind::Boolean, Raw::Boolean(value)) => (*value).into(),
            (Kind::Boolean, Raw::Text(_)) => return Err(wrong("must be true or false, without quotes".to_owned())),
            (Kind::Boolean, _) => return Err(wrong("must be true or false".to_owned())),
            (Kind::Choice(words), Raw::Text(word)) if words.contains(&word.as_str()) => word.clone().into(),
            (Kind::Choice(words), _) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                return Err(wrong(format!("must be {}", words.join(" or "))));
            }
            (Kind::List, Raw::List(items)) => {
                if items.iter().any(String::is_empty) {
                    return Err(wrong("the list has an empty item".to_owned()));
                }
                items.clone().into()
            }
            (Kind::List, Raw::Other(_) | Raw::Boolean(_)) => {
                return Err(wrong("must be a list of texts".to_owned()));
            }
            (Kind::List, _) => {
                return Err(wrong("must be a list, such as [\"a\", \"b\"]".to_owned()));
            }
        };
        let value = Value::new(Some(&origin.to_owned()), kind);
        self.values.insert(key.name.to_owned(), value);
        Ok(())
    }

    /// Sets a key from untyped text (the environment): the key's type decides how it is read.
    pub(crate) fn set_text(&mut self, key: &Key, text: String, origin: &str) -> Result<(), ConfigError> {
        let raw = match key.kind {
            Kind::Integer { .. } => match text.trim().parse() {
                Ok(value) => Raw::Integer(value),
                Err(_) => Raw::Text(text),
            },
            Kind::Boolean => match text.trim() {
                "true" => Raw::Boolean(true),
                "false" => Raw::Boolean(false),
                _ => Raw::Other(quoted(&text)),
            },
            Kind::List => Raw::List(split_list(&text)),
            Kind::Bytes { .. } | Kind::Watermark => Raw::Text(text),
            Kind::Text | Kind::OptionalText | Kind::Secret | Kind::Choice(_) => Raw::Text(text),
        };
        self.set(key, raw, origin)
    }
}

/// Where a value comes from that nobody set.
pub(crate) const DEFAULT_ORIGIN: &str = "default";

/// What a key that takes bytes wants.
const BYTES: &str = "a number of bytes, such as 50000000 or \"2GiB\"";

fn bytes_of(raw: &Raw) -> Option<i64> {
    match raw {
        Raw::Integer(value) => Some(*value),
        Raw::Text(text) => units::bytes(text),
        _ => None,
    }
}

/// Only what is written with a point is a fraction: a whole number is one of bytes.
fn fraction_of(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Text(text) | Raw::Other(text) if text.contains('.') => {
            text.trim().parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction))
        }
        _ => None,
    }
}

fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

/// Names only: the values include passwords.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, raw: Raw) -> Result<ValueKind, String> {
        let mut layer = Layer::default();
        layer.set(keys::find(name).unwrap(), raw, "file x").map_err(|error| error.to_string())?;
        Ok(layer.values[name].kind.clone())
    }

    fn set_text(name: &str, text: &str) -> Result<ValueKind, String> {
        let mut layer = Layer::default();
        layer.set_text(keys::find(name).unwrap(), text.to_owned(), "variable X").map_err(|error| error.to_string())?;
        Ok(layer.values[name].kind.clone())
    }

    #[test]
    fn text_keys_take_text_only() {
        assert_eq!(set("default_user.password", Raw::Text("00123".into())), Ok("00123".into()));
        assert_eq!(
            set("default_user.password", Raw::Integer(123)),
            Err("default_user.password = <hidden> (file x): must be text in quotes".into())
        );
        assert_eq!(
            set("default_user.name", Raw::Text(String::new())),
            Err("default_user.name = \"\" (file x): the text may not be empty".into())
        );
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(set("limits.channel_max", Raw::Integer(0)), Ok(0_i64.into()));
        assert_eq!(
            set("limits.channel_max", Raw::Integer(65_536)),
            Err("limits.channel_max = 65536 (file x): must be between 0 and 65535".into())
        );
        assert_eq!(
            set("limits.channel_max", Raw::Text("7".into())),
            Err("limits.channel_max = \"7\" (file x): must be a whole number".into())
        );
    }

    #[test]
    fn bytes_may_have_a_unit() {
        assert_eq!(set("storage.disk_free_limit", Raw::Integer(7)), Ok(7_i64.into()));
        assert_eq!(set("storage.disk_free_limit", Raw::Text("2GiB".into())), Ok((2_i64 << 30).into()));
        assert_eq!(set_text("storage.disk_free_limit", "50 MB"), Ok(50_000_000_i64.into()));
        assert_eq!(
            set("storage.disk_free_limit", Raw::Text("much".into())),
            Err("storage.disk_free_limit = \"much\" (file x): must be a number of bytes, such as 50000000 or \"2GiB\""
                .into())
        );
        assert!(set("storage.disk_free_limit", Raw::Integer(-1)).is_err());
        assert!(set("storage.disk_free_limit", Raw::Other("0.5".into())).is_err());
    }

    #[test]
    fn a_watermark_is_a_fraction_or_bytes() {
        assert_eq!(set("memory.high_watermark", Raw::Other("0.4".into())), Ok(0.4.into()));
        assert_eq!(set_text("memory.high_watermark", "0.25"), Ok(0.25.into()));
        assert_eq!(set("memory.high_watermark", Raw::Other("1.0".into())), Ok(1.0.into()));
        assert_eq!(set("memory.high_watermark", Raw::Integer(1)), Ok(1_i64.into()));
        assert_eq!(set_text("memory.high_watermark", "512MiB"), Ok((512_i64 << 20).into()));
        for wrong in ["1.5", "-0.5", "nan.", "0.5GiB", "", "x"] {
            let expected = format!(
                "memory.high_watermark = {} (variable X): must be a fraction between 0.0 and 1.0, or a number of bytes, such as 50000000 or \"2GiB\"",
                quoted(wrong)
            );
            assert_eq!(set_text("memory.high_watermark", wrong), Err(expected));
        }
        assert!(set("memory.high_watermark", Raw::Integer(-1)).is_err());
    }

    #[test]
    fn untyped_text_is_read_by_the_type_of_its_key() {
        assert_eq!(set_text("default_user.password", "00123"), Ok("00123".into()));
        assert_eq!(set_text("limits.heartbeat_s", " 7 "), Ok(7_i64.into()));
        assert_eq!(set_text("default_user.tags", "monitoring, 007"), Ok(vec!["monitoring", "007"].into()));
        assert_eq!(set_text("default_user.tags", ""), Ok(Vec::<String>::new().into()));
        assert_eq!(
            set_text("limits.heartbeat_s", "soon"),
            Err("limits.heartbeat_s = \"soon\" (variable X): must be a whole number".into())
        );
    }

    #[test]
    fn lists_take_no_empty_item_and_no_single_value() {
        assert_eq!(
            set_text("listeners.amqp", "a:1,,b:2"),
            Err("listeners.amqp = [\"a:1\", \"\", \"b:2\"] (variable X): the list has an empty item".into())
        );
        assert!(set("listeners.amqp", Raw::Text("a:1".into())).is_err());
    }
}
