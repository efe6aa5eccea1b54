//! What came of the checks, and how it is shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checks::CHECKS;

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// It holds; the text says what was seen, and may be empty.
    Pass(String),
    /// A promise is broken.
    Fail(String),
    /// It says nothing about this model, or the model says that it does not keep this.
    Excluded(String),
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The name of the check.
    pub check: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of all checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each check, in their order.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether nothing failed, and something passed.
    pub fn conforms(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Fail(_))) == 0
            && self.count(|outcome| matches!(outcome, Outcome::Pass(_))) > 0
    }

    /// The last line of the table: how many passed, failed and are excluded.
    pub fn total(&self) -> String {
        let [passed, failed, excluded] = [
            self.count(|outcome| matches!(outcome, Outcome::Pass(_))),
            self.count(|outcome| matches!(outcome, Outcome::Fail(_))),
            self.count(|outcome| matches!(outcome, Outcome::Excluded(_))),
        ];
        format!("{passed} passed, {failed} failed, {excluded} excluded")
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.rows.iter().filter(|row| of(&row.outcome)).count()
    }
}

/// One line of the table; the columns are those of all checks, so that it can be shown before the others are there.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = CHECKS.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let (word, reason) = match &self.outcome {
            Outcome::Pass(note) => ("pass", note),
            Outcome::Fail(reason) => ("FAIL", reason),
            Outcome::Excluded(reason) => ("excluded", reason),
        };
        let line = format!("{:width$}  {word:8}  {reason}", self.check);
        f.write_str(line.trim_end())
    }
}

/// The whole table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        f.write_str(&self.total())
    }
}
