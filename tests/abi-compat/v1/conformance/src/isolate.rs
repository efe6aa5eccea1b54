//! Each check in a process of its own: what crashes, hangs or leaks in one says nothing about the next.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::checks::{CHECKS, Check};
use crate::outcome::{Outcome, Report, Row};
use crate::subject::{Problem, Subject};

/// What begins the line in which a process says what came of its check; a backend may print others.
const MARK: &str = "trireme-conformance ";
/// Bytes of standard error that are shown when a process dies.
const TAIL: usize = 2000;
/// How long the pipes of a process that has ended may stay open.
const LEFT_OPEN: Duration = Duration::from_secs(1);

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

/// Reads a pipe on a thread of its own, piece by piece.
fn read(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = pipe.read(&mut piece) {
                if to.send(piece[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    from
}

/// What came through a pipe whose process has ended. The pipe ends with it, unless it has left children that hold it: those
/// are not waited for.
fn finish(pipe: &Receiver<Vec<u8>>) -> String {
    let end = Instant::now() + LEFT_OPEN;
    let mut bytes = Vec::new();
    while let Ok(piece) = pipe.recv_timeout(end.saturating_duration_since(Instant::now())) {
        bytes.extend(piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn run_one(isolation: &Isolation<'_>, check: &str) -> Outcome {
    let mut command = (isolation.command)(check);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Fail(format!("the process of the check cannot be started: {error}")),
    };
    let out = read(child.stdout.take());
    let err = read(child.stderr.take());
    let end = Instant::now() + isolation.limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => break None,
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        return Outcome::Fail(format!("the check had not ended after {:?}", isolation.limit));
    }
    let (out, err) = (finish(&out), finish(&err));
    let line = out.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let outcome = line.and_then(|line| serde_json::from_str(line).ok());
    outcome.unwrap_or_else(|| {
        let at = (err.len().saturating_sub(TAIL)..=err.len()).find(|at| err.is_char_boundary(*at));
        let tail = err[at.unwrap_or(0)..].split_whitespace().collect::<Vec<_>>().join(" ");
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        Outcome::Fail(format!("the process died ({status}): {tail}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_a_check_leaves_behind_is_not_waited_for() {
        let passed = serde_json::to_string(&Outcome::Pass(String::new())).unwrap();
        let script = format!("sleep 20 & echo '{MARK}{passed}'");
        let command = |_: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        };
        let begin = Instant::now();
        let outcome = run_one(&Isolation { command: &command, limit: Duration::from_secs(10) }, "shapes");
        assert_eq!(outcome, Outcome::Pass(String::new()));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
