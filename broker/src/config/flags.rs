//! The command line.

use std::path::PathBuf;

use clap::Parser;

use super::error::ConfigError;
use super::keys;
use super::layer::{Layer, Raw};

/// Warren, an AMQP 0-9-1 message broker. Without a subcommand it starts the broker.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "warren", version, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// Configuration file (TOML); without it the embedded defaults apply
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of everything that is stored [default: ./warren-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address to accept AMQP connections on, such as 127.0.0.1:5672; may be repeated; port 0 takes a free port
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,

    /// Log level (error, warn, info, debug, trace) or filter, such as info,broker::session=debug
    #[arg(long, value_name = "LEVEL|FILTER")]
    pub log: Option<String>,
}

impl Flags {
    pub(crate) fn layer(&self) -> Result<Layer, ConfigError> {
        let mut layer = Layer::default();
        let mut set = |name: &str, raw: Raw, flag: &str| match keys::find(name) {
            Some(key) => layer.set(key, raw, flag),
            None => Ok(()),
        };
        if let Some(path) = &self.data_dir {
            let Some(text) = path.to_str() else {
                return Err(ConfigError::new(format_args!("flag --data-dir {path:?}: the path is not valid UTF-8")));
            };
            set("storage.data_dir", Raw::Text(text.to_owned()), "flag --data-dir")?;
        }
        if !self.listen.is_empty() {
            set("listeners.amqp", Raw::List(self.listen.clone()), "flag --listen")?;
        }
        if let Some(level) = &self.log {
            set("log.level", Raw::Text(level.clone()), "flag --log")?;
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Flags::command().debug_assert();
    }

    #[test]
    fn flags_are_read() {
        let flags = Flags::try_parse_from([
            "warren",
            "--config",
            "a.toml",
            "--data-dir",
            "d",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "[::1]:0",
            "--log",
            "debug",
        ])
        .unwrap();
        assert_eq!(flags.config, Some("a.toml".into()));
        assert_eq!(flags.data_dir, Some("d".into()));
        assert_eq!(flags.listen, ["127.0.0.1:0", "[::1]:0"]);
        assert_eq!(flags.log.as_deref(), Some("debug"));
    }

    #[test]
    fn the_version_flag_prints_name_and_version() {
        let shown = Flags::try_parse_from(["warren", "--version"]).unwrap_err();
        assert_eq!(shown.to_string(), format!("warren {}\n", env!("CARGO_PKG_VERSION")));
    }
}
