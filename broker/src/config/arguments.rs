//! TOML values as AMQP arguments.
//!
//! | TOML | field-table type |
//! |---|---|
//! | integer | `l` (64-bit signed) |
//! | float | `d` (64-bit) |
//! | boolean | `t` |
//! | string | `S` (long string) |
//! | array | `A`, each element by this table |
//! | table | `F`, each value by this table |
//! | date and time | `T` (seconds since 1970, fractions cut; without an offset it is UTC; a date alone is its midnight) |
//!
//! There is no way to write the other types; a time without a date is an error.

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};
use toml::value::{Datetime, Offset};

/// Nesting an arguments table may have. The recursion below is no deeper than this.
const DEPTH_MAX: usize = 16;

/// Converts a table of arguments; the error says which argument and why.
pub(super) fn table(table: &DeTable<'_>) -> Result<FieldTable, String> {
    table_at(table, 0)
}

fn table_at(table: &DeTable<'_>, depth: usize) -> Result<FieldTable, String> {
    let mut converted = FieldTable::default();
    for (key, argument) in table {
        let name = key.get_ref();
        let short = ShortString::try_new(name.as_ref())
            .map_err(|_| format!("argument name {} is longer than 255 bytes", super::error::quoted(name)))?;
        let argument = value(argument.get_ref(), depth).map_err(|problem| format!("argument {name:?}: {problem}"))?;
        converted.insert(short, argument);
    }
    Ok(converted)
}

fn value(value: &DeValue<'_>, depth: usize) -> Result<AMQPValue, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested more than {DEPTH_MAX} deep"));
    }
    Ok(match value {
        DeValue::String(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        DeValue::Integer(digits) => AMQPValue::LongLongInt(integer(digits)?),
        DeValue::Float(digits) => AMQPValue::Double(float(digits)?),
        DeValue::Boolean(value) => AMQPValue::Boolean(*value),
        DeValue::Datetime(datetime) => AMQPValue::Timestamp(timestamp(datetime)?),
        DeValue::Array(items) => {
            let mut array = FieldArray::default();
            for item in items {
                array.push(self::value(item.get_ref(), depth + 1)?);
            }
            AMQPValue::FieldArray(array)
        }
        DeValue::Table(table) => AMQPValue::FieldTable(table_at(table, depth + 1)?),
    })
}

/// The value of a TOML integer, whatever its base.
pub(super) fn integer(digits: &DeInteger<'_>) -> Result<i64, String> {
    i64::from_str_radix(digits.as_str(), digits.radix())
        .map_err(|_| format!("{} does not fit in 64 bits", digits.as_str()))
}

fn float(digits: &DeFloat<'_>) -> Result<f64, String> {
    digits.as_str().parse().map_err(|_| format!("{} is not a number", digits.as_str()))
}

fn timestamp(datetime: &Datetime) -> Result<u64, String> {
    let date = datetime.date.ok_or_else(|| format!("{datetime} is a time without a date"))?;
    let days = days_since_1970(date.year.into(), date.month.into(), date.day.into());
    let (hour, minute, second) = datetime
        .time
        .map_or((0, 0, 0), |time| (i64::from(time.hour), i64::from(time.minute), i64::from(time.second.unwrap_or(0))));
    let offset_minutes = match datetime.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes),
        Some(Offset::Z) | None => 0,
    };
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    u64::try_from(seconds).map_err(|_| format!("{datetime} is before 1970"))
}

/// Days of the Gregorian calendar. Years are counted from March, which puts the leap day last and makes the length
/// of the months before it a linear function.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const MARCH_1_YEAR_0_TO_1970: i64 = 719_468;
    let (year, months_since_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - MARCH_1_YEAR_0_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(toml: &str) -> Result<AMQPValue, String> {
        let text = format!("x = {toml}");
        let parsed = DeTable::parse(&text).unwrap();
        let converted = table(parsed.get_ref())?;
        Ok(converted.inner().get("x").unwrap().clone())
    }

    #[test]
    fn each_type_has_its_field_table_type() {
        let long = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
        assert_eq!(argument("1000"), Ok(AMQPValue::LongLongInt(1000)));
        assert_eq!(argument("-1"), Ok(AMQPValue::LongLongInt(-1)));
        assert_eq!(argument("0xff"), Ok(AMQPValue::LongLongInt(255)));
        assert_eq!(argument("1_000"), Ok(AMQPValue::LongLongInt(1000)));
        assert_eq!(argument("1.5"), Ok(AMQPValue::Double(1.5)));
        assert_eq!(argument("true"), Ok(AMQPValue::Boolean(true)));
        assert_eq!(argument("\"00123\""), Ok(long("00123")));
        assert_eq!(
            argument("[1, \"a\", false]"),
            Ok(AMQPValue::FieldArray(vec![AMQPValue::LongLongInt(1), long("a"), AMQPValue::Boolean(false)].into()))
        );
        let AMQPValue::FieldTable(inner) = argument("{ a = 1, b.c = \"d\" }").unwrap() else {
            panic!("not a table");
        };
        assert_eq!(inner.inner().get("a"), Some(&AMQPValue::LongLongInt(1)));
        assert!(matches!(inner.inner().get("b"), Some(AMQPValue::FieldTable(_))));
    }

    #[test]
    fn dates_are_timestamps() {
        let timestamp = |toml: &str| match argument(toml) {
            Ok(AMQPValue::Timestamp(seconds)) => Ok(seconds),
            Ok(other) => Err(format!("{other:?}")),
            Err(problem) => Err(problem),
        };
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(timestamp("2001-09-09T01:46:40Z"), Ok(1_000_000_000));
        assert_eq!(timestamp("2001-09-09 01:46:40.999"), Ok(1_000_000_000));
        assert_eq!(timestamp("2001-09-09T03:16:40+01:30"), Ok(1_000_000_000));
        assert_eq!(timestamp("2000-02-29"), Ok(951_782_400));
        assert_eq!(timestamp("2000-03-01"), Ok(951_868_800));
        assert_eq!(timestamp("2100-03-01"), Ok(4_107_542_400));
        assert_eq!(timestamp("07:32:00"), Err("argument \"x\": 07:32:00 is a time without a date".into()));
        assert_eq!(timestamp("1969-12-31"), Err("argument \"x\": 1969-12-31 is before 1970".into()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            argument("9223372036854775808"),
            Err("argument \"x\": 9223372036854775808 does not fit in 64 bits".into())
        );
        let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
        assert_eq!(argument(&deep), Err("argument \"x\": nested more than 16 deep".into()));
        let text = format!("{} = 1", "k".repeat(256));
        let parsed = DeTable::parse(&text).unwrap();
        assert!(table(parsed.get_ref()).is_err());
    }
}
