//! `docs/abi.md` says of which text of the interface it speaks; a change of one without the other fails here.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

#[test]
fn the_page_speaks_of_this_interface() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources: Vec<_> =
        fs::read_dir(root.join("src")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.sort();
    let mut hash = Sha256::new();
    sources.iter().for_each(|path| hash.update(fs::read(path).unwrap()));
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let page = fs::read_to_string(root.join("../../docs/abi.md")).unwrap();
    assert!(
        page.lines().any(|line| line.trim() == hash),
        "the interface has changed: read docs/abi.md against it, mend it, and put this line into 'Held by': {hash}"
    );
}

/// `tests/abi-compat/v1` is what it was when version 1 was frozen.
#[test]
fn nobody_has_touched_the_frozen_copy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = root.join("../../tests/abi-compat/v1");
    let (mut found, mut folders) = (Vec::new(), vec![copy.clone()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(&copy).unwrap().to_str().unwrap().to_owned();
            match (path.is_dir(), name.as_str()) {
                (true, _) => folders.push(path),
                (false, "SHA256SUMS") => {}
                (false, _) => found.push(format!("{}  {name}", sum(&fs::read(&path).unwrap()))),
            }
        }
    }
    found.sort_by(|a, b| a[66..].cmp(&b[66..]));
    let list = fs::read_to_string(copy.join("SHA256SUMS")).unwrap();
    for (known, found) in list.lines().zip(&found) {
        assert_eq!(known, found, "tests/abi-compat/v1 is never edited");
    }
    assert_eq!(list.lines().count(), found.len(), "files of tests/abi-compat/v1");
    let page = fs::read_to_string(root.join("../../docs/abi.md")).unwrap();
    let list = sum(list.as_bytes());
    assert!(page.lines().any(|line| line.trim() == list), "docs/abi.md does not hold the list {list}");
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_page_names_every_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/abi.md")).unwrap();
    let layouts = fs::read_to_string(root.join("layouts/v1.txt")).unwrap();
    let mut table = "";
    for line in layouts.lines() {
        if !line.starts_with(' ') {
            table = line.split(':').next().unwrap();
        } else if table.ends_with("Vtable") && line.contains(": fn(") {
            let function = line.split_whitespace().nth(1).unwrap().trim_end_matches(':');
            let named = |row: &str| row.contains(&format!("`{table}.")) && row.contains(function);
            assert!(page.lines().any(named), "docs/abi.md has no row for {table}.{function}");
        }
    }
}
