//! The text format written: one field a line, two spaces a level, fields in the order of the schema.

use std::fmt::Write;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, Value};

/// A message in the text format, as [`parse`](super::parse) reads it.
pub fn print(message: &DynamicMessage) -> String {
    let mut printer = Printer { text: String::new(), level: 0 };
    printer.fields(message);
    printer.text
}

struct Printer {
    text: String,
    level: usize,
}

impl Printer {
    fn fields(&mut self, message: &DynamicMessage) {
        for (field, value) in message.fields() {
            match value {
                Value::List(list) => list.iter().for_each(|value| self.field(&field, value)),
                Value::Map(map) => {
                    // Sorted, so that equal messages have equal texts.
                    let mut entries: Vec<_> = map.iter().collect();
                    entries.sort_by_key(|(key, _)| key_value(key));
                    entries.into_iter().for_each(|(key, value)| self.entry(&field, key, value));
                }
                value => self.field(&field, value),
            }
        }
    }

    fn entry(&mut self, field: &FieldDescriptor, key: &MapKey, value: &Value) {
        let Kind::Message(entry) = field.kind() else { return };
        self.open(field.name());
        let key = match key {
            MapKey::String(key) => quoted(key.as_bytes()),
            other => key_value(other).1,
        };
        self.line(&format!("key: {key}"));
        self.field(&entry.map_entry_value_field(), value);
        self.close();
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) {
        if let Value::Message(message) = value {
            self.open(field.name());
            self.fields(message);
            self.close();
        } else {
            self.line(&format!("{}: {}", field.name(), scalar(field, value)));
        }
    }

    fn open(&mut self, name: &str) {
        self.line(&format!("{name} {{"));
        self.level += 1;
    }

    fn close(&mut self) {
        self.level -= 1;
        self.line("}");
    }

    fn line(&mut self, line: &str) {
        self.text.extend(std::iter::repeat_n("  ", self.level));
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Numbers in their order, texts in theirs.
fn key_value(key: &MapKey) -> (u64, String) {
    match key {
        MapKey::Bool(key) => (u64::from(*key), key.to_string()),
        MapKey::I32(key) => (key.abs_diff(i32::MIN).into(), key.to_string()),
        MapKey::I64(key) => (key.abs_diff(i64::MIN), key.to_string()),
        MapKey::U32(key) => (u64::from(*key), key.to_string()),
        MapKey::U64(key) => (*key, key.to_string()),
        MapKey::String(key) => (0, key.clone()),
    }
}

fn scalar(field: &FieldDescriptor, value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        // `{:?}` is the shortest text that reads back as the same number, and writes 1e300 short.
        Value::F32(value) => float(format!("{value:?}")),
        Value::F64(value) => float(format!("{value:?}")),
        Value::String(value) => quoted(value.as_bytes()),
        Value::Bytes(value) => quoted(value),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(descriptor) => {
                descriptor.get_value(*number).map_or(number.to_string(), |value| value.name().to_owned())
            }
            _ => number.to_string(),
        },
        Value::Message(_) | Value::List(_) | Value::Map(_) => String::new(),
    }
}

fn float(text: String) -> String {
    match text.as_str() {
        "NaN" => "nan".to_owned(),
        _ => text,
    }
}

/// Printable ASCII stands as it is, every other byte as three octal digits.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(*byte)),
            // Writing to a String cannot fail.
            other => drop(write!(text, "\\{other:03o}")),
        }
    }
    text.push('"');
    text
}
