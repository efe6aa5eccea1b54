//! Scalars: what a token stands for in a field of some type.

use prost_reflect::bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind, MapKey, Value};

use crate::suggest::{did_you_mean, shown};
use crate::textproto::lexer::Token;

pub(super) fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::String | Kind::Bytes => "a string",
        Kind::Enum(_) => "one of the enum's names",
        Kind::Float | Kind::Double => "a number",
        _ => "a whole number",
    }
}

pub(super) fn text(field: &FieldDescriptor, bytes: Vec<u8>) -> Result<Value, String> {
    if matches!(field.kind(), Kind::Bytes) {
        return Ok(Value::Bytes(Bytes::from(bytes)));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| format!("the string for '{}' is not UTF-8", field.name()))?;
    Ok(Value::String(text))
}

/// A whole number: decimal, octal (`0…`) or hexadecimal (`0x…`).
fn whole(digits: &str) -> Option<u128> {
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u128::from_str_radix(hex, 16).ok();
    }
    match digits.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        Some(octal) => u128::from_str_radix(octal, 8).ok(),
        None => digits.parse().ok(),
    }
}

/// The value of a token; none if it is of another kind, an error if it is out of range.
pub(super) fn scalar(
    field: &FieldDescriptor,
    negative: bool,
    token: &Token,
) -> Result<Option<Value>, String> {
    let integer = |min: i128, max: i128| -> Result<Option<i128>, String> {
        let Token::Number(digits) = token else { return Ok(None) };
        let Some(value) = whole(digits) else { return Ok(None) };
        let value = i128::try_from(value).unwrap_or(i128::MAX);
        let value = if negative { -value } else { value };
        // C++ takes no sign before an unsigned number, not even before 0.
        if value < min || value > max || (negative && min == 0) {
            let value = if negative { format!("-{digits}") } else { digits.clone() };
            return Err(format!("{value} is out of range for '{}': {min} to {max}", field.name()));
        }
        Ok(Some(value))
    };
    let float = || match token {
        Token::Number(digits) => {
            let digits = digits.strip_suffix(['f', 'F']).unwrap_or(digits);
            // As in C++, a number with a fraction is decimal: 010 and 0x10 are whole numbers in another base.
            let other_base =
                digits.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with('0');
            digits.parse::<f64>().ok().filter(|_| !other_base)
        }
        Token::Word(word) => match word.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => Some(f64::INFINITY),
            "nan" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    };
    let signed = |value: f64| if negative { -value } else { value };
    Ok(match field.kind() {
        Kind::Bool if !negative => match token {
            Token::Word(word) if matches!(word.as_str(), "true" | "True" | "t") => Some(Value::Bool(true)),
            Token::Word(word) if matches!(word.as_str(), "false" | "False" | "f") => Some(Value::Bool(false)),
            Token::Number(digits) => {
                whole(digits).filter(|value| *value < 2).map(|value| Value::Bool(value == 1))
            }
            _ => None,
        },
        Kind::String if !negative => matches!(token, Token::Text(_)).then(|| Value::String(String::new())),
        Kind::Bytes if !negative => matches!(token, Token::Text(_)).then(|| Value::Bytes(Bytes::new())),
        Kind::Float => float().map(|value| Value::F32(signed(value) as f32)),
        Kind::Double => float().map(|value| Value::F64(signed(value))),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer(i32::MIN.into(), i32::MAX.into())?.map(|value| Value::I32(value as i32))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer(i64::MIN.into(), i64::MAX.into())?.map(|value| Value::I64(value as i64))
        }
        Kind::Uint32 | Kind::Fixed32 => integer(0, u32::MAX.into())?.map(|value| Value::U32(value as u32)),
        Kind::Uint64 | Kind::Fixed64 => integer(0, u64::MAX.into())?.map(|value| Value::U64(value as u64)),
        Kind::Enum(descriptor) => match token {
            Token::Word(name) if !negative => match descriptor.get_value_by_name(name) {
                Some(value) => Some(Value::EnumNumber(value.number())),
                None => {
                    let names: Vec<String> =
                        descriptor.values().map(|value| value.name().to_owned()).collect();
                    let near = did_you_mean(name, names.iter().map(String::as_str));
                    let near =
                        if near.is_empty() { format!("; it is one of {}", names.join(", ")) } else { near };
                    return Err(format!("'{}' is not a value of {}{near}", shown(name), descriptor.name()));
                }
            },
            Token::Number(_) => {
                let number = integer(i32::MIN.into(), i32::MAX.into())?.map(|value| value as i32);
                match number {
                    Some(number) if descriptor.get_value(number).is_some() => Some(Value::EnumNumber(number)),
                    Some(number) => {
                        let values: Vec<String> = descriptor
                            .values()
                            .map(|value| format!("{} = {}", value.name(), value.number()))
                            .collect();
                        let values = values.join(", ");
                        return Err(format!(
                            "{number} is not a value of {}; it is one of {values}",
                            descriptor.name()
                        ));
                    }
                    None => None,
                }
            }
            _ => None,
        },
        _ => None,
    })
}

pub(super) fn map_key(value: &Value) -> Option<MapKey> {
    match value {
        Value::Bool(key) => Some(MapKey::Bool(*key)),
        Value::I32(key) => Some(MapKey::I32(*key)),
        Value::I64(key) => Some(MapKey::I64(*key)),
        Value::U32(key) => Some(MapKey::U32(*key)),
        Value::U64(key) => Some(MapKey::U64(*key)),
        Value::String(key) => Some(MapKey::String(key.clone())),
        _ => None,
    }
}
