//! Where the files of the golden tests are, and random checkpoints.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod checkpoints;
pub mod driver;

use std::path::PathBuf;

pub const SMOLLM2: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
pub const HAMLET: &str = "bbe5635616c6e0e0bcf01b7b8c324be8b42451c51848f11c283bd2f4442b1e0a";
pub const BROWN_CA01: &str = "617a124c6afe87c0d1b73752158ba6e9519daf7a3ceee56d6bd79749517de309";
/// The files of the MiniLM folder, by the names that they have there.
pub const MINILM: &[(&str, &str)] = &[
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
];

fn cache_path(sha256: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME is set")).join(".cache")
    });
    cache.join("trireme/models").join(sha256)
}

/// Whether the weights cache has a file.
pub fn is_cached(sha256: &str) -> bool {
    cache_path(sha256).is_file()
}

/// Whether a program can be started by its name.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A file of the weights cache, by its sha256.
pub fn cached(sha256: &str) -> PathBuf {
    let path = cache_path(sha256);
    assert!(path.is_file(), "{} is missing; run 'cargo xtask models' first", path.display());
    path
}

/// A folder with MiniLM as its package has it.
pub fn minilm() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    for (name, sha256) in MINILM {
        std::os::unix::fs::symlink(cached(sha256), dir.path().join(name)).unwrap();
    }
    dir
}
