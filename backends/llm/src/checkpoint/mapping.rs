//! Files mapped into memory: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use memmap2::Mmap;

/// Bytes that are made when they are first looked at.
type Lazy = LazyLock<Vec<u8>, Box<dyn FnOnce() -> Vec<u8> + Send>>;

/// A file or a part of one, mapped read-only and shared by all the weights in it; or bytes in memory.
#[derive(Clone)]
pub(crate) struct Mapping {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone)]
enum Source {
    File(Arc<Mmap>),
    Memory(Arc<Lazy>),
}

impl Mapping {
    /// Maps `path`. An empty file is refused, since there is nothing to map.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if meta.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
        }
        // SAFETY: the mapping is private and read-only, and is only ever seen as plain bytes, for which every
        // bit pattern is valid. What remains is somebody who rewrites or shortens the file while it is served:
        // the weights would change, or the process be sent SIGBUS. Checkpoints are files that are replaced by
        // rename and never written in place (the cache of `cargo xtask models` keeps to that), and a reader of
        // a checkpoint trusts the person who owns it, as every server that maps weights does.
        let map = unsafe { Mmap::map(&file)? };
        not_a_pointer(&map)?;
        Ok(Self { range: 0..map.len(), source: Source::File(Arc::new(map)) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let whole: &[u8] = match &self.source {
            Source::File(map) => map,
            Source::Memory(bytes) => bytes.as_slice(),
        };
        &whole[self.range.clone()]
    }

    /// Bytes that are in memory already.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self::lazy(bytes.len(), move || bytes)
    }

    /// `length` bytes that are made when they are first looked at.
    ///
    /// # Panics
    /// Then, if `make` gives another number of them.
    pub(crate) fn lazy(length: usize, make: impl FnOnce() -> Vec<u8> + Send + 'static) -> Self {
        let make = move || {
            let bytes = make();
            assert_eq!(bytes.len(), length);
            bytes
        };
        Self { range: 0..length, source: Source::Memory(Arc::new(LazyLock::new(Box::new(make)))) }
    }

    /// A part of it, which must lie in it.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len());
        let at = self.range.start;
        Self { source: self.source.clone(), range: at + range.start..at + range.end }
    }
}

/// What a clone without Git LFS has in the place of large files.
///
/// # Errors
/// The file is such a pointer.
pub(super) fn not_a_pointer(bytes: &[u8]) -> io::Result<()> {
    match bytes.starts_with(b"version https://git-lfs.github.com/") {
        true => Err(io::Error::other(
            "it is a pointer of Git LFS in the place of the file: run 'git lfs pull' in its clone",
        )),
        false => Ok(()),
    }
}
