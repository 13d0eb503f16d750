//! From the command line to a broker that is ready, and down again.

mod application;
mod checks;
mod declared;
mod durable;
mod timers;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use storage::{Lsn, OpenError, Options, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::admin::{self, ControlSocket};
use crate::auth::{self, AuthStore};
use crate::bench;
use crate::broker::{Broker, Recovery};
use crate::cli::{Cli, Command};
use crate::config::{Flags, Settings};
use crate::ctl;
use crate::model::clock::Clock;
use crate::net::listener;
use crate::offline;
use crate::queue::Services;
use crate::queue::signal::WakeList;
use crate::queue::stored::StoredExpiry;
use crate::vhost;
use checks::FileLimit;

/// How long clients have to take note when the broker stops.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs the broker, or the subcommand that was asked for: the whole of `main`. Every mistake of the person who starts it ends in one line on standard error and
/// exit code 1.
pub fn run() -> ExitCode {
    if let Some(code) = ctl::run_as_tool(std::env::args_os()) {
        return code;
    }
    let Cli { command, flags } = Cli::parse();
    let result = match command {
        None => start(&flags),
        Some(Command::Bench(options)) => bench::run(&options),
        Some(Command::Ctl(options)) => return ctl::run(options.words),
        Some(Command::Backup(options)) => ctl::backup(&options),
        Some(Command::Log(options)) => return offline::run(&options),
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
    let file_limit = checks::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, started, &file_limit))
}

async fn serve(settings: Settings, started: Instant, file_limit: &FileLimit) -> anyhow::Result<()> {
    let (failures, mut failed) = mpsc::unbounded_channel();
    let broker = open(settings)?;
    broker.store.on_failure(Box::new(move |reason: &str| {
        // The receiver goes only when the broker is ending anyway.
        let _ = failures.send(reason.to_owned());
    }));
    broker.check_memory();
    broker.watch_disk();
    let services = &broker.services;
    let expiry = StoredExpiry::start(
        Arc::clone(&broker.store) as _,
        Arc::clone(&services.directory),
        Arc::clone(&services.timers),
    );
    // Before the ready line: whoever reads it may stop the broker at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut application = application::Serving::start(Arc::clone(&broker))?;
    let management = management(&broker, started)?;
    let control = match ControlSocket::serve(Arc::clone(&broker), started) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(%error, "there is no control socket: `warren ctl` and `warren backup` cannot reach this broker");
            None
        }
    };
    let addresses: Vec<String> = application.addresses().iter().map(|address| format!("amqp://{address}")).collect();
    let timers = tokio::spawn(timers::run(Arc::clone(&broker.services.timers)));
    let moving = Arc::clone(&broker);
    let dead_letters = tokio::spawn(async move { moving.watch_dead_letters().await });
    let deleting = Arc::clone(&broker);
    let unused = tokio::spawn(async move { deleting.watch_unused().await });
    let watched = Arc::clone(&broker);
    let watch = tokio::spawn(async move { watched.watch_memory().await });
    let counted = Arc::clone(&broker);
    let seconds = tokio::spawn(async move { counted.count_seconds().await });
    let ready = format!(
        "warren {} ready in {} ms: {}; data in {}; recovered {} queues, {} messages",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis(),
        addresses.join(", "),
        broker.settings.storage.data_dir.display(),
        broker.recovery.queues,
        broker.recovery.messages,
    );
    // A closed standard output is no reason not to serve.
    let _ = writeln!(std::io::stdout(), "{ready}");
    file_limit.report();
    checks::file_system(&broker.settings.storage.data_dir);
    checks::measure_sync(broker.settings.storage.data_dir.clone());

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        reason = failed.recv() => Err(reason.unwrap_or_default()),
        never = application.run() => match never {},
    };
    application.close();
    if let Some(management) = management {
        management.abort();
    }
    watch.abort();
    seconds.abort();
    timers.abort();
    dead_letters.abort();
    unused.abort();
    drop(expiry);
    if let Ok(why) = outcome {
        tracing::info!("stopping on {why}");
        if tokio::time::timeout(STOP_TIMEOUT, broker.close_connections()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
    if let Some(control) = control {
        control.close().await;
    }
    match outcome {
        Ok(_) => close(&broker),
        Err(reason) => anyhow::bail!("the store has failed, nothing more can be made durable: {reason}"),
    }
}

/// The management API on TCP, if it is configured.
fn management(broker: &Arc<Broker>, started: Instant) -> anyhow::Result<Option<JoinHandle<std::io::Result<()>>>> {
    let Some(address) = &broker.settings.management.listen else {
        return Ok(None);
    };
    let listeners = listener::bind(std::slice::from_ref(address)).map_err(|(address, error)| {
        let key = broker.settings.describe("management.listen");
        anyhow::anyhow!("cannot listen on {address}: {error} ({key})")
    })?;
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        let local = listener.local_addr()?;
        tracing::info!("the management API listens on {local}");
        broker.application.add_listener("http", local);
        serving.spawn(admin::serve(Arc::clone(broker), listener, started));
    }
    // Aborting this task drops the set, which aborts the others.
    Ok(Some(tokio::spawn(async move {
        while let Some(ended) = serving.join_next().await {
            ended.map_err(std::io::Error::other)??;
        }
        Ok(())
    })))
}

fn open(settings: Settings) -> anyhow::Result<Arc<Broker>> {
    let configured = &settings.storage;
    let mut options = Options::new(&configured.data_dir);
    options.segment_bytes = configured.segment_bytes;
    options.pool_segments = configured.pool_segments;
    options.checkpoint_interval = configured.checkpoint_interval;
    options.snapshot_bytes = configured.snapshot_bytes;
    options.sled_cache_bytes = configured.sled_cache_bytes;
    options.disk_free_limit = configured.disk_free_limit;
    options.reserve_segments = configured.reserve_segments;
    options.index_cache_bytes = configured.index_cache_bytes;
    let (store, found) = Store::open(options).map_err(|error| match error {
        OpenError::Io { .. } => anyhow::anyhow!("{error} ({})", settings.describe("storage.data_dir")),
        other => other.into(),
    })?;
    for line in &found.damage {
        tracing::error!("{line}");
    }
    let stored: Vec<_> = found.queues.iter().map(|queue| (queue.id, queue.messages)).collect();
    let services = Services::new(Arc::clone(&store), Clock::system());
    let recovery = vhost::recover(&services, found.topology, found.queues);
    // Keys of messages are none.
    let windows: Vec<_> = recovery.vhosts.iter().flat_map(|vhost| vhost.window_ids()).collect();
    let losses = vhost::name_losses(&recovery.vhosts, &found.lost);
    for line in losses.iter().chain(&recovery.damage) {
        tracing::error!("{line}");
    }
    let pairs = recovery.other.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let auth = AuthStore::open(Arc::clone(&store) as _, &settings.auth, pairs)?;
    let broker = Broker::new(settings, services, Arc::new(auth), recovery.vhosts);
    let mut broker = broker.with_global_parameters(recovery.global_parameters);
    broker.recovery = Recovery {
        clean: found.clean,
        queues: broker.vhosts().iter().map(|vhost| vhost.queue_count()).sum(),
        messages: stored.iter().filter(|(id, _)| !windows.contains(id)).map(|(_, messages)| messages).sum(),
        replayed_entries: found.replayed_entries,
        damage: [found.damage, losses, recovery.damage].concat(),
    };
    let lsn = prepare(&broker, &recovery.other)?;
    durable::wait(&broker.store, lsn)?;
    Ok(Arc::new(broker))
}

/// Creates what the configuration declares and the store does not have.
fn prepare(broker: &Broker, records: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<Lsn> {
    let settings = &broker.settings;
    // What the definitions bring is there before the defaults, which are for a broker that has nothing else.
    let mut lsn = admin::definitions_at_start(broker, records)?;
    if broker.vhosts().is_empty() {
        lsn = lsn.max(broker.create_vhost("/"));
    }
    if broker.auth.is_empty() {
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

/// Moves the dead letters that wait, writes down which messages had been delivered, and marks the directory as cleanly closed.
fn close(broker: &Broker) -> anyhow::Result<()> {
    while broker.services.dead_letters.is_waiting() {
        broker.move_dead_letters(&mut WakeList::default());
    }
    let redelivered = broker
        .vhosts()
        .iter()
        .flat_map(|vhost| vhost.queues())
        .filter(|queue| queue.spec().durable)
        .flat_map(|queue| queue.redelivered())
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
