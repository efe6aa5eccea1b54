use std::collections::HashMap;
use std::ops::Range;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::suggest::{did_you_mean, shown};
use crate::textproto::error::{ParseError, Position};
use crate::textproto::lexer::{Spanned, Token, lex};
use crate::textproto::scalar::{expected, map_key, scalar, text};
use crate::textproto::spans::{Path, Spans};

/// Messages within messages; real configurations have about six.
const MAX_DEPTH: usize = 64;

/// Stands for the key of a map entry until the entry has been read.
const UNNAMED: &str = "?";

/// Reads a message of the type `descriptor`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str, descriptor: &MessageDescriptor) -> Result<(DynamicMessage, Spans), ParseError> {
    let (tokens, unreadable) = lex(text);
    let mut parser = Parser { text, tokens, at: 0, spans: Spans::default() };
    let end = parser.tokens.last().map_or(0, |token| token.span.start);
    let message = parser.message(descriptor, &String::new(), None, 0);
    match (message, unreadable) {
        // What is wrong before the place where the tokens end comes first.
        (Err(error), Some(_)) if error.span.start < end => Err(error),
        (_, Some(unreadable)) => Err(unreadable),
        (message, None) => Ok((message?, parser.spans)),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    at: usize,
    spans: Spans,
}

/// What ends a message, and where it began.
#[derive(Clone, Copy)]
struct Close {
    sign: char,
    open: char,
    at: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
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

    fn line_of(&self, offset: usize) -> usize {
        Position::of(self.text, offset).line
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
        close: Option<Close>,
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
                (Token::Sign(sign), Some(close)) if *sign == close.sign => {
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
        close: Option<Close>,
        depth: usize,
    ) -> Parsed<()> {
        let Token::Word(name) = self.peek().token.clone() else {
            let expected = match close {
                None => "a field name".to_owned(),
                Some(Close { sign, open, at }) => {
                    format!("a field name, or '{sign}' for the '{open}' in line {}", self.line_of(at))
                }
            };
            return Err(self.wrong(&expected));
        };
        let span = self.next().span;
        let Some(field) = descriptor.get_field_by_name(&name) else {
            let fields: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            let near = did_you_mean(&name, fields.iter().map(String::as_str));
            let message = format!("unknown field '{}' in {}{near}", shown(&name), descriptor.name());
            return Err(ParseError { span, message });
        };
        let path = join(path, &name);
        self.spans.insert(path.clone(), span.clone());
        if !field.is_list() && !field.is_map() {
            if let Some(first) = seen.insert(field.number(), span.clone()) {
                let line = self.line_of(first.start);
                let message = format!("field '{name}' is given twice, first in line {line}");
                return Err(ParseError { span, message });
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
            let entry_path = join(path, UNNAMED);
            let (value, at) = self.braced(&entry, &entry_path, depth)?;
            let key = value.get_field(&entry.map_entry_key_field());
            let key = map_key(&key)
                .ok_or_else(|| ParseError { span: at.clone(), message: "a bad key".to_owned() })?;
            let value = value.get_field(&entry.map_entry_value_field()).into_owned();
            let named = join(path, &key_text(&key));
            self.spans.replace(&named, at.clone());
            self.spans.rename(&entry_path, &named);
            if let Value::Map(map) = message.get_field_mut(field) {
                // As in C++ the last one counts; it is a slip all the same.
                if map.insert(key.clone(), value).is_some() {
                    self.spans.note_repeated(&named, at);
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
        let at = open.span.start;
        let close = match open.token {
            Token::Sign('{') => Close { sign: '}', open: '{', at },
            Token::Sign('<') => Close { sign: '>', open: '<', at },
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
        Token::Word(word) => format!("'{}'", shown(word)),
        Token::Number(digits) => format!("'{}'", shown(digits)),
        Token::Text(_) => "a string".to_owned(),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::End => "the end of the text".to_owned(),
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
