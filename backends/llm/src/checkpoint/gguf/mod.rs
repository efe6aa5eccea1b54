//! GGUF files, versions 2 and 3.
//!
//! ```text
//! | "GGUF" | version: u32 | tensors: u64 | pairs: u64 |
//! | pairs x (key: string, type: u32, value) |
//! | tensors x (name: string, dims: u32, dims x u64 innermost first, type: u32, offset: u64) |
//! | padding to `general.alignment` (32) | data, each tensor at its offset |      string = len: u64, bytes
//! ```

mod cursor;
mod metadata;
mod tensors;

pub(crate) use metadata::Metadata;
#[cfg(test)]
pub(crate) use metadata::Value;

use std::path::Path;

use super::error::{CheckpointError, CheckpointErrorKind as Kind};
use super::index::WeightIndex;
use super::mapping::Mapping;
use cursor::Cursor;

/// A GGUF file's metadata and its weights under the names that the file gives them.
pub(super) struct Gguf {
    pub(super) metadata: Metadata,
    pub(super) weights: WeightIndex,
}

impl Gguf {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = Mapping::open(path).map_err(|e| Kind::from(e).at(path))?;
        Self::read(&map).map_err(|kind| kind.at(path))
    }

    pub(super) fn read(map: &Mapping) -> Result<Self, Kind> {
        let mut cursor = Cursor::new(map.bytes());
        if cursor.take(4).ok() != Some(b"GGUF") {
            return Err(Kind::NotACheckpoint("it does not begin with 'GGUF'".into()));
        }
        match cursor.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => {
                return Err(Kind::Unsupported("a GGUF file of big-endian numbers".into()));
            }
            version => return Err(Kind::Unsupported(format!("GGUF version {version}"))),
        }
        let tensors = cursor.u64()?;
        let pairs = cursor.u64()?;
        let metadata = Metadata::read(&mut cursor, pairs)?;
        let weights = tensors::read(&mut cursor, tensors, metadata.alignment()?, map)?;
        Ok(Self { metadata, weights })
    }
}

#[cfg(test)]
mod tests;
