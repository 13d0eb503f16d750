//! JSON values as RabbitMQ's texts show them: Erlang terms.

use std::fmt;

use serde_json::Value;

/// Columns from which on a list is broken, one item per line.
const LINE_MAX: usize = 80;

/// Shows a JSON value as an Erlang term.
pub struct Term<'a>(pub &'a Value);

impl fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write_number(f, number),
            Value::String(text) => write_binary(f, text),
            Value::Array(items) => write_list(f, "[", "]", items.iter().map(|item| Term(item).to_string())),
            Value::Object(map) => {
                write_list(f, "#{", "}", map.iter().map(|(key, value)| format!("{} => {}", Binary(key), Term(value))))
            }
        }
    }
}

/// Shows settings as RabbitMQ shows a list of them: `[{<<"key">>,value}]`.
pub struct Pairs<'a>(pub &'a [(&'a str, &'a Value)]);

impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, "[", "]", self.0.iter().map(|(key, value)| format!("{{{},{}}}", Binary(key), Term(value))))
    }
}

struct Binary<'a>(&'a str);

impl fmt::Display for Binary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_binary(f, self.0)
    }
}

fn write_number(f: &mut fmt::Formatter<'_>, number: &serde_json::Number) -> fmt::Result {
    let text = number.to_string();
    // Erlang has a point in every float.
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => {
            write!(f, "{digits}.0e{}", exponent.trim_start_matches('+'))
        }
        Some((digits, exponent)) => write!(f, "{digits}e{}", exponent.trim_start_matches('+')),
        None => f.write_str(&text),
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if text.is_empty() {
        return f.write_str("<<>>");
    }
    f.write_str("<<\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\x{{{:X}}}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str(if text.is_ascii() { "\">>" } else { "\"/utf8>>" })
}

fn write_list(f: &mut fmt::Formatter<'_>, open: &str, close: &str, items: impl Iterator<Item = String>) -> fmt::Result {
    let items: Vec<String> = items.collect();
    let columns = items.iter().map(|item| item.len() + 1).sum::<usize>();
    let separator = if columns > LINE_MAX { ",\n " } else { "," };
    write!(f, "{open}{}{close}", items.join(separator))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_like_rabbitmqs() {
        for (value, text) in [
            (json!(1), "1"),
            (json!(-1), "-1"),
            (json!(1.5), "1.5"),
            (json!(1.0), "1.0"),
            (json!(1e30), "1.0e30"),
            (json!(null), "null"),
            (json!(true), "true"),
            (json!(""), "<<>>"),
            (json!("a"), "<<\"a\">>"),
            (json!("a\"b\nc"), "<<\"a\\\"b\\nc\">>"),
            (json!("\u{e9}"), "<<\"\u{e9}\"/utf8>>"),
            (json!([1, "a"]), "[1,<<\"a\">>]"),
            (json!({"a": 1}), "#{<<\"a\">> => 1}"),
        ] {
            assert_eq!(Term(&value).to_string(), text);
        }
    }

    #[test]
    fn long_lists_are_broken() {
        let (text, half) = (json!("bar"), json!(1.5));
        assert_eq!(Pairs(&[("foo", &text)]).to_string(), "[{<<\"foo\">>,<<\"bar\">>}]");
        let pairs: Vec<(&str, &Value)> =
            [("foo", &text), ("v", &half), ("w", &text), ("x", &text), ("y", &text), ("z", &text)].into();
        assert!(Pairs(&pairs).to_string().starts_with("[{<<\"foo\">>,<<\"bar\">>},\n {<<\"v\">>,1.5},\n {"));
    }
}
