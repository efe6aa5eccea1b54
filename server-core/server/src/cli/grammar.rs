//! What the value of a flag may look like, as tritonserver reads it.

use std::fmt::Write;

/// The form of a flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// `true`, `on`, `1`, `false`, `off`, `0` in any case.
    Truth,
    /// A whole number between two bounds, both included.
    Whole(i64, i64),
    /// A number, with a fraction or without.
    Number,
    /// The level of `--log-verbose`: a number, or `true` and `false` for 1 and 0.
    Level,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// Any text; the word stands for it in the help.
    Text(&'static str),
    /// A path; the word stands for it in the help.
    Path(&'static str),
    /// A regular expression.
    Pattern,
    /// `KEY=VALUE`.
    Setting,
    /// `[NAME,]KEY=VALUE`; the word says whose name it is.
    NamedSetting(&'static str),
    /// `NAME,KEY=VALUE`.
    PolicySetting,
    /// `GROUP[,GROUP…]:KEY=VALUE`; the groups are checked where they are known.
    Restriction,
    /// `NAME:COUNT[:DEVICE]`.
    Resource,
    /// `DEVICE:NUMBER`; the word says what the number is.
    PerDevice(&'static str),
    /// `FIRST-LAST`, two ports.
    PortRange,
}

/// Any whole number that is not negative.
pub(super) const COUNT: Grammar = Grammar::Whole(0, i64::MAX);
/// A TCP port; 0 takes a free one.
pub(super) const PORT: Grammar = Grammar::Whole(0, 65_535);
/// Seconds, milliseconds and the like, where upstream takes a C `int`.
pub(super) const INT: Grammar = Grammar::Whole(i32::MIN as i64, i32::MAX as i64);

impl Grammar {
    /// What stands for the value in the help.
    pub fn placeholder(self) -> String {
        match self {
            Self::Truth => "BOOL".to_owned(),
            Self::Whole(0, 65_535) => "PORT".to_owned(),
            Self::Whole(..) | Self::Number => "N".to_owned(),
            Self::Level => "LEVEL".to_owned(),
            Self::Word(words) => words.join("|"),
            Self::Text(word) | Self::Path(word) => word.to_owned(),
            Self::Pattern => "REGEX".to_owned(),
            Self::Setting => "KEY=VALUE".to_owned(),
            Self::NamedSetting(word) => format!("[{word},]KEY=VALUE"),
            Self::PolicySetting => "NAME,KEY=VALUE".to_owned(),
            Self::Restriction => "API[,API…]:KEY=VALUE".to_owned(),
            Self::Resource => "NAME:COUNT[:DEVICE]".to_owned(),
            Self::PerDevice(word) => format!("DEVICE:{word}"),
            Self::PortRange => "FIRST-LAST".to_owned(),
        }
    }

    /// Whether `text` has the form.
    ///
    /// # Errors
    /// What was expected.
    pub fn check(self, text: &str) -> Result<(), String> {
        let fine = match self {
            Self::Truth => truth(text).is_some(),
            Self::Whole(least, most) => {
                text.parse::<i64>().is_ok_and(|number| (least..=most).contains(&number))
            }
            Self::Number => text.parse::<f64>().is_ok_and(f64::is_finite),
            Self::Level => level(text).is_some(),
            Self::Word(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
            // Charts fill flags from values that may be empty: then the flag counts as not given.
            Self::Text(_) | Self::Path(_) => true,
            Self::Pattern => return pattern(text).map(drop).map_err(|error| error.to_string()),
            Self::Setting => pair(text, '=').is_some(),
            Self::NamedSetting(_) => named_setting(text).is_some(),
            Self::PolicySetting => pair(text, ',').is_some_and(|(_, setting)| pair(setting, '=').is_some()),
            Self::Restriction => pair(text, ':').is_some_and(|(_, setting)| pair(setting, '=').is_some()),
            Self::Resource => resource(text).is_some(),
            Self::PerDevice(_) => pair(text, ':').is_some_and(|(device, number)| {
                device.parse::<i32>().is_ok() && number.parse::<f64>().is_ok_and(|n| n.is_finite() && n >= 0.0)
            }),
            Self::PortRange => pair(text, '-').is_some_and(|(first, last)| {
                matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
            }),
        };
        if fine { Ok(()) } else { Err(format!("expected {}", self.expected())) }
    }

    fn expected(self) -> String {
        match self {
            Self::Truth => "true, false, 1, 0, on or off".to_owned(),
            Self::Whole(least, most) => {
                let mut text = "a whole number".to_owned();
                match (least, most) {
                    (least, i64::MAX) => drop(write!(text, " of at least {least}")),
                    (least, most) => drop(write!(text, " from {least} to {most}")),
                }
                text
            }
            Self::Number => "a number".to_owned(),
            Self::Level => "a level: 0, 1, 2 or more".to_owned(),
            Self::Word(words) => words.join(" or "),
            other => other.placeholder(),
        }
    }
}

/// A flag's truth value.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" => Some(true),
        "false" | "0" | "off" => Some(false),
        _ => None,
    }
}

/// The level of `--log-verbose`.
pub(super) fn level(text: &str) -> Option<u32> {
    let number = text.parse::<i64>().ok().and_then(|level| u32::try_from(level.max(0)).ok());
    number.or_else(|| truth(text).map(u32::from))
}

/// A pattern of header names, which HTTP compares without regard to case.
pub(super) fn pattern(text: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).case_insensitive(true).build()
}

/// The texts before and after the first `separator`, if neither is empty.
pub(super) fn pair(text: &str, separator: char) -> Option<(&str, &str)> {
    text.split_once(separator).filter(|(before, after)| !before.is_empty() && !after.is_empty())
}

/// Name (or nothing), key and value. A comma after the first `=` belongs to the value.
pub(super) fn named_setting(text: &str) -> Option<(&str, &str, &str)> {
    let (before, value) = pair(text, '=')?;
    match before.split_once(',') {
        None => Some(("", before, value)),
        Some((name, key)) => (!name.is_empty() && !key.is_empty()).then_some((name, key, value)),
    }
}

/// Name, count and device of a resource.
pub(crate) fn resource(text: &str) -> Option<(&str, u32, Option<i32>)> {
    let mut parts = text.split(':');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let count = parts.next()?.parse().ok()?;
    let device = match parts.next() {
        Some(device) => Some(device.parse::<i32>().ok().filter(|device| *device >= 0)?),
        None => None,
    };
    parts.next().is_none().then_some((name, count, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_what_tritonserver_takes() {
        let taken: &[(Grammar, &[&str])] = &[
            (Grammar::Truth, &["true", "FALSE", "1", "0", "On", "off"]),
            (INT, &["0", "-1", "2147483647"]),
            (Grammar::Number, &["6.0", "1"]),
            (Grammar::Level, &["0", "3", "true", "-1"]),
            (Grammar::Text("NAME"), &["x", ""]),
            (Grammar::Word(&["off", "execution_count"]), &["OFF", "execution_count"]),
            (Grammar::Pattern, &["^x-.*", "(a|b)"]),
            (Grammar::Setting, &["summary_quantiles=0.5:0.05,0.9:0.01"]),
            (Grammar::NamedSetting("BACKEND"), &["a=b", "onnx,a=b", "a=b,c"]),
            (Grammar::PolicySetting, &["gpu_0,numa-node=1"]),
            (Grammar::Restriction, &["health:k=v", "health,metadata:k=v"]),
            (Grammar::Resource, &["R:1", "R:1:0"]),
            (Grammar::PerDevice("BYTES"), &["0:67108864", "1:0.5"]),
            (Grammar::PortRange, &["8000-9000"]),
        ];
        for (grammar, texts) in taken {
            for text in *texts {
                assert_eq!(grammar.check(text), Ok(()), "{grammar:?} {text}");
            }
        }
    }

    #[test]
    fn what_has_another_form_is_told_what_was_expected() {
        let refused: &[(Grammar, &[&str])] = &[
            (Grammar::Truth, &["yes", "", "2"]),
            (INT, &["1.4", "x", "2147483648", ""]),
            (Grammar::Whole(2, 128), &["1", "129"]),
            (Grammar::Number, &["inf", "x"]),
            (Grammar::Pattern, &["("]),
            (Grammar::Setting, &["a", "=b", "a="]),
            (Grammar::NamedSetting("CACHE"), &["local", ",a=b", "local,=b"]),
            (Grammar::PolicySetting, &["a=b", "p,a"]),
            (Grammar::Restriction, &["health", "health:k", ":k=v", "health:k="]),
            (Grammar::Resource, &["R", "R:x", ":1", "R:1:2:3"]),
            (Grammar::PerDevice("BYTES"), &["64", "0:-1", "x:1"]),
            (Grammar::PortRange, &["9-8", "8"]),
        ];
        for (grammar, texts) in refused {
            for text in *texts {
                assert!(grammar.check(text).is_err(), "{grammar:?} {text}");
            }
        }
        assert_eq!(Grammar::Whole(2, 128).check("1").unwrap_err(), "expected a whole number from 2 to 128");
    }
}
