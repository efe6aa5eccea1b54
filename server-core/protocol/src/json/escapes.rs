//! Strings with escapes in them.

/// Reads the rest of a string whose text begins at `start` and whose first backslash is at `at`; `pos` is
/// left after the closing quote, or where the string breaks.
pub(crate) fn unescape(text: &str, start: usize, at: usize, pos: &mut usize) -> Result<String, &'static str> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(at - start + 16);
    let (mut from, mut at) = (start, at);
    loop {
        *pos = at;
        match bytes.get(at) {
            Some(b'"') => {
                out.push_str(&text[from..at]);
                *pos = at + 1;
                return Ok(out);
            }
            Some(b'\\') => {
                out.push_str(&text[from..at]);
                let (decoded, length) = escape(&bytes[at..])?;
                out.push(decoded);
                at += length;
                from = at;
            }
            Some(0..=0x1f) => return Err("a control character inside a string must be escaped"),
            Some(_) => at += 1,
            None => return Err("the text ends inside a string"),
        }
    }
}

/// One escape and its length in bytes; a pair of surrogates is one escape.
fn escape(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    let simple = match bytes.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(bytes),
        _ => return Err("unknown escape in a string"),
    };
    Ok((simple, 2))
}

fn unicode(bytes: &[u8]) -> Result<(char, usize), &'static str> {
    const LONE: &str = "half a surrogate pair in a string";
    let high = hex4(bytes.get(2..6))?;
    if let Some(decoded) = char::from_u32(high) {
        return Ok((decoded, 6));
    }
    if high >= 0xdc00 || bytes.get(6..8) != Some(b"\\u".as_slice()) {
        return Err(LONE);
    }
    let low = hex4(bytes.get(8..12))?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(LONE);
    }
    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    char::from_u32(code).map(|decoded| (decoded, 12)).ok_or(LONE)
}

fn hex4(digits: Option<&[u8]>) -> Result<u32, &'static str> {
    const BAD: &str = "\\u in a string needs four hexadecimal digits";
    digits
        .ok_or(BAD)?
        .iter()
        .try_fold(0, |code, &digit| char::from(digit).to_digit(16).map(|value| code * 16 + value).ok_or(BAD))
}
