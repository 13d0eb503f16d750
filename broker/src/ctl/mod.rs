//! The command line's questions to a running broker, over its control socket.
//!
//! # Layout
//! - `client`: one request and its answer
//! - `status`: the status as text

mod client;
mod status;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::config::{Flags, Settings};

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
pub struct Options {
    /// Which broker is asked.
    #[command(flatten)]
    pub target: Target,
    /// What it is asked.
    #[command(subcommand)]
    pub question: Question,
}

/// What `warren ctl` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Question {
    /// Show how the broker is, and what its start found in the data directory
    Status {
        /// As JSON, with every figure there is
        #[arg(long)]
        json: bool,
    },
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

/// Runs `warren ctl`.
///
/// # Errors
///
/// When no broker answers, or it refuses.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let data_dir = options.target.data_dir()?;
    match options.question {
        Question::Status { json } => {
            let answer = client::get(&data_dir, "/api/warren/status")?;
            print(&if json { pretty(&answer) } else { status::text(&answer) })
        }
    }
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
    let answer = client::post(&options.target.data_dir()?, "/api/warren/backup", &request)?;
    if options.json {
        return print(&pretty(&answer));
    }
    let figure = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    print(&format!(
        "backup in {text}: {} segments, {} large messages; {} shared with the broker, {} copied\n",
        figure("segments"),
        figure("large_files"),
        status::bytes(figure("linked_bytes")),
        status::bytes(figure("copied_bytes")),
    ))
}

fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

/// A data directory as errors name it.
fn named(data_dir: &Path) -> String {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_path_buf()).display().to_string()
}
