//! `docs/qa.md`: the table of results, and every miss with its reason.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use crate::workspace::Workspace;

use super::cases::{self, Group};
use super::results::{self, Outcome};
use super::suites::SUITES;

/// `tests/qa/notes.toml`: why a miss is one, where that is known.
#[derive(Deserialize, Default)]
struct Notes {
    #[serde(default)]
    note: Vec<Note>,
}

#[derive(Deserialize)]
struct Note {
    suite: String,
    /// A part of the test's name.
    test: String,
    why: String,
}

struct Miss<'a> {
    group: &'a Group,
    test: &'a str,
    reason: String,
}

const HEAD: &str = "# Triton's own QA clients

The Python test files of [triton-inference-server/server](https://github.com/triton-inference-server/server) v2.51.0
(24.10), run unmodified by `cargo xtask qa --from DIR --clients DIR` against `trireme`. This page is written by that
command.

* A case is a suite, a combination (the server's flags and the environment that the suite's script sets) and a test
  method; `tests/qa/cases.toml` lists them, written from upstream's scripts before the run. Skipped or not run is a miss.
* Upstream's scripts also run C++ unit tests of its own sources and look for lines of its own log; both are not cases.
* Models that upstream generates with TensorFlow, ONNX Runtime, PyTorch or TensorRT, or writes in Python or C++, are
  replaced by ones of the same names, shapes and types that run in our backends `stand_in` (under the frameworks' names), `identity` and `repeat`.
  In L0_optional_input, L0_parameters and L0_request_cancellation those in Python are upstream's own, in our backend `python`.
* No GPU: instance groups of `KIND_GPU` become `KIND_CPU`, but for those that a case writes itself: the stand-ins have
  instances of that kind, too, which use no GPU. `--allow-client-shm` is given, because shared memory was on by
  default at that tag. The sequence suites run with upstream's custom models.
";

pub(crate) fn write(workspace: &Workspace, cases_file: &Path, commit: Option<&str>) -> Result<()> {
    let cases = cases::read(cases_file)?;
    let notes_file = workspace.root.join("tests/qa/notes.toml");
    let notes: Notes =
        if notes_file.is_file() { toml::from_str(&super::read(&notes_file)?)? } else { Notes::default() };
    let mut text = HEAD.to_owned();
    if let Some(commit) = commit {
        let _ = writeln!(text, "* All figures are of one build, of commit {commit}.");
    }
    text += "\n| suite | cases | passed | share |\n|---|---:|---:|---:|\n";
    let (mut all, mut all_passed) = (0, 0);
    let (mut python, mut python_passed) = (0, 0);
    let (mut misses, mut others) = (String::new(), String::new());
    for suite in &SUITES {
        let groups: Vec<&Group> = cases.group.iter().filter(|group| group.suite == suite.name).collect();
        let file = super::folder(workspace).join("results").join(format!("{}.jsonl", suite.name));
        let outcomes = if file.is_file() { results::read(&file)? } else { Vec::new() };
        let (count, missed, beside) = compare(&groups, &outcomes);
        let passed = count - missed.len();
        if !beside.is_empty() {
            let well = beside.iter().filter(|outcome| outcome.outcome == "pass").count();
            let _ = writeln!(others, "* {}: {well} of {} passed", suite.name, beside.len());
            for outcome in beside.iter().filter(|outcome| outcome.outcome != "pass") {
                let reason = without_places(&outcome.reason).chars().take(240).collect::<String>();
                let _ = writeln!(others, "  * `{}` ({}): {reason}", outcome.test, outcome.environment);
            }
        }
        (all, all_passed) = (all + count, all_passed + passed);
        if suite.python {
            (python, python_passed) = (python + count, python_passed + passed);
        }
        let _ = writeln!(text, "| {} | {count} | {passed} | {} |", suite.name, share(passed, count));
        println!("  {:<28} {passed:>4} of {count:>4}", suite.name);
        if !missed.is_empty() {
            let _ = writeln!(misses, "\n### {}\n", suite.name);
            for miss in missed {
                let _ = writeln!(misses, "* {}", line(&miss, &notes));
            }
        }
    }
    let _ = writeln!(text, "| **all** | **{all}** | **{all_passed}** | **{}** |", share(all_passed, all));
    let of_python = share(python_passed, python);
    let _ = writeln!(
        text,
        "| of these with upstream's own models in Python | {python} | {python_passed} | {of_python} |"
    );
    if !others.is_empty() {
        let _ = write!(
            text,
            "\n## Run, but not in the list\nThese count neither as cases nor as passed.\n\n{others}"
        );
    }
    if !misses.is_empty() {
        let _ = write!(text, "\n## Misses\n{misses}");
    }
    println!("  {all_passed} of {all} cases pass");
    std::fs::write(workspace.root.join("docs/qa.md"), text)?;
    Ok(())
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// The number of cases, those that did not pass, and outcomes that are of no case. A case that is listed twice needs two
/// outcomes.
fn compare<'a, 'b>(
    groups: &[&'a Group],
    outcomes: &'b [Outcome],
) -> (usize, Vec<Miss<'a>>, Vec<&'b Outcome>) {
    let key = |script: &str, server: &str, environment: &str, test: &str| {
        [script, server, environment, test].join("\n")
    };
    let mut found: HashMap<String, std::collections::VecDeque<&Outcome>> = HashMap::new();
    for outcome in outcomes {
        let key = key(&outcome.script, &outcome.server, &outcome.environment, &outcome.test);
        found.entry(key).or_default().push_back(outcome);
    }
    let (mut count, mut missed) = (0, Vec::new());
    for group in groups {
        for test in &group.tests {
            count += 1;
            let key = key(&group.script, &group.server, &group.environment, test);
            let reason = match found.get_mut(&key).and_then(std::collections::VecDeque::pop_front) {
                Some(outcome) if outcome.outcome == "pass" => continue,
                Some(outcome) => format!("{}: {}", outcome.outcome, outcome.reason),
                None => "not run".to_owned(),
            };
            missed.push(Miss { group, test, reason });
        }
    }
    let mut beside: Vec<&Outcome> = found.into_values().flatten().collect();
    beside.sort_by(|a, b| (&a.test, &a.environment).cmp(&(&b.test, &b.environment)));
    (count, missed, beside)
}

/// Paths of the machine of the run say nothing to a reader.
fn without_places(reason: &str) -> String {
    let place = |word: &&str| word.matches('/').count() > 2 && !word.contains("://");
    let words = reason.split(' ').map(|word| if place(&word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn line(miss: &Miss<'_>, notes: &Notes) -> String {
    let known = |note: &&Note| note.suite == miss.group.suite && miss.test.contains(&note.test);
    let reason = match notes.note.iter().find(known) {
        Some(note) => note.why.clone(),
        None => without_places(&miss.reason)
            .chars()
            .take(240)
            .collect::<String>()
            .replace('|', "\\|")
            .replace('<', "&lt;"),
    };
    let test = if miss.test.is_empty() { &miss.group.script } else { miss.test };
    let environment = &miss.group.environment;
    let combination = if environment.is_empty() { String::new() } else { format!(" ({environment})") };
    format!("`{test}`{combination}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(test: &str, outcome: &str) -> Outcome {
        Outcome {
            script: "a_test.py".to_owned(),
            test: test.to_owned(),
            server: String::new(),
            environment: "X=1".to_owned(),
            outcome: outcome.to_owned(),
            reason: "because".to_owned(),
        }
    }

    #[test]
    fn what_is_skipped_or_not_run_or_run_once_too_few_is_a_miss() {
        let group = Group {
            suite: "L0_a".to_owned(),
            script: "a_test.py".to_owned(),
            server: String::new(),
            environment: "X=1".to_owned(),
            tests: ["T.a", "T.b", "T.c", "T.a"].map(str::to_owned).to_vec(),
        };
        let outcomes = [outcome("T.a", "pass"), outcome("T.b", "skip"), outcome("T.d", "pass")];
        let (count, missed, beside) = compare(&[&group], &outcomes);
        assert_eq!(count, 4);
        assert_eq!(beside.iter().map(|outcome| outcome.test.as_str()).collect::<Vec<_>>(), ["T.d"]);
        let missed: Vec<_> = missed.iter().map(|miss| (miss.test, miss.reason.as_str())).collect();
        assert_eq!(missed, [("T.b", "skip: because"), ("T.c", "not run"), ("T.a", "not run")]);
    }
}
