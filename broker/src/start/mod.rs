//! From the command line to a broker that is ready, and down again.

mod application;
mod checks;
mod declared;
mod durable;
mod log;
mod reload;
mod systemd;
mod timers;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use storage::{Lsn, OpenError, Options, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{self, ControlSocket};
use crate::auth::{self, AuthStore};
use crate::bench;
use crate::broker::{Broker, Recovery};
use crate::cli::{Cli, Command};
use crate::config::{Flags, Settings};
use crate::ctl;
use crate::model::clock::Clock;
use crate::model::log_control::LogControl;
use crate::net::listener;
use crate::offline;
use crate::prometheus;
use crate::queue::Services;
use crate::queue::signal::WakeList;
use crate::queue::stored::StoredExpiry;
use crate::tls::Tls;
use crate::vhost;
use checks::FileLimit;
use systemd::Supervisor;

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
        Some(Command::Bench(options)) => bench::run(&options.0),
        Some(Command::Ctl(options)) => return ctl::run(options.0.words),
        Some(Command::Backup(options)) => ctl::backup(&options.0),
        Some(Command::Log(options)) => return offline::run(&options.0),
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
    let log = log::start(&settings)?;
    let file_limit = checks::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, flags, log, started, &file_limit))
}

async fn serve(
    settings: Settings,
    flags: &Flags,
    log: LogControl,
    started: Instant,
    file_limit: &FileLimit,
) -> anyhow::Result<()> {
    let (failures, mut failed) = mpsc::unbounded_channel();
    let broker = open(settings, log)?;
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
    let mut hangup = signal(SignalKind::hangup())?;
    reload::offer(&broker, flags);
    let mut application = application::Serving::start(Arc::clone(&broker))?;
    let operators = operators(&broker, started)?;
    let control = match ControlSocket::serve(Arc::clone(&broker), started) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(%error, "there is no control socket: `warren ctl` and `warren backup` cannot reach this broker");
            None
        }
    };
    let addresses = application.addresses();
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
    let supervisor = Supervisor::from_env();
    supervisor.ready(&ready);
    let watchdog = tokio::spawn(supervisor.clone().watch(Arc::clone(&broker)));
    file_limit.report();
    checks::file_system(&broker.settings.storage.data_dir);
    checks::measure_sync(broker.settings.storage.data_dir.clone());

    let (reloaded, told) = (Arc::clone(&broker), supervisor.clone());
    let reloading = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let broker = Arc::clone(&reloaded);
            told.reloading();
            // It waits for the disk.
            let outcome = tokio::task::spawn_blocking(move || broker.application.reload()).await;
            if let Ok(Err(reason)) = outcome {
                tracing::error!("the configuration could not be read again, what was read before holds: {reason}");
            }
            told.reloaded();
        }
    });
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        reason = failed.recv() => Err(reason.unwrap_or_default()),
        never = application.run() => match never {},
    };
    application.close();
    drop(operators);
    watch.abort();
    seconds.abort();
    reloading.abort();
    timers.abort();
    dead_letters.abort();
    unused.abort();
    drop(expiry);
    watchdog.abort();
    supervisor.stopping(outcome.as_ref().unwrap_or(&"a failure of the store"));
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

/// What operators reach over TCP, as far as it is configured: the management API and the Prometheus endpoint.
fn operators(broker: &Arc<Broker>, started: Instant) -> anyhow::Result<JoinSet<std::io::Result<()>>> {
    let mut serving = JoinSet::new();
    let settings = &broker.settings;
    for (key, protocol, address) in [
        ("management.listen", "http", &settings.management.listen),
        ("management.tls_listen", "https", &settings.management.tls_listen),
        ("prometheus.listen", "http/prometheus", &settings.prometheus.listen),
    ] {
        let Some(address) = address else { continue };
        let listeners = listener::bind(std::slice::from_ref(address)).map_err(|(address, error)| {
            anyhow::anyhow!("cannot listen on {address}: {error} ({})", settings.describe(key))
        })?;
        for listener in listeners {
            let local = listener.local_addr()?;
            broker.application.add_listener(protocol, local);
            if protocol == "http/prometheus" {
                tracing::info!("the Prometheus endpoint listens on {local}");
                serving.spawn(prometheus::serve(Arc::clone(broker), listener, started));
            } else {
                tracing::info!("the management API listens on {protocol}://{local}");
                let tls = broker.tls.clone().filter(|_| protocol == "https");
                serving.spawn(admin::serve(Arc::clone(broker), listener, tls, started));
            }
        }
    }
    Ok(serving)
}

fn open(settings: Settings, log: LogControl) -> anyhow::Result<Arc<Broker>> {
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
    options.slow = settings.log.slow;
    let (store, found) = Store::open(options).map_err(|error| match error {
        OpenError::Io { .. } => anyhow::anyhow!("{error} ({})", settings.describe("storage.data_dir")),
        other => other.into(),
    })?;
    for line in &found.damage {
        tracing::error!("{line}");
    }
    let tls = match settings.tls.certificates.as_slice() {
        [] => None,
        _ => Some(Arc::new(Tls::load(&settings.tls)?)),
    };
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
    broker.tls = tls;
    broker.log = log;
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
    Ok(lsn.max(declared::declare(broker, &settings.topology)?))
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
