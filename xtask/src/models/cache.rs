//! The cache of weights: `$XDG_CACHE_HOME/trireme/models/<sha256>`, shared by every checkout of a user.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::table::{File, Source};

/// A folder of immutable files named by their own checksum.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let base = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
            .ok_or_else(|| anyhow!("no place for the weights: set HOME or XDG_CACHE_HOME"))?;
        Self::at(base.join("trireme/models"))
    }

    pub(crate) fn at(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|error| explain(error, &folder))?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, file: &File) -> PathBuf {
        self.folder.join(file.sha256)
    }

    /// Whether the file is there. Names are given to checked bytes only, so its size is enough to see damage.
    pub(crate) fn has(&self, file: &File) -> bool {
        fs::metadata(self.path(file)).is_ok_and(|meta| meta.is_file() && meta.len() == file.bytes)
    }

    /// Bytes to download for `source`, or `None` if all its files are there.
    pub(crate) fn missing(&self, source: &Source) -> Option<u64> {
        source.files.iter().any(|file| !self.has(file)).then_some(source.bytes)
    }

    /// Reads a cached file again; one that changed is removed, so that the next fetch brings it back.
    pub(crate) fn verify(&self, file: &File) -> Result<()> {
        let path = self.path(file);
        let mut reader = match fs::File::open(&path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(explain(error, &path)),
        };
        let mut hash = Sha256::new();
        io::copy(&mut reader, &mut hash).map_err(|error| explain(error, &path))?;
        if let Err(error) = same_sum(&path.display().to_string(), file.sha256, &hex(&hash.finalize())) {
            eprintln!("{error:#}; removed, it will be fetched again");
            fs::remove_file(&path).map_err(|error| explain(error, &path))?;
        }
        Ok(())
    }

    /// A folder for a download in progress, gone when dropped. What killed runs left a day ago goes too.
    pub(crate) fn scratch(&self) -> Result<TempDir> {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let stale = entry.file_name().to_string_lossy().starts_with(SCRATCH)
                && entry
                    .metadata()
                    .and_then(|meta| meta.modified())
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_secs(24 * 3600)));
            if stale {
                // Best effort, a folder or a file: another process may be removing it too.
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
        tempfile::Builder::new()
            .prefix(SCRATCH)
            .tempdir_in(&self.folder)
            .map_err(|error| explain(error, &self.folder))
    }

    /// Copies `reader` into the cache as `file`. The name appears only when size and checksum are right and the
    /// bytes are on the disk. `seen` is told the bytes so far.
    pub(crate) fn store(&self, file: &File, reader: &mut dyn Read, seen: &mut dyn FnMut(u64)) -> Result<()> {
        let mut staged = tempfile::Builder::new()
            .prefix(SCRATCH)
            .tempfile_in(&self.folder)
            .map_err(|error| explain(error, &self.folder))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut total: u64 = 0;
        loop {
            let count = reader
                .read(&mut buffer)
                .with_context(|| format!("cannot read {} from the archive", file.inside))?;
            if count == 0 {
                break;
            }
            total += count as u64;
            if total > file.bytes {
                bail!("{} is longer than the {} bytes that are pinned", file.inside, file.bytes);
            }
            hash.update(&buffer[..count]);
            staged.write_all(&buffer[..count]).map_err(|error| explain(error, &self.folder))?;
            seen(total);
        }
        if total != file.bytes {
            bail!("{} ends after {total} of {} bytes", file.inside, file.bytes);
        }
        same_sum(file.inside, file.sha256, &hex(&hash.finalize()))?;
        let path = self.path(file);
        let finish = || -> io::Result<()> {
            // Linked into repositories: an edit in place there would change every checkout's weights.
            staged.as_file().set_permissions(fs::Permissions::from_mode(0o444))?;
            staged.as_file().sync_all()
        };
        finish().map_err(|error| explain(error, &path))?;
        staged.persist(&path).map_err(|error| explain(error.error, &path))?;
        Ok(())
    }
}

const SCRATCH: &str = ".fetching-";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error that names what was read, what was expected and what came.
pub(crate) fn same_sum(what: &str, expected: &str, got: &str) -> Result<()> {
    if expected != got {
        bail!("checksum mismatch in {what}: expected sha256 {expected}, got {got}");
    }
    Ok(())
}

/// Says where a file operation failed, and the mend if the disk is full.
pub(crate) fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => anyhow!(
            "no space left at {}: free some, or point XDG_CACHE_HOME at a larger disk, and run it again",
            path.display()
        ),
        _ => anyhow!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: File = File {
        inside: "package/hello",
        place: "hello",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        bytes: 5,
    };

    fn stored(content: &str) -> (TempDir, Cache, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("models")).unwrap();
        let outcome = cache.store(&HELLO, &mut content.as_bytes(), &mut |_| ());
        (dir, cache, outcome)
    }

    fn names(cache: &Cache) -> Vec<String> {
        fs::read_dir(cache.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn right_bytes_get_their_name() {
        let (_dir, cache, outcome) = stored("hello");
        outcome.unwrap();
        assert_eq!(names(&cache), [HELLO.sha256]);
        assert!(cache.has(&HELLO));
    }

    #[test]
    fn wrong_short_and_long_bytes_leave_nothing() {
        for (content, says) in [
            ("jello", "checksum mismatch in package/hello: expected sha256 2cf2"),
            ("hel", "ends after 3 of 5 bytes"),
            ("hello!", "longer than the 5 bytes"),
        ] {
            let (_dir, cache, outcome) = stored(content);
            let error = format!("{:#}", outcome.unwrap_err());
            assert!(error.contains(says), "{error}");
            assert!(names(&cache).is_empty() && !cache.has(&HELLO));
        }
    }

    #[test]
    fn a_changed_file_is_found_and_removed() {
        let (_dir, cache, outcome) = stored("hello");
        outcome.unwrap();
        let path = cache.path(&HELLO);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "jello").unwrap();
        assert!(cache.has(&HELLO), "the size alone does not show it");
        cache.verify(&HELLO).unwrap();
        assert!(!cache.has(&HELLO));
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = explain(io::Error::from(ErrorKind::StorageFull), Path::new("somewhere"));
        assert!(error.to_string().contains("no space left at somewhere"));
    }
}
