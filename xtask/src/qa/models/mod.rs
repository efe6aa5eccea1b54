//! Models with the names, shapes and types of upstream's generated ones, without their frameworks.

mod add_sub;
mod ensemble;
mod identity;
mod model;
mod sequence;

use std::path::Path;

use anyhow::Result;

/// Writes every generated repository below `data`.
pub(crate) fn write(data: &Path) -> Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data)?;
    }
    add_sub::write(data)?;
    identity::write(data)?;
    sequence::write(data)?;
    ensemble::write(data)
}
