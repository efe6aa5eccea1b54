//! What chat templates call besides Jinja's own.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::python_json;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub(super) fn add(env: &mut Environment<'static>) {
    env.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    // Python's spelling: templates put tool schemas into prompts with it, and models know that spelling.
    env.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, Error> {
        let indent: Option<usize> = options.get("indent")?;
        let separators: Option<Vec<String>> = options.get("separators")?;
        let sort_keys: Option<bool> = options.get("sort_keys")?;
        let _: Option<bool> = options.get("ensure_ascii")?;
        options.assert_all_used()?;
        let separators = match separators.as_deref() {
            None => None,
            Some([item, key]) => Some((item.clone(), key.clone())),
            Some(_) => {
                return Err(Error::new(ErrorKind::InvalidOperation, "'separators' of tojson are two texts"));
            }
        };
        let style = python_json::Style { indent, separators, sort_keys: sort_keys.unwrap_or(false) };
        python_json::to_string(&value, style)
            .map_err(|e| Error::new(ErrorKind::BadSerialization, "not JSON").with_source(e))
    });
}

/// `strftime_now(format)` at a given time.
pub(super) fn strftime_at(now: SystemTime) -> Value {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Value::from_function(move |format: String| strftime(&format, seconds))
}

/// The fields of Python's `strftime` that dates and times in prompts use. `seconds` since 1970, UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day, of_year) = civil(days);
    let weekday = DAYS[(days as usize + 3) % 7];
    let name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(c) = letters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut field = letters.next();
        let plain = field == Some('-');
        if plain {
            field = letters.next();
        }
        let width = |n| if plain { 0 } else { n };
        let two = width(2);
        let _ = match field {
            Some('Y') => write!(out, "{year:04}"),
            Some('y') => write!(out, "{:0two$}", year % 100),
            Some('m') => write!(out, "{month:0two$}"),
            Some('d') => write!(out, "{day:0two$}"),
            Some('j') => write!(out, "{of_year:0w$}", w = width(3)),
            Some('H') => write!(out, "{hour:0two$}"),
            Some('I') => write!(out, "{:0two$}", (hour + 11) % 12 + 1),
            Some('M') => write!(out, "{minute:0two$}"),
            Some('S') => write!(out, "{second:0two$}"),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('B') => write!(out, "{name}"),
            Some('b') => write!(out, "{}", &name[..3]),
            Some('A') => write!(out, "{weekday}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('%') => write!(out, "%"),
            other => {
                let text = format!("strftime_now: the field '%{}' is not known", other.unwrap_or(' '));
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
        };
    }
    Ok(out)
}

/// Year, month and day from 1, and the day of the year from 1, of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64, u64) {
    // 400 years repeat exactly, so this walks at most 400 years.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = 365 + u64::from(leap);
        if days >= length {
            days -= length;
            year += 1;
            continue;
        }
        let of_year = days + 1;
        let mut month = 1;
        for n in [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if days < n {
                break;
            }
            days -= n;
            month += 1;
        }
        return (year, month, days + 1, of_year);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates() {
        let at = |s| strftime("%A %d %B %Y %H:%M:%S %j %a %b %-d %y %I %p %%", s).unwrap();
        assert_eq!(at(0), "Thursday 01 January 1970 00:00:00 001 Thu Jan 1 70 12 AM %");
        assert_eq!(at(951_827_696), "Tuesday 29 February 2000 12:34:56 060 Tue Feb 29 00 12 PM %");
        assert_eq!(at(1_735_689_599), "Tuesday 31 December 2024 23:59:59 366 Tue Dec 31 24 11 PM %");
        assert_eq!(at(4_107_542_400), "Monday 01 March 2100 00:00:00 060 Mon Mar 1 00 12 AM %");
        assert!(strftime("%Q", 0).is_err());
        assert!(strftime("%", 0).is_err());
    }
}
