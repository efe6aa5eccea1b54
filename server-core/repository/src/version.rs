//! Which directories of a model are versions.

/// Directories of a model that are never versions.
const RESERVED: [&str; 3] = ["warmup", "initial_state", "configs"];

/// What the name of a directory in a model's directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionName {
    /// A version. As the field reads it, what follows the digits does not count: `3abc` is 3.
    Version(i64),
    /// Digits behind a zero: passed over with a warning.
    LeadingZero,
    /// Something else: passed over.
    Other,
}

impl VersionName {
    pub(crate) fn of(name: &str) -> Self {
        let end = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        let digits = &name[..end];
        if RESERVED.contains(&name) || digits.is_empty() {
            return Self::Other;
        }
        if name.starts_with('0') && name.len() > 1 {
            return Self::LeadingZero;
        }
        match digits.parse() {
            Ok(number) if number > 0 => Self::Version(number),
            _ => Self::Other,
        }
    }
}

/// Whether the name is a version's and nothing else.
pub(crate) fn is_plain_version(name: &str) -> bool {
    matches!(VersionName::of(name), VersionName::Version(_)) && name.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        use VersionName::{LeadingZero, Other, Version};
        for (name, meaning) in [
            ("1", Version(1)),
            ("10", Version(10)),
            ("3abc", Version(3)),
            ("9223372036854775807", Version(i64::MAX)),
            ("9223372036854775808", Other),
            ("01", LeadingZero),
            ("0x1", LeadingZero),
            ("0", Other),
            ("abc", Other),
            ("-1", Other),
            ("", Other),
            ("٣", Other),
            ("warmup", Other),
            ("initial_state", Other),
            ("configs", Other),
        ] {
            assert_eq!(VersionName::of(name), meaning, "{name}");
        }
        assert!(is_plain_version("12") && !is_plain_version("12a") && !is_plain_version("012"));
    }
}
