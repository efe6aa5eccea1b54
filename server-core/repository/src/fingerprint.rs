//! What tells one state of a model's directory from another: names, sizes and times of its files, never their contents.
//!
//! It is kept apart for each version, so that a new version does not look like a change of the others.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::found::FoundModel;

/// Deeper directories than this are an error rather than a walk without an end.
const MAX_DEPTH: usize = 32;
/// What interpreters leave behind when they load a model; written by the load itself, so never a change.
const LEFT_BEHIND: &str = "__pycache__";

/// The state of one or more files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// A hash of every file's path, size and time of change.
    digest: u64,
    /// How many files there are.
    files: u64,
    /// The time of the newest, in nanoseconds since the epoch.
    newest_ns: i128,
    /// The sum of their sizes.
    bytes: u64,
}

/// The state of a model's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The configuration; empty without one.
    pub config: Stamp,
    /// Each version's directory.
    pub versions: BTreeMap<i64, Stamp>,
    /// All the rest: labels, warm-up and state files, libraries. Other files of `configs` do not count.
    pub other: Stamp,
}

impl Fingerprint {
    /// Looks at a model's directory.
    ///
    /// # Errors
    /// Something in it cannot be read, which is usual while it is written.
    pub fn of(model: &FoundModel) -> std::io::Result<Self> {
        let mut print = Self::default();
        if let Some(config) = &model.config {
            print.config = Stamp::of(config)?;
        }
        for version in &model.versions {
            print.versions.insert(version.number, Stamp::of(&version.dir)?);
        }
        let apart = |path: &Path| {
            model.versions.iter().any(|version| version.dir == path)
                || path == model.dir.join("config.pbtxt")
                || path == model.dir.join("configs")
        };
        for path in sorted(&model.dir)? {
            if !apart(&path) {
                print.other.add(&model.dir, &path, 0)?;
            }
        }
        Ok(print)
    }
}

impl Stamp {
    /// Looks at a file, or at all that is in a directory.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let mut stamp = Self::default();
        stamp.add(path.parent().unwrap_or(path), path, 0)?;
        Ok(stamp)
    }

    /// Adds what is at `path`, by its name below `root`; links are followed.
    fn add(&mut self, root: &Path, path: &Path, depth: usize) -> std::io::Result<()> {
        if depth > MAX_DEPTH {
            let message = format!("'{}' lies more than {MAX_DEPTH} directories deep", path.display());
            return Err(std::io::Error::other(message));
        }
        let metadata = match std::fs::metadata(path) {
            // A link to nowhere is no file that a backend could read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_symlink() => return Ok(()),
            metadata => metadata?,
        };
        let mut hasher = DefaultHasher::new();
        (self.digest, path.strip_prefix(root).unwrap_or(path)).hash(&mut hasher);
        if metadata.is_dir() {
            self.digest = hasher.finish();
            for inner in sorted(path)? {
                self.add(root, &inner, depth + 1)?;
            }
            return Ok(());
        }
        let time_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        (metadata.len(), time_ns).hash(&mut hasher);
        self.digest = hasher.finish();
        self.files += 1;
        self.newest_ns = self.newest_ns.max(time_ns);
        self.bytes = self.bytes.saturating_add(metadata.len());
        Ok(())
    }
}

fn sorted(directory: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(directory)?.collect();
    let mut paths: Vec<_> = entries?
        .into_iter()
        .filter(|entry| entry.file_name() != LEFT_BEHIND)
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model_in;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn print(root: &Path) -> Fingerprint {
        Fingerprint::of(&model_in(root, "m", None)).unwrap()
    }

    #[test]
    fn each_part_changes_alone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "m/config.pbtxt", "a");
        write(root, "m/1/model", "a");
        write(root, "m/labels.txt", "a");
        let first = print(root);
        assert_eq!(first, print(root), "nothing changed");

        write(root, "m/2/model", "a");
        let second = print(root);
        assert_eq!(second.versions[&1], first.versions[&1]);
        assert_eq!((second.config, second.other), (first.config, first.other), "a version is not the rest");

        write(root, "m/1/model", "ab");
        let third = print(root);
        assert_ne!(third.versions[&1], second.versions[&1]);
        assert_eq!(third.versions[&2], second.versions[&2]);

        write(root, "m/config.pbtxt", "ab");
        write(root, "m/configs/other.pbtxt", "ab");
        let fourth = print(root);
        assert_ne!(fourth.config, third.config);
        assert_eq!((fourth.other, &fourth.versions), (third.other, &third.versions));

        write(root, "m/labels.txt", "ab");
        assert_ne!(print(root).other, fourth.other);
    }

    #[test]
    fn names_times_and_sizes_count() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "m/1/a", "x");
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        let set =
            |time| std::fs::File::options().append(true).open(root.join("m/1/a")).unwrap().set_modified(time);
        set(time).unwrap();
        let first = print(root);
        set(time - std::time::Duration::from_secs(1)).unwrap();
        assert_ne!(print(root), first, "an older file in its place is a change");
        set(time).unwrap();
        assert_eq!(print(root), first);
        std::fs::rename(root.join("m/1/a"), root.join("m/1/b")).unwrap();
        assert_ne!(print(root), first, "another name");
        std::fs::create_dir_all(root.join("m/1/empty")).unwrap();
        let with_directory = print(root);
        write(root, "m/1/__pycache__/model.pyc", "x");
        assert_eq!(print(root), with_directory);
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "m/1/a", "x");
        std::os::unix::fs::symlink("nowhere", root.path().join("m/1/gone")).unwrap();
        assert!(Fingerprint::of(&model_in(root.path(), "m", None)).is_ok());
        std::os::unix::fs::symlink("..", root.path().join("m/1/up")).unwrap();
        assert!(Fingerprint::of(&model_in(root.path(), "m", None)).is_err());
    }
}
