//! A whole copy of one model.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, ObjectStore};
use tempfile::TempDir;

use crate::error::chain;
use crate::listing::{Files, Object, is_directory, is_path};

/// Objects that are fetched at once.
const AT_ONCE: usize = 8;
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(60);

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// An object is not any more what the listing said.
    Moving,
    Other(String),
}

/// A copy of a model, in the directory of its name.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) files: Files,
    pub(crate) directory: TempDir,
}

/// Copies the model `name` into a directory of its own below `root`. What has not changed since `before` is a link to it.
pub(crate) async fn copy(
    store: &dyn ObjectStore,
    root: &Path,
    name: &str,
    files: &Files,
    before: Option<&Copy>,
) -> Result<Copy, Trouble> {
    let failed =
        |error: std::io::Error| Trouble::Other(format!("it cannot be copied to {}: {error}", root.display()));
    if let Some(path) = files.keys().find(|path| !is_path(path)) {
        return Err(Trouble::Other(format!("the object '{}' cannot be a file", path.escape_debug())));
    }
    let old = |path: &str, object: &Object| {
        let before = before?;
        (before.files.get(path) == Some(object)).then(|| before.directory.path().join(name).join(path))
    };
    let fresh: u64 =
        files.iter().filter(|(path, object)| old(path, object).is_none()).map(|(_, o)| o.size).sum();
    let free = rustix::fs::statvfs(root).map_err(|error| failed(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if fresh > free {
        return Err(Trouble::Other(format!(
            "its copy needs {fresh} bytes, but only {free} are free in {}; TRITON_AWS_MOUNT_DIRECTORY names another \
             directory",
            root.display()
        )));
    }
    let directory = tempfile::Builder::new().prefix("copy-").tempdir_in(root).map_err(failed)?;
    let top = directory.path().join(name);
    fs::create_dir(&top).map_err(failed)?;
    let mut wanted = Vec::new();
    for (path, object) in files {
        let to = top.join(path);
        if is_directory(path, files) {
            fs::create_dir_all(&to).map_err(failed)?;
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match old(path, object) {
            Some(old) => fs::hard_link(old, &to).map_err(failed)?,
            None => wanted.push((object, to)),
        }
    }
    let fetched = stream::iter(wanted).map(|(object, to)| async move { fetch(store, object, &to).await });
    fetched.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(Copy { files: files.clone(), directory })
}

async fn fetch(store: &dyn ObjectStore, object: &Object, to: &Path) -> Result<(), Trouble> {
    let options = GetOptions { if_match: object.etag.clone(), ..GetOptions::default() };
    let got = store.get_opts(&object.location, options).await.map_err(|error| trouble(object, &error))?;
    let failed =
        |error: std::io::Error| Trouble::Other(format!("{} cannot be written: {error}", to.display()));
    let mut file = File::create_new(to).map_err(failed)?;
    let (mut bytes, mut size) = (got.into_stream(), 0u64);
    loop {
        let next = tokio::time::timeout(STALL, bytes.try_next()).await;
        let next = next.map_err(|_| {
            Trouble::Other(format!("'{}' has stood still for {} s", object.location, STALL.as_secs()))
        })?;
        let Some(piece) = next.map_err(|error| trouble(object, &error))? else { break };
        size += piece.len() as u64;
        if size > object.size {
            return Err(Trouble::Moving);
        }
        file.write_all(&piece).map_err(failed)?;
    }
    if size != object.size {
        return Err(Trouble::Moving);
    }
    file.set_modified(time(object)).map_err(failed)
}

/// The time of an object's copy, by which changes are seen. Stores tell whole seconds; the rest tells contents apart that
/// were written within one.
fn time(object: &Object) -> SystemTime {
    let since = object.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (&object.etag, since.subsec_nanos()).hash(&mut hasher);
    let nanos = hasher.finish() % 1_000_000_000;
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()) + Duration::from_nanos(nanos)
}

fn trouble(object: &Object, error: &object_store::Error) -> Trouble {
    match error {
        object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => Trouble::Moving,
        error => Trouble::Other(format!("'{}' cannot be fetched: {}", object.location, chain(error))),
    }
}
