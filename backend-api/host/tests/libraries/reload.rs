//! The dynamic linker hands out an image that it has; a changed build is still found.

use std::sync::Arc;

use trireme_host::{Library, LoadOptions};

use crate::support::{c_library, scratch};

#[test]
fn a_changed_build_is_loaded_beside_the_old_one() {
    let cache = tempfile::tempdir().unwrap();
    let options = LoadOptions { cache_dir: Some(cache.path().join("made/when/needed")) };
    let path = scratch("reload").join("libtrireme_probe.so");
    let build = |version: &str| {
        c_library("probes/probe.c", &path, &[("VERSION", version)]);
        Library::open(&path, "probe", &options).unwrap()
    };
    let first = build("\"first\"");
    let same = build("\"first\"");
    assert!(Arc::ptr_eq(&first, &same), "one content, one image");
    let second = build("\"second\"");
    let third = build("\"third\"");
    let versions = [&first, &second, &third].map(|library| library.version().to_owned());
    assert_eq!(versions, ["first", "second", "third"]);
    let back = build("\"first\"");
    assert!(Arc::ptr_eq(&first, &back), "the first image is still there");
    let copies = std::fs::read_dir(cache.path().join("made/when/needed")).unwrap().count();
    assert_eq!(copies, 2, "the first image is loaded from where it is");
}
