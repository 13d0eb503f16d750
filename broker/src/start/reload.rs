//! SIGHUP: the configuration file and the certificates are read again.

use std::sync::Arc;

use crate::auth;
use crate::broker::Broker;
use crate::config::{Flags, Settings};

use super::{declared, durable};

/// Keys whose new value holds at once; that of any other key waits for a restart.
const LIVE: [&str; 5] =
    ["auth.loopback_users", "limits.channel_max", "log.level", "memory.high_watermark", "storage.disk_free_limit"];

/// Reads everything again. New entries of the topology are declared, the settings that can change live do; the rest is named
/// in the log. Returns one line for each setting that waits for a restart.
///
/// # Errors
///
/// What is wrong with the file or a certificate: then nothing has changed. Or the entry of the topology that conflicts with
/// what exists: those before it are declared.
pub(super) fn reload(broker: &Broker, flags: &Flags) -> anyhow::Result<Vec<String>> {
    let new = Settings::load(flags, std::env::vars_os())?;
    if let Some(tls) = &broker.tls {
        tls.reload()?;
    }
    let changed = changes(broker, &new);
    for key in &changed {
        match *key {
            "auth.loopback_users" => broker.auth.set_loopback_users(new.auth.loopback_users.clone()),
            "limits.channel_max" => broker.set_channel_max(new.limits.channel_max),
            "log.level" => broker.log.set(&new.log.level).map_err(anyhow::Error::msg)?,
            "memory.high_watermark" => broker.set_memory_watermark(new.memory.high_watermark),
            "storage.disk_free_limit" => broker.store.set_disk_free_limit(new.storage.disk_free_limit),
            _ => continue,
        }
        tracing::info!("{}: holds from now on", new.describe(key));
    }
    let mut lsn = storage::Lsn(0);
    for vhost in &new.topology.vhosts {
        lsn = lsn.max(broker.create_vhost(&vhost.name));
    }
    lsn = lsn.max(auth::prepare(&broker.auth, &new.default_user, &new.topology, |name| broker.vhost(name).is_some())?);
    lsn = lsn.max(declared::declare(broker, &new.topology)?);
    durable::wait(&broker.store, lsn)?;
    let waiting: Vec<String> = changed
        .iter()
        .filter(|key| !LIVE.contains(key))
        .map(|key| format!("{}: holds after a restart", new.describe(key)))
        .collect();
    for line in &waiting {
        tracing::warn!("{line}");
    }
    tracing::info!("the configuration was read again");
    *broker.described.lock() = new;
    Ok(waiting)
}

/// The keys that have another value than when they were read last.
fn changes(broker: &Broker, new: &Settings) -> Vec<&'static str> {
    broker.described.lock().changed_keys(new)
}

/// Lets operators ask for it, beside the signal.
pub(super) fn offer(broker: &Arc<Broker>, flags: &Flags) {
    let (weak, flags) = (Arc::downgrade(broker), flags.clone());
    broker.application.on_reload(Box::new(move || {
        let broker = weak.upgrade().ok_or_else(|| "the broker is ending".to_owned())?;
        reload(&broker, &flags).map_err(|error| format!("{error:#}"))
    }));
}
