//! The configuration file: settings by section, and the topology it declares.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::arguments;
use super::entry;
use super::error::{ConfigError, quoted};
use super::keys::{self, Kind};
use super::layer::{Layer, Raw};
use super::topology::{self, Topology};

/// What one file says.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) layer: Layer,
    pub(crate) topology: Topology,
}

/// Names places of a file for people.
pub(super) struct Places {
    name: String,
    line_ends: Vec<usize>,
}

impl Places {
    fn new(name: &str, text: &str) -> Self {
        let line_ends = text.bytes().enumerate().filter_map(|(i, byte)| (byte == b'\n').then_some(i)).collect();
        Self { name: name.to_owned(), line_ends }
    }

    /// `file NAME, line N`.
    pub(super) fn at(&self, span: &Range<usize>) -> String {
        let line = self.line_ends.partition_point(|end| *end < span.start) + 1;
        format!("file {}, line {line}", self.name)
    }
}

/// Reads and checks a file.
pub(crate) fn read(path: &Path) -> Result<File, ConfigError> {
    let name = path.display().to_string();
    let bytes =
        std::fs::read(path).map_err(|error| ConfigError::new(format_args!("file {name} (flag --config): {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::new(format_args!("file {name}: not valid UTF-8")))?;
    parse(&name, &text)
}

/// Checks the text of a file; `name` is for errors.
pub(crate) fn parse(name: &str, text: &str) -> Result<File, ConfigError> {
    let places = Places::new(name, text);
    let root = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or_else(|| format!("file {name}"), |span| places.at(&span));
        ConfigError::new(format_args!("{place}: {}", error.message()))
    })?;
    let mut file = File { layer: Layer::default(), topology: Topology::default() };
    for (key, value) in root.get_ref() {
        let section = key.get_ref().as_ref();
        let place = places.at(&key.span());
        if topology::is_topology_section(section) {
            file.topology.add(section, value, &places)?;
        } else if !keys::is_section(section) {
            return Err(unknown_section(section, &place));
        } else if let DeValue::Table(table) = value.get_ref() {
            settings(&mut file.layer, section, table, &places)?;
        } else {
            return Err(ConfigError::value(
                section,
                quoted(&text[value.span()]),
                place,
                format_args!("must be a section, written [{section}]"),
            ));
        }
    }
    Ok(file)
}

fn unknown_section(section: &str, place: &str) -> ConfigError {
    let sections =
        keys::KEYS.iter().map(|key| keys::section(key.name)).chain(entry::SECTIONS.iter().map(|section| section.name));
    let nearest = keys::nearest(section, sections).unwrap_or_default();
    let form = if topology::is_topology_section(nearest) { format!("[[{nearest}]]") } else { format!("[{nearest}]") };
    ConfigError::new(format_args!("unknown section {} ({place}); did you mean {form}?", quoted(section)))
}

fn settings(layer: &mut Layer, section: &str, table: &DeTable<'_>, places: &Places) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = format!("{section}.{}", key.get_ref());
        let place = places.at(&key.span());
        let Some(known) = keys::find(&name) else {
            return Err(ConfigError::new(format_args!(
                "unknown key {} ({place}); did you mean {}?",
                quoted(&name),
                keys::nearest_key(&name)
            )));
        };
        let raw = raw(value.get_ref(), known.kind);
        layer.set(known, raw, &place)?;
    }
    Ok(())
}

fn raw(value: &DeValue<'_>, kind: Kind) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(digits) => match arguments::integer(digits) {
            Ok(value) => Raw::Integer(value),
            Err(_) => Raw::Other(digits.as_str().to_owned()),
        },
        DeValue::Array(items) if kind == Kind::List => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            match texts {
                Some(texts) => Raw::List(texts),
                None => Raw::Other("a list with other things than texts".to_owned()),
            }
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(digits) => Raw::Other(digits.as_str().to_owned()),
        DeValue::Datetime(datetime) => Raw::Other(datetime.to_string()),
        DeValue::Array(_) => Raw::Other("a list".to_owned()),
        DeValue::Table(_) => Raw::Other("a table".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("w.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_names_are_errors_with_the_nearest_known_one() {
        assert_eq!(
            error("[listeners]\n\nampq = []"),
            "unknown key \"listeners.ampq\" (file w.toml, line 3); did you mean listeners.amqp?"
        );
        assert_eq!(
            error("[storage]\nheartbeat_s = 3"),
            "unknown key \"storage.heartbeat_s\" (file w.toml, line 2); did you mean limits.heartbeat_s?"
        );
        assert_eq!(
            error("[storrage]\ndata_dir = \"x\""),
            "unknown section \"storrage\" (file w.toml, line 1); did you mean [storage]?"
        );
        assert_eq!(
            error("[[queues]]\nname = \"x\""),
            "unknown section \"queues\" (file w.toml, line 1); did you mean [[queue]]?"
        );
    }

    #[test]
    fn a_wrong_value_names_key_file_line_and_value() {
        assert_eq!(
            error("# one\n[limits]\nframe_max = \"big\""),
            "limits.frame_max = \"big\" (file w.toml, line 3): must be a whole number"
        );
        assert_eq!(
            error("[limits]\nheartbeat_s = 70000"),
            "limits.heartbeat_s = 70000 (file w.toml, line 2): must be between 0 and 65535"
        );
        assert_eq!(
            error("[limits]\nheartbeat_s = 99999999999999999999"),
            "limits.heartbeat_s = 99999999999999999999 (file w.toml, line 2): must be a whole number"
        );
        assert_eq!(
            error("[listeners]\namqp = \"x:1\""),
            "listeners.amqp = \"x:1\" (file w.toml, line 2): must be a list, such as [\"a\", \"b\"]"
        );
        assert_eq!(
            error("[listeners]\namqp = [1]"),
            "listeners.amqp = a list with other things than texts (file w.toml, line 2): must be a list of texts"
        );
        assert_eq!(
            error("listeners = 5"),
            "listeners = \"5\" (file w.toml, line 1): must be a section, written [listeners]"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let text = error("[default_user]\npassword = 4711");
        assert!(!text.contains("4711"), "{text}");
    }

    #[test]
    fn broken_toml_is_one_line_with_its_place() {
        let text = error("[log]\nlevel = \"info");
        assert!(text.starts_with("file w.toml, line 2: "), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/w.toml")).unwrap_err();
        assert!(error.to_string().starts_with("file /nonexistent/w.toml (flag --config): "), "{error}");
    }
}
