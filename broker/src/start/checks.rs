//! What an operator should know about the machine before it hurts: file descriptors, the file system, the disk's syncs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::statfs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Magic numbers of file systems that lose data, or promise more than they keep.
const DOUBTFUL: [(u64, &str, &str); 8] = [
    (0x0102_1994, "tmpfs", IN_MEMORY),
    (0x8584_58f6, "ramfs", IN_MEMORY),
    (0x794c_7630, "overlay", "it goes when the container is removed; use a volume"),
    (0x6969, "NFS", NETWORK),
    (0x517b, "SMB", NETWORK),
    (0xff53_4d42, "CIFS", NETWORK),
    (0xfe53_4d42, "SMB2", NETWORK),
    (0x6573_5546, "FUSE", "what a sync means there, and how fast it is, depends on what is behind it"),
];
const IN_MEMORY: &str = "nothing in it survives a restart of the machine";
const NETWORK: &str = "locks and syncs over a network are slow, and not as sure as on a disk";
/// No disk that keeps what it was told writes faster.
const TOO_FAST: Duration = Duration::from_micros(20);
/// Confirms wait at least that long.
const TOO_SLOW: Duration = Duration::from_millis(20);
const SYNCS: u64 = 9;
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// Where the syncs are measured.
const FILE: &str = "sync-check.tmp";

/// The limit of open files, before and after it was raised.
pub(super) struct FileLimit {
    before: Option<u64>,
    raised: rustix::io::Result<Option<u64>>,
}

/// Every connection takes a file descriptor: the limit that the user may have is the one we want.
pub(super) fn raise_file_limit() -> FileLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = if current == maximum {
        Ok(current)
    } else {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map(|()| maximum)
    };
    FileLimit { before: current, raised }
}

impl FileLimit {
    /// Says it in the log. Not before the broker is ready: a start that is refused says why and nothing else.
    pub(super) fn report(&self) {
        let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        let before = shown(self.before);
        match self.raised {
            Ok(limit) if limit == self.before => tracing::info!("file descriptors: limit {before}"),
            Ok(limit) => tracing::info!("file descriptors: limit raised from {before} to {}", shown(limit)),
            Err(error) => tracing::warn!(%error, "file descriptors: the limit stays at {before}"),
        }
    }
}

/// Warns of a file system that is no place for a data directory.
pub(super) fn file_system(data_dir: &Path) {
    match statfs(data_dir) {
        Ok(found) => {
            // Of another width and sign on other machines; the numbers have 32 bits.
            if let Some((name, why)) = doubtful(found.f_type as u64) {
                let directory = data_dir.display();
                tracing::warn!("the data directory {directory} is on a {name} file system: {why}");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot tell which file system the data directory is on"),
    }
}

fn doubtful(magic: u64) -> Option<(&'static str, &'static str)> {
    let magic = magic & 0xffff_ffff;
    DOUBTFUL.iter().find(|(number, ..)| *number == magic).map(|&(_, name, why)| (name, why))
}

/// Measures on a thread of its own how long a sync takes, and warns when that is strange.
pub(super) fn measure_sync(data_dir: PathBuf) {
    let measure = move || match median_sync(&data_dir) {
        Ok(took) => match strange(took) {
            Some(why) => tracing::warn!("an fdatasync in {} takes {} us: {why}", data_dir.display(), took.as_micros()),
            None => tracing::debug!("an fdatasync takes {} us", took.as_micros()),
        },
        Err(error) => tracing::warn!(%error, "cannot measure the syncs of {}", data_dir.display()),
    };
    if let Err(error) = std::thread::Builder::new().name("warren-checks".to_owned()).spawn(measure) {
        tracing::warn!(%error, "cannot start the thread that measures the disk");
    }
}

/// The median of some syncs of 4 KiB in a file that has its blocks.
fn median_sync(data_dir: &Path) -> io::Result<Duration> {
    let path = data_dir.join(FILE);
    let file = File::create(&path)?;
    let times = time_syncs(&file);
    fs::remove_file(&path)?;
    let mut times = times?;
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

fn time_syncs(file: &File) -> io::Result<Vec<Duration>> {
    let offset = |number: u64| number * BLOCK.len() as u64;
    for number in 0..SYNCS {
        file.write_all_at(&BLOCK, offset(number))?;
    }
    file.sync_all()?;
    (0..SYNCS)
        .map(|number| {
            let started = Instant::now();
            file.write_all_at(&BLOCK, offset(number))?;
            file.sync_data()?;
            Ok(started.elapsed())
        })
        .collect()
}

fn strange(took: Duration) -> Option<&'static str> {
    if took < TOO_FAST {
        Some("too fast to be true; what was confirmed may not survive a power loss")
    } else if took > TOO_SLOW {
        Some("slow; every confirm waits for at least one")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_known_by_their_numbers() {
        assert_eq!(doubtful(0x0102_1994), Some(("tmpfs", IN_MEMORY)));
        // Sign-extended, as a 32-bit machine may give it.
        assert_eq!(doubtful(0xffff_ffff_fe53_4d42), Some(("SMB2", NETWORK)));
        // ext4, xfs, btrfs.
        assert_eq!([0xef53, 0x5846_5342, 0x9123_683e].map(doubtful), [None; 3]);
    }

    #[test]
    fn what_is_neither_fast_nor_slow_is_not_strange() {
        assert!(strange(Duration::from_micros(3)).is_some_and(|why| why.contains("too fast")));
        assert!(strange(Duration::from_millis(25)).is_some_and(|why| why.contains("slow")));
        assert_eq!(strange(Duration::from_micros(20)), None);
        assert_eq!(strange(Duration::from_millis(20)), None);
    }

    #[test]
    fn a_measurement_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "left by a crash").unwrap();
        assert!(median_sync(dir.path()).unwrap() > Duration::ZERO);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(median_sync(&dir.path().join("missing")).is_err());
    }
}
