//! The grammar of JSON numbers, with the three words for numbers that are not finite.

/// The length of the number that `bytes` start with, and whether it is a whole number without an exponent.
#[inline]
pub(crate) fn scan(bytes: &[u8]) -> Option<(usize, bool)> {
    let digits = |from: usize| {
        let mut at = from;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let mut at = match bytes.get(sign)? {
        b'0' => sign + 1,
        b'1'..=b'9' => digits(sign + 1),
        _ => return word(&bytes[sign..]).map(|length| (sign + length, false)),
    };
    // 0123 is no number: a zero stands alone before the point.
    if bytes.get(at).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let mut integer = true;
    if bytes.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return None;
        }
        (at, integer) = (end, false);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let from = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let end = digits(from);
        if end == from {
            return None;
        }
        (at, integer) = (end, false);
    }
    Some((at, integer))
}

#[cold]
fn word(bytes: &[u8]) -> Option<usize> {
    // The longer word first: `Inf` is how `Infinity` begins.
    ["Infinity", "Inf", "NaN"].into_iter().find(|w| bytes.starts_with(w.as_bytes())).map(str::len)
}

#[cfg(test)]
mod tests {
    use super::scan;

    #[test]
    fn the_grammar() {
        for (text, want) in [
            ("0", Some((1, true))),
            ("-12,", Some((3, true))),
            ("1.50]", Some((4, false))),
            ("1e9", Some((3, false))),
            ("-1.5E-7 ", Some((7, false))),
            ("NaN", Some((3, false))),
            ("Inf,", Some((3, false))),
            ("-Infinity", Some((9, false))),
            ("-NaN", Some((4, false))),
            ("01", None),
            ("1.", None),
            ("1.e3", None),
            ("1e", None),
            ("-", None),
            ("-x", None),
            ("+1", None),
            ("Nope", None),
        ] {
            assert_eq!(scan(text.as_bytes()), want, "{text}");
        }
    }
}
