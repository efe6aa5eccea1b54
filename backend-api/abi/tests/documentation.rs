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

#[test]
fn the_page_names_every_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/abi.md")).unwrap();
    let layouts = fs::read_to_string(root.join("layouts/v0.txt")).unwrap();
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
