//! Promises about the tree itself.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;

use trireme_tests::places;

#[test]
fn identity_has_at_most_forty_lines_and_no_unsafe_code() {
    let source = fs::read_to_string(places::workspace().join("backends/identity/src/lib.rs")).unwrap();
    assert!(source.lines().count() <= 40, "{} lines", source.lines().count());
    assert!(source.lines().all(|line| line.len() <= 110), "no long lines to save some");
    assert!(source.contains("#![forbid(unsafe_code)]"));
}
