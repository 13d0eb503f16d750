//! CPU time and memory of a process, from `/proc`.

use anyhow::Context;

/// The kernel reports CPU time in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU a process has used so far, in user and kernel mode.
pub(super) fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_cpu_seconds(&text).with_context(|| format!("{path} has an unknown form"))
}

fn parse_cpu_seconds(text: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut ticks = fields.split_ascii_whitespace().skip(11);
    let user: u64 = ticks.next()?.parse().ok()?;
    let system: u64 = ticks.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Lets the most memory of a process begin at what it has now. Without the right to, it goes on from its start.
pub(super) fn reset_rss_peak(process: &str) {
    // What proc(5) has the number 5 for.
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// The most memory a process has had resident since it started or since [`reset_rss_peak`], in bytes.
pub(super) fn rss_peak_bytes(process: &str) -> anyhow::Result<u64> {
    memory(process, "VmHWM:")
}

/// The memory a process has resident, in bytes.
pub(super) fn rss_bytes(process: &str) -> anyhow::Result<u64> {
    memory(process, "VmRSS:")
}

fn memory(process: &str, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_memory(&text, name).with_context(|| format!("{path} has an unknown form"))
}

fn parse_memory(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "12 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert_eq!(parse_cpu_seconds("12 (x) S 1"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_memory(status, "VmHWM:"), Some(2 * 1024 * 1024));
        assert_eq!(parse_memory(status, "VmRSS:"), Some(1024));
        assert_eq!(parse_memory("Name:\tx\n", "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        assert!(cpu_seconds("self").unwrap() >= 0.0);
        assert!(rss_peak_bytes("self").unwrap() > 0);
        assert!(cpu_seconds("0").is_err());
    }
}
