//! Files mapped into memory: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// A whole file, mapped read-only and shared by all the weights in it.
#[derive(Clone)]
pub(crate) struct Mapping(Arc<Mmap>);

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
        Ok(Self(Arc::new(map)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
