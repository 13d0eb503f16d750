//! The command line's questions to a running broker, over its control socket: `warren ctl` with the commands of
//! `rabbitmqctl`, which it also is under that name.
//!
//! # Layout
//! - `words`: options and arguments; `failure`: exit codes; `client`: one request and its answer; `remote`: a broker elsewhere
//! - `commands`: by subject; `eval`: the Erlang expressions that client suites use
//! - `lists`: what is listed; `table`: how; `terminal`: for eyes or for a pipe
//! - `overview`, `status`, `report`: all at a glance, the status, all there is for support; `completions`: for shells

mod client;
mod commands;
mod completions;
mod eval;
mod failure;
mod lists;
mod overview;
mod remote;
mod report;
mod status;
mod table;
mod terminal;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::config::{Flags, Settings};
use client::{Client, Peer};
use failure::Failure;
use remote::Remote;
use words::Words;

/// Names under which the binary is one of RabbitMQ's tools. All of them know all commands.
const TOOLS: [&str; 3] = ["rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-queues"];

/// Which broker is asked.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Configuration file of the broker; it says where its data directory is
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Data directory of the broker [default: ./warren-data]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// `warren ctl`
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// A command of rabbitmqctl with its options; `warren ctl help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub words: Vec<String>,
}

/// `warren backup`
#[derive(Clone, Debug, Args)]
pub struct BackupOptions {
    /// Directory for the backup; it must be empty or not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Which broker is asked.
    #[command(flatten)]
    pub target: Target,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Target {
    /// The data directory, found as the broker finds it.
    fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let flags = Flags { config: self.config.clone(), data_dir: self.data_dir.clone(), ..Flags::default() };
        Ok(Settings::load(&flags, std::env::vars_os())?.storage.data_dir)
    }
}

/// What a command has: its words, and the broker.
struct Session {
    words: Words,
    client: Client,
}

impl Session {
    fn new(words: Words) -> Result<Self, Failure> {
        let peer = match words.get("uri") {
            Some(uri) => Peer::Remote(Remote::parse(uri)?),
            None => {
                let target = Target { config: words.path("config"), data_dir: words.path("data-dir") };
                Peer::Local(target.data_dir()?)
            }
        };
        // As for rabbitmqctl, "infinity" or 0 is for ever.
        let seconds = match words.get("timeout").filter(|text| *text != "infinity") {
            None => None,
            Some(text) => {
                let wrong = || Failure::usage(format!("--timeout is a number of seconds, not {text}"));
                Some(text.parse::<f64>().map_err(|_| wrong())?).filter(|seconds| *seconds > 0.0)
            }
        };
        let timeout = seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        let trusted = words.path("cacert");
        Ok(Self { words, client: Client { peer, timeout, trusted } })
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        self.client.call(Method::GET, path, None)
    }

    fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        self.client.call(method, path, Some(body))
    }

    fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.client.call(Method::DELETE, path, None)
    }

    /// Where the broker is, when that is elsewhere.
    fn host(&self) -> Option<&str> {
        match &self.client.peer {
            Peer::Local(_) => None,
            Peer::Remote(remote) => Some(&remote.host),
        }
    }

    /// What scripts do not need.
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.words.is_quiet() { Ok(()) } else { print(&format!("{text}\n")) }
    }

    /// What nobody should miss, and no script takes for output.
    fn warn(&self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(std::io::stderr(), "warren: {text}").context("standard error")?)
    }
}

/// Runs as one of RabbitMQ's tools when the binary was started under its name.
pub fn run_as_tool(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let name = PathBuf::from(arguments.next()?);
    if !TOOLS.iter().any(|tool| name.file_name().is_some_and(|name| name == *tool)) {
        return None;
    }
    Some(run(arguments.map(|word| word.to_string_lossy().into_owned()).collect()))
}

/// Runs `warren ctl`.
pub fn run(words: Vec<String>) -> ExitCode {
    match execute(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With nowhere left to complain to, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "warren: {}", failure.text.trim_end());
            ExitCode::from(failure.code)
        }
    }
}

fn execute(words: Vec<String>) -> Result<(), Failure> {
    let words = Words::parse(words)?;
    let command = words.words.first().map_or("overview", String::as_str).to_owned();
    if command == "help" || words.has("help") {
        return commands::help(words.words.iter().find(|word| *word != "help").map(String::as_str));
    }
    if command == "version" {
        return print(&format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
    let known = commands::find(&command).ok_or_else(|| commands::not_found(&command))?;
    known.run(&Session::new(words)?)
}

/// Runs `warren backup`.
///
/// # Errors
///
/// When no broker answers, or there is no backup.
pub fn backup(options: &BackupOptions) -> anyhow::Result<()> {
    // The broker has another working directory.
    let directory = std::path::absolute(&options.directory).context("the directory of the backup")?;
    let Some(text) = directory.to_str() else {
        anyhow::bail!("{}: the path is not valid UTF-8", directory.display());
    };
    let request = json!({ "directory": text });
    let data_dir = options.target.data_dir()?;
    let client = Client { peer: Peer::Local(data_dir), timeout: None, trusted: None };
    let answer = client.call(Method::POST, "/api/warren/backup", Some(&request));
    let answer = answer.map_err(|failure| anyhow::anyhow!(failure.text))?;
    let shown = if options.json {
        pretty(&answer)
    } else {
        let figure = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        format!(
            "backup in {text}: {} segments, {} large messages; {} shared with the broker, {} copied\n",
            figure("segments"),
            figure("large_files"),
            status::bytes(figure("linked_bytes")),
            status::bytes(figure("copied_bytes")),
        )
    };
    print(&shown).map_err(|failure| anyhow::anyhow!(failure.text))
}

fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(text.as_bytes()).context("standard output")?)
}

/// A data directory as errors name it.
fn named(data_dir: &Path) -> String {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf()).display().to_string()
}
