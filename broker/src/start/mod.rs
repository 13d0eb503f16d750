//! From the command line to a broker that is ready, and down again.

mod declared;
mod durable;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use storage::{Lsn, OpenError, Options, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::auth::{self, AuthStore};
use crate::bench;
use crate::broker::Broker;
use crate::cli::{Cli, Command};
use crate::config::{Flags, Settings};
use crate::net::listener;
use crate::vhost;

/// How long clients have to take note when the broker stops.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs the broker, or the subcommand that was asked for: the whole of `main`. Every mistake of the person who starts it ends in one line on standard error and
/// exit code 1.
pub fn run() -> ExitCode {
    let Cli { command, flags } = Cli::parse();
    let result = match command {
        None => start(&flags),
        Some(Command::Bench(options)) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut stderr = std::io::stderr();
            // With nowhere left to complain to, the exit code still tells.
            let _ = writeln!(stderr, "warren: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> anyhow::Result<()> {
    let started = Instant::now();
    let settings = Settings::load(flags, std::env::vars_os())?;
    init_log(&settings)?;
    for key in settings.unserved() {
        tracing::warn!("{}: not available in this version; nothing listens there", settings.describe(key));
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, started))
}

async fn serve(settings: Settings, started: Instant) -> anyhow::Result<()> {
    let (failures, mut failed) = mpsc::unbounded_channel();
    let (broker, recovered) = open(settings)?;
    broker.store.on_failure(Box::new(move |reason: &str| {
        // The receiver goes only when the broker is ending anyway.
        let _ = failures.send(reason.to_owned());
    }));
    // Before the ready line: whoever reads it may stop the broker at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listeners = listener::bind(&broker.settings.listeners.amqp).map_err(|(address, error)| {
        let key = broker.settings.describe("listeners.amqp");
        anyhow::anyhow!("cannot listen on {address}: {error} ({key})")
    })?;
    let mut addresses = Vec::new();
    let mut tasks = Vec::new();
    for listener in listeners {
        addresses.push(format!("amqp://{}", listener.local_addr()?));
        tasks.push(tokio::spawn(listener::accept(Arc::clone(&broker), listener)));
    }
    let ready = format!(
        "warren {} ready in {} ms: {}; data in {}; recovered {} queues, {} messages",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        addresses.join(", "),
        broker.settings.storage.data_dir.display(),
        recovered.queues,
        recovered.messages,
    );
    // A closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "{ready}");

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        reason = failed.recv() => Err(reason.unwrap_or_default()),
    };
    for task in &tasks {
        task.abort();
    }
    let why = match outcome {
        Ok(why) => why,
        Err(reason) => anyhow::bail!("the store has failed, nothing more can be made durable: {reason}"),
    };
    tracing::info!("stopping on {why}");
    if tokio::time::timeout(STOP_TIMEOUT, broker.close_connections()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    close(&broker)
}

/// What was found at start.
struct Recovered {
    queues: usize,
    messages: u64,
}

fn open(settings: Settings) -> anyhow::Result<(Arc<Broker>, Recovered)> {
    let configured = &settings.storage;
    let mut options = Options::new(&configured.data_dir);
    options.segment_bytes = configured.segment_bytes;
    options.pool_segments = configured.pool_segments;
    options.checkpoint_interval = configured.checkpoint_interval;
    options.snapshot_bytes = configured.snapshot_bytes;
    options.sled_cache_bytes = configured.sled_cache_bytes;
    let (store, found) = Store::open(options).map_err(|error| match error {
        OpenError::Io { .. } => anyhow::anyhow!("{error} ({})", settings.describe("storage.data_dir")),
        other => other.into(),
    })?;
    for line in &found.damage {
        tracing::error!("{line}");
    }
    let stored_messages = found.queues.iter().map(|queue| queue.messages).sum();
    let recovery = vhost::recover(&store, found.topology, found.queues);
    for line in &recovery.damage {
        tracing::error!("{line}");
    }
    let pairs = recovery.other.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let auth = AuthStore::open(Arc::clone(&store) as _, &settings.auth, pairs)?;
    let broker = Broker::new(settings, store, Arc::new(auth), recovery.vhosts);
    let broker = Arc::new(broker.with_global_parameters(recovery.global_parameters));
    let recovered =
        Recovered { queues: broker.vhosts().iter().map(|vhost| vhost.queue_count()).sum(), messages: stored_messages };
    let lsn = prepare(&broker)?;
    durable::wait(&broker.store, lsn)?;
    Ok((broker, recovered))
}

/// Creates what the configuration declares and the store does not have.
fn prepare(broker: &Broker) -> anyhow::Result<Lsn> {
    let settings = &broker.settings;
    let mut lsn = Lsn(0);
    let first_start = broker.vhosts().is_empty();
    if first_start {
        lsn = lsn.max(broker.create_vhost("/"));
        lsn = lsn.max(broker.create_vhost(&settings.default_user.vhost));
    }
    for vhost in &settings.topology.vhosts {
        lsn = lsn.max(broker.create_vhost(&vhost.name));
    }
    lsn = lsn.max(auth::prepare(&broker.auth, &settings.default_user, &settings.topology, |name| {
        broker.vhost(name).is_some()
    })?);
    Ok(lsn.max(declared::declare(broker)?))
}

/// Writes down which messages had been delivered, and marks the directory as cleanly closed.
fn close(broker: &Broker) -> anyhow::Result<()> {
    let redelivered = broker
        .vhosts()
        .iter()
        .flat_map(|vhost| vhost.queues())
        .filter(|queue| queue.spec().durable)
        .map(|queue| (queue.id(), queue.redelivered()))
        .filter(|(_, ranges)| !ranges.is_empty())
        .collect();
    broker.store.close(redelivered)?;
    tracing::info!("stopped");
    Ok(())
}

fn init_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log.level)
        .map_err(|error| anyhow::anyhow!("{}: {error}", settings.describe("log.level")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init()
        .map_err(|error| one_line(&error))
}

fn one_line(error: &dyn Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// Every connection takes a file descriptor: the limit that the user may have is the one we want.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(limit = ?limit.maximum, "file descriptor limit raised"),
        Err(error) => tracing::warn!(%error, limit = ?limit.current, "the file descriptor limit stays low"),
    }
}
