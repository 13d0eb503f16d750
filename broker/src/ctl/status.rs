//! The status for people.

use std::fmt::Write;

use serde_json::Value;

/// Lines of a name and what there is to say. What an older or newer broker does not tell is left out.
pub(super) fn text(status: &Value) -> String {
    let mut out = String::new();
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64);
    let string = |path: &str| status.pointer(path).and_then(Value::as_str);
    let mut line = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            // Writing to a text does not fail.
            let _ = writeln!(out, "{name:<12} {text}");
        }
    };
    line("version", string("/version").map(str::to_owned));
    line("node", string("/node").map(|node| format!("{node}, pid {}", number("/pid").unwrap_or_default())));
    line("uptime", number("/uptime_s").map(duration));
    line("data", string("/data_dir").map(str::to_owned));
    let disk = number("/disk/free_bytes").zip(number("/disk/total_bytes"));
    line("disk", disk.map(|(free, total)| format!("{} free of {}", bytes(free), bytes(total))));
    line("connections", number("/connections").map(|count| count.to_string()));
    line(
        "queues",
        number("/queues").zip(number("/vhosts")).map(|(queues, vhosts)| format!("{queues} in {vhosts} vhosts")),
    );
    let alarms = string("/alarms");
    line("alarms", alarms.map(|reason| if reason.is_empty() { "none".to_owned() } else { reason.to_owned() }));
    let log = number("/store/segments").zip(number("/store/free_segments"));
    line("log", log.map(|(segments, free)| format!("{segments} segments, {free} free ones")));
    line("pending", number("/store/pending_bytes").map(bytes));
    let sync = number("/store/sync_us/p50").zip(number("/store/sync_us/p99"));
    line("sync", sync.map(|(p50, p99)| format!("half below {p50} us, 99% below {p99} us")));
    let recovered = number("/recovery/messages").zip(number("/recovery/queues"));
    let clean = status.pointer("/recovery/clean").and_then(Value::as_bool).unwrap_or_default();
    let after = if clean { "a clean stop" } else { "an unclean stop" };
    line(
        "recovery",
        recovered.map(|(messages, queues)| format!("{messages} messages in {queues} queues, after {after}")),
    );
    let damage = status.pointer("/recovery/damage").and_then(Value::as_array);
    if let Some(damage) = damage {
        line("damage", damage.is_empty().then(|| "none".to_owned()));
        for found in damage.iter().filter_map(Value::as_str) {
            line("damage", Some(found.to_owned()));
        }
    }
    out
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A number of bytes in the unit that suits it.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_get_units() {
        let shown: Vec<_> = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB", "16384.0 PiB"]);
        let shown: Vec<_> = [5, 65, 3700, 90_000].map(duration).into();
        assert_eq!(shown, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn what_is_there_is_shown() {
        let damage = json!({"messages": 3, "queues": 2, "clean": false, "damage": ["segment 1 is gone", "more"]});
        let shown = text(&json!({"version": "1.2.3", "recovery": damage}));
        let expected = "version      1.2.3\n\
                        recovery     3 messages in 2 queues, after an unclean stop\n\
                        damage       segment 1 is gone\n\
                        damage       more\n";
        assert_eq!(shown, expected);
        assert_eq!(text(&json!({"recovery": {"damage": []}})), "damage       none\n");
        assert_eq!(text(&Value::Null), "");
    }
}
