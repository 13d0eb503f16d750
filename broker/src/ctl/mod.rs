//! The command line's questions to a running broker, over its control socket: `warren ctl` with the commands of
//! `rabbitmqctl`, which it also is under that name.
//!
//! # Layout
//! - `words`: options and arguments; `failure`: exit codes; `client`: one request and its answer
//! - `commands`: what changes something; `eval`: the Erlang expressions that client suites use
//! - `lists`: what is listed; `table`: how; `status`: the status as text

mod client;
mod commands;
mod eval;
mod failure;
mod lists;
mod status;
mod table;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::config::{Flags, Settings};
use failure::Failure;
use words::Words;

/// The name under which the binary is a `rabbitmqctl`.
const RABBITMQCTL: &str = "rabbitmqctl";

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
    data_dir: PathBuf,
}

impl Session {
    fn get(&self, path: &str) -> Result<Value, Failure> {
        client::get(&self.data_dir, path)
    }

    fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        client::call(&self.data_dir, method, path, Some(body))
    }

    fn delete(&self, path: &str) -> Result<Value, Failure> {
        client::call(&self.data_dir, Method::DELETE, path, None)
    }

    /// What scripts do not need.
    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.words.is_quiet() { Ok(()) } else { print(&format!("{text}\n")) }
    }
}

/// Runs as `rabbitmqctl` when the binary was started under that name.
pub fn run_as_rabbitmqctl(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter();
    let name = PathBuf::from(arguments.next()?);
    if name.file_name()? != RABBITMQCTL {
        return None;
    }
    Some(run(arguments.map(|word| word.to_string_lossy().into_owned()).collect()))
}

/// Runs `warren ctl`.
pub fn run(words: Vec<String>) -> ExitCode {
    match execute(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            // With nowhere left to complain to, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "warren: {}", text.trim_end());
            ExitCode::from(code)
        }
    }
}

fn execute(words: Vec<String>) -> Result<(), Failure> {
    let words = Words::parse(words)?;
    let command = words.words.first().map_or("status", String::as_str).to_owned();
    if command == "help" || words.has("help") {
        return commands::help(words.words.iter().find(|word| *word != "help").map(String::as_str));
    }
    if command == "version" {
        return print(&format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
    if !commands::is_known(&command) {
        return Err(Failure::usage(format!("Command '{command}' not found; `help` lists the commands")));
    }
    let target = Target { config: words.path("config"), data_dir: words.path("data-dir") };
    let session = Session { data_dir: target.data_dir()?, words };
    if command == "status" {
        return show_status(&session);
    }
    match lists::find(&command) {
        Some(list) => lists::run(&session, list),
        None => commands::run(&session, &command),
    }
}

fn show_status(session: &Session) -> Result<(), Failure> {
    let answer = session.get("/api/warren/status")?;
    let as_json = session.words.has("json") || session.words.get("formatter") == Some("json");
    print(&if as_json { pretty(&answer) } else { status::text(&answer) })
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
    let answer = client::call(&data_dir, Method::POST, "/api/warren/backup", Some(&request));
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
