//! The command line as a whole: the broker's flags and the subcommands.

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};

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
    Bench(Deferred<bench::Options>),
    /// Ask a running broker how it is
    Ctl(Deferred<ctl::Options>),
    /// Make a copy of a running broker's data; starting a broker on the copy restores it
    Backup(Deferred<ctl::BackupOptions>),
    /// Look into a data directory that no broker runs on, without changing it
    Log(Deferred<offline::Options>),
}

/// Arguments that are described only to whoever gives them: a broker that starts has no use for them.
#[derive(Clone)]
pub struct Deferred<T>(pub Box<T>);

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args_for_update)
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(|options| Self(Box::new(options)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
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
        assert_eq!(options.0.size, 1024);
        assert!(parse("warren --data-dir d bench").is_err());
        assert_eq!(parse("warren --version").err(), Some(format!("warren {VERSION}\n")));
        let commit = VERSION.strip_prefix(env!("CARGO_PKG_VERSION")).and_then(|rest| rest.strip_prefix(" ("));
        let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap();
        assert!(commit == "commit unknown" || commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{VERSION}");
    }
}
