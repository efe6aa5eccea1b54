use std::collections::HashMap;
use std::ops::Range;

use prost_reflect::bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::suggest::did_you_mean;
use crate::textproto::error::ParseError;
use crate::textproto::lexer::{Spanned, Token, lex};
use crate::textproto::spans::{Path, Spans};

/// Messages within messages; real configurations have about six.
const MAX_DEPTH: usize = 64;

/// Reads a message of the type `descriptor`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str, descriptor: &MessageDescriptor) -> Result<(DynamicMessage, Spans), ParseError> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, spans: Spans::default() };
    let message = parser.message(descriptor, &String::new(), None, 0)?;
    Ok((message, parser.spans))
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    spans: Spans,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser {
    fn peek(&self) -> &Spanned {
        // The list ends with `End`, which is never passed.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Spanned {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn take(&mut self, sign: char) -> bool {
        let is = self.peek().token == Token::Sign(sign);
        self.at += usize::from(is);
        is
    }

    fn wrong(&self, expected: &str) -> ParseError {
        let Spanned { token, span } = self.peek().clone();
        ParseError { span, message: format!("expected {expected}, but found {}", describe(&token)) }
    }

    /// The fields of a message up to `close`, or up to the end of the text.
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        path: &Path,
        close: Option<char>,
        depth: usize,
    ) -> Parsed<DynamicMessage> {
        if depth > MAX_DEPTH {
            let span = self.peek().span.clone();
            return Err(ParseError { span, message: format!("messages are nested deeper than {MAX_DEPTH}") });
        }
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen: HashMap<u32, Range<usize>> = HashMap::new();
        loop {
            match (&self.peek().token, close) {
                (Token::End, None) => return Ok(message),
                (Token::Sign(sign), Some(close)) if *sign == close => {
                    self.at += 1;
                    return Ok(message);
                }
                _ => self.field(descriptor, &mut message, &mut seen, path, close, depth)?,
            }
        }
    }

    fn field(
        &mut self,
        descriptor: &MessageDescriptor,
        message: &mut DynamicMessage,
        seen: &mut HashMap<u32, Range<usize>>,
        path: &Path,
        close: Option<char>,
        depth: usize,
    ) -> Parsed<()> {
        let Token::Word(name) = self.peek().token.clone() else {
            let expected =
                close.map_or_else(|| "a field name".to_owned(), |close| format!("'{close}' or a field name"));
            return Err(self.wrong(&expected));
        };
        let span = self.next().span;
        let Some(field) = descriptor.get_field_by_name(&name) else {
            let fields: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            let near = did_you_mean(&name, fields.iter().map(String::as_str));
            let message = format!("unknown field '{name}' in {}{near}", descriptor.name());
            return Err(ParseError { span, message });
        };
        let path = join(path, &name);
        self.spans.insert(path.clone(), span.clone());
        if !field.is_list() && !field.is_map() {
            if seen.insert(field.number(), span.clone()).is_some() {
                return Err(ParseError { span, message: format!("field '{name}' is given twice") });
            }
            let set = field.containing_oneof().and_then(|oneof| {
                oneof
                    .fields()
                    .find(|other| other.number() != field.number() && seen.contains_key(&other.number()))
            });
            if let Some(other) = set {
                let message =
                    format!("'{name}' cannot be given together with '{}': only one of them", other.name());
                return Err(ParseError { span, message });
            }
        }
        let colon = self.take(':');
        let is_message = matches!(field.kind(), Kind::Message(_));
        if !colon && !is_message {
            return Err(self.wrong("':'"));
        }
        if self.peek().token == Token::Sign('[') && (field.is_list() || field.is_map()) {
            self.next();
            self.list(&field, message, &path, depth)?;
        } else {
            self.element(&field, message, &path, depth)?;
        }
        let _ = self.take(',') || self.take(';');
        Ok(())
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        path: &Path,
        depth: usize,
    ) -> Parsed<()> {
        if self.take(']') {
            return Ok(());
        }
        loop {
            self.element(field, message, path, depth)?;
            if self.take(']') {
                return Ok(());
            }
            if !self.take(',') {
                return Err(self.wrong("',' or ']'"));
            }
        }
    }

    /// One value, added to a list or a map, or set.
    fn element(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        path: &Path,
        depth: usize,
    ) -> Parsed<()> {
        let span = self.peek().span.clone();
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return Err(self.wrong("a map entry")) };
            let entry_path = join(path, "?");
            let (value, at) = self.braced(&entry, &entry_path, depth)?;
            let key = value.get_field(&entry.map_entry_key_field());
            let key = map_key(&key)
                .ok_or_else(|| ParseError { span: at.clone(), message: "a bad key".to_owned() })?;
            let value = value.get_field(&entry.map_entry_value_field()).into_owned();
            self.spans.insert(join(path, &key_text(&key)), at.clone());
            let map = message.get_field_mut(field);
            if let Value::Map(map) = map {
                if map.insert(key.clone(), value).is_some() {
                    let message = format!("the key '{}' is given twice", key_text(&key));
                    return Err(ParseError { span: at, message });
                }
            }
            return Ok(());
        }
        if field.is_list() {
            let number = match message.get_field(field).as_ref() {
                Value::List(list) => list.len(),
                _ => 0,
            };
            let path = join(path, &number.to_string());
            self.spans.insert(path.clone(), span);
            let value = self.value(field, &path, depth)?;
            if let Value::List(list) = message.get_field_mut(field) {
                list.push(value);
            }
            return Ok(());
        }
        let value = self.value(field, path, depth)?;
        message.set_field(field, value);
        Ok(())
    }

    fn braced(
        &mut self,
        descriptor: &MessageDescriptor,
        path: &Path,
        depth: usize,
    ) -> Parsed<(DynamicMessage, Range<usize>)> {
        let open = self.peek().clone();
        let close = match open.token {
            Token::Sign('{') => '}',
            Token::Sign('<') => '>',
            _ => return Err(self.wrong("'{'")),
        };
        self.at += 1;
        let message = self.message(descriptor, path, Some(close), depth + 1)?;
        Ok((message, open.span))
    }

    fn value(&mut self, field: &FieldDescriptor, path: &Path, depth: usize) -> Parsed<Value> {
        if let Kind::Message(descriptor) = field.kind() {
            return Ok(Value::Message(self.braced(&descriptor, path, depth)?.0));
        }
        let start = self.peek().span.start;
        let negative = self.take('-');
        let Spanned { token, span } = self.peek().clone();
        let span = if negative { start..span.end } else { span };
        let value = scalar(field, negative, &token);
        match value {
            Ok(Some(value)) => {
                self.at += 1;
                // Adjacent literals are one string.
                if let Token::Text(mut bytes) = token {
                    while let Token::Text(more) = &self.peek().token {
                        bytes.extend_from_slice(more);
                        self.at += 1;
                    }
                    return text(field, bytes).map_err(|message| ParseError { span, message });
                }
                Ok(value)
            }
            Ok(None) => Err(ParseError {
                span,
                message: format!(
                    "expected {} for '{}', but found {}",
                    expected(&field.kind()),
                    field.name(),
                    describe(&token)
                ),
            }),
            Err(message) => Err(ParseError { span, message }),
        }
    }
}

fn join(path: &str, name: &str) -> Path {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("'{word}'"),
        Token::Number(digits) => format!("'{digits}'"),
        Token::Text(_) => "a string".to_owned(),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::End => "the end of the text".to_owned(),
    }
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::String | Kind::Bytes => "a string",
        Kind::Enum(_) => "one of the enum's names",
        Kind::Float | Kind::Double => "a number",
        _ => "a whole number",
    }
}

fn text(field: &FieldDescriptor, bytes: Vec<u8>) -> Result<Value, String> {
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
fn scalar(field: &FieldDescriptor, negative: bool, token: &Token) -> Result<Option<Value>, String> {
    let integer = |min: i128, max: i128| -> Result<Option<i128>, String> {
        let Token::Number(digits) = token else { return Ok(None) };
        let Some(value) = whole(digits) else { return Ok(None) };
        let value = i128::try_from(value).unwrap_or(i128::MAX);
        let value = if negative { -value } else { value };
        if value < min || value > max {
            return Err(format!("{value} is out of range for '{}': {min} to {max}", field.name()));
        }
        Ok(Some(value))
    };
    let float = || match token {
        Token::Number(digits) => {
            let digits = digits.strip_suffix(['f', 'F']).unwrap_or(digits);
            digits.parse::<f64>().ok().or_else(|| whole(digits).map(|value| value as f64))
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
                    return Err(format!("'{name}' is not a value of {}{near}", descriptor.name()));
                }
            },
            Token::Number(_) => {
                let number = integer(i32::MIN.into(), i32::MAX.into())?.map(|value| value as i32);
                match number {
                    Some(number) if descriptor.get_value(number).is_some() => Some(Value::EnumNumber(number)),
                    Some(number) => return Err(format!("{number} is not a value of {}", descriptor.name())),
                    None => None,
                }
            }
            _ => None,
        },
        _ => None,
    })
}

fn map_key(value: &Value) -> Option<MapKey> {
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

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
