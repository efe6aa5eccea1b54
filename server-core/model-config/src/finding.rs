use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::textproto::Position;

/// Characters of a line that are shown.
const WIDTH: usize = 160;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The model is served all the same.
    Warning,
    /// The model cannot be served.
    Error,
}

/// Something about a configuration that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// The place in it, if there is one.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// How to mend it, where the message does not say it.
    pub help: Option<String>,
    /// The line of the file, and where in it the finding begins and how long it is, in characters.
    excerpt: Option<Box<(String, usize, usize)>>,
}

impl Finding {
    /// A finding about a place in a text.
    pub(crate) fn at(
        severity: Severity,
        path: Option<&Path>,
        text: &str,
        span: Option<Range<usize>>,
        message: String,
    ) -> Self {
        let place = span.map(|span| {
            let position = Position::of(text, span.start);
            let line = text.lines().nth(position.line - 1).unwrap_or("").to_owned();
            let room = line.chars().count().saturating_sub(position.column - 1).max(1);
            let length = text.get(span).map_or(1, |part| part.chars().count()).clamp(1, room);
            (position, Box::new(window(&line, position.column - 1, length)))
        });
        let (position, excerpt) = place.unzip();
        Self { severity, path: path.map(Path::to_owned), position, message, help: None, excerpt }
    }

    /// A finding about no place in particular.
    pub fn without_place(severity: Severity, path: Option<&Path>, message: impl Into<String>) -> Self {
        Self {
            severity,
            path: path.map(Path::to_owned),
            position: None,
            message: message.into(),
            help: None,
            excerpt: None,
        }
    }

    /// Says how to mend it.
    pub(crate) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }
}

/// The part of a line that is shown: all of it, or of a long one what is around the place.
fn window(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let start = if line.chars().count() <= WIDTH { 0 } else { column.saturating_sub(WIDTH / 2) };
    let shown = line.chars().skip(start).take(WIDTH).collect();
    let column = column - start;
    (shown, column, length.min(WIDTH.saturating_sub(column)).max(1))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
            if let Some(Position { line, column }) = self.position {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        } else if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some((line, column, length)) = self.excerpt.as_deref() {
            // Tabs keep their width under the caret.
            let lead: String =
                line.chars().take(*column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  | {line}\n  | {lead}{}", "^".repeat(*length))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  = {help}")?;
        }
        Ok(())
    }
}
