//! `warren log`: looking into a data directory that no broker runs on, without changing it.
//!
//! # Layout
//! - `verify`: is everything as it was written
//! - `dump`: the entries of the log
//! - `names`: queue ids as the names that operators know

mod dump;
mod names;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use storage::inspect::Inspector;

/// Exit code of a verification that found damage.
const DAMAGED: u8 = 1;
/// Exit code when there is nothing to be said about the directory.
const UNREADABLE: u8 = 2;

/// `warren log`
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What `warren log` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Check every file of a data directory; exit code 0: all is well, 1: damage, 2: it cannot be read
    Verify(VerifyOptions),
    /// Print the entries of the log, one line each
    Dump(DumpOptions),
}

/// `warren log verify`
#[derive(Clone, Debug, Args)]
pub struct VerifyOptions {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Look even if a broker runs on it; its newest parts may then look damaged
    #[arg(long)]
    pub force: bool,
}

/// `warren log dump`
#[derive(Clone, Debug, Args)]
pub struct DumpOptions {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Only what concerns queues of this name
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// Only this segment: the number in its file name, in hex
    #[arg(long, value_name = "N", value_parser = segment_number)]
    pub segment: Option<u64>,
    /// With the beginning of each message's body
    #[arg(long)]
    pub bodies: bool,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Look even if a broker runs on it; its newest parts may then look damaged
    #[arg(long)]
    pub force: bool,
}

fn segment_number(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|error| error.to_string())
}

/// Runs `warren log`.
pub fn run(options: &Options) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let outcome = match &options.action {
        Action::Verify(options) => open(&options.directory, options.force)
            .and_then(|inspector| verify::run(&inspector, options, &mut out))
            .map(|clean| if clean { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) }),
        Action::Dump(options) => open(&options.directory, options.force)
            .and_then(|inspector| dump::run(&inspector, options, &mut out))
            .map(|()| ExitCode::SUCCESS),
    };
    let outcome = outcome.and_then(|code| Ok(out.flush().map(|()| code)?));
    outcome.unwrap_or_else(|error| {
        // Whoever reads only the first lines has seen enough.
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        let _ = writeln!(io::stderr(), "warren: {error:#}");
        ExitCode::from(UNREADABLE)
    })
}

fn open(directory: &std::path::Path, force: bool) -> anyhow::Result<Inspector> {
    Ok(Inspector::open(directory, force)?)
}
