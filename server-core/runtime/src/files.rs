//! The small files of a model that the server itself reads.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The file `name` of `dir`.
///
/// # Errors
/// The name leaves the directory.
pub(crate) fn inside(dir: &Path, name: &str) -> Result<PathBuf, String> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || !Path::new(name).components().all(plain) {
        return Err(format!("'{}' leaves the directory '{}'", name.escape_debug(), dir.display()));
    }
    Ok(dir.join(name))
}

/// The contents of a regular file of at most `limit` bytes.
///
/// # Errors
/// There is none, or it is larger.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let refuse = |error: &dyn std::fmt::Display| format!("'{}' cannot be read: {error}", path.display());
    // A pipe or a device would keep the load waiting for ever.
    if !std::fs::metadata(path).map_err(|error| refuse(&error))?.is_file() {
        return Err(refuse(&"it is not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(|error| refuse(&error))?;
    let mut data = Vec::new();
    file.take(limit + 1).read_to_end(&mut data).map_err(|error| refuse(&error))?;
    if data.len() as u64 > limit {
        return Err(refuse(&format_args!("it has more than {limit} bytes")));
    }
    Ok(data)
}
