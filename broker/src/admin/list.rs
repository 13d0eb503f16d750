//! Lists as clients want them: a page, some columns, an order, names that match.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::Ask;
use crate::model::pattern::Pattern;

/// RabbitMQ allows no larger pages.
const PAGE_SIZE_MAX: usize = 500;
const PAGE_SIZE: usize = 100;

/// A list, by the parameters of the request.
pub(super) fn answer(ask: &Ask, mut items: Vec<Value>) -> Answer {
    let all = items.len();
    items.iter_mut().for_each(|item| strip(ask, item));
    let mut items = filtered(ask, items)?;
    if let Some(column) = ask.query("sort") {
        items.sort_by(|a, b| compare(at(a, column), at(b, column)));
        if ask.query("sort_reverse") == Some("true") {
            items.reverse();
        }
    }
    let Some((page, size)) = page(ask)? else {
        return Ok(Reply::Value(with_columns(ask, items).into()));
    };
    let found = items.len();
    let pages = found.div_ceil(size).max(1);
    if page > pages {
        let reason = format!("Page out of range, page: {page} page size: {size}, len: {found}");
        let body = json!({"error": "page_out_of_range", "reason": reason});
        return Err(Refusal::with_body(axum::http::StatusCode::BAD_REQUEST, body));
    }
    let items: Vec<_> = items.into_iter().skip((page - 1) * size).take(size).collect();
    Ok(Reply::Value(json!({
        "filtered_count": found,
        "item_count": items.len(),
        "items": with_columns(ask, items),
        "page": page,
        "page_count": pages,
        "page_size": size,
        "total_count": all,
    })))
}

/// One object with the columns that are asked for.
pub(super) fn one(ask: &Ask, mut item: Value) -> Answer {
    strip(ask, &mut item);
    Ok(Reply::Value(match ask.query("columns") {
        Some(columns) => pick(&item, columns),
        None => item,
    }))
}

/// How many messages queues have: what `enable_queue_totals` leaves when statistics are not wanted.
const TOTALS: [&str; 3] = ["messages", "messages_ready", "messages_unacknowledged"];
/// What else tells of the moment, and not of what somebody has set up.
const FIGURES: [&str; 35] = [
    "message_stats",
    "messages_details",
    "messages_ready_details",
    "messages_unacknowledged_details",
    "consumers",
    "consumer_capacity",
    "consumer_utilisation",
    "consumer_count",
    "consumer_details",
    "memory",
    "storage_version",
    "message_bytes",
    "message_bytes_ready",
    "deliveries",
    "incoming",
    "outgoing",
    "publishes",
    "recv_cnt",
    "recv_oct",
    "recv_oct_details",
    "send_cnt",
    "send_oct",
    "send_oct_details",
    "send_pend",
    "acks_uncommitted",
    "messages_unconfirmed",
    "messages_uncommitted",
    "queue_totals",
    "churn_rates",
    "io_sync_count",
    "io_sync_avg_time",
    "io_write_count",
    "io_write_bytes",
    "fd_used",
    "sockets_used",
];

/// Takes away what `disable_stats` is about.
fn strip(ask: &Ask, item: &mut Value) {
    if ask.query("disable_stats") != Some("true") {
        return;
    }
    let Value::Object(object) = item else { return };
    FIGURES.iter().for_each(|name| {
        object.remove(*name);
    });
    if ask.query("enable_queue_totals") != Some("true") {
        TOTALS.iter().for_each(|name| {
            object.remove(*name);
        });
    }
}

fn page(ask: &Ask) -> Result<Option<(usize, usize)>, Refusal> {
    let (page, size) = (ask.query("page"), ask.query("page_size"));
    if page.is_none() && size.is_none() {
        return Ok(None);
    }
    let invalid = || {
        let shown = |given: Option<&str>| given.unwrap_or("undefined").to_owned();
        let reason = format!("Invalid pagination parameters: page number {}, page size {}", shown(page), shown(size));
        let body = json!({"error": "invalid_pagination_parameters", "reason": reason});
        Refusal::with_body(axum::http::StatusCode::BAD_REQUEST, body)
    };
    let number = |given: Option<&str>, otherwise: usize, max: usize| match given {
        None => Ok(otherwise),
        Some(text) => match text.parse::<usize>() {
            Err(_) if text.parse::<i64>().is_err() => Err(Refusal::bad_request("Pagination parameters are invalid")),
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            _ => Err(invalid()),
        },
    };
    Ok(Some((number(page, 1, usize::MAX)?, number(size, PAGE_SIZE, PAGE_SIZE_MAX)?)))
}

fn filtered(ask: &Ask, mut items: Vec<Value>) -> Result<Vec<Value>, Refusal> {
    let Some(name) = ask.query("name").filter(|name| !name.is_empty()) else {
        return Ok(items);
    };
    let named = |item: &Value| at(item, "name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if ask.query("use_regex") == Some("true") {
        let pattern = Pattern::new(name).map_err(Refusal::bad_request)?;
        items.retain(|item| pattern.is_match(&named(item)));
    } else {
        let wanted = name.to_lowercase();
        items.retain(|item| named(item).to_lowercase().contains(&wanted));
    }
    Ok(items)
}

/// A value by a dotted path.
fn at<'v>(item: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(item, |value, name| value.get(name))
}

/// Numbers before texts, and what is absent first.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let rank = |value: Option<&Value>| match value {
        None | Some(Value::Null) => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::Number(_)) => 2,
        _ => 3,
    };
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default())
        }
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn with_columns(ask: &Ask, items: Vec<Value>) -> Vec<Value> {
    match ask.query("columns") {
        Some(columns) => items.iter().map(|item| pick(item, columns)).collect(),
        None => items,
    }
}

fn pick(item: &Value, columns: &str) -> Value {
    let mut picked = Value::Object(Map::new());
    for column in columns.split(',') {
        let Some(value) = at(item, column) else { continue };
        let mut place = &mut picked;
        for name in column.split('.') {
            let Value::Object(object) = place else { break };
            place = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
        *place = value.clone();
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_place() {
        let item = json!({"name": "q", "a": {"b": 1, "c": 2}, "d": 3});
        assert_eq!(pick(&item, "name,a.b,nothing"), json!({"name": "q", "a": {"b": 1}}));
        // The second column is inside what the first one took.
        assert_eq!(pick(&item, "d,d"), json!({"d": 3}));
    }

    #[test]
    fn what_is_absent_comes_first() {
        let mut values = [Some(json!("b")), Some(json!(10)), None, Some(json!(9)), Some(json!("a"))];
        values.sort_by(|a, b| compare(a.as_ref(), b.as_ref()));
        assert_eq!(values, [None, Some(json!(9)), Some(json!(10)), Some(json!("a")), Some(json!("b"))]);
    }
}
