//! How many tests passed, read from the summaries that the real runners print.

use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// Whose summary to look for. A runner's output holds that of the programs it runs, so only its own lines count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runner {
    Nextest,
    CargoTest,
    Pytest,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Runner {
    /// The counts of one line if it is this runner's summary.
    pub(crate) fn summary(self, line: &str) -> Option<Counts> {
        let line = line.trim_end();
        let is_summary = match self {
            Self::Nextest => line.trim_start().starts_with("Summary ["),
            Self::CargoTest => line.starts_with("test result: "),
            Self::Pytest => line.contains(" in ") && line.trim_end_matches([' ', '=']).ends_with(['s', ')']),
        };
        if !is_summary {
            return None;
        }
        let words: Vec<&str> =
            line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let before = |name: &str| -> Option<u64> {
            words.windows(2).find(|pair| pair[1] == name).and_then(|pair| pair[0].parse().ok())
        };
        let passed = before("passed");
        // nextest counts a test that it ended for its time apart from the failed ones, pytest a broken fixture.
        let failed: Vec<u64> =
            ["failed", "timed", "error", "errors"].into_iter().filter_map(before).collect();
        (passed.is_some() || !failed.is_empty())
            .then(|| Counts { passed: passed.unwrap_or(0), failed: failed.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read() {
        for (runner, line, passed, failed) in [
            (
                Runner::Nextest,
                "     Summary [   1.2s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped",
                11,
                1,
            ),
            (
                Runner::Nextest,
                "     Summary [   0.1s] 3/9 tests run: 1 passed, 1 failed, 1 timed out, 0 skipped",
                1,
                2,
            ),
            (
                Runner::CargoTest,
                "test result: FAILED. 5 passed; 2 failed; 0 ignored; finished in 0.01s",
                5,
                2,
            ),
            (
                Runner::CargoTest,
                "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
                7,
                0,
            ),
            (Runner::Pytest, "10 passed in 3.21s", 10, 0),
            (Runner::Pytest, "=== 1 failed, 2 passed, 1 error in 0.50s ===", 2, 2),
            (Runner::Pytest, "90 passed in 83.21s (0:01:23)", 90, 0),
        ] {
            assert_eq!(runner.summary(line), Some(Counts { passed, failed }), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_counted() {
        for (runner, line) in [
            (Runner::Nextest, "    test result: FAILED. 0 passed; 1 failed; finished in 0.00s"),
            (Runner::CargoTest, "    test result: ok. 1 passed; 0 failed (printed by a test)"),
            (Runner::CargoTest, "running 3 tests"),
            (Runner::Pytest, "no tests ran in 0.01s"),
            (Runner::Pytest, ""),
        ] {
            assert_eq!(runner.summary(line), None, "{line}");
        }
    }
}
