//! How many tests passed, read from the summaries that the real runners print.

use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
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

impl Counts {
    /// The counts of one line if it is a runner's summary: nextest, cargo test or pytest.
    pub(crate) fn of_summary(line: &str) -> Option<Self> {
        let line = line.trim();
        let nextest = line.starts_with("Summary [");
        let libtest = line.starts_with("test result: ");
        let pytest = line.contains(" in ") && line.ends_with('s') && !line.contains('[') && !libtest;
        if !(nextest || libtest || pytest) {
            return None;
        }
        let words: Vec<&str> =
            line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let before = |names: &[&str]| -> Option<u64> {
            let found: Vec<u64> = words
                .windows(2)
                .filter(|pair| names.contains(&pair[1]))
                .filter_map(|pair| pair[0].parse().ok())
                .collect();
            (!found.is_empty()).then(|| found.iter().sum())
        };
        let passed = before(&["passed"]);
        // nextest counts a test that was killed for its time apart from the failed ones; pytest a broken fixture.
        let failed = before(&["failed", "error", "errors", "timed"]);
        (passed.is_some() || failed.is_some())
            .then(|| Self { passed: passed.unwrap_or(0), failed: failed.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_the_three_runners_are_read() {
        for (line, passed, failed) in [
            ("     Summary [   1.234s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped", 11, 1),
            ("     Summary [   0.100s] 3/9 tests run: 1 passed, 1 failed, 1 timed out, 0 skipped", 1, 2),
            (
                "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                5,
                2,
            ),
            ("test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out", 7, 0),
            ("10 passed in 3.21s", 10, 0),
            ("=== 1 failed, 2 passed, 1 error in 0.50s ===", 2, 2),
        ] {
            let line = line.trim_matches('=');
            assert_eq!(Counts::of_summary(line), Some(Counts { passed, failed }), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not_counted() {
        for line in
            ["running 3 tests", "test a ... ok", "PASS [ 0.004s] x in 3s", "", "no tests ran in 0.01s"]
        {
            assert_eq!(Counts::of_summary(line), None, "{line}");
        }
    }
}
