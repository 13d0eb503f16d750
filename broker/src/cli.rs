//! The command line as a whole: the broker's flags and the subcommands.

use clap::{Parser, Subcommand};

use crate::bench;
use crate::config::Flags;
use crate::ctl;
use crate::offline;

/// The version and, in brackets, the commit.
pub const VERSION: &str = env!("WARREN_VERSION");

/// Warren, an AMQP 0-9-1 message broker. Without a subcommand it starts the broker.
#[derive(Clone, Parser)]
#[command(name = "warren", version = VERSION, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of starting the broker.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The broker's own flags.
    #[command(flatten)]
    pub flags: Flags,
}

/// A subcommand.
#[derive(Clone, Subcommand)]
pub enum Command {
    /// Load an AMQP 0-9-1 broker and measure it; or measure the disk
    Bench(Box<bench::Options>),
    /// Ask a running broker how it is
    Ctl(ctl::Options),
    /// Make a copy of a running broker's data; starting a broker on the copy restores it
    Backup(ctl::BackupOptions),
    /// Look into a data directory that no broker runs on, without changing it
    Log(offline::Options),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_or_a_subcommand() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        let broker = parse("warren --data-dir d").ok().unwrap();
        assert!(broker.command.is_none());
        assert_eq!(broker.flags.data_dir, Some("d".into()));
        let bench = parse("warren bench --size 1024").ok().unwrap();
        let Some(Command::Bench(options)) = bench.command else {
            panic!("not bench");
        };
        assert_eq!(options.size, 1024);
        assert!(parse("warren --data-dir d bench").is_err());
        assert_eq!(parse("warren --version").err(), Some(format!("warren {VERSION}\n")));
        let commit = VERSION.strip_prefix(env!("CARGO_PKG_VERSION")).and_then(|rest| rest.strip_prefix(" ("));
        let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap();
        assert!(commit == "commit unknown" || commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{VERSION}");
    }
}
