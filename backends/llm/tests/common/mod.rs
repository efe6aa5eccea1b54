//! Real model files from the cache that `cargo xtask models` fills.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::path::{Path, PathBuf};

pub(crate) const SMOLLM2_GGUF: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The files of a MiniLM folder and their content hashes.
const MINILM: [(&str, &str); 5] = [
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
];

/// The cached file of this content hash. The cache is `$TRIREME_MODEL_CACHE`, else `trireme/models` in the user's
/// cache folder.
pub(crate) fn model_file(sha256: &str) -> PathBuf {
    let cache = std::env::var_os("TRIREME_MODEL_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        base.unwrap_or_else(home).join("trireme/models")
    });
    let file = cache.join(sha256);
    assert!(file.is_file(), "{} is missing: run `cargo xtask models` first", file.display());
    file
}

/// A MiniLM folder made of links to the cached files.
pub(crate) fn minilm() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, sha256) in MINILM {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        std::os::unix::fs::symlink(model_file(sha256), path).unwrap();
    }
    dir
}
