use super::command::Values;
use super::flag::Effect;
use super::table::flags;

/// A flag that was given and does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The flag with its dashes.
    pub flag: String,
    /// The server must not start: somebody relies on what the flag does.
    pub refused: bool,
    /// Why, and what to do.
    pub why: &'static str,
}

/// What is to be said of the flags that were given, each once.
pub(super) fn review(values: &Values<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for flag in flags() {
        let (refused, why) = match flag.effect {
            Effect::Works => continue,
            Effect::None(why) => (false, why),
            Effect::Refused(why) => (true, why),
        };
        if values.given(flag).iter().any(|value| !flag.is_fine(value)) {
            findings.push(Finding { flag: format!("--{}", flag.name), refused, why });
        }
    }
    findings
}
