//! A pull reader over a JSON text: it hands out borrowed tokens, keeps the nesting limit, and can come back
//! to a value that was passed over.
//!
//! An own reader rather than serde_json for two reasons: clients of the C++ server send `NaN` and `Infinity`
//! in tensor data, which serde_json refuses, and tensor numbers go straight into the buffer of their type.

use std::borrow::Cow;

use crate::error::{ProtocolError, Result};

/// What kind of value comes next.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// What error texts call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a bool",
            Self::Null => "null",
        }
    }
}

/// A number as it stands in the text.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Number<'a> {
    /// Digits with an optional minus.
    Int(&'a str),
    /// With a fraction or an exponent, or one of `NaN`, `Inf`, `Infinity` with an optional minus.
    Float(&'a str),
}

impl<'a> Number<'a> {
    pub(crate) const fn text(self) -> &'a str {
        match self {
            Self::Int(text) | Self::Float(text) => text,
        }
    }
}

/// A place to come back to: the start of a value.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Mark {
    pos: usize,
    depth: usize,
}

/// The reader. Lists are walked as
/// `r.begin_array()?; let mut first = true; while r.next_element(&mut first)? { … }`.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], max_depth: usize) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            ProtocolError::invalid(format!(
                "failed to parse the request JSON buffer: not UTF-8 at {}",
                e.valid_up_to()
            ))
        })?;
        Ok(Self { text, pos: 0, depth: 0, max_depth })
    }

    /// An error at the place where the reader stands.
    #[cold]
    pub(crate) fn fail(&self, what: impl std::fmt::Display) -> ProtocolError {
        ProtocolError::invalid(format!("failed to parse the request JSON buffer: {what} at {}", self.pos))
    }

    /// A value that is not what it should be, at the place where the reader stands.
    #[cold]
    pub(crate) fn mismatch(&self, what: impl std::fmt::Display) -> ProtocolError {
        ProtocolError::invalid(format!("{what} at {}", self.pos))
    }

    /// Bytes of text that are not read yet.
    pub(crate) fn left(&self) -> usize {
        self.text.len() - self.pos
    }

    /// The next byte that is not white space, not consumed.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.pos) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.pos += 1;
        }
        None
    }

    /// What kind of value comes next.
    pub(crate) fn kind(&mut self) -> Result<Kind> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => Ok(Kind::Number),
            Some(_) => Err(self.fail("expected a value")),
            None => Err(self.fail("the text ends where a value should stand")),
        }
    }

    #[cold]
    fn expected(&mut self, want: &str) -> ProtocolError {
        // The words before the comma are those of the C++ server, which clients' tests look for.
        match self.kind() {
            Ok(got) => {
                let got = got.name();
                self.mismatch(format_args!("attempt to access JSON non-{want} as {want}, got {got}"))
            }
            Err(error) => error,
        }
    }

    fn open(&mut self, bracket: u8, want: &str) -> Result<()> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(want));
        }
        if self.depth >= self.max_depth {
            return Err(self.fail(format_args!(
                "JSON nesting depth exceeds maximum allowed limit ({})",
                self.max_depth
            )));
        }
        self.pos += 1;
        self.depth += 1;
        Ok(())
    }

    /// Either consumes the closing bracket (false), or stands before the next member (true).
    #[inline]
    fn advance(&mut self, close: u8, first: &mut bool) -> Result<bool> {
        match self.peek() {
            Some(byte) if byte == close => {
                self.pos += 1;
                self.depth -= 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.pos += 1,
            Some(_) if *first => {}
            Some(_) => return Err(self.fail(format_args!("expected ',' or '{}'", char::from(close)))),
            None => return Err(self.fail("the text ends inside an object or array")),
        }
        *first = false;
        Ok(true)
    }

    pub(crate) fn begin_object(&mut self) -> Result<()> {
        self.open(b'{', "object")
    }

    /// The next key of the object, its value next to be read; `None` once the object is closed.
    pub(crate) fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.advance(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.fail("missing a name for an object member"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.fail("missing ':' after an object member's name"));
        }
        self.pos += 1;
        Ok(Some(key))
    }

    #[inline]
    pub(crate) fn begin_array(&mut self) -> Result<()> {
        self.open(b'[', "array")
    }

    /// Whether another element comes; false once the array is closed.
    #[inline]
    pub(crate) fn next_element(&mut self, first: &mut bool) -> Result<bool> {
        self.advance(b']', first)
    }

    /// A string, borrowed where it has no escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("string"));
        }
        let start = self.pos + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    self.pos = at + 1;
                    return Ok(Cow::Borrowed(&self.text[start..at]));
                }
                Some(b'\\') => {
                    return super::escapes::unescape(self.text, start, at, &mut self.pos)
                        .map(Cow::Owned)
                        .map_err(|what| self.fail(what));
                }
                Some(0..=0x1f) => {
                    self.pos = at;
                    return Err(self.fail("a control character inside a string must be escaped"));
                }
                Some(_) => at += 1,
                None => {
                    self.pos = bytes.len();
                    return Err(self.fail("the text ends inside a string"));
                }
            }
        }
    }

    fn literal(&mut self, word: &str, want: &str) -> Result<()> {
        if !self.text.as_bytes()[self.pos..].starts_with(word.as_bytes()) {
            return Err(self.fail(format_args!("expected {want}")));
        }
        self.pos += word.len();
        Ok(())
    }

    #[inline]
    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.literal("true", "true").map(|()| true),
            Some(b'f') => self.literal("false", "false").map(|()| false),
            _ => Err(self.expected("boolean")),
        }
    }

    /// A number, not converted yet.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'a>> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9' | b'N' | b'I')) {
            return Err(self.expected("number"));
        }
        let bytes = &self.text.as_bytes()[self.pos..];
        let Some((length, integer)) = super::number::scan(bytes) else {
            return Err(self.fail("not a number"));
        };
        let text = &self.text[self.pos..self.pos + length];
        self.pos += length;
        Ok(if integer { Number::Int(text) } else { Number::Float(text) })
    }

    /// An unsigned whole number.
    pub(crate) fn unsigned(&mut self) -> Result<u64> {
        let start = self.pos;
        let number = self.number()?;
        if let Number::Int(text) = number
            && let Ok(value) = text.parse()
        {
            return Ok(value);
        }
        self.pos = start;
        Err(self.mismatch(format_args!(
            "attempt to access JSON non-unsigned-integer as unsigned-integer, got {}",
            number.text()
        )))
    }

    /// Passes over a value and tells where it starts.
    pub(crate) fn skip(&mut self) -> Result<Mark> {
        let kind = self.kind()?;
        let mark = Mark { pos: self.pos, depth: self.depth };
        let mut first = true;
        match kind {
            Kind::Object => {
                self.begin_object()?;
                while self.next_key(&mut first)?.is_some() {
                    self.skip()?;
                }
            }
            Kind::Array => {
                self.begin_array()?;
                while self.next_element(&mut first)? {
                    self.skip()?;
                }
            }
            Kind::String => drop(self.string()?),
            Kind::Number => drop(self.number()?),
            Kind::Bool => drop(self.bool()?),
            Kind::Null => self.literal("null", "null")?,
        }
        Ok(mark)
    }

    /// A reader that stands at a place this one has been.
    pub(crate) fn at(&self, mark: Mark) -> Self {
        Self { pos: mark.pos, depth: mark.depth, ..self.clone() }
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fail("unexpected text after the JSON value")),
        }
    }
}
