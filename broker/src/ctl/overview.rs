//! What goes on, on one page.

use serde_json::Value;

use super::commands::first_node;
use super::failure::Failure;
use super::terminal::Style;
use super::{Session, print, status, table};

/// Queues that are shown.
const QUEUES: usize = 10;

pub(super) fn run(session: &Session, given: &[String]) -> Result<(), Failure> {
    if !given.is_empty() {
        return Err(Failure::usage("too many arguments."));
    }
    let overview = session.get("/api/overview")?;
    let node = first_node(session)?;
    let path = format!("/api/queues?page=1&page_size={QUEUES}&pagination=true&sort=messages&sort_reverse=true");
    let queues = session.get(&path)?;
    print(&text(&overview, &node, &queues, Style::of_output(session.words.get("color"))))
}

fn text(overview: &Value, node: &Value, queues: &Value, style: Style) -> String {
    let mut out = String::new();
    let string = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let rate = |name: &str| {
        let rate = overview.pointer(&format!("/message_stats/{name}_details/rate")).and_then(Value::as_f64);
        format!("{:.1}/s", rate.unwrap_or_default())
    };
    let mut line =
        |name: &str, text: String| out.push_str(&format!("{}  {text}\n", style.bold(&format!("{name:<11}"))));
    line(
        "Warren",
        format!(
            "{} (as RabbitMQ {}), node {}, up {}",
            string(overview, "warren_version"),
            string(overview, "rabbitmq_version"),
            string(node, "name"),
            status::duration(number(node, "/uptime") / 1000),
        ),
    );
    let alarms: Vec<_> = [("mem_alarm", "memory"), ("disk_free_alarm", "disk")]
        .into_iter()
        .filter(|(field, _)| node[*field] == true)
        .map(|(_, name)| name)
        .collect();
    let alarms = if alarms.is_empty() {
        style.good("none")
    } else {
        style.bad(&format!("low on {}: publishers are blocked", alarms.join(" and ")))
    };
    line("Alarms", alarms);
    let memory = (status::bytes(number(node, "/mem_used")), status::bytes(number(node, "/mem_limit")));
    line("Memory", format!("{} used, publishers are blocked from {} on", memory.0, memory.1));
    let disk = (status::bytes(number(node, "/disk_free")), status::bytes(number(node, "/disk_free_limit")));
    line("Disk", format!("{} free, publishers are blocked below {}", disk.0, disk.1));
    let total = |name: &str| number(overview, &format!("/object_totals/{name}"));
    line(
        "Clients",
        format!(
            "{} connections, {} channels, {} consumers",
            total("connections"),
            total("channels"),
            total("consumers")
        ),
    );
    line(
        "Messages",
        format!(
            "{} ready, {} unacknowledged, in {} queues",
            number(overview, "/queue_totals/messages_ready"),
            number(overview, "/queue_totals/messages_unacknowledged"),
            total("queues"),
        ),
    );
    line(
        "Rates",
        format!("{} published, {} delivered, {} acknowledged", rate("publish"), rate("deliver_get"), rate("ack")),
    );
    let listeners = overview["listeners"].as_array().into_iter().flatten();
    let listeners: Vec<_> = listeners
        .map(|listener| {
            let address = string(listener, "ip_address");
            let address = if address.contains(':') { format!("[{address}]") } else { address };
            format!("{} on {address}:{}", string(listener, "protocol"), listener["port"])
        })
        .collect();
    line("Listeners", if listeners.is_empty() { style.bad("none") } else { listeners.join(", ") });

    let items = queues["items"].as_array().cloned().unwrap_or_default();
    if items.is_empty() {
        return out;
    }
    let columns = ["vhost", "queue", "type", "ready", "unacked", "consumers", "in", "out"];
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let of = |queue: &Value, name: &str| {
        let rate = queue.pointer(&format!("/message_stats/{name}_details/rate")).and_then(Value::as_f64);
        Value::from(format!("{:.1}/s", rate.unwrap_or_default()))
    };
    let rows: Vec<Vec<Value>> = items
        .iter()
        .map(|queue| {
            vec![
                queue["vhost"].clone(),
                queue["name"].clone(),
                queue["type"].clone(),
                queue["messages_ready"].clone(),
                queue["messages_unacknowledged"].clone(),
                queue["consumers"].clone(),
                of(queue, "publish"),
                of(queue, "deliver_get"),
            ]
        })
        .collect();
    out.push('\n');
    // For eyes in any case: scripts have list_queues.
    out.push_str(&table::aligned(&columns, &rows, true, style));
    let more = number(queues, "/filtered_count").saturating_sub(items.len() as u64);
    if more > 0 {
        out.push_str(&style.dim(&format!("and {more} more: list_queues shows all of a virtual host\n")));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_matters_is_on_it() {
        let overview = json!({
            "warren_version": "1.2.3", "rabbitmq_version": "4.3.6",
            "object_totals": {"connections": 3, "queues": 12}, "queue_totals": {"messages_ready": 7},
            "message_stats": {"publish_details": {"rate": 2.5}},
            "listeners": [{"protocol": "amqp", "ip_address": "::", "port": 5672}],
        });
        let node = json!({"name": "warren@h", "uptime": 65_000, "disk_free_alarm": true});
        let queue = json!({"vhost": "/", "name": "q", "type": "quorum", "messages_ready": 7, "consumers": 1});
        let shown = text(&overview, &node, &json!({"items": [queue], "filtered_count": 12}), Style::PLAIN);
        for part in [
            "1.2.3 (as RabbitMQ 4.3.6), node warren@h, up 1 min 5 s",
            "low on disk",
            "3 connections, 0 channels",
            "7 ready, 0 unacknowledged, in 12 queues",
            "2.5/s published",
            "amqp on [::]:5672",
            "quorum",
            "and 11 more",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}
