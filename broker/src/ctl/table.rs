//! Rows as text: tables, CSV, JSON.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::failure::Failure;
use super::terminal::Style;

/// Rows in the format of that name; a table without one. `headers`: a table's and CSV's first line.
pub(super) fn format(
    formatter: Option<&str>,
    columns: &[String],
    rows: &[Vec<Value>],
    headers: bool,
    style: Style,
) -> Result<String, Failure> {
    Ok(match formatter.unwrap_or("table") {
        "table" | "string" if style.aligned && formatter.is_none() => aligned(columns, rows, headers, style),
        "table" | "string" | "tsv" => lines(columns, rows, headers, "\t", text),
        "csv" => lines(columns, rows, headers, ",", |value| format!("\"{}\"", text(value).replace('"', "\"\""))),
        "json" | "json_stream" => json(columns, rows),
        "pretty_table" => pretty(columns, rows),
        other => return Err(Failure::usage(format!("formatter {other} is not supported"))),
    })
}

fn lines(
    columns: &[String],
    rows: &[Vec<Value>],
    headers: bool,
    separator: &str,
    cell: impl Fn(&Value) -> String,
) -> String {
    let mut out = String::new();
    if headers {
        let names: Vec<_> = columns.iter().map(|name| cell(&Value::from(name.as_str()))).collect();
        out.push_str(&(names.join(separator) + "\n"));
    }
    for row in rows {
        let cells: Vec<_> = row.iter().map(&cell).collect();
        out.push_str(&(cells.join(separator) + "\n"));
    }
    out
}

/// For eyes: columns as wide as they need, numbers to the right.
pub(super) fn aligned(columns: &[String], rows: &[Vec<Value>], headers: bool, style: Style) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let is_number = |at: usize| !rows.is_empty() && rows.iter().all(|row| row.get(at).is_some_and(Value::is_number));
    let widths = widths(columns, &cells, headers);
    let line = |cells: &[String], show: &dyn Fn(&str) -> String| {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, behind) = if is_number(at) { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(&format!("{before}{}{behind}  ", show(cell)));
        }
        format!("{}\n", line.trim_end())
    };
    let mut out = String::new();
    if headers {
        out.push_str(&line(columns, &|cell| style.bold(cell)));
    }
    for row in &cells {
        out.push_str(&line(row, &|cell| coloured(cell, style)));
    }
    out
}

/// States that an eye looks for.
fn coloured(cell: &str, style: Style) -> String {
    match cell {
        "running" | "up" | "true" => style.good(cell),
        "blocked" | "blocking" | "down" | "crashed" | "closed" => style.bad(cell),
        "false" | "[]" => style.dim(cell),
        _ => cell.to_owned(),
    }
}

fn widths(columns: &[String], cells: &[Vec<String>], headers: bool) -> Vec<usize> {
    let width = |at: usize| {
        let of_rows = cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        let header = columns.get(at).filter(|_| headers).map(|name| name.chars().count());
        of_rows.chain(header).max().unwrap_or_default()
    };
    (0..columns.len()).map(width).collect()
}

fn json(columns: &[String], rows: &[Vec<Value>]) -> String {
    let objects = rows.iter().map(|row| {
        let object: Map<_, _> = columns.iter().cloned().zip(row.iter().cloned()).collect();
        Value::Object(object).to_string()
    });
    format!("[\n{}\n]\n", objects.collect::<Vec<_>>().join("\n,"))
}

fn pretty(columns: &[String], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let widths = widths(columns, &cells, true);
    let rule = |left: char, middle: &str, right: char| {
        let parts: Vec<_> = widths.iter().map(|width| "\u{2500}".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let mut out = rule('\u{250c}', "\u{252c}", '\u{2510}');
    let header = columns.to_vec();
    for (at, row) in std::iter::once(&header).chain(&cells).enumerate() {
        if at == 1 {
            out.push_str(&rule('\u{251c}', "\u{253c}", '\u{2524}'));
        }
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a text does not fail.
            let _ = write!(out, "\u{2502} {cell:<width$} ");
        }
        out.push_str("\u{2502}\n");
    }
    out.push_str(&rule('\u{2514}', "\u{2534}", '\u{2518}'));
    out
}

/// A value in a cell. Tables of arguments look like Erlang's, which client suites take apart. No cell breaks its line.
pub(super) fn text(value: &Value) -> String {
    let plain = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Object(_) => term(value),
        other => other.to_string(),
    };
    plain.replace(['\n', '\r', '\t'], " ")
}

fn term(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let pairs = object.iter().map(|(name, value)| format!("{{{:?},{}}}", name, term(value)));
            format!("[{}]", pairs.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(term).collect::<Vec<_>>().join(",")),
        Value::Null => "undefined".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(formatter: &str) -> String {
        let columns = ["name".to_owned(), "arguments".to_owned()];
        let rows = [vec![json!("a\"b"), json!({"x": [1, "y"], "z": {}})], vec![json!("c\td"), json!([])]];
        format(Some(formatter), &columns, &rows, true, Style::PLAIN).unwrap()
    }

    #[test]
    fn formats_are_rabbitmqctls() {
        assert_eq!(shown("table"), "name\targuments\na\"b\t[{\"x\",[1,\"y\"]},{\"z\",[]}]\nc d\t[]\n");
        let csv = "\"name\",\"arguments\"\n\"a\"\"b\",\"[{\"\"x\"\",[1,\"\"y\"\"]},{\"\"z\"\",[]}]\"\n\"c d\",\"[]\"\n";
        assert_eq!(shown("csv"), csv);
        let first = r#"{"arguments":{"x":[1,"y"],"z":{}},"name":"a\"b"}"#;
        assert_eq!(shown("json"), format!("[\n{first}\n,{{\"arguments\":[],\"name\":\"c\\td\"}}\n]\n"));
        assert_eq!(shown("pretty_table").lines().count(), 6);
        assert_eq!(shown("tsv"), shown("table"));
        assert!(format(Some("erlang"), &[], &[], true, Style::PLAIN).is_err());
    }

    #[test]
    fn eyes_get_columns_and_colours() {
        let columns = ["name".to_owned(), "messages".to_owned(), "state".to_owned()];
        let rows = [vec![json!("a"), json!(5), json!("running")], vec![json!("longer"), json!(12_345), json!("")]];
        let style = Style { aligned: true, coloured: false };
        let plain = "name    messages  state\na              5  running\nlonger     12345\n";
        assert_eq!(format(None, &columns, &rows, true, style).unwrap(), plain);
        let style = Style { aligned: true, coloured: true };
        let shown = format(None, &columns, &rows, true, style).unwrap();
        assert!(shown.contains("\u{1b}[1mname\u{1b}[0m") && shown.contains("\u{1b}[32mrunning\u{1b}[0m"), "{shown}");
        assert_eq!(format(None, &columns, &rows, false, Style::PLAIN).unwrap(), "a\t5\trunning\nlonger\t12345\t\n");
    }
}
