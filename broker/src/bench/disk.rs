//! How fast the raw disk syncs: what bounds a broker that confirms after fdatasync.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use serde_json::{Value, json};

use super::report::{Section, grouped, percentiles_json, percentiles_text};
use super::shared::Latencies;

const FILE_BYTES: usize = 64 * 1024 * 1024;
const BLOCK_BYTES: [usize; 3] = [4 * 1024, 64 * 1024, 1024 * 1024];
/// How long each block size is measured.
const TIME_PER_SIZE: Duration = Duration::from_secs(2);

/// The figures for one block size.
pub(super) struct DiskRate {
    pub(super) block_bytes: usize,
    pub(super) syncs_per_second: f64,
    pub(super) sync_us: Latencies,
}

/// Overwrites blocks of a file that is already on disk, as the log does with recycled segments, and syncs each.
pub(super) fn measure(directory: &Path) -> anyhow::Result<Vec<DiskRate>> {
    measure_for(directory, TIME_PER_SIZE)
}

fn measure_for(directory: &Path, time: Duration) -> anyhow::Result<Vec<DiskRate>> {
    let path = directory.join(format!("warren-bench-{}.tmp", std::process::id()));
    let rates = measure_file(&path, time).with_context(|| format!("--disk: {}", path.display()));
    // The result of the measurement matters more than that of cleaning up.
    let _ = std::fs::remove_file(&path);
    rates
}

fn measure_file(path: &Path, time: Duration) -> anyhow::Result<Vec<DiskRate>> {
    let file = File::create_new(path)?;
    let block = vec![0x5a; BLOCK_BYTES.into_iter().max().unwrap_or_default()];
    for offset in (0..FILE_BYTES).step_by(block.len()) {
        file.write_all_at(&block, offset as u64)?;
    }
    file.sync_all()?;
    let mut rates = Vec::new();
    for block_bytes in BLOCK_BYTES {
        let block = block.get(..block_bytes).unwrap_or_default();
        rates.push(measure_blocks(&file, block, time)?);
    }
    Ok(rates)
}

fn measure_blocks(file: &File, block: &[u8], time: Duration) -> anyhow::Result<DiskRate> {
    let mut sync_us = Latencies::new()?;
    let mut offset = 0;
    let start = Instant::now();
    while start.elapsed() < time || sync_us.0.is_empty() {
        let before = Instant::now();
        file.write_all_at(block, offset as u64)?;
        file.sync_data()?;
        let took = u64::try_from(before.elapsed().as_micros())?;
        sync_us.0.saturating_record(took);
        offset = (offset + block.len()) % FILE_BYTES;
    }
    Ok(DiskRate {
        block_bytes: block.len(),
        syncs_per_second: sync_us.0.len() as f64 / start.elapsed().as_secs_f64(),
        sync_us,
    })
}

/// The figures to print.
pub(super) fn section(rates: &[DiskRate]) -> Section {
    Section {
        lines: rates.iter().map(DiskRate::line).collect(),
        name: "disk",
        json: rates.iter().map(DiskRate::json).collect(),
    }
}

impl DiskRate {
    fn line(&self) -> String {
        format!(
            "disk, {} KiB blocks  {} syncs/s  {:.1} MB/s  {}",
            self.block_bytes / 1024,
            grouped(self.syncs_per_second as u64),
            self.syncs_per_second * self.block_bytes as f64 / 1e6,
            percentiles_text(&self.sync_us)
        )
    }

    fn json(&self) -> Value {
        json!({
            "block_bytes": self.block_bytes,
            "syncs_per_second": self.syncs_per_second,
            "bytes_per_second": self.syncs_per_second * self.block_bytes as f64,
            "sync_us": percentiles_json(&self.sync_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_measured_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let rates = measure_for(directory.path(), Duration::ZERO).unwrap();
        let sizes: Vec<usize> = rates.iter().map(|rate| rate.block_bytes).collect();
        assert_eq!(sizes, BLOCK_BYTES);
        assert!(rates.iter().all(|rate| rate.sync_us.0.len() == 1));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = measure_for(Path::new("/nonexistent/x"), Duration::ZERO).err().unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/x"));
    }
}
