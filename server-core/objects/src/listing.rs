//! What a store says it holds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

/// More objects than this in one repository are not listed.
const MAX_OBJECTS: usize = 200_000;
/// The longest part of a path that a file system takes.
const MAX_PART: usize = 255;

/// An object in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) location: Path,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
    pub(crate) etag: Option<String>,
}

/// The objects of a model by their path below its directory.
pub(crate) type Files = BTreeMap<String, Object>;

/// The models below `prefix`; `only` of this one, if it is there. What lies beside the models is left out.
///
/// # Errors
/// What the store says, or too many objects.
pub(crate) async fn models(
    store: &dyn ObjectStore,
    prefix: &Path,
    only: Option<&str>,
) -> object_store::Result<BTreeMap<String, Files>> {
    let below = match only {
        Some(name) => prefix.clone().join(name),
        None => prefix.clone(),
    };
    let mut found: BTreeMap<String, Files> = BTreeMap::new();
    let mut objects = store.list(Some(&below));
    let mut count = 0usize;
    while let Some(meta) = objects.try_next().await? {
        count += 1;
        if count > MAX_OBJECTS {
            let source = format!("it holds more than {MAX_OBJECTS} objects").into();
            return Err(object_store::Error::Generic { store: "S3", source });
        }
        let Some((model, path)) = place(prefix, &meta.location) else { continue };
        found.entry(model).or_default().insert(path, object(meta));
    }
    Ok(found)
}

/// The names of the models below `prefix`.
pub(crate) async fn names(store: &dyn ObjectStore, prefix: &Path) -> object_store::Result<Vec<String>> {
    let listed = store.list_with_delimiter(Some(prefix)).await?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
}

/// The model of an object and its path below the model's directory.
fn place(prefix: &Path, location: &Path) -> Option<(String, String)> {
    let mut parts = location.prefix_match(prefix)?;
    let model = parts.next()?.as_ref().to_owned();
    let path = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
    (!path.is_empty()).then_some((model, path))
}

fn object(meta: ObjectMeta) -> Object {
    Object { location: meta.location, size: meta.size, modified: meta.last_modified.into(), etag: meta.e_tag }
}

/// Whether an object stands for a directory: consoles make an empty one for each, and the version of an ensemble is
/// nothing else.
pub(crate) fn is_directory(path: &str, files: &Files) -> bool {
    let below = format!("{path}/");
    files.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
        || (files.get(path).is_some_and(|object| object.size == 0)
            && !path.contains('/')
            && path.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a path stays where it is put, and can be put there.
pub(crate) fn is_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !matches!(part, "" | "." | "..") && part.len() <= MAX_PART && !part.contains(['\0', '\\'])
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(size: u64) -> Object {
        Object { location: Path::from("x"), size, modified: SystemTime::UNIX_EPOCH, etag: None }
    }

    #[test]
    fn objects_have_places() {
        let place = |prefix: &str, at: &str| place(&Path::from(prefix), &Path::from(at));
        let of = |model: &str, path: &str| Some((model.to_owned(), path.to_owned()));
        assert_eq!(place("models", "models/m/1/model"), of("m", "1/model"));
        assert_eq!(place("", "m/config.pbtxt"), of("m", "config.pbtxt"));
        assert_eq!(place("models", "models/readme"), None);
        assert_eq!(place("models", "models2/m/x"), None);
    }

    #[test]
    fn empty_objects_may_be_directories() {
        let files: Files = [("1", 0), ("2", 0), ("2/model", 4), ("3", 4), ("labels", 0)]
            .map(|(path, size)| (path.to_owned(), object(size)))
            .into();
        let directories: Vec<_> = files.keys().filter(|path| is_directory(path, &files)).collect();
        assert_eq!(directories, ["1", "2"]);
    }

    #[test]
    fn no_path_leaves_its_directory() {
        assert!(is_path("1/model.bin") && is_path("a b/ü"));
        for bad in ["..", "1/../x", "", "a//b", "a/./b", "a\\b", &"x".repeat(256)] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
