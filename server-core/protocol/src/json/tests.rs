//! The reader against serde_json where both speak JSON, and alone where they differ.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;

use super::{Kind, Number, Reader, write_f32, write_f64, write_string};

/// Builds a serde_json value with the reader, so that the two can be compared.
fn build(r: &mut Reader<'_>) -> crate::Result<Value> {
    let mut first = true;
    Ok(match r.kind()? {
        Kind::Object => {
            let mut map = serde_json::Map::new();
            r.begin_object()?;
            while let Some(key) = r.next_key(&mut first)? {
                map.insert(key.into_owned(), build(r)?);
            }
            Value::Object(map)
        }
        Kind::Array => {
            let mut list = Vec::new();
            r.begin_array()?;
            while r.next_element(&mut first)? {
                list.push(build(r)?);
            }
            Value::Array(list)
        }
        Kind::String => Value::String(r.string()?.into_owned()),
        Kind::Bool => Value::Bool(r.bool()?),
        Kind::Null => {
            r.skip()?;
            Value::Null
        }
        Kind::Number => match r.number()? {
            Number::Int(text) => text
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| text.parse::<u64>().map(Value::from))
                .unwrap(),
            Number::Float(text) => Value::from(text.parse::<f64>().unwrap()),
        },
    })
}

fn read(text: &[u8]) -> crate::Result<Value> {
    let mut r = Reader::new(text, 100)?;
    let value = build(&mut r)?;
    r.end()?;
    Ok(value)
}

fn refusal(text: &[u8]) -> String {
    let error = read(text).unwrap_err();
    assert_eq!(error.status, crate::StatusCode::InvalidArg);
    error.message.strip_prefix("failed to parse the request JSON buffer: ").unwrap().to_owned()
}

#[test]
fn breaks_are_named_with_their_offset() {
    let table: &[(&[u8], &str)] = &[
        (b"", "the text ends where a value should stand at 0"),
        (b"  @", "expected a value at 2"),
        (b"{\"a\" 1}", "missing ':' after an object member's name at 5"),
        (b"{a:1}", "missing a name for an object member at 1"),
        (b"{\"a\":1,}", "missing a name for an object member at 7"),
        (b"[1 2]", "expected ',' or ']' at 3"),
        (b"[1,]", "expected a value at 3"),
        (b"[1", "the text ends inside an object or array at 2"),
        (b"[,1]", "expected a value at 1"),
        (b"\"ab", "the text ends inside a string at 3"),
        (b"\"a\nb\"", "a control character inside a string must be escaped at 2"),
        (b"\"a\\qb\"", "unknown escape in a string at 2"),
        (b"\"\\ud800x\"", "half a surrogate pair in a string at 1"),
        (b"\"\\u12g4\"", "\\u in a string needs four hexadecimal digits at 1"),
        (b"tru", "expected true at 0"),
        (b"1 1", "unexpected text after the JSON value at 2"),
        (b"01", "not a number at 0"),
        (b"\"\xff\"", "not UTF-8 at 1"),
    ];
    for (text, want) in table {
        assert_eq!(refusal(text), *want);
    }
}

#[test]
fn a_hundred_levels_are_read_and_one_more_is_not() {
    let nest = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
    assert!(read(&nest(100)).is_ok());
    assert_eq!(refusal(&nest(101)), "JSON nesting depth exceeds maximum allowed limit (100) at 100");
    // The passing-over path keeps the limit too, however deep the text is.
    let text = b"[".repeat(1 << 20);
    assert!(Reader::new(&text, 100).unwrap().skip().is_err());
}

#[test]
fn strings_are_unescaped() {
    let text = br#""\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00z""#;
    assert_eq!(read(text).unwrap(), Value::from("\"\\/\u{8}\u{c}\n\r\t\0é😀z"));
}

#[test]
fn floats_are_written_shortest_and_non_finite_by_name() {
    let text = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    };
    for (value, want) in
        [(0.1f32, "0.1"), (1.0, "1.0"), (-0.0, "-0.0"), (f32::NAN, "NaN"), (f32::INFINITY, "Infinity")]
    {
        assert_eq!(text(&|o| write_f32(o, value)), want);
    }
    assert_eq!(text(&|o| write_f64(o, f64::NEG_INFINITY)), "-Infinity");
    assert_eq!(text(&|o| write_f64(o, f64::from(0.1f32))), "0.10000000149011612");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reads_what_serde_json_writes(value in any_json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        prop_assert_eq!(read(text.as_bytes()).unwrap(), value);
        let mut r = Reader::new(text.as_bytes(), 100).unwrap();
        r.skip().unwrap();
        r.end().unwrap();
    }

    #[test]
    fn cut_text_is_refused_or_a_value(value in any_json(), cut in any::<proptest::sample::Index>()) {
        let text = serde_json::to_vec(&value).unwrap();
        let part = &text[..cut.index(text.len())];
        // The two agree on whether the cut text is a value; 12 of 123 is one.
        prop_assert_eq!(read(part).is_ok(), serde_json::from_slice::<Value>(part).is_ok());
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&bytes);
    }

    #[test]
    fn strings_are_written_as_json(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
        prop_assert_eq!(read(&out).unwrap(), Value::from(text));
    }
}
