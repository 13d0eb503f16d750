//! Imports of a start: one that a crash cut off, and the file that the configuration names.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use storage::Lsn;

use super::note::Found;
use super::{Options, apply, check, parse, run};
use crate::admin::answer::Refusal;
use crate::broker::Broker;

/// As much as the API takes.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Finishes an import that was cut off, then imports the file that the configuration names. `records` are those that the store
/// had, of any kind. Gives where it is durable.
///
/// # Errors
///
/// A file that cannot be read, or with the entry of it that is wrong.
pub fn at_start(broker: &Broker, records: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<Lsn> {
    let found = Found::read(records);
    let mut file_digest = found.file_digest.clone();
    if let Some((text, options)) = &found.unfinished {
        match finish(broker, text, options) {
            Ok(()) => tracing::warn!("an import of definitions was cut off by a crash; it is finished now"),
            Err(refusal) => {
                tracing::error!(
                    "an import of definitions was cut off by a crash and cannot be finished: {}",
                    refusal.reason()
                );
            }
        }
        file_digest = options.file_digest.clone().or(file_digest);
    }
    let lsn = found.end(broker);
    let Some(path) = &broker.settings.definitions.file else {
        return Ok(lsn);
    };
    let key = broker.settings.describe("definitions.file");
    let imported = file(broker, path, file_digest.as_deref()).context(key.to_owned())?;
    Ok(imported.unwrap_or_default().max(lsn))
}

/// Clients are not served yet, so what is checked is still so when it is applied.
fn finish(broker: &Broker, text: &[u8], options: &Options) -> Result<(), Refusal> {
    let document = parse(text)?;
    let (plan, _) = check::check(broker, &document, options)?;
    apply::apply(broker, plan, options)
}

/// `None` when it was imported before and is the same.
fn file(broker: &Broker, path: &Path, imported_before: Option<&str>) -> anyhow::Result<Option<Lsn>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= FILE_MAX_BYTES, "the file has more than {FILE_MAX_BYTES} bytes");
    let settings = &broker.settings.definitions;
    // With what the outcome depends on beside the file.
    let digest = format!("{}:{}", STANDARD.encode(Sha256::digest(&text)), settings.skip_unsupported);
    if settings.skip_if_unchanged && imported_before == Some(digest.as_str()) {
        tracing::info!("definitions: {} has not changed since it was imported", path.display());
        return Ok(None);
    }
    let options =
        Options { skip_unsupported: settings.skip_unsupported, file_digest: Some(digest), ..Options::default() };
    let imported = run(broker, &text, &options).map_err(|refusal| anyhow::anyhow!(refusal.reason()))?;
    for skipped in &imported.skipped {
        tracing::warn!("definitions: {} is left out: {}", skipped.entry, skipped.reason);
    }
    tracing::info!("definitions: imported {}", path.display());
    Ok(Some(imported.lsn))
}
