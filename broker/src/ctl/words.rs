//! The command line taken apart: options may stand before and behind the command and its arguments, as for `rabbitmqctl`.

use std::path::PathBuf;

use super::failure::Failure;

/// Options without a value.
const FLAGS: [&str; 16] = [
    "quiet",
    "silent",
    "longnames",
    "no-table-headers",
    "help",
    "json",
    "global",
    "pre-hashed-password",
    "if-unused",
    "if-empty",
    "online",
    "offline",
    "local",
    "skip-unsupported",
    "original-address",
    "follow",
];
/// Options with one.
const VALUED: [&str; 26] = [
    "node",
    "vhost",
    "formatter",
    "timeout",
    "config",
    "data-dir",
    "priority",
    "apply-to",
    "description",
    "tags",
    "default-queue-type",
    "user",
    "protected-from-deletion",
    "limit",
    "format",
    "unit",
    "within",
    "queue-timeout",
    "uri",
    "cacert",
    "color",
    "from",
    "queue",
    "to",
    "to-queue",
    "batch",
];

/// The option of that name.
pub(super) fn option(name: &str) -> Option<&'static str> {
    FLAGS.iter().chain(&VALUED).find(|known| **known == name).copied()
}

/// Whether the option of that name has a value.
pub(super) fn has_value(name: &str) -> bool {
    VALUED.contains(&name)
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The command and its arguments.
    pub(super) words: Vec<String>,
    options: Vec<(&'static str, String)>,
}

impl Words {
    pub(super) fn parse(given: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut given = given.into_iter();
        while let Some(word) = given.next() {
            if word == "--" {
                parsed.words.extend(given);
                break;
            }
            let Some(option) = option_name(&word) else {
                parsed.words.push(word);
                continue;
            };
            let (name, inline) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            if let Some(name) = FLAGS.iter().find(|flag| **flag == name) {
                parsed.options.push((name, String::new()));
            } else if let Some(name) = VALUED.iter().find(|valued| **valued == name) {
                let missing = || Failure::usage(format!("option --{name} needs a value"));
                parsed.options.push((name, inline.or_else(|| given.next()).ok_or_else(missing)?));
            } else {
                return Err(Failure::usage(format!("unknown option {word}")));
            }
        }
        Ok(parsed)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value that was given last.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The names of all that were given.
    pub(super) fn given(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().map(|(name, _)| *name)
    }

    pub(super) fn vhost(&self) -> &str {
        self.get("vhost").unwrap_or("/")
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.has("quiet") || self.has("silent")
    }
}

/// The long name of an option; `None` for what is none, such as a negative number.
fn option_name(word: &str) -> Option<&str> {
    match word {
        "-n" => Some("node"),
        "-p" => Some("vhost"),
        "-q" => Some("quiet"),
        "-s" => Some("silent"),
        "-t" => Some("timeout"),
        "-l" => Some("longnames"),
        "-h" | "-?" => Some("help"),
        _ => word.strip_prefix("--"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Words, Failure> {
        Words::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_stand_anywhere() {
        let words = parse("-n node list_queues -p v --formatter=json name -q").unwrap();
        assert_eq!(words.words, ["list_queues", "name"]);
        assert_eq!((words.vhost(), words.get("formatter"), words.is_quiet()), ("v", Some("json"), true));
        assert_eq!(parse("a -- -p --x").unwrap().words, ["a", "-p", "--x"]);
        assert_eq!(parse("a -1").unwrap().words, ["a", "-1"]);
    }

    #[test]
    fn an_unknown_option_is_a_mistake() {
        assert_eq!(parse("list_queues --nonsense").unwrap_err().code, 64);
        assert_eq!(parse("list_queues -p").unwrap_err().code, 64);
    }
}
