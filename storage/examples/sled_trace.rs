//! What `tests/store/sled_trace/record` traces: a store that goes through checkpoints, snapshots and restarts, with a file
//! of marks that say what was asked for and what was promised. `sled_trace <directory>`; the directory must be new.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use storage::{Durable, Meta, Options, Payload, Place, SeqRange, Store, TopologyChange};

const STARTS: u64 = 6;
const STEPS: u64 = 25;
const QUEUES: u64 = 3;

struct Body(Bytes, Place);

impl Payload for Body {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn place(&self) -> &Place {
        &self.1
    }
}

struct Told(mpsc::SyncSender<()>);

impl Durable for Told {
    fn durable(&self) {
        let _ = self.0.try_send(());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("a directory, please")?);
    std::fs::create_dir_all(&dir)?;
    let mut marks = File::create(dir.join("marks"))?;
    // One write each.
    let mut mark = |text: String| marks.write_all(text.as_bytes());
    let mut options = Options::new(dir.join("data"));
    options.segment_bytes = 64 * 1024;
    options.snapshot_bytes = 48 * 1024;
    options.pool_segments = 1;
    options.checkpoint_interval = Duration::from_micros(100);
    let (mut put, mut settled) = (0, 0);
    for start in 0..STARTS {
        let (store, recovered) = Store::open(options.clone())?;
        // Unclean stops leave gaps; the same numbers in all queues keep the marks simple.
        put = recovered.queues.iter().map(|queue| queue.next_seq - 1).fold(put, u64::max);
        for step in 0..STEPS {
            let first = put + 1;
            put += 1 + step % 5;
            mark(format!("asked {first} {put} {settled}"))?;
            for seq in first..=put {
                for queue in 1..=QUEUES {
                    let len = 40 + (seq * 97 % 900) as usize;
                    let body = Body(vec![seq as u8; len].into(), Place::default());
                    store.enqueue(queue, seq, Meta::default(), Arc::new(body));
                }
            }
            if step % 3 == 2 {
                settled = put.saturating_sub(20 + step);
                mark(format!("asked {} {put} {settled}", put + 1))?;
                for queue in 1..=QUEUES {
                    store.settle(queue, SeqRange { first: 0, last: settled });
                }
                let value = settled.to_le_bytes().to_vec();
                store.change_topology(vec![TopologyChange::Put { key: b"settled".to_vec(), value }]);
            }
            // Enough for sled to use its segments again; packed, it takes up nothing.
            let key = format!("filler/{}", step % 4).into_bytes();
            let last = store.change_topology(vec![TopologyChange::Put { key, value: vec![step as u8; 40_000] }]);
            let (sender, receiver) = mpsc::sync_channel(1);
            store.notify_at(last, Arc::new(Told(sender)));
            receiver.recv()?;
            mark(format!("promised {put} {settled}"))?;
        }
        if start % 2 == 1 {
            store.close(Vec::new())?;
        }
    }
    Ok(())
}
