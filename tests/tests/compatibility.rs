//! `docs/compatibility.md` speaks of every feature once, and what it says holds a line is there.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;

use trireme_tests::places;

#[test]
fn every_feature_has_a_state_and_something_that_holds_it() {
    let root = places::workspace();
    let page = fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let features = [("R", 25), ("S", 24), ("P", 24), ("O", 9)];
    let mut expected =
        features.iter().flat_map(|(letter, most)| (1..=*most).map(move |n| format!("{letter}{n:02}")));
    for line in page.lines() {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches([' ', '|'])).collect();
        let [id, feature, state, remarks, held] = cells[..] else { continue };
        if id == "id" {
            continue;
        }
        assert_eq!(Some(id), expected.next().as_deref(), "{line}");
        assert!(!feature.is_empty() && ["supported", "differs", "refused"].contains(&state), "{line}");
        assert!(state == "supported" || !remarks.is_empty(), "{id} does not say how it {state}");
        let held: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!held.is_empty(), "nothing holds {id}");
        for one in held {
            assert_ne!(one, "docs/compatibility.md", "{id} is held by nothing but itself");
            let there = match one.split_once("::") {
                Some((file, name)) => fs::read_to_string(root.join("tests/python").join(file))
                    .is_ok_and(|text| text.contains(&format!("def {name}("))),
                None => root.join(one).exists(),
            };
            assert!(there, "{id}: there is no {one}");
        }
    }
    assert_eq!(expected.next(), None, "a feature without a row");
}
