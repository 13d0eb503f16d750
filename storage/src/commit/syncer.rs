//! The sync thread: writes a group, syncs it, tells the index, then everybody who waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use crate::core::Core;
use crate::stats::GroupDone;

use super::{Group, Spare};

/// Memory of the index that is not worth a checkpoint before its time, however little it may have.
const COLUMNS_MIN: usize = 1024 * 1024;

/// Runs until the encoder is gone or the store stops.
pub(crate) fn run(core: &Arc<Core>, groups: &Receiver<Group>, spares: &Sender<Spare>) -> Result<(), String> {
    while let Ok(group) = groups.recv() {
        // Once the store has stopped nobody is told of it any more. And if this very thread stopped it, in a callback, the
        // directory may already belong to another store.
        if core.is_stopping() {
            break;
        }
        commit(core, group, spares)?;
    }
    Ok(())
}

fn commit(core: &Arc<Core>, mut group: Group, spares: &Sender<Spare>) -> Result<(), String> {
    if group.buf.is_empty() {
        core.sync_busy.store(false, Ordering::SeqCst);
        core.encoder.wake();
        core.pending.settle_bytes(group.taken);
        core.landed.publish(group.landed);
        return Ok(());
    }
    let started = Instant::now();
    let name = group.segment.id;
    // The segment has its blocks, so only a file system that never writes in place can be full here. Then the same bytes are
    // written to the same place again: the group has not been synced, so nobody has seen any of it. Other errors are final.
    let what = format_args!("writing segment {name:016x} of the log");
    if core.insist(&what, || group.segment.file.write_all_at(&group.buf, group.offset))?.is_none() {
        return Ok(());
    }
    let written = Instant::now();
    // Never tried again: after a failed fdatasync the kernel may have dropped the pages and would report success.
    group.segment.file.sync_data().map_err(|error| format!("syncing segment {name:016x} of the log: {error}"))?;
    core.synced.store(group.last_lsn, Ordering::Release);
    core.sync_busy.store(false, Ordering::SeqCst);
    core.encoder.wake();
    let ended = Instant::now();
    core.slow.sync.note(ended - written, format_args!("an fdatasync of the log, after {} bytes", group.buf.len()));
    core.stats.group(&GroupDone {
        bytes: group.buf.len() as u64,
        entries: group.ops.len() as u64,
        write: written - started,
        sync: ended - written,
    });

    let (dirty, swollen, deadline) = {
        let mut index = core.index.lock();
        index.apply_group(group.ops.drain(..), group.last_lsn, group.end);
        // What is large without growing gains nothing by another checkpoint.
        let max = core.columns_max().max(COLUMNS_MIN);
        let swollen = index.cache.resident > max && index.cache.grown > max / 2;
        (index.is_dirty(), swollen, index.timers.tell_earlier())
    };
    core.pending.settle_bytes(group.taken);
    core.landed.publish(group.landed);
    core.waiters.publish(group.durable);
    if let Some(since) = group.since {
        let took = since.elapsed();
        core.stats.commit(took);
        core.slow.commit.note(took, format_args!("from the first append of a group to its being durable"));
    }
    if dirty {
        core.schedule.dirty();
    }
    if swollen {
        core.schedule.swollen();
    }
    if let Some(deadline) = deadline {
        let handler = core.deadline_handler.lock().clone();
        if let Some(handler) = handler {
            handler(deadline);
        }
    }
    // The encoder may be gone already.
    let _ = spares.send(Spare { buf: group.buf, ops: group.ops });
    Ok(())
}
