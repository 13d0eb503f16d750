//! Rows as text: tables, CSV, JSON.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::failure::Failure;

/// Rows in the format of that name; a table without one. `headers`: a table's and CSV's first line.
pub(super) fn format(
    formatter: Option<&str>,
    columns: &[String],
    rows: &[Vec<Value>],
    headers: bool,
) -> Result<String, Failure> {
    Ok(match formatter.unwrap_or("table") {
        "table" | "string" => lines(columns, rows, headers, "\t", text),
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

fn json(columns: &[String], rows: &[Vec<Value>]) -> String {
    let objects = rows.iter().map(|row| {
        let object: Map<_, _> = columns.iter().cloned().zip(row.iter().cloned()).collect();
        Value::Object(object).to_string()
    });
    format!("[\n{}\n]\n", objects.collect::<Vec<_>>().join("\n,"))
}

fn pretty(columns: &[String], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    let width = |at: usize| {
        let of_rows = cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        of_rows.chain(columns.get(at).map(|name| name.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
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
        format(Some(formatter), &columns, &rows, true).unwrap()
    }

    #[test]
    fn formats_are_rabbitmqctls() {
        assert_eq!(shown("table"), "name\targuments\na\"b\t[{\"x\",[1,\"y\"]},{\"z\",[]}]\nc d\t[]\n");
        let csv = "\"name\",\"arguments\"\n\"a\"\"b\",\"[{\"\"x\"\",[1,\"\"y\"\"]},{\"\"z\"\",[]}]\"\n\"c d\",\"[]\"\n";
        assert_eq!(shown("csv"), csv);
        let first = r#"{"arguments":{"x":[1,"y"],"z":{}},"name":"a\"b"}"#;
        assert_eq!(shown("json"), format!("[\n{first}\n,{{\"arguments\":[],\"name\":\"c\\td\"}}\n]\n"));
        assert_eq!(shown("pretty_table").lines().count(), 6);
        assert!(format(Some("erlang"), &[], &[], true).is_err());
    }
}
