//! Source files: their size, unfinished work, and paths of somebody's machine.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// Lines of a file above which it is listed, and above which the check fails.
const LONG: usize = 600;
const TOO_LONG: usize = 1500;

pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let machine = machine_paths(workspace);
    let (mut findings, mut sizes) = (Vec::new(), Vec::new());
    for name in tracked(workspace)? {
        // Binary files and links to nowhere have no lines to check.
        let Ok(text) = fs::read_to_string(workspace.root.join(&name)) else { continue };
        if name.ends_with(".rs") {
            sizes.push((text.lines().count(), name.clone()));
        }
        for (number, line) in text.lines().enumerate() {
            let unfinished = is_code(&name).then(|| unfinished(line)).flatten();
            let machine = machine.iter().find(|path| line.contains(path.as_str()));
            if let Some(what) = unfinished {
                findings.push(format!("{name}:{}: {what} is left in the code", number + 1));
            }
            if let Some(path) = machine {
                findings.push(format!("{name}:{}: names {path}, a path of one machine", number + 1));
            }
        }
    }
    findings.extend(report_sizes(&mut sizes));
    Ok(findings)
}

/// Files that git knows or would add, relative to the root. Lock files are made, not written.
fn tracked(workspace: &Workspace) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::output(&mut git, "git ls-files")?;
    Ok(listed
        .split('\0')
        .filter(|name| !name.is_empty() && !name.ends_with(".lock"))
        .map(String::from)
        .collect())
}

fn is_code(name: &str) -> bool {
    matches!(
        Path::new(name).extension().and_then(|end| end.to_str()),
        Some("rs" | "py" | "sh" | "c" | "h" | "cu")
    )
}

/// The first mark of unfinished work in a line. The marks are put together here so that this file has none.
fn unfinished(line: &str) -> Option<&'static str> {
    const MARKS: [&str; 5] = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ign", "ore"),
    ];
    MARKS.into_iter().find(|mark| line.contains(mark))
}

/// Prefixes that are true on one machine only: this checkout, this home, and anybody's home.
fn machine_paths(workspace: &Workspace) -> Vec<String> {
    let mut paths = vec![concat!("/ho", "me/").to_string(), concat!("/Us", "ers/").to_string()];
    let home = env::var("HOME").ok().filter(|home| home.len() > 1);
    paths.extend(home.map(|home| format!("{}/", home.trim_end_matches('/'))));
    // A checkout in the root folder of a container is too short a name to mean one machine.
    if workspace.root.components().count() > 2 {
        paths.push(format!("{}/", workspace.root.display()));
    }
    paths
}

fn report_sizes(sizes: &mut [(usize, String)]) -> Vec<String> {
    sizes.sort_unstable();
    if let (Some(median), Some(p90)) = (sizes.get(sizes.len() / 2), sizes.get(sizes.len() * 9 / 10)) {
        println!("{} Rust files, median {} lines, p90 {} lines", sizes.len(), median.0, p90.0);
    }
    for (lines, name) in sizes.iter().filter(|(lines, _)| *lines > LONG) {
        println!("long: {name} has {lines} lines");
    }
    let too_long = sizes.iter().filter(|(lines, _)| *lines > TOO_LONG);
    too_long
        .map(|(lines, name)| format!("{name} has {lines} lines, over {TOO_LONG}: split it by idea"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_unfinished_work_are_seen() {
        assert!(unfinished(concat!("    // TO", "DO: later")).is_some());
        assert!(unfinished(concat!("    todo", "!()")).is_some());
        assert!(unfinished("    let done = true;").is_none());
    }

    #[test]
    fn sizes_over_the_limit_are_findings() {
        let mut sizes = vec![(2000, "a.rs".to_string()), (700, "b.rs".to_string()), (10, "c.rs".to_string())];
        let findings = report_sizes(&mut sizes);
        assert_eq!(findings, ["a.rs has 2000 lines, over 1500: split it by idea"]);
    }
}
