use std::ops::Range;

use crate::textproto::error::ParseError;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name, or a word such as `true` or `inf`.
    Word(String),
    /// The digits of a number as they stand, without a sign.
    Number(String),
    /// The bytes of a string literal.
    Text(Vec<u8>),
    /// One of `{ } < > [ ] : , ; - . /`.
    Sign(char),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) span: Range<usize>,
}

/// The tokens of a text, up to its end or to the first thing that is no token; the last is [`Token::End`].
pub(super) fn lex(text: &str) -> (Vec<Spanned>, Option<ParseError>) {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let (token, error) = match lexer.next() {
            Ok(token) => (token, None),
            Err(error) => (Token::End, Some(error)),
        };
        let end = token == Token::End;
        let span = if error.is_some() { start..start } else { start..lexer.at };
        tokens.push(Spanned { token, span });
        if end {
            return (tokens, error);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if c.is_whitespace() || c == '\u{feff}' {
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let end = self.rest().find(|c| !keep(c)).unwrap_or(self.rest().len());
        let taken = self.rest()[..end].to_owned();
        self.at += end;
        taken
    }

    fn next(&mut self) -> Result<Token, ParseError> {
        let Some(c) = self.peek() else { return Ok(Token::End) };
        if c.is_ascii_alphabetic() || c == '_' {
            return Ok(Token::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')));
        }
        let decimal = c == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit());
        if c.is_ascii_digit() || decimal {
            return Ok(self.number());
        }
        if c == '"' || c == '\'' {
            return self.string(c);
        }
        if "{}<>[]:,;-./".contains(c) {
            self.at += 1;
            return Ok(Token::Sign(c));
        }
        let span = self.at..self.at + c.len_utf8();
        let hint = match c {
            '=' => "; a field is written as `name: value`",
            '“' | '”' | '‘' | '’' => "; strings stand in plain quotes, \" or '",
            _ => "",
        };
        Err(ParseError { span, message: format!("unexpected character {c:?}{hint}") })
    }

    fn number(&mut self) -> Token {
        let mut digits = String::new();
        let mut exponent = false;
        while let Some(c) = self.peek() {
            let hex = digits.starts_with("0x") || digits.starts_with("0X");
            let sign = (c == '+' || c == '-') && exponent && digits.ends_with(['e', 'E']) && !hex;
            if !(c.is_ascii_alphanumeric() || c == '.' || sign) {
                break;
            }
            exponent |= c == 'e' || c == 'E';
            digits.push(c);
            self.at += 1;
        }
        Token::Number(digits)
    }

    fn string(&mut self, quote: char) -> Result<Token, ParseError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let here = self.at;
            let Some(c) = self.peek().filter(|c| *c != '\n') else {
                let message = "the string is not closed on its line".to_owned();
                return Err(ParseError { span: start..here, message });
            };
            self.at += c.len_utf8();
            if c == quote {
                return Ok(Token::Text(bytes));
            }
            if c == '\\' {
                self.escape(here, &mut bytes)?;
            } else {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    /// After a backslash at `start`.
    fn escape(&mut self, start: usize, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        let Some(c) = self.peek() else {
            return Err(ParseError { span: start..self.at, message: "the string is not closed".to_owned() });
        };
        self.at += c.len_utf8();
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '?' => c as u8,
            '0'..='7' => {
                self.at -= 1;
                let digits = self.digits(3, 8);
                let value = u8::from_str_radix(&digits, 8);
                bytes.push(value.map_err(|_| self.bad_escape(start))?);
                return Ok(());
            }
            'x' | 'X' => {
                let digits = self.digits(2, 16);
                let value = u8::from_str_radix(&digits, 16);
                bytes.push(value.map_err(|_| self.bad_escape(start))?);
                return Ok(());
            }
            'u' | 'U' => {
                let digits = self.digits(if c == 'u' { 4 } else { 8 }, 16);
                let point = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                let point = point.ok_or_else(|| self.bad_escape(start))?;
                bytes.extend_from_slice(point.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.bad_escape(start)),
        };
        bytes.push(simple);
        Ok(())
    }

    fn bad_escape(&self, start: usize) -> ParseError {
        let span = start..self.at;
        let message = format!("'{}' is not an escape sequence", &self.text[span.clone()]);
        ParseError { span, message }
    }

    fn digits(&mut self, most: usize, radix: u32) -> String {
        let digits: String = self.rest().chars().take(most).take_while(|c| c.is_digit(radix)).collect();
        self.at += digits.len();
        digits
    }
}
