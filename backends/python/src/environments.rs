//! Environments that models bring as archives, as conda-pack makes them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use crate::outgoing::lock;

/// An archive as it was when it was unpacked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Archive {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

/// The archives that were unpacked, each once for all models. What a changed one held before stays until the server ends,
/// since processes may run in it.
#[derive(Debug, Default)]
pub(crate) struct Environments(Mutex<HashMap<Archive, TempDir>>);

/// Whether a file's name is that of an archive, of a kind that can be unpacked or of another one.
pub(crate) enum Kind {
    Tar,
    TarGz,
    Other,
}

impl Kind {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if ends(&[".tar.gz", ".tgz"]) {
            Some(Self::TarGz)
        } else if ends(&[".tar"]) {
            Some(Self::Tar)
        } else if ends(&[".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".squashfs"]) {
            Some(Self::Other)
        } else {
            None
        }
    }
}

impl Environments {
    /// The directory with what is in an archive. Nothing of it is written anywhere else.
    ///
    /// # Errors
    /// It cannot be read, is no such archive, or there is no room for it. Nothing is left of what was unpacked.
    pub(crate) fn unpacked(
        &self,
        path: &Path,
        is_compressed: bool,
        begins: impl FnOnce(),
    ) -> io::Result<PathBuf> {
        // Whoever wants the same archive waits for it.
        let mut known = lock(&self.0);
        let file = File::open(path)?;
        let about = file.metadata()?;
        let archive =
            Archive { path: fs::canonicalize(path)?, modified: about.modified().ok(), length: about.len() };
        if let Some(dir) = known.get(&archive) {
            return Ok(dir.path().to_owned());
        }
        begins();
        let dir = tempfile::Builder::new().prefix("trireme-python-env-").tempdir()?;
        let file = BufReader::with_capacity(1 << 20, file);
        match is_compressed {
            true => unpack(MultiGzDecoder::new(file), dir.path())?,
            false => unpack(file, dir.path())?,
        }
        let unpacked = dir.path().to_owned();
        known.insert(archive, dir);
        Ok(unpacked)
    }
}

fn unpack(archive: impl Read, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        // False: its path leads out.
        if !entry.unpack_in(into)? {
            let name = entry.path()?.display().to_string();
            return Err(io::Error::other(format!("its entry '{name}' leads out of it")));
        }
    }
    Ok(())
}
