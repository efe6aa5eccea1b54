//! Environments that models bring as archives, as conda-pack makes them.
//!
//! ```text
//! TMPDIR/trireme-python-env-XXXXXX/lock   held (flock) as long as the environment is used
//!                                 /env/   what was in the archive
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use crate::outgoing::lock;

const PREFIX: &str = "trireme-python-env-";
const LOCK: &str = "lock";
/// What all environments together may hold, unless the command line says otherwise.
const LIMIT: u64 = 32 << 30;
/// What a file takes beside its content, and a directory or link at all.
const ENTRY: u64 = 4096;
/// How long the environment of a model whose configuration was completed waits for the load that follows.
const AWAITED: Duration = Duration::from_secs(600);

/// An archive as it was when it was unpacked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Archive {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

/// Held while the archive is unpacked: who wants the same one waits.
type Place = Arc<Mutex<Weak<Environment>>>;

/// The archives that are unpacked, each once for all models.
#[derive(Debug)]
pub(crate) struct Environments {
    known: Mutex<HashMap<Archive, Place>>,
    /// By the model's name, with the time since when. Otherwise what completing a configuration unpacks would be gone before the load.
    awaited: Mutex<HashMap<String, (Duration, Arc<Environment>)>>,
    limit: u64,
    held: Arc<AtomicU64>,
}

/// An unpacked archive; the last one that drops it removes it.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Removed while the lock is held.
    dir: TempDir,
    _lock: File,
    _share: Share,
}

impl Environment {
    /// What was in the archive.
    pub(crate) fn path(&self) -> PathBuf {
        contents(self.dir.path())
    }
}

fn contents(dir: &Path) -> PathBuf {
    dir.join("env")
}

/// A part of the bytes that environments may hold.
#[derive(Debug)]
struct Share {
    held: Arc<AtomicU64>,
    limit: u64,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let grown = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| {
            io::Error::other(format!(
                "unpacked environments would hold more than {} bytes, which \
                 --backend-config=python,environments-byte-size=N changes",
                self.limit
            ))
        })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

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

impl Default for Environments {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Environments {
    /// At most `limit` bytes are unpacked at a time.
    pub(crate) fn new(limit: u64) -> Self {
        Self { known: Mutex::default(), awaited: Mutex::default(), limit, held: Arc::default() }
    }

    /// What is in an archive, for as long as it is held. Nothing of it is written anywhere else.
    ///
    /// # Errors
    /// It cannot be read, is no such archive or not a whole one, or there is no room for it. Nothing is left of what was
    /// unpacked.
    pub(crate) fn unpacked(
        &self,
        path: &Path,
        is_compressed: bool,
        begins: impl FnOnce(),
    ) -> io::Result<Arc<Environment>> {
        // Asked first: to open a pipe is to wait for who writes to it.
        let about = fs::metadata(path)?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = File::open(path)?;
        let archive =
            Archive { path: fs::canonicalize(path)?, modified: about.modified().ok(), length: about.len() };
        let place = {
            let mut known = lock(&self.known);
            // Who has a place may be unpacking; nobody else gets one before `known` is let go.
            known.retain(|_, place| Arc::strong_count(place) > 1 || lock(place).strong_count() > 0);
            Arc::clone(known.entry(archive).or_default())
        };
        let mut place = lock(&place);
        if let Some(there) = place.upgrade() {
            return Ok(there);
        }
        begins();
        let (dir, held) = new_dir(&std::env::temp_dir())?;
        let mut share = Share { held: Arc::clone(&self.held), limit: self.limit, bytes: 0 };
        let (file, into) = (BufReader::with_capacity(1 << 20, file), contents(dir.path()));
        fs::create_dir(&into)?;
        let unpacked = match is_compressed {
            true => unpack(MultiGzDecoder::new(file), &into, &mut share),
            false => unpack(file, &into, &mut share),
        };
        // Else it could not be removed.
        make_writable(&into)?;
        unpacked?;
        let made = Arc::new(Environment { dir, _lock: held, _share: share });
        *place = Arc::downgrade(&made);
        Ok(made)
    }

    /// Keeps an environment from `now` until the model is loaded, at least for a while.
    pub(crate) fn await_load(&self, model: &str, now: Duration, environment: Option<Arc<Environment>>) {
        let mut awaited = lock(&self.awaited);
        awaited.retain(|_, (since, _)| now.saturating_sub(*since) < AWAITED);
        awaited.remove(model);
        awaited.extend(environment.map(|environment| (model.to_owned(), (now, environment))));
    }
}

/// A new directory in `base`, and its lock.
fn new_dir(base: &Path) -> io::Result<(TempDir, File)> {
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base)?;
    // Nobody sees a lock that is not yet held.
    let (first, last) = (dir.path().join("lock-"), dir.path().join(LOCK));
    let held = File::create_new(&first)?;
    held.try_lock()?;
    fs::rename(first, last)?;
    Ok((dir, held))
}

/// Removes what servers have left in `base` that were ended before they could do so themselves.
pub(crate) fn sweep(base: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX)
            || !fs::symlink_metadata(&dir).is_ok_and(|about| about.is_dir() && about.uid() == own)
        {
            continue;
        }
        let lock = dir.join(LOCK);
        let is_file = fs::symlink_metadata(&lock).is_ok_and(|about| about.is_file());
        let Some(lock) = is_file.then(|| File::open(&lock).ok()).flatten() else { continue };
        if lock.try_lock().is_ok() {
            let _ = make_writable(&contents(&dir));
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// Makes every directory below one that can be changed and searched by its owner. Links are not followed.
fn make_writable(dir: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(dir)?.permissions().mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o700))?;
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Remembers whether everything was read.
struct Whole<R> {
    archive: R,
    has_ended: bool,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.has_ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

fn unpack(archive: impl Read, into: &Path, share: &mut Share) -> io::Result<()> {
    let mut archive = tar::Archive::new(Whole { archive, has_ended: false });
    // Last, since what is in them could not be written if they are read-only.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        share.grow(entry.size().saturating_add(ENTRY))?;
        if entry.header().entry_type().is_dir() {
            directories.push(entry);
        } else {
            unpack_one(&mut entry, into)?;
        }
    }
    // The deepest first, for the same reason.
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut directory in directories {
        unpack_one(&mut directory, into)?;
    }
    let mut archive = archive.into_inner();
    // What was cut off between two entries would look whole, but for the mark at the end.
    if archive.has_ended {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too soon: there is no end mark"));
    }
    // A compressed one has sums at its end.
    io::copy(&mut archive, &mut io::sink()).map(drop)
}

fn unpack_one(entry: &mut tar::Entry<'_, impl Read>, into: &Path) -> io::Result<()> {
    // False: its path leads out.
    if entry.unpack_in(into)? {
        return Ok(());
    }
    let name = entry.path()?.display().to_string();
    Err(io::Error::other(format!("its entry '{name}' leads out of it")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header(name: &str, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut head = tar::Header::new_gnu();
        head.set_path(name).unwrap();
        head.set_entry_type(kind);
        head.set_mode(mode);
        head.set_size(size);
        head.set_cksum();
        head
    }

    fn tar(path: &Path, directories: &[(&str, u32)], content: &[u8]) {
        let mut tar = tar::Builder::new(File::create(path).unwrap());
        for (name, mode) in directories {
            tar.append(&header(name, tar::EntryType::Directory, *mode, 0), io::empty()).unwrap();
        }
        tar.append(&header("a/b/file", tar::EntryType::Regular, 0o644, content.len() as u64), content)
            .unwrap();
        tar.finish().unwrap();
    }

    #[test]
    fn directories_may_be_read_only() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let path = dir.path().join("env.tar");
        tar(&path, &[("a/", 0o555), ("a/b/", 0o500), ("a/empty/", 0o055)], b"there");
        let environment = environments.unpacked(&path, false, || {}).unwrap();
        let mode = |name| fs::metadata(environment.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/b"), mode("a/empty")), (0o755, 0o700, 0o755));
        let unpacked = environment.path();
        assert_eq!(fs::read(unpacked.join("a/b/file")).unwrap(), b"there");
        drop(environment);
        assert!(!unpacked.exists());
    }

    #[test]
    fn what_ends_between_two_entries_is_no_whole_archive() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let path = dir.path().join("env.tar");
        tar(&path, &[("a/", 0o755)], b"there");
        assert!(environments.unpacked(&path, false, || {}).is_ok());
        let whole = fs::read(&path).unwrap();
        for end in [512, 1536, 0] {
            fs::write(&path, &whole[..end]).unwrap();
            let error = environments.unpacked(&path, false, || {}).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}: {error}");
        }
        // Compressed, the sum at the end is part of it.
        let packed = || {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut packed, &whole).unwrap();
            packed.finish().unwrap()
        };
        fs::write(&path, packed()).unwrap();
        assert!(environments.unpacked(&path, true, || {}).is_ok());
        fs::write(&path, &packed()[..packed().len() - 8]).unwrap();
        assert!(environments.unpacked(&path, true, || {}).is_err());
    }

    #[test]
    fn all_together_hold_no_more_than_the_limit() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::new(100_000));
        let paths = ["one.tar", "two.tar", "three.tar"].map(|name| dir.path().join(name));
        tar(&paths[0], &[], &[1; 60_000]);
        tar(&paths[1], &[], &[2; 60_000]);
        tar(&paths[2], &[], &[3; 100_000]);
        let of = |at: usize| environments.unpacked(&paths[at], false, || {});
        let one = of(0).unwrap();
        let error = of(1).unwrap_err().to_string();
        assert!(
            error.contains("more than 100000 bytes") && error.contains("environments-byte-size"),
            "{error}"
        );
        assert!(Arc::ptr_eq(&one, &of(0).unwrap()));
        drop(one);
        assert!(of(2).is_err());
        let _two = of(1).unwrap();
        assert_eq!(lock(&environments.known).len(), 1, "what has gone is not remembered");
    }

    #[test]
    fn one_that_completed_a_configuration_is_there_for_the_load() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let path = dir.path().join("env.tar");
        tar(&path, &[], b"there");
        let mut unpackings = 0;
        let mut of = || environments.unpacked(&path, false, || unpackings += 1).unwrap();
        let unpacked = of().path();
        assert!(!unpacked.exists());
        environments.await_load("model", Duration::ZERO, Some(of()));
        let loaded = of();
        environments.await_load("model", Duration::ZERO, None);
        assert!(loaded.path().exists());
        let unpacked = loaded.path();
        drop(loaded);
        assert!(!unpacked.exists());
        // A load that never comes is not waited for for ever.
        environments.await_load("model", Duration::ZERO, Some(of()));
        let unpacked = of().path();
        environments.await_load("other", AWAITED - Duration::from_nanos(1), None);
        assert!(unpacked.exists());
        environments.await_load("other", AWAITED, None);
        assert!(!unpacked.exists());
        assert_eq!(unpackings, 3);
    }

    #[test]
    fn what_no_server_holds_any_more_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let (left, held) = new_dir(base.path()).unwrap();
        fs::create_dir_all(left.path().join("env/a")).unwrap();
        fs::set_permissions(left.path().join("env/a"), fs::Permissions::from_mode(0o500)).unwrap();
        let (used, _held) = new_dir(base.path()).unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();
        sweep(base.path());
        assert!(left.path().exists() && used.path().exists());
        drop(held);
        sweep(base.path());
        assert!(!left.path().exists() && used.path().exists() && other.exists());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let path = dir.path().join("env.tar");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let error = environments.unpacked(&path, false, || {}).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn one_archive_does_not_wait_for_another() {
        let (dir, environments) = (tempfile::tempdir().unwrap(), Environments::default());
        let paths = ["one.tar", "two.tar"].map(|name| dir.path().join(name));
        paths.iter().for_each(|path| tar(path, &[], b"there"));
        // The second is unpacked from its begin to its end while the first one is.
        let inner = || drop(environments.unpacked(&paths[1], false, || {}).unwrap());
        assert!(environments.unpacked(&paths[0], false, inner).is_ok());
    }
}
