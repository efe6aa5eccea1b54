//! From the cache into a model repository, and the room that takes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use indicatif::HumanBytes;

use super::cache::{Cache, explain};
use super::table::Source;
use crate::build::link_or_copy;

/// Space kept free beyond what is written, for everything else on the disk.
const SPARE: u64 = 64 << 20;

/// Puts every file of `source` under `root`, linked where the file system allows it.
pub(crate) fn files(cache: &Cache, source: &Source, root: &Path) -> Result<()> {
    for file in source.files {
        let (from, to) = (cache.path(file), root.join(file.place));
        if is_placed(&to, file.bytes) {
            continue;
        }
        link_or_copy(&from, &to).map_err(|error| explain(error, &to))?;
        println!("{}: {}", source.name, to.display());
    }
    Ok(())
}

/// Files appear under their name only when whole, so the size is enough to see one that was changed since.
fn is_placed(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() == bytes)
}

/// Fails before the first download if the disks cannot hold what is missing.
pub(crate) fn check_space(cache: &Cache, sources: &[&Source], root: &Path) -> Result<()> {
    let files = || sources.iter().flat_map(|source| source.files);
    let unpacked: u64 = files().filter(|file| !cache.has(file)).map(|file| file.bytes).sum();
    // Archives are deleted one after the other, so only the largest counts.
    let archive = sources.iter().filter_map(|source| cache.missing(source)).max().unwrap_or(0);
    require(cache.folder(), unpacked.saturating_add(archive))?;
    let there = existing(root);
    if device(&there) != device(cache.folder()) {
        let copied = files()
            .filter(|file| !is_placed(&root.join(file.place), file.bytes))
            .map(|file| file.bytes)
            .sum();
        require(&there, copied)?;
    }
    Ok(())
}

fn require(folder: &Path, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let free = free_space(folder).map_err(|error| explain(error, folder))?;
    enough(folder, bytes, free)
}

fn enough(folder: &Path, bytes: u64, free: u64) -> Result<()> {
    let needed = bytes.saturating_add(SPARE);
    if free < needed {
        bail!(
            "no space for the weights: {} has {} free and {} are needed; free some, or point XDG_CACHE_HOME at a larger disk",
            folder.display(),
            HumanBytes(free),
            HumanBytes(needed)
        );
    }
    Ok(())
}

fn free_space(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The nearest folder above `path` that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new(".")).to_path_buf()
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.dev())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::table::{Client, File};

    #[test]
    fn a_full_disk_is_told_before_the_download() {
        assert!(enough(Path::new("here"), 100, 100 + SPARE).is_ok());
        let error = enough(Path::new("here"), 1 << 30, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("here has 1.00 MiB free and 1.06 GiB are needed"), "{error}");
        assert!(enough(Path::new("here"), u64::MAX, u64::MAX - 1).is_err(), "the sum must not wrap");
    }

    #[test]
    fn a_placed_file_of_another_size_is_replaced() {
        const FILES: &[File] = &[File {
            inside: "hello",
            place: "hello/1/hello",
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            bytes: 5,
        }];
        let source = Source {
            name: "hello",
            client: Client::Pip,
            package: "h",
            version: "1",
            sha256: "",
            bytes: 9,
            files: FILES,
        };
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        cache.store(&FILES[0], &mut "hello".as_bytes(), &mut |_| ()).unwrap();
        let placed = dir.path().join("repo/hello/1/hello");
        fs::create_dir_all(placed.parent().unwrap()).unwrap();
        fs::write(&placed, "hel").unwrap();
        files(&cache, &source, &dir.path().join("repo")).unwrap();
        assert_eq!(fs::read_to_string(&placed).unwrap(), "hello");
    }
}
