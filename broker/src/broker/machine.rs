//! What the kernel says about memory: how much there is for us, and how much of it we have.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::thread;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Memory that this process may use, in octets: the machine's, or the limit of its control group when that is lower.
pub(super) fn total_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // Where the kernel does not say, no fraction of it is ever reached.
    let machine = machine_memory(&info).unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_limit(&groups, Path::new(CGROUPS)).map_or(machine, |limit| limit.min(machine))
}

fn machine_memory(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of the groups that `groups` (the text of /proc/self/cgroup) names, and of those around them.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of(line, root)).min()
}

fn limit_of(line: &str, root: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (mount, file) = match controllers {
        "" => (root.to_path_buf(), "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    // Inside a container the path may be the host's: what is not there is passed over, and the mount itself remains.
    let group = mount.join(path.trim_start_matches('/'));
    let around = group.ancestors().take_while(|directory| directory.starts_with(&mount)).map(PathBuf::from);
    // A group without a limit says "max", or a number that no machine has.
    around.filter_map(|directory| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()).min()
}

/// Octets of this process that are in memory; `None` where the kernel does not say.
pub(super) fn resident_memory() -> Option<usize> {
    resident(&fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size())
}

/// Has the allocator give memory back that nobody uses. It does so for all threads when one of them ends, and only with
/// what has been free for a second; in a process that has become quiet that would never happen.
pub(super) fn trim_memory() {
    let trim = thread::Builder::new().name("warren-trim".to_owned());
    // Only a thread that has allocated something counts. Nobody waits for it: its effect is seen at the next look.
    if let Err(error) = trim.spawn(|| drop(black_box(Box::new([0_u8; 64])))) {
        tracing::debug!(%error, "cannot start a thread to trim memory");
    }
}

fn resident(statm: &str, page_bytes: usize) -> Option<usize> {
    statm.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_and_we_have_some_of_it() {
        let resident = resident_memory().unwrap() as u64;
        assert!(resident > 0 && resident < total_memory());
    }

    #[test]
    fn the_machine_counts_in_kibibytes() {
        assert_eq!(machine_memory("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(machine_memory("MemTotal: much\n"), None);
    }

    #[test]
    fn resident_pages_are_the_second_field() {
        assert_eq!(resident("100 25 3 4 0 6 0\n", 4096), Some(25 * 4096));
        assert_eq!(resident("", 4096), None);
        assert_eq!(resident("1 x", 4096), None);
    }

    #[test]
    fn the_lowest_limit_of_the_groups_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(group_limit("0::/outer/inner\n", root.path()), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit("0::/outer/inner\n", root.path()), None);
        fs::write(root.path().join("outer/memory.max"), "3000\n").unwrap();
        assert_eq!(group_limit("0::/outer/inner\n", root.path()), Some(3000));
        fs::write(root.path().join("memory.max"), "2000\n").unwrap();
        assert_eq!(group_limit("0::/outer/inner\n", root.path()), Some(2000));
        assert_eq!(group_limit("0::/host/path\n", root.path()), Some(2000), "a path of the host");
    }

    #[test]
    fn the_older_hierarchy_is_read_too() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("memory/a");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "9000\n").unwrap();
        let groups = "5:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/a\n";
        assert_eq!(group_limit(groups, root.path()), Some(9000));
        assert_eq!(group_limit("5:cpu:/a\n", root.path()), None);
    }
}
