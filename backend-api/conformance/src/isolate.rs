//! Each check in a process of its own: what crashes, hangs or leaks in one says nothing about the next.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::checks::{CHECKS, Check};
use crate::outcome::{Outcome, Report, Row};
use crate::subject::{Problem, Subject};

/// What begins the line in which a process says what came of its check; a backend may print others.
const MARK: &str = "trireme-conformance ";
/// Bytes of standard error that are shown when a process dies.
const TAIL: usize = 2000;

/// How the processes are started.
pub struct Isolation<'a> {
    /// Makes the command that tries one check, by name, and calls [`answer_for`].
    pub command: &'a dyn Fn(&str) -> Command,
    /// How long a check may take.
    pub limit: Duration,
}

/// In the process of one check: tries it and prints what came of it, for [`run_apart`].
#[expect(clippy::print_stdout, reason = "the other end of the pipe")]
pub fn answer_for(check: &Check, subject: Result<Subject, Problem>) {
    let outcome = match subject {
        Ok(subject) => check.run(&subject),
        Err(problem) => Outcome::Fail(problem.to_string()),
    };
    println!("\n{MARK}{}", serde_json::to_string(&outcome).unwrap_or_default());
}

/// Tries all checks. If the library cannot be loaded, the others are not tried.
pub fn run_apart(isolation: &Isolation<'_>, mut seen: impl FnMut(&Row)) -> Report {
    let mut report = Report::default();
    for check in CHECKS {
        let loaded = !matches!(report.rows.first(), Some(Row { outcome: Outcome::Fail(_), .. }));
        let outcome = match loaded {
            true => run_one(isolation, check.name),
            false => Outcome::Excluded("the library cannot be used".to_owned()),
        };
        let row = Row { check: check.name, outcome };
        seen(&row);
        report.rows.push(row);
    }
    report
}

fn run_one(isolation: &Isolation<'_>, check: &str) -> Outcome {
    let mut command = (isolation.command)(check);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Fail(format!("the process of the check cannot be started: {error}")),
    };
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let end = Instant::now() + isolation.limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => break None,
        }
    };
    if status.is_none() {
        // Its pipes end with it, unless it has left children that hold them: those are not waited for.
        let _ = child.kill();
        let _ = child.wait();
        return Outcome::Fail(format!("the check had not ended after {:?}", isolation.limit));
    }
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let line = out.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let outcome = line.and_then(|line| serde_json::from_str(line).ok());
    outcome.unwrap_or_else(|| {
        let at = (err.len().saturating_sub(TAIL)..=err.len()).find(|at| err.is_char_boundary(*at));
        let tail = err[at.unwrap_or(0)..].split_whitespace().collect::<Vec<_>>().join(" ");
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        Outcome::Fail(format!("the process died ({status}): {tail}"))
    })
}
