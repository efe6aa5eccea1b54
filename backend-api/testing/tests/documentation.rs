//! docs/writing-a-backend.md shows the examples as they are compiled, and all checks and rules.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn the_page_is_what_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/writing-a-backend.md")).unwrap();
    let mut blocks = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for example in ["identity", "softmax", "words"] {
        let compiled = fs::read_to_string(root.join(format!("examples/{example}.rs"))).unwrap();
        assert_eq!(blocks.next(), Some(compiled.as_str()), "{example}");
    }
    assert_eq!(blocks.next(), None);
    for check in trireme_conformance::CHECKS {
        let row = format!("| `{}` | {} |", check.name, check.says);
        assert!(page.contains(&row), "{row}");
    }
    for rule in trireme_host::check::Rule::ALL {
        let row = format!("| `{}` | {} |", rule.name(), rule.says());
        assert!(page.contains(&row), "{row}");
    }
    let json = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(trireme_conformance::Declared::parse(json).map(|declared| declared.requests.len()), Ok(2));
}
